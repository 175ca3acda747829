package predicate

import (
	"slices"
	"strings"
)

// An operator compares a property with what a condition names. A value that is missing,
// null or of another type makes every comparison false; neq and not_exists are the
// complements of eq and exists, and so true for it.
type operator struct {
	word    string
	plain   string // in plain words
	wants   operandKind
	folds   bool   // may ignore case
	negates string // the operator that it is the complement of
	doc     string
	test    func(actual value, want *operand) bool // nil for dates and complements
}

type operandKind string

const (
	wantsNothing operandKind = "nothing"
	wantsScalar  operandKind = "text, a number, true or false"
	wantsText    operandKind = "text"
	wantsNumber  operandKind = "a number"
	wantsList    operandKind = "a list of text, numbers, true or false"
	wantsPair    operandKind = "a list of two numbers or two dates, the lower first"
	wantsMoment  operandKind = "a date"
	wantsDay     operandKind = "a calendar date"
)

// Operators of dates.
const (
	opBefore     = "before"
	opOnOrBefore = "on_or_before"
	opAfter      = "after"
	opOnOrAfter  = "on_or_after"
	opOnDate     = "on_date"
	opBetween    = "between"
)

// operand is what a property is compared with, made ready once.
type operand struct {
	values []value
	fold   bool
}

type operators []operator

// propertyOperators are all that a property can be compared by, in the order of the docs.
var propertyOperators = operators{
	{word: "eq", plain: "is", wants: wantsScalar, folds: true, doc: "the same value of the same type", test: testIn},
	{word: "neq", plain: "is not", wants: wantsScalar, folds: true, negates: "eq", doc: "not `eq`"},
	{word: "in", plain: "is one of", wants: wantsList, folds: true, doc: "`eq` to one of the list", test: testIn},
	{word: "gt", plain: "more than", wants: wantsNumber, doc: "a greater number", test: numeric(func(a, b float64) bool { return a > b })},
	{word: "gte", plain: "at least", wants: wantsNumber, doc: "this number or a greater one", test: numeric(func(a, b float64) bool { return a >= b })},
	{word: "lt", plain: "less than", wants: wantsNumber, doc: "a smaller number", test: numeric(func(a, b float64) bool { return a < b })},
	{word: "lte", plain: "at most", wants: wantsNumber, doc: "this number or a smaller one", test: numeric(func(a, b float64) bool { return a <= b })},
	{word: opBetween, plain: "between", wants: wantsPair, doc: "a number or date between two, both included", test: testBetween},
	{word: "contains", plain: "contains", wants: wantsText, folds: true, doc: "text with this in it", test: textual(strings.Contains)},
	{word: "prefix", plain: "begins with", wants: wantsText, folds: true, doc: "text that begins with this", test: textual(strings.HasPrefix)},
	{word: "suffix", plain: "ends with", wants: wantsText, folds: true, doc: "text that ends with this", test: textual(strings.HasSuffix)},
	{word: "list_contains", plain: "has the item", wants: wantsScalar, folds: true, doc: "a list with an item that is `eq`", test: testListContains},
	{word: opBefore, plain: "before", wants: wantsMoment, doc: "an earlier date"},
	{word: opOnOrBefore, plain: "on or before", wants: wantsMoment, doc: "this date or an earlier one"},
	{word: opAfter, plain: "after", wants: wantsMoment, doc: "a later date"},
	{word: opOnOrAfter, plain: "on or after", wants: wantsMoment, doc: "this date or a later one"},
	{word: opOnDate, plain: "on", wants: wantsDay, doc: "an instant or date on this calendar date"},
	{word: "exists", plain: "exists", wants: wantsNothing, doc: "any value but null", test: func(actual value, _ *operand) bool { return actual.kind > typeNull }},
	{word: "not_exists", plain: "does not exist", wants: wantsNothing, negates: "exists", doc: "not `exists`"},
}

func (o operators) find(word string) *operator {
	if i := slices.IndexFunc(o, func(op operator) bool { return op.word == word }); i >= 0 {
		return &o[i]
	}
	return &operator{}
}

func (o operators) words() []string {
	out := make([]string, len(o))
	for i := range o {
		out[i] = o[i].word
	}
	return out
}

func dateOperators() []string {
	return []string{opBefore, opOnOrBefore, opAfter, opOnOrAfter, opOnDate, opBetween}
}

func testIn(actual value, want *operand) bool {
	if want.fold {
		actual = actual.fold()
	}
	return slices.ContainsFunc(want.values, actual.equals)
}

func testListContains(actual value, want *operand) bool {
	return actual.eachItem(func(item value) bool { return testIn(item, want) })
}

func testBetween(actual value, want *operand) bool {
	return actual.kind == typeNumber && want.values[0].num <= actual.num && actual.num <= want.values[1].num
}

func numeric(compare func(a, b float64) bool) func(value, *operand) bool {
	return func(actual value, want *operand) bool {
		return actual.kind == typeNumber && compare(actual.num, want.values[0].num)
	}
}

func textual(compare func(s, with string) bool) func(value, *operand) bool {
	return func(actual value, want *operand) bool {
		if want.fold {
			actual = actual.fold()
		}
		return actual.kind == typeText && compare(actual.text, want.values[0].text)
	}
}

// newOperand makes ready what was written; the condition was checked.
func newOperand(written any, fold bool) *operand {
	out := &operand{fold: fold}
	items, isList := written.([]any)
	if !isList && written != nil {
		items = []any{written}
	}
	for _, item := range items {
		v := valueOf(item)
		if fold {
			v = v.fold()
		}
		out.values = append(out.values, v)
	}
	return out
}

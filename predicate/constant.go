package predicate

import (
	"fmt"
	"math"
	"slices"
)

// What can never be true or never be false is a mistake, and told when a file is loaded.
// Looked at are single leaves, and pairs of leaves that are joined by and, or.

// constants names the innermost conditions that are always the same.
func constants(file, path string, e *expr) Faults {
	var out Faults
	e.walk(path, func(e *expr, path string) {
		if e.source == nil { // stands for an alias
			return
		}
		if message := constant(e); message != "" {
			out = append(out, faultAt(file, path, e, "", "%s", message))
		}
	})
	return out
}

// constant says why a condition, apart from those within it, cannot change, or "".
func constant(e *expr) string {
	switch e.kind {
	case kindEvent:
		if b, ok := e.countBounds(); ok {
			return b.constant()
		}
	case kindComposite:
		return constantComposite(e)
	}
	if e.operator == opBetween && backward(e) {
		return "can never be true: the lower bound is above the upper one"
	}
	return ""
}

func constantComposite(e *expr) string {
	if len(e.conditions) == 0 {
		if e.operator == operatorAnd {
			return "can never be false: and of no conditions is true of every contact"
		}
		return "can never be true: or of no conditions is true of no contact"
	}
	literals := literalsOf(nil, e, e.operator, false)
	for i, a := range literals {
		for _, b := range literals[:i] {
			if e.operator == operatorOr && excludes(a.not(), b.not()) {
				return fmt.Sprintf("can never be false: one of these always holds: %s, %s", a, b)
			}
			if e.operator == operatorAnd && excludes(a, b) {
				return fmt.Sprintf("can never be true: these exclude each other: %s, %s", a, b)
			}
		}
	}
	return ""
}

func excludes(a, b literal) bool { return a.contradicts(b) || b.contradicts(a) }

func backward(e *expr) bool {
	pair := e.value.([]any)
	if low, ok := pair[0].(float64); ok {
		return low > pair[1].(float64)
	}
	m := e.moments()
	return m[0].relative == m[1].relative && m[0].at > m[1].at
}

// A literal is a leaf or the complement of one.
type literal struct {
	e       *expr
	text    string // its canonical form
	negated bool
}

func (l literal) not() literal { return literal{l.e, l.text, !l.negated} }

// String is for people.
func (l literal) String() string {
	if l.negated {
		return "not " + l.text
	}
	return l.text
}

// literalsOf collects the leaves that an operator joins, through nested ones of the same
// operator and through not.
func literalsOf(out []literal, e *expr, operator string, negated bool) []literal {
	switch {
	case e.kind == kindNot:
		return literalsOf(out, e.conditions[0], opposite(operator), !negated)
	case e.kind == kindComposite && e.operator == operator:
		for _, c := range e.conditions {
			out = literalsOf(out, c, operator, negated)
		}
		return out
	case e.kind == kindComposite:
		return out
	}
	return append(out, literalOf(e, negated))
}

func opposite(operator string) string {
	if operator == operatorAnd {
		return operatorOr
	}
	return operatorAnd
}

// literalOf writes a complement such as neq as the negation of what it complements.
func literalOf(e *expr, negated bool) literal {
	if base := propertyOperators.find(e.operator).negates; base != "" {
		positive := *e
		positive.operator = base
		e, negated = &positive, !negated
	}
	return literal{e, canonicalText(e.object()), negated}
}

// contradicts says that the two cannot both hold; it may be asked both ways round.
func (l literal) contradicts(other literal) bool {
	if l.negated != other.negated && l.text == other.text {
		return true
	}
	if l.e.kind == kindEvent && other.e.kind == kindEvent {
		return l.countsAgainst(other)
	}
	if l.e.kind == kindProperty && other.e.kind == kindProperty && slices.Equal(l.e.property, other.e.property) {
		return l.comparesAgainst(other)
	}
	return false
}

// comparesAgainst: two comparisons of one property.
func (l literal) comparesAgainst(other literal) bool {
	switch {
	case l.negated && other.negated:
		return false
	case l.negated: // not exists, and anything that needs a value
		return l.e.operator == "exists"
	case other.negated:
		return false
	case l.e.operator == "eq" || l.e.operator == "in":
		return l.noneOf(other.e)
	}
	return numbersOf(l.e).and(numbersOf(other.e)).empty()
}

// noneOf says that none of the values that eq or in allow satisfies the other.
func (l literal) noneOf(other *expr) bool {
	op := propertyOperators.find(other.operator)
	if op.test == nil || l.e.ignoreCase || other.operator == opBetween && len(other.moments()) > 0 {
		return false
	}
	want := newOperand(other.value, other.ignoreCase)
	return !slices.ContainsFunc(newOperand(l.e.value, false).values, func(v value) bool { return op.test(v, want) })
}

// interval is the numbers that a comparison allows.
type interval struct {
	low, high         float64
	lowOpen, highOpen bool
}

func numbersOf(e *expr) interval {
	out := interval{low: math.Inf(-1), high: math.Inf(1)}
	n, _ := e.value.(float64)
	switch e.operator {
	case "gt":
		out.low, out.lowOpen = n, true
	case "gte":
		out.low = n
	case "lt":
		out.high, out.highOpen = n, true
	case "lte":
		out.high = n
	case opBetween:
		pair := e.value.([]any)
		if low, ok := pair[0].(float64); ok {
			out.low, out.high = low, pair[1].(float64)
		}
	}
	return out
}

func (i interval) and(other interval) interval {
	if other.low > i.low || other.low == i.low && other.lowOpen {
		i.low, i.lowOpen = other.low, other.lowOpen
	}
	if other.high < i.high || other.high == i.high && other.highOpen {
		i.high, i.highOpen = other.high, other.highOpen
	}
	return i
}

func (i interval) empty() bool {
	return i.low > i.high || i.low == i.high && (i.lowOpen || i.highOpen)
}

// bounds is how many events there may be.
type bounds struct{ low, high int }

// noBound is beyond every count.
const noBound = math.MaxInt32

func (b bounds) constant() string {
	switch {
	case b.high < b.low || b.high < 0:
		return "can never be true: no count is like that"
	case b.low <= 0 && b.high == noBound:
		return "can never be false: every count is like that, zero too"
	}
	return ""
}

// not is what the complement allows, if it is one stretch.
func (b bounds) not() (bounds, bool) {
	switch {
	case b.low <= 0:
		return bounds{b.high + 1, noBound}, true
	case b.high == noBound:
		return bounds{0, b.low - 1}, true
	}
	return bounds{}, false
}

// countBounds is what a condition on an event says of the number of events; false for
// totals and last values.
func (e *expr) countBounds() (bounds, bool) {
	n, _ := e.value.(float64)
	n = max(-2, min(n, noBound-2))
	ceil, floor := int(math.Ceil(n)), int(math.Floor(n))
	switch {
	case e.check == checkExists, e.check == checkCount && e.operator == "":
		return bounds{1, noBound}, true
	case e.check == checkNotExists:
		return bounds{0, 0}, true
	case e.check != checkCount:
		return bounds{}, false
	}
	switch e.operator {
	case "gte":
		return bounds{ceil, noBound}, true
	case "gt":
		return bounds{floor + 1, noBound}, true
	case "lt":
		return bounds{0, ceil - 1}, true
	case "lte":
		return bounds{0, floor}, true
	}
	return bounds{ceil, floor}, true // eq; empty between whole numbers
}

// countsAgainst: a window holds at most what a longer one holds.
func (l literal) countsAgainst(other literal) bool {
	a, ok := l.bounds()
	b, alsoOK := other.bounds()
	if !ok || !alsoOK || l.e.eventName != other.e.eventName || a.low <= b.high {
		return false
	}
	inside := other.e.within == 0 || l.e.within != 0 && l.e.within <= other.e.within
	return inside && canonicalText(writeExpr(l.e.where)) == canonicalText(writeExpr(other.e.where))
}

func (l literal) bounds() (bounds, bool) {
	b, ok := l.e.countBounds()
	if ok && l.negated {
		return b.not()
	}
	return b, ok
}

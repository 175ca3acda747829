package predicate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// checker looks at what the fields of one condition say together.
type checker struct {
	file   string
	path   string
	e      *expr
	faults Faults
}

// check returns what is wrong with a condition, without those within it.
func check(file, path string, e *expr) Faults {
	c := &checker{file: file, path: path, e: e}
	switch e.kind {
	case kindProperty:
		c.comparison(e.operator, nil)
	case kindEvent:
		c.event()
	case kindSeen:
		c.comparison(e.operator, dateOperators())
		c.filter("where", e.where)
		if e.where != nil && e.eventName == "" {
			c.fault("where", "belongs to an event: name it with eventName, or leave it out")
		}
	case kindSequence:
		c.sequence()
	}
	return c.faults
}

// checkAll is check for a condition and all within it, and for the fields that it has:
// those of a built one may be any.
func checkAll(file, path string, e *expr) Faults {
	var out Faults
	e.walk(path, func(e *expr, path string) {
		out = append(out, check(file, path, e)...)
		form := findForm(e.kind)
		for _, f := range fields() {
			switch there := f.write(e) != nil; {
			case !there && slices.Contains(form.required, f.name):
				out = append(out, faultAt(file, path, e, "", "%s is missing", f.name))
			case there && !slices.Contains(form.names(), f.name):
				out = append(out, faultAt(file, path, e, f.name, "has no meaning here: leave it out"))
			}
		}
	})
	return out
}

// walk visits a condition and all within it, filters too.
func (e *expr) walk(path string, visit func(e *expr, path string)) {
	if e == nil {
		return
	}
	path = cmp.Or(e.short, path)
	visit(e, path)
	for i, inner := range e.conditions {
		if e.kind == kindNot {
			inner.walk(join(path, "condition"), visit)
		} else {
			inner.walk(index(join(path, "conditions"), i), visit)
		}
	}
	e.where.walk(join(path, "where"), visit)
	e.first.walk(join(path, "first"), visit)
	e.then.walk(join(path, "then"), visit)
}

// fault notes what is wrong with a field.
func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, faultAt(c.file, c.path, c.e, field, format, args...))
}

// place is where a field stands in the text, or the condition when it is not there.
func (e *expr) place(field string) (line, column int) {
	if e == nil {
		return 0, 0
	}
	at := e.source
	if inner := at.get(field); inner != nil {
		at = inner
	}
	if at == nil {
		return 0, 0
	}
	return at.line, at.column
}

func (c *checker) event() {
	e := c.e
	c.filter("where", e.where)
	switch e.check {
	case checkExists, checkNotExists:
		c.unused("operator", "value", "of", "ignoreCase", "zone")
	case checkCount:
		c.unused("of", "ignoreCase", "zone")
		if e.operator != "" || e.value != nil {
			c.comparison(e.operator, numberOperators())
		}
	case checkTotal:
		c.unused("ignoreCase", "zone")
		c.needs("of")
		c.comparison(e.operator, numberOperators())
		c.amount()
	case checkLast:
		c.needs("of")
		c.comparison(e.operator, nil)
	}
}

func (c *checker) sequence() {
	for _, side := range []struct {
		name string
		step *expr
	}{{"first", c.e.first}, {"then", c.e.then}} {
		inner := &checker{file: c.file, path: join(c.path, side.name), e: side.step}
		inner.filter("where", side.step.where)
		c.faults = append(c.faults, inner.faults...)
	}
	if c.e.check == checkNotFollowed && c.e.within == 0 {
		c.fault("within", "is missing: say after which time the other event counts as missing")
	}
	if c.e.check == checkNotFollowed && c.e.lookback != 0 && c.e.lookback <= c.e.within {
		c.fault("lookback", "must be longer than within: before that nothing counts as missing")
	}
}

// unused refuses fields that the check does not look at.
func (c *checker) unused(names ...string) {
	for _, name := range names {
		if findField(name).write(c.e) != nil {
			c.fault(name, "has no meaning with check %s: leave it out", c.e.check)
		}
	}
}

func (c *checker) needs(name string) {
	if findField(name).write(c.e) == nil {
		c.fault(name, "is missing: check %s needs it", c.e.check)
	}
}

// comparison checks operator, value and what belongs to them. known narrows the
// operators; nil is all.
func (c *checker) comparison(word string, known []string) {
	op := propertyOperators.find(word)
	switch {
	case word == "":
		c.fault("operator", "is missing: use one of %s", words(orAll(known)))
		return
	case op.word == "" || known != nil && !slices.Contains(known, word):
		c.fault("operator", "%s", oneOf(word, orAll(known)))
		return
	}
	if problem := wrongValue(op.wants, c.e.value); problem != "" {
		c.fault("value", "%s", problem)
		return
	}
	if c.e.ignoreCase && !op.folds {
		c.fault("ignoreCase", "has no meaning with operator %s: leave it out", word)
	}
	if c.e.zone != "" {
		c.zone()
	}
}

func orAll(known []string) []string {
	if known == nil {
		return propertyOperators.words()
	}
	return known
}

// zone: only calendar dates have one.
func (c *checker) zone() {
	if !slices.ContainsFunc(c.e.moments(), func(m Moment) bool { return m.calendar }) {
		c.fault("zone", "belongs to calendar dates: leave it out")
	} else if _, err := LoadZone(c.e.zone); err != nil {
		c.fault("zone", "%s", err)
	}
}

// moments are the dates that a condition compares with; the others have none.
func (e *expr) moments() []Moment {
	items, isList := e.value.([]any)
	if !isList {
		items = []any{e.value}
	}
	switch propertyOperators.find(e.operator).wants {
	case wantsMoment, wantsDay, wantsPair:
	default:
		return nil
	}
	var out []Moment
	for _, item := range items {
		if text, ok := item.(string); ok {
			if m, err := ParseMoment(text); err == nil {
				out = append(out, m)
			}
		}
	}
	return out
}

// wrongValue says why a value is not what an operator wants, or "".
func wrongValue(wants operandKind, v any) string {
	if v == nil {
		if wants == wantsNothing {
			return ""
		}
		return fmt.Sprintf("is missing: write %s", wants)
	}
	_, isText := v.(string)
	_, isNumber := v.(float64)
	items, isList := v.([]any)
	right := false
	switch wants {
	case wantsNothing:
		return "has no meaning with this operator: leave it out"
	case wantsScalar:
		right = !isList
	case wantsText:
		right = isText
	case wantsNumber:
		right = isNumber
	case wantsList:
		right = isList && len(items) > 0
	case wantsPair:
		return wrongPair(items)
	case wantsMoment, wantsDay:
		return wrongDate(wants, v)
	}
	if right {
		return ""
	}
	return fmt.Sprintf("is not what the operator wants: write %s", wants)
}

func wrongDate(wants operandKind, v any) string {
	text, ok := v.(string)
	if !ok {
		return "is no date: write " + momentForms
	}
	m, err := ParseMoment(text)
	switch {
	case err != nil:
		return err.Error()
	case wants == wantsDay && !m.calendar:
		return fmt.Sprintf("%q is an instant: write a calendar date (2026-01-31, today, today+7d)", text)
	}
	return ""
}

func wrongPair(items []any) string {
	wrong := fmt.Sprintf("is not what the operator wants: write %s", wantsPair)
	if len(items) != 2 {
		return wrong
	}
	_, low := items[0].(float64)
	_, high := items[1].(float64)
	if low && high {
		return ""
	}
	if low || high {
		return wrong
	}
	var dates [2]Moment
	for i, item := range items {
		if problem := wrongDate(wantsMoment, item); problem != "" {
			return problem
		}
		dates[i], _ = ParseMoment(item.(string))
	}
	if dates[0].calendar != dates[1].calendar {
		return "mixes an instant and a calendar date: write two of one kind"
	}
	return ""
}

// amount: totals are added up to the sixth decimal.
func (c *checker) amount() {
	if n, ok := c.e.value.(float64); ok {
		if _, ok := amountOf(n); !ok {
			c.fault("value", "is beyond what totals are kept for: use numbers up to %s", maxAmountText)
		}
	}
}

// filterKinds are the conditions that may stand in where.
var filterKinds = []string{kindProperty, kindComposite, kindNot}

// filter checks what events are filtered by: it is decided when the event comes, by its
// properties alone.
func (c *checker) filter(field string, where *expr) {
	where.walk(join(c.path, field), func(e *expr, path string) {
		inner := &checker{file: c.file, path: path, e: e}
		if !slices.Contains(filterKinds, e.kind) {
			inner.fault("type", "%s cannot filter events: use property, composite or not", e.kind)
		}
		if e.kind == kindProperty && slices.ContainsFunc(e.moments(), func(m Moment) bool { return m.relative }) {
			inner.fault("value", "is relative to the time of the evaluation, but an event is filtered when it comes: write a fixed date")
		}
		c.faults = append(c.faults, inner.faults...)
	})
}

func words(list []string) string { return strings.Join(list, ", ") }

package predicate

import (
	"math"
	"time"
)

// The builder makes the same conditions as the files. What is wrong with a built one is
// said by [Compile].

// All holds when all of the conditions hold.
func All(conditions ...Condition) Condition { return composite(operatorAnd, conditions) }

// Any holds when any of the conditions holds.
func Any(conditions ...Condition) Condition { return composite(operatorOr, conditions) }

// Not holds when the condition does not.
func Not(c Condition) Condition {
	return Condition{&expr{kind: kindNot, conditions: []*expr{c.expr}}}
}

// InBucket holds for the members of a bucket.
func InBucket(id string) Condition { return Condition{&expr{kind: kindBucket, bucketID: id}} }

// Identified holds when a user id or an email address is known.
func Identified() Condition { return Condition{&expr{kind: kindIdentified}} }

// HasUserID holds when a user id is known.
func HasUserID() Condition { return Condition{&expr{kind: kindIdentified, by: byUserID}} }

// HasEmail holds when an email address is known.
func HasEmail() Condition { return Condition{&expr{kind: kindIdentified, by: byEmail}} }

// Mail asks what became of the newest mail of a template; check is opened, clicked,
// not_opened or not_clicked.
func Mail(templateKey, check string) Condition {
	return Condition{&expr{kind: kindEmail, templateKey: templateKey, check: check}}
}

func composite(operator string, conditions []Condition) Condition {
	e := &expr{kind: kindComposite, operator: operator}
	for _, c := range conditions {
		e.conditions = append(e.conditions, c.expr)
	}
	return Condition{e}
}

// Comparison is a property that waits to be compared.
type Comparison struct {
	e expr
}

// Prop is a property of the contact, or of the event within [EventBuilder.Where]; further
// names lead into a nested one.
func Prop(name string, nested ...string) Comparison {
	return Comparison{expr{kind: kindProperty, property: append(Path{name}, nested...)}}
}

// IgnoreCase compares text without regard to upper and lower case.
func (p Comparison) IgnoreCase() Comparison {
	p.e.ignoreCase = true
	return p
}

// Zone is the IANA time zone of calendar dates.
func (p Comparison) Zone(name string) Comparison {
	p.e.zone = name
	return p
}

// Is compares by an operator as it is written in files.
func (p Comparison) Is(operator string, v any) Condition {
	p.e.operator, p.e.value = operator, plain(v)
	p.e.normalise()
	return Condition{&p.e}
}

// Eq holds for the same value of the same type.
func (p Comparison) Eq(v any) Condition { return p.Is("eq", v) }

// Neq is the complement of Eq.
func (p Comparison) Neq(v any) Condition { return p.Is("neq", v) }

// In holds for one of the values.
func (p Comparison) In(values ...any) Condition { return p.Is("in", values) }

// Gt holds for a greater number.
func (p Comparison) Gt(n float64) Condition { return p.Is("gt", n) }

// Gte holds for this number or a greater one.
func (p Comparison) Gte(n float64) Condition { return p.Is("gte", n) }

// Lt holds for a smaller number.
func (p Comparison) Lt(n float64) Condition { return p.Is("lt", n) }

// Lte holds for this number or a smaller one.
func (p Comparison) Lte(n float64) Condition { return p.Is("lte", n) }

// Between holds from low to high: two numbers, or two [Moment] of one kind.
func (p Comparison) Between(low, high any) Condition { return p.Is(opBetween, []any{low, high}) }

// Contains holds for text with this in it.
func (p Comparison) Contains(s string) Condition { return p.Is("contains", s) }

// Prefix holds for text that begins with this.
func (p Comparison) Prefix(s string) Condition { return p.Is("prefix", s) }

// Suffix holds for text that ends with this.
func (p Comparison) Suffix(s string) Condition { return p.Is("suffix", s) }

// ListContains holds for a list with an item that is equal.
func (p Comparison) ListContains(v any) Condition { return p.Is("list_contains", v) }

// Before holds for an earlier date.
func (p Comparison) Before(m Moment) Condition { return p.Is(opBefore, m) }

// OnOrBefore holds for this date or an earlier one.
func (p Comparison) OnOrBefore(m Moment) Condition { return p.Is(opOnOrBefore, m) }

// After holds for a later date.
func (p Comparison) After(m Moment) Condition { return p.Is(opAfter, m) }

// OnOrAfter holds for this date or a later one.
func (p Comparison) OnOrAfter(m Moment) Condition { return p.Is(opOnOrAfter, m) }

// OnDate holds on a calendar date.
func (p Comparison) OnDate(m Moment) Condition { return p.Is(opOnDate, m) }

// Exists holds for any value but null.
func (p Comparison) Exists() Condition { return p.Is("exists", nil) }

// NotExists is the complement of Exists.
func (p Comparison) NotExists() Condition { return p.Is("not_exists", nil) }

// FirstSeen is when the contact was first seen; its methods for dates make conditions.
func FirstSeen() Comparison { return Comparison{expr{kind: kindSeen, check: checkFirst}} }

// LastSeen is when the contact was last seen.
func LastSeen() Comparison { return Comparison{expr{kind: kindSeen, check: checkLast}} }

// EventBuilder is an event that waits for what is asked of it.
type EventBuilder struct {
	e expr
}

// Event is what happened under a name.
func Event(name string) EventBuilder { return EventBuilder{expr{kind: kindEvent, eventName: name}} }

// Where takes only events whose properties satisfy all of the conditions.
func (b EventBuilder) Where(conditions ...Condition) EventBuilder {
	list := []*expr{b.e.where}
	for _, c := range conditions {
		list = append(list, c.expr)
	}
	b.e.where = allOf(list)
	return b
}

// Within takes only events in the time up to now; both edges count.
func (b EventBuilder) Within(d time.Duration) EventBuilder {
	b.e.within = d
	return b
}

func (b EventBuilder) ask(check, operator string, v any) Condition {
	b.e.check, b.e.operator, b.e.value = check, operator, plain(v)
	b.e.normalise()
	return Condition{&b.e}
}

// Exists holds when there is one.
func (b EventBuilder) Exists() Condition { return b.ask(checkExists, "", nil) }

// NotExists holds when there is none.
func (b EventBuilder) NotExists() Condition { return b.ask(checkNotExists, "", nil) }

// Count compares how many there are; operator is eq, gt, gte, lt or lte.
func (b EventBuilder) Count(operator string, n float64) Condition {
	return b.ask(checkCount, operator, n)
}

// AtLeast holds for n events or more.
func (b EventBuilder) AtLeast(n float64) Condition { return b.Count("gte", n) }

// MoreThan holds for more than n events.
func (b EventBuilder) MoreThan(n float64) Condition { return b.Count("gt", n) }

// AtMost holds for n events or fewer.
func (b EventBuilder) AtMost(n float64) Condition { return b.Count("lte", n) }

// LessThan holds for fewer than n events.
func (b EventBuilder) LessThan(n float64) Condition { return b.Count("lt", n) }

// Exactly holds for n events.
func (b EventBuilder) Exactly(n float64) Condition { return b.Count("eq", n) }

// Total is the sum of a property of the events, to be compared as a number.
func (b EventBuilder) Total(name string, nested ...string) Comparison {
	b.e.check, b.e.of = checkTotal, append(Path{name}, nested...)
	return Comparison(b)
}

// Last is a property of the newest event.
func (b EventBuilder) Last(name string, nested ...string) Comparison {
	b.e.check, b.e.of = checkLast, append(Path{name}, nested...)
	return Comparison(b)
}

// FirstSeen is when the first of the events happened.
func (b EventBuilder) FirstSeen() Comparison { return b.seen(checkFirst) }

// LastSeen is when the newest of the events happened.
func (b EventBuilder) LastSeen() Comparison { return b.seen(checkLast) }

func (b EventBuilder) seen(check string) Comparison {
	return Comparison{expr{kind: kindSeen, check: check, eventName: b.e.eventName, where: b.e.where, within: b.e.within}}
}

// Then begins a sequence: this event, then the other. Neither has a window: how far they
// may be apart is said by what follows.
func (b EventBuilder) Then(other EventBuilder) SequenceBuilder {
	return SequenceBuilder{expr{kind: kindSequence, first: b.step(), then: other.step()}}
}

func (b EventBuilder) step() *expr {
	return &expr{kind: kindStep, eventName: b.e.eventName, where: b.e.where, within: b.e.within}
}

// SequenceBuilder is two events that wait for what is asked of them.
type SequenceBuilder struct {
	e expr
}

// Newest looks at the newest first event alone.
func (b SequenceBuilder) Newest() SequenceBuilder {
	b.e.occur = occurLast
	return b
}

// Lookback takes only first events in the time up to now.
func (b SequenceBuilder) Lookback(d time.Duration) SequenceBuilder {
	b.e.lookback = d
	return b
}

// Within holds when the other event came later, at most d later.
func (b SequenceBuilder) Within(d time.Duration) Condition { return b.ask(checkFollowed, d) }

// Ever holds when the other event came at any time later.
func (b SequenceBuilder) Ever() Condition { return b.ask(checkFollowed, 0) }

// NotWithin holds when d has passed since a first event and the other did not come.
func (b SequenceBuilder) NotWithin(d time.Duration) Condition { return b.ask(checkNotFollowed, d) }

func (b SequenceBuilder) ask(check string, d time.Duration) Condition {
	b.e.check, b.e.within = check, d
	first, then := *b.e.first, *b.e.then
	b.e.first, b.e.then = &first, &then
	b.e.normalise()
	return Condition{&b.e}
}

// plain brings what Go programs have into what files hold. What no file can hold becomes
// nothing, which the checks name.
func plain(v any) any {
	switch v := v.(type) {
	case Moment:
		return v.String()
	case []any:
		return mapped(v, plain)
	case int:
		return float64(v)
	case int64:
		return float64(v)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return v
	case string, bool:
		return v
	}
	return nil
}

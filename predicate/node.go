package predicate

import (
	"cmp"
	"time"
)

// A node is a compiled condition. It answers for an instant, and says when time alone
// may turn the answer: nothing turns it before.
type node interface {
	eval(v view) verdict
	// observe notes what the node looks at; it is asked of leaves, to explain them.
	observe(o *observer)
}

// verdict is an answer and when it may turn.
type verdict struct {
	holds bool
	next  int64
}

// view is what nodes look at. It is passed by value, so that nothing is allocated.
type view struct {
	state   *State
	members Members
	event   reading // within where: the event's properties; nil otherwise
	now     int64
}

// window is what holds for a span of time, seen from now.
func window(s span, now int64) verdict {
	switch {
	case s.from >= s.until || now >= s.until:
		return verdict{false, never}
	case now < s.from:
		return verdict{false, s.from}
	}
	return verdict{true, s.until}
}

// either is what holds when one of two does: the complement of both complements.
func either(a, b verdict) verdict { return both(a.not(), b.not()).not() }

// allNode holds when all do. While some do not, it cannot turn before the last of these.
type allNode []node

func (n allNode) eval(v view) verdict {
	out := verdict{true, never}
	for _, inner := range n {
		out = both(out, inner.eval(v))
		if !out.holds && out.next == never {
			return out
		}
	}
	return out
}

func both(a, b verdict) verdict {
	switch {
	case a.holds && b.holds:
		return verdict{true, min(a.next, b.next)}
	case a.holds:
		return b
	case b.holds:
		return a
	}
	return verdict{false, max(a.next, b.next)}
}

// anyNode holds when one does. While it holds, it cannot turn before the last of these.
type anyNode []node

func (n anyNode) eval(v view) verdict {
	out := verdict{false, never}
	for _, inner := range n {
		out = either(out, inner.eval(v))
		if out.holds && out.next == never {
			return out
		}
	}
	return out
}

func (a verdict) not() verdict { return verdict{!a.holds, a.next} }

type notNode struct{ inner node }

func (n notNode) eval(v view) verdict { return n.inner.eval(v).not() }

// valueSource is where a comparison finds its left side.
type valueSource interface {
	raw(v view) string // JSON, "" for none
}

// contactProperty is a property of the contact, by the id of its path.
type contactProperty uint64

func (p contactProperty) raw(v view) string { return v.state.raw(uint64(p)) }

// eventProperty is a property of the event that is being filtered, by slot.
type eventProperty int

func (p eventProperty) raw(v view) string { return v.event.at(int(p)) }

// compareNode compares a value that time does not touch.
type compareNode struct {
	of   valueSource
	test func(actual value, want *operand) bool
	want *operand
}

func (n *compareNode) eval(v view) verdict {
	return verdict{n.test(readValue(n.of.raw(v)), n.want), never}
}

// momentSource is where a comparison of dates finds its left side; false for none.
type momentSource interface {
	moment(v view) (Moment, bool)
}

// textMoment reads a date from a value.
type textMoment struct{ of valueSource }

func (m textMoment) moment(v view) (Moment, bool) {
	actual := readValue(m.of.raw(v))
	if actual.kind != typeText {
		return Moment{}, false
	}
	return readMoment(actual.text)
}

// dateNode compares a date. What operator and moment say is joined by and.
type dateNode struct {
	of         momentSource
	sides      []dateSide
	zone       *time.Location // nil: the contact's, else the deployment's
	deployment *time.Location
}

type dateSide struct {
	operator string
	moment   Moment
}

func (n *dateNode) eval(v view) verdict {
	actual, ok := n.of.moment(v)
	if !ok {
		return verdict{false, never}
	}
	holds := span{always, never}
	for _, side := range n.sides {
		zone := n.zone
		if zone == nil && side.moment.calendar {
			zone = zoneOf(v, n.deployment)
		}
		holds = holds.and(spanOf(side.operator, actual, side.moment, zone))
	}
	return window(holds, v.now)
}

// contactSeen is when the contact was first or last seen.
type contactSeen struct{ last bool }

func (n contactSeen) moment(v view) (Moment, bool) {
	at := v.state.firstSeen
	if n.last {
		at = v.state.lastSeen
	}
	return Moment{at: at}, at != 0
}

type bucketNode string

func (n bucketNode) eval(v view) verdict {
	return verdict{v.members != nil && v.members.Has(string(n)), never}
}

type identifiedNode string

func (n identifiedNode) eval(v view) verdict {
	switch cmp.Or(string(n), byAny) {
	case byUserID:
		return verdict{v.state.hasUserID, never}
	case byEmail:
		return verdict{v.state.hasEmail, never}
	}
	return verdict{v.state.hasUserID || v.state.hasEmail, never}
}

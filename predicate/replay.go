package predicate

import (
	"time"

	"github.com/google/uuid"
)

// Turn is when the answer of a condition turned, and by what.
type Turn struct {
	At time.Time `json:"at"`
	// By is what turned it: record, or time alone.
	By string `json:"by"`
	// Record is the id of the record; zero when it is not known, and of time alone.
	Record uuid.UUID `json:"record,omitzero"`
	// OrBefore says that it turned then at the latest: what is known does not go back
	// further.
	OrBefore bool `json:"orBefore,omitempty"`
	// Place is where the record stands, if somebody looked that up.
	Place *Place `json:"place,omitempty"`
}

// What turns an answer.
const (
	ByRecord = "record"
	ByTime   = "time"
)

// Past is something that was said of a contact, as of when it was judged: a record, or
// that it joined a bucket or left it.
type Past struct {
	Record
	AsOf   time.Time
	Bucket string // of a join or a leave; empty of a record
	Joined bool
}

// History is what is known of the past of a contact, in the order in which it was judged.
type History struct {
	Past []Past
	// EventsPart says that product events may be missing at the beginning; FactsSince is
	// since when all else is known, zero for all of it.
	EventsPart bool
	FactsSince time.Time
}

// maxTurns bounds how often time is looked at between the records of a history.
const maxTurns = 10_000

// Replay goes through a history and says of each leaf of e, which Explain made of condition i
// at an instant, when its answer turned last. Nothing is said of a leaf for which the
// history comes to another answer than e, as when it is not all there.
func (s *Set) Replay(i int, e *Explanation, history History, now time.Time) {
	r := &replay{set: s, members: memberOf{}, left: maxTurns}
	r.add(s.conditions[i].Condition.expr, s.conditions[i].node, e)
	r.look(0, nil)
	for p := range history.Past {
		past := &history.Past[p]
		at := max(past.AsOf.UnixMicro(), r.now)
		r.pass(at) // what time turns at the instant of a record is not for the record
		r.say(past)
		r.look(at, past)
	}
	r.pass(now.UnixMicro())
	for p := range r.parts {
		r.parts[p].tell(&history)
	}
}

// replay is a history in hand. No part of a condition is looked at but its leaves.
type replay struct {
	set     *Set
	state   State
	members memberOf
	now     int64
	left    int
	parts   []replayed
}

// replayed is a leaf.
type replayed struct {
	asked *expr
	node  node
	to    *Explanation
	holds bool
	next  int64
	turn  *Turn
}

// memberOf are the buckets of which somebody is a member.
type memberOf map[string]bool

// Has implements Members.
func (m memberOf) Has(bucketID string) bool { return m[bucketID] }

// add finds the leaves.
func (r *replay) add(e *expr, n node, to *Explanation) {
	if e.kind != kindComposite && e.kind != kindNot {
		r.parts = append(r.parts, replayed{asked: e, node: n, to: to, next: never})
		return
	}
	parts := partsOf(n)
	for i, inner := range e.conditions {
		r.add(inner, parts[i], &to.Conditions[i])
	}
}

func (r *replay) say(p *Past) {
	if p.Bucket != "" {
		r.members[p.Bucket] = p.Joined
		return
	}
	r.set.Apply(&r.state, &p.Record, nil)
}

// pass lets time pass, and looks whenever it may turn something.
func (r *replay) pass(until int64) {
	for ; r.left > 0; r.left-- {
		due := int64(never)
		for i := range r.parts {
			due = min(due, r.parts[i].next)
		}
		if due > until {
			return
		}
		r.look(max(due, r.now), nil)
	}
}

// look asks all leaves; because of a record, or of nothing but time.
func (r *replay) look(at int64, because *Past) {
	r.now = at
	v := view{state: &r.state, members: r.members, now: at}
	for i := range r.parts {
		p := &r.parts[i]
		answer := p.node.eval(v)
		if answer.holds != p.holds && at > 0 {
			p.turn = &Turn{At: instant(at), By: ByTime}
			if because != nil {
				p.turn.By, p.turn.Record = ByRecord, because.ID
			}
		}
		p.holds, p.next = answer.holds, answer.next
		if p.next <= at {
			p.next = never
		}
	}
}

// tell fills in when the leaf turned.
func (p *replayed) tell(h *History) {
	if p.turn == nil || p.holds != p.to.Holds {
		return
	}
	switch ofEvents, ofFacts := p.inputs(); {
	case ofEvents && h.EventsPart:
		p.turn.OrBefore = true
	case ofFacts && !h.FactsSince.IsZero():
		// What the contact is like was known as of the first fact; what happened before was not.
		p.turn.OrBefore = p.turn.By == ByTime || p.turn.Record == uuid.Nil || !p.turn.At.After(h.FactsSince) || p.asked.kind != kindProperty
	}
	p.to.Turned = p.turn
}

// inputs says whether the leaf looks at product events, and whether at facts.
func (p *replayed) inputs() (events, facts bool) {
	switch e := p.asked; {
	case e.kind == kindBucket:
		return false, false
	case e.kind == kindSequence:
		return !isFact(e.first.eventName) || !isFact(e.then.eventName), isFact(e.first.eventName) || isFact(e.then.eventName)
	case e.eventName != "":
		return !isFact(e.eventName), isFact(e.eventName)
	}
	return false, true
}

package buckets

import (
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// timerName is the one timer of a contact.
const timerName = "due"

// Step implements derive.Logic. What was due before a record is handled before it.
func (l *Logic) Step(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	switch {
	case r.Timer != nil:
		return l.wake(s, r, now)
	case r.Command != nil:
		return l.obey(s, r, now)
	}
	said, err := read(r)
	if err != nil {
		return derive.Result[State]{}, err
	}
	w := l.work(s, r.ContactID).because(r)
	at := asOf(r, now)
	if err := w.catchUp(min(packed.Micros(r.OccurredAt), at) - 1); err != nil {
		return derive.Result[State]{}, err
	}
	w.begin(at, sourceEvent)
	w.changed = w.changed || w.d.set.LooksAt(said.Name)
	if r.Loser != nil {
		w.takeIn(r.Loser.State)
	}
	w.identify(r)
	w.touched = w.d.set.Apply(&w.s.facts, &said, w.touched)
	if w.fresh || r.Loser != nil {
		w.touchAll()
	}
	if err := w.settle(); err != nil {
		return derive.Result[State]{}, err
	}
	return w.result(), nil
}

// read is what a record says of the contact.
func read(r *derive.Record[State]) (predicate.Record, error) {
	if r.Event != nil {
		return predicate.FromEvent(r.Event)
	}
	return predicate.FromFact(r.Fact)
}

// asOf is the instant for which a record is judged: when it was received, where it says
// so, else when it was put on the log, and not later than now. So records that waited to be
// handled are judged as they would have been in time, and one that a sender dated back is not
// judged as of long ago.
func asOf(r *derive.Record[State], now time.Time) int64 {
	came := packed.Micros(r.Place.AppendedAt)
	switch {
	case r.Event != nil:
		came = packed.Micros(r.Event.ReceivedAt)
	case r.Fact.Contact != nil:
		came = packed.Micros(r.Fact.Contact.UpdatedAt)
	}
	return min(packed.OrNever(came), packed.Micros(now))
}

// identify keeps who the contact is.
func (w *work) identify(r *derive.Record[State]) {
	var p person
	if e := r.Event; e != nil {
		p = person{text(e.UserID), text(e.Email), text(e.AnonymousID)}
	} else {
		p = person{text(r.Fact.UserID), text(r.Fact.Email), text(r.Fact.AnonymousID)}
	}
	before := w.s.person
	w.s.person = p
	// Devices of one user come and go: that alone is not worth a write.
	if p.userID != before.userID || p.email != before.email || p.userID == "" && p != before {
		w.changed = true
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// wake handles what is due.
func (l *Logic) wake(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	w := l.work(s, r.ContactID).because(r)
	w.s.due, w.changed = 0, true
	if err := w.catchUp(packed.Micros(now)); err != nil {
		return derive.Result[State]{}, err
	}
	return w.result(), nil
}

// TakeOver implements derive.Logic. Whoever satisfies the criteria is a member, silently.
// Taken over anew, memberships go on with their epochs, and those by hand stay.
func (l *Logic) TakeOver(before State, k *derive.Known, now time.Time) (State, []derive.Timer) {
	w := l.work(before.memberships(), "")
	w.begin(packed.Micros(now), sourceBackfill)
	w.silent = true
	w.know(k, &w.s.facts)
	if k.Contact == nil {
		return w.s, nil
	}
	w.contact = k.Contact.ID
	w.touchAll()
	if err := w.settle(); err != nil {
		panic(err) // nothing is told, so nothing follows from it
	}
	w.renew(0)
	result := w.result()
	return result.State, result.Timers
}

// Refill implements derive.Refills. Who satisfies the criteria of a new or changed bucket
// joins, silently unless it says otherwise; who does not any more leaves, and that is told.
func (l *Logic) Refill(s State, k *derive.Known, now time.Time) (derive.Result[State], error) {
	w := l.work(s, k.Contact.ID)
	before := w.d
	before.set.Fit(&w.s.facts)
	w.d, w.changed = l.whole(), true
	w.begin(packed.Micros(now), sourceBackfill)
	var history predicate.State
	touched := w.know(k, &history)
	w.d.set.Fill(&w.s.facts, &history)
	w.touch(touched)
	since := w.s.version
	w.s.version = l.version
	for i, b := range w.d.buckets {
		if b.Revision > since {
			w.touch([]int{i})
		}
	}
	if err := w.settle(); err != nil {
		return derive.Result[State]{}, err
	}
	w.renew(since)
	return w.result(), nil
}

// know applies what Postgres knows: the row to the state, and the events to history, which
// may be the same. It returns who looks at what the row says otherwise.
func (w *work) know(k *derive.Known, history *predicate.State) []int {
	for i := range k.Events {
		said := derive.EventRecord(&k.Events[i])
		w.d.set.Apply(history, &said, nil)
	}
	if k.Contact == nil {
		return nil
	}
	c := k.Contact
	w.s.person = person{c.ExternalID, c.Email, c.AnonymousID}
	said := derive.ContactRecord(c)
	return w.d.set.Apply(&w.s.facts, &said, nil)
}

// HandOver implements derive.Logic: the contact leaves every bucket, for it is no more.
func (l *Logic) HandOver(s State, contact string, now time.Time) (State, []schemas.Message) {
	if !s.known {
		return s, nil
	}
	w := l.work(s, contact)
	w.begin(packed.Micros(now), sourceEvent)
	for i := range w.s.members {
		m := &w.s.members[i]
		if m.active {
			until := m.until
			w.leave(l.inUse(m.bucket), m, reasonMerged)
			m.adoptee, m.until = true, until
		}
		m.next = 0
	}
	w.s.due = 0
	return w.s, w.out
}

// work begins a step with the buckets that the state is filled for.
func (l *Logic) work(s State, contact string) *work {
	w := &work{l: l, d: l.whole(), s: s, contact: contact}
	w.touched = w.few[:0]
	if l.followsItself { // it may fail half-way
		w.s = s.clone()
	}
	if s.known {
		w.d = l.since(s.version)
	} else {
		w.fresh, w.changed = true, true
		w.s.known, w.s.version = true, l.version
	}
	return w
}

// because names the record in hand.
func (w *work) because(r *derive.Record[State]) *work {
	w.cause, w.place = r.ID, r.Place
	return w
}

// result is what the step comes to. An armed timer that is too early stays: it finds
// nothing, and is armed anew then. So an active contact does not write one with each event.
func (w *work) result() derive.Result[State] {
	if due := w.s.needed(); due != packed.Never && (w.s.due == 0 || due < w.s.due) {
		w.s.due, w.changed = due, true
	}
	out := derive.Result[State]{State: w.s, Same: !w.changed, Outputs: w.out}
	if w.s.due != 0 {
		w.timers[0] = derive.Timer{What: timerName, Due: packed.Instant(w.s.due)}
		out.Timers = w.timers[:]
	}
	return out
}

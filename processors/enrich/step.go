package enrich

import (
	"fmt"
	"slices"
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
		return l.wake(s, r, now), nil
	case r.Receipt != nil:
		return l.hear(s, r, now), nil
	case r.Command != nil:
		return derive.Result[State]{}, fmt.Errorf("command %q is unknown: there is none", r.Command.What)
	}
	said, err := read(r)
	if err != nil {
		return derive.Result[State]{}, err
	}
	w := l.work(s, r.ContactID, now)
	at := asOf(r, now)
	w.catchUp(min(packed.Micros(r.OccurredAt), at) - 1)
	w.begin(at)
	w.changed = w.changed || w.d.set.LooksAt(said.Name)
	if r.Loser != nil {
		w.takeIn(r.Loser.State)
	}
	w.identify(r)
	var few [16]int
	w.touchNumbers(w.d.set.Apply(&w.s.facts, &said, few[:0]))
	w.learn(said.Contact)
	if w.fresh || r.Loser != nil {
		w.touchAll()
	}
	w.settle()
	if b := enteredBucket(r); b != "" {
		w.enter(b)
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

// asOf is the instant for which a record is judged: when it was received, where it says so,
// and not later than now.
func asOf(r *derive.Record[State], now time.Time) int64 {
	received := int64(0)
	switch {
	case r.Event != nil:
		received = packed.Micros(r.Event.ReceivedAt)
	case r.Fact.Contact != nil:
		received = packed.Micros(r.Fact.Contact.UpdatedAt)
	}
	return min(packed.OrNever(received), packed.Micros(now))
}

// enteredBucket is the bucket that a record says the contact entered, or "".
func enteredBucket(r *derive.Record[State]) string {
	if f := r.Fact; f != nil && f.Type == schemas.FactBucketEntered && f.Bucket != nil {
		return f.Bucket.BucketID
	}
	return ""
}

// wake handles what is due.
func (l *Logic) wake(s State, r *derive.Record[State], now time.Time) derive.Result[State] {
	w := l.work(s, r.ContactID, now)
	w.s.due, w.changed = 0, true
	w.catchUp(packed.Micros(now))
	return w.result()
}

// TakeOver implements derive.Logic. Nobody is asked for whom there is no history; from when on,
// the enrichments say. Taken over anew, what was asked is known still.
func (l *Logic) TakeOver(before State, k *derive.Known, now time.Time) (State, []derive.Timer) {
	w := l.work(before.kept(), "", now)
	w.begin(packed.Micros(now))
	w.know(k, &w.s.facts)
	if k.Contact == nil {
		return w.s, nil
	}
	w.contact = k.Contact.ID
	w.learn(k.Contact.Properties)
	for i := range w.d.list {
		w.adopt(i, !w.s.hasAsked(w.d.list[i].ID))
	}
	result := w.result()
	return result.State, result.Timers
}

// hasAsked says whether an enrichment was ever asked for the contact.
func (s *State) hasAsked(enrichment string) bool {
	en := s.find(enrichment)
	return en != nil && en.epoch > 0
}

// Refill implements derive.Refills. What is under way for an enrichment that changed is taken
// back; who is asked for anew, and when, is said by its backfill.
func (l *Logic) Refill(s State, k *derive.Known, now time.Time) (derive.Result[State], error) {
	w := l.work(s, k.Contact.ID, now)
	w.d.set.Fit(&w.s.facts)
	w.d, w.changed = l.whole(), true
	w.begin(packed.Micros(now))
	var history predicate.State
	touched := w.know(k, &history)
	w.d.set.Fill(&w.s.facts, &history)
	w.learn(k.Contact.Properties)
	w.touchNumbers(touched)
	since := w.s.version
	w.s.version = l.version
	for i, e := range w.d.list {
		if e.Revision > since {
			w.adopt(i, true)
		}
	}
	w.settle()
	w.prune()
	return w.result(), nil
}

// prune forgets what no definition is about any more. What is under way is not asked about.
func (w *work) prune() {
	w.s.entries = slices.DeleteFunc(w.s.entries, func(en entry) bool {
		if w.l.known[en.enrichment] {
			return false
		}
		if w.s.open(&en) {
			w.cancel = append(w.cancel, en.ask)
		}
		delete(w.s.asks, en.ask)
		return true
	})
	w.s.values = slices.DeleteFunc(w.s.values, func(v value) bool { return w.d.looks[v.name] == nil })
}

// know applies what Postgres knows: the row to the state, and the events to history, which
// may be the same. It returns the conditions that look at what the row says otherwise.
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

// HandOver implements derive.Logic: the survivor waits for what was asked.
func (l *Logic) HandOver(s State, _ string, _ time.Time) (State, []schemas.Message) {
	s.due = 0
	return s, nil
}

// work begins a step with the enrichments that the state is filled for.
func (l *Logic) work(s State, contact string, now time.Time) *work {
	w := &work{l: l, d: l.whole(), s: s, contact: contact, now: packed.Micros(now)}
	w.touched = w.few[:0]
	if s.known {
		w.d = l.since(s.version)
	} else {
		w.fresh, w.changed = true, true
		w.s.known, w.s.version = true, l.version
	}
	return w
}

// result is what the step comes to. An armed timer that is too early stays: it finds
// nothing, and is armed anew then.
func (w *work) result() derive.Result[State] {
	if due := w.s.needed(); due != packed.Never && (w.s.due == 0 || due < w.s.due) {
		w.s.due, w.changed = due, true
	}
	out := derive.Result[State]{State: w.s, Same: !w.changed, Outputs: w.out, Cancel: w.cancel}
	if w.waited && !w.caused {
		out.Hops = new(int) // a chain begins
	}
	if w.s.due != 0 {
		w.timers[0] = derive.Timer{What: timerName, Due: packed.Instant(w.s.due)}
		out.Timers = w.timers[:]
	}
	return out
}

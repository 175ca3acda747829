package derive

import (
	"container/heap"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Rehearsal runs a Logic over records in virtual time, without a log and without Postgres:
// records in the order in which they are given, and between them every timer at the instant
// at which it is due. So what definitions do to a history is known before they are in use.
// It is not safe for concurrent use.
type Rehearsal[S any] struct {
	logic    Logic[S]
	told     func(m schemas.Message, now time.Time)
	contacts map[string]*rehearsed[S]
	due      dueTimers
	armed    int64 // timers so far: of those that are due at one instant the first comes first
	now      time.Time
}

// rehearsed is a contact of a rehearsal.
type rehearsed[S any] struct {
	row    storage.Derived
	state  S
	timers []Timer
}

// NewRehearsal begins a rehearsal in which nothing is known of anybody. told is given what
// follows, in order.
func NewRehearsal[S any](l Logic[S], told func(m schemas.Message, now time.Time)) *Rehearsal[S] {
	return &Rehearsal[S]{logic: l, told: told, contacts: map[string]*rehearsed[S]{}}
}

// Step handles what is due before now, and then the record. A contact.merged takes in what
// is known of the loser. Time does not go back: an earlier now is the last one. After an
// error the record changed nothing.
func (r *Rehearsal[S]) Step(record *Record[S], now time.Time) error {
	if err := r.fire(now, false); err != nil {
		return err
	}
	c := r.contact(record.ContactID)
	c.row.Seq++
	record.Seq, record.Era = c.row.Seq, c.row.Era
	if f := record.Fact; f != nil && f.Type == schemas.FactContactMerged && f.Merged != nil && record.Loser == nil {
		record.Loser = r.handOver(f.Merged.LoserID)
	}
	return r.step(c, record)
}

// Until handles what is due until an instant, that one included.
func (r *Rehearsal[S]) Until(now time.Time) error { return r.fire(now, true) }

// Forget erases a contact.
func (r *Rehearsal[S]) Forget(contactID string) { delete(r.contacts, contactID) }

// States are the contacts that are known, in no order.
func (r *Rehearsal[S]) States() iter.Seq2[string, S] {
	return func(yield func(string, S) bool) {
		for id, c := range r.contacts {
			if !yield(id, c.state) {
				return
			}
		}
	}
}

// State is what is known of a contact; the zero S of one that is not known.
func (r *Rehearsal[S]) State(contactID string) (s S) {
	if c := r.contacts[contactID]; c != nil {
		s = c.state
	}
	return s
}

func (r *Rehearsal[S]) contact(id string) *rehearsed[S] {
	c := r.contacts[id]
	if c == nil {
		c = &rehearsed[S]{row: storage.Derived{ContactID: id}}
		r.contacts[id] = c
	}
	return c
}

// fire steps the timers that are due before an instant, or at it, too.
func (r *Rehearsal[S]) fire(until time.Time, included bool) error {
	for len(r.due) > 0 && (r.due[0].Due.Before(until) || included && r.due[0].Due.Equal(until)) {
		t := heap.Pop(&r.due).(dueTimer)
		c := r.contacts[t.contact]
		if c == nil || !slices.Contains(c.timers, t.Timer) {
			continue // armed anew, or left out since
		}
		c.timers = slices.DeleteFunc(slices.Clone(c.timers), func(other Timer) bool { return other == t.Timer })
		r.advance(t.Due)
		timer := t.Timer
		id := schemas.Derive(t.contact, "timer:"+t.What, int(t.armed))
		if err := r.step(c, &Record[S]{ID: id, ContactID: t.contact, OccurredAt: t.Due, Seq: c.row.Seq, Era: c.row.Era, Timer: &timer}); err != nil {
			return err
		}
	}
	r.advance(until)
	return nil
}

func (r *Rehearsal[S]) advance(now time.Time) {
	if now.After(r.now) {
		r.now = now
	}
}

func (r *Rehearsal[S]) step(c *rehearsed[S], record *Record[S]) error {
	result, err := r.logic.Step(c.state, record, r.now)
	if err != nil {
		return fmt.Errorf("step %s of contact %s: %w", record.ID, record.ContactID, err)
	}
	c.state = result.State
	r.arm(c, result.Timers)
	r.tell(c, record.ID, result.Outputs)
	return nil
}

// arm makes these the timers of the contact.
func (r *Rehearsal[S]) arm(c *rehearsed[S], timers []Timer) {
	before := c.timers
	c.timers = make([]Timer, 0, len(timers))
	for _, t := range timers {
		t.Due = t.Due.UTC().Truncate(time.Microsecond)
		c.timers = append(c.timers, t)
		if !slices.Contains(before, t) {
			r.armed++
			heap.Push(&r.due, dueTimer{t, c.row.ContactID, r.armed})
		}
	}
}

func (r *Rehearsal[S]) tell(c *rehearsed[S], cause string, outputs []schemas.Message) {
	for i, m := range outputs {
		if f, ok := m.(*schemas.Fact); ok {
			c.row.Written++
			number(f, &c.row, cause, i, r.now)
		}
		r.told(m, r.now)
	}
}

// handOver ends a contact, and is what its survivor is given of it.
func (r *Rehearsal[S]) handOver(loser string) *Loser[S] {
	c := r.contact(loser)
	state, said := r.logic.HandOver(c.state, loser, r.now)
	r.tell(c, schemas.Derive(loser, "last", 0), said)
	delete(r.contacts, loser)
	return &Loser[S]{ContactID: loser, State: state}
}

// dueTimer is a timer of some contact.
type dueTimer struct {
	Timer
	contact string
	armed   int64
}

// dueTimers is a heap by due.
type dueTimers []dueTimer

func (d dueTimers) Len() int      { return len(d) }
func (d dueTimers) Swap(i, j int) { d[i], d[j] = d[j], d[i] }
func (d dueTimers) Less(i, j int) bool {
	if !d[i].Due.Equal(d[j].Due) {
		return d[i].Due.Before(d[j].Due)
	}
	return d[i].armed < d[j].armed
}
func (d *dueTimers) Push(x any) { *d = append(*d, x.(dueTimer)) }
func (d *dueTimers) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

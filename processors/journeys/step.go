package journeys

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
	"github.com/hogstream/hogstream/storage"
)

// timerName is the one timer of a contact.
const timerName = "due"

// work is a step in hand. It is what the machine asks for facts of the contact.
type work struct {
	l       *Logic
	d       *subset
	s       State
	changed bool // the state is to be written
	now     time.Time
	// pending is the record in hand, until the machine has done what was due before it.
	pending *schemas.Fact
	few     [16]int
}

// work begins a step with what the state is filled for.
func (l *Logic) work(s State, now time.Time) *work {
	w := &work{l: l, d: l.whole(), s: s, now: now}
	switch {
	case !s.known:
		w.changed = true
		w.s.known, w.s.version = true, l.fills
	case s.version > l.fills: // what asks for more was elsewhere, and is not kept up here
		w.changed = true
		w.s.version = l.fills
	}
	if w.s.version < l.version {
		w.d = l.since(w.s.version)
	}
	if w.d.circular { // it may fail half-way
		w.s.members, w.s.facts = append([]membership(nil), s.members...), cloneFacts(&s.facts)
	}
	return w
}

// Step implements derive.Logic. What was due before a record is handled before it.
func (l *Logic) Step(s State, r *derive.Record[State], now time.Time) (derive.Result[State], error) {
	if f := r.Fact; f != nil && f.Bucket != nil && f.ContactID != r.ContactID {
		// Of the membership of a contact that was merged into this one, which has its own.
		return derive.Result[State]{State: s, Same: true, Timers: s.timers()}, nil
	}
	w := l.work(s, now)
	in := &machine.Input{
		ID: r.ID, ContactID: r.ContactID, OccurredAt: r.OccurredAt, AppendedAt: r.Place.AppendedAt, Hops: r.Hops,
		Event: r.Event, Fact: r.Fact, Receipt: r.Receipt, ReceiptEpoch: r.ReceiptEpoch,
	}
	switch {
	case r.Timer != nil:
		w.s.due, w.changed = 0, true
	case r.Command != nil:
		c, err := readCommand(r.Command)
		if err != nil {
			return derive.Result[State]{}, err
		}
		in.Command = c
	case r.Fact != nil:
		w.pending = r.Fact
	}
	var due derive.Result[State]
	if r.Loser != nil {
		var err error
		if due, err = w.dueBefore(r.ContactID, in.AsOf(now), &r.Loser.State); err != nil {
			return derive.Result[State]{}, err
		}
		w.takeIn(l, &r.Loser.State)
		w.s.took = append(append(w.s.took, r.Loser.ContactID), r.Loser.Took...)
		in.Loser = &r.Loser.State.runs
	}
	var tried []machine.Tried
	result, err := w.step(func() (machine.Result, error) {
		said, err := w.d.m.Step(w.s.runs, in, w, now)
		tried = said.Tried
		return said, err
	})
	if err == nil && r.Event != nil && r.Event.Wait {
		result.Answer, err = answer(r, tried)
	}
	return after(due, result), err
}

// answer tells the sender of an event what it did to runs.
func answer(r *derive.Record[State], tried []machine.Tried) (*storage.Answer, error) {
	said := schemas.Exits{ContactID: r.ContactID, Exits: make([]schemas.Exit, len(tried))}
	for i, t := range tried {
		said.Exits[i] = schemas.Exit{JourneyID: t.Journey, StateID: t.Run, Exited: t.Exited}
	}
	text, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("encode which runs event %s ended: %w", r.Event.ID, err)
	}
	return &storage.Answer{InputID: schemas.ExitsID(r.Event.ID), JSON: text}, nil
}

// dueBefore does what was due before another contact is merged into this one: afterwards
// conditions know what that one did, and where it is filled for fewer definitions, runs of the
// others stand still.
func (w *work) dueBefore(contact string, at time.Time, loser *State) (due derive.Result[State], err error) {
	if !loser.known || !w.s.runs.GoesOn() {
		return due, nil
	}
	w.s = w.s.clone()
	return w.step(func() (machine.Result, error) {
		return w.d.m.Step(w.s.runs, &machine.Input{ContactID: contact}, w, at.Add(-time.Microsecond))
	})
}

// after is what comes of two steps, one after the other.
func after(first, second derive.Result[State]) derive.Result[State] {
	second.Outputs, second.Cancel = slices.Concat(first.Outputs, second.Outputs), slices.Concat(first.Cancel, second.Cancel)
	if first.Hops != nil && (second.Hops == nil || *second.Hops < *first.Hops) {
		second.Hops = first.Hops
	}
	return second
}

// step calls the machine, and takes over what it says.
func (w *work) step(call func() (machine.Result, error)) (derive.Result[State], error) {
	said, err := call()
	if err != nil {
		return derive.Result[State]{}, err
	}
	w.l.address(said.Effects)
	w.s.runs = said.State
	w.s.changes = append(w.s.changes, said.State.Changes()...)
	w.changed = w.changed || !said.Same || len(said.JobsOver) > 0
	w.s.over = append(w.s.over, said.JobsOver...)
	w.s.begun = append(w.s.begun, said.Jobs...)
	// An armed timer that is too early stays: it finds nothing, and is armed anew then.
	if due := packed.Micros(said.Due); due != 0 && (w.s.due == 0 || due < w.s.due) {
		w.s.due, w.changed = due, true
	}
	out := derive.Result[State]{State: w.s, Same: !w.changed, Outputs: said.Effects, Cancel: said.Cancel, Timers: w.s.timers()}
	if len(said.Effects) > 0 {
		out.Hops = new(said.Hops)
	}
	return out, nil
}

func (s *State) timers() []derive.Timer {
	if s.due == 0 {
		return nil
	}
	return []derive.Timer{{What: timerName, Due: packed.Instant(s.due)}}
}

// Apply implements machine.Facts.
func (w *work) Apply(r *predicate.Record) {
	if touched := w.d.set.Apply(&w.s.facts, r, w.few[:0]); len(touched) > 0 || w.d.set.LooksAt(r.Name) {
		w.changed = true
	}
	// What is due before the record in hand may tell facts, which come here before it.
	if f := w.pending; f != nil && f.ID == r.ID.String() {
		w.pending = nil
		w.note(f)
	}
}

// note takes in what facts say that is no property and no event.
func (w *work) note(f *schemas.Fact) {
	news := false
	switch {
	case f.Bucket != nil && f.Type == schemas.FactBucketEntered:
		news = w.s.enter(f.Bucket.BucketID, f.Bucket.EntryCount)
	case f.Bucket != nil && f.Type == schemas.FactBucketLeft:
		news = w.s.leave(f.Bucket.BucketID, f.Bucket.EntryCount)
	case f.Unsubscribed != nil && f.Unsubscribed.Scope == scopeAll && !w.s.unsubscribed:
		w.s.unsubscribed, news = true, true
	}
	w.changed = w.changed || news
}

// scopeAll is that of somebody who unsubscribed from everything.
const scopeAll = "all"

// Evaluate implements machine.Facts.
func (w *work) Evaluate(condition string, now time.Time) predicate.Verdict {
	i := w.d.set.Index(condition)
	if i < 0 {
		return predicate.Verdict{} // its runs stand still until the contact is filled
	}
	return w.d.set.Evaluate(i, &w.s.facts, &w.s, now)
}

// Has implements machine.Facts.
func (w *work) Has(bucketID string) bool { return w.s.Has(bucketID) }

// Unsubscribed implements machine.Facts.
func (w *work) Unsubscribed() bool { return w.s.unsubscribed }

// takeIn folds in what was known of a contact when it was merged into this one. Where one of
// the two is filled for fewer definitions, so is what comes of it.
func (w *work) takeIn(l *Logic, loser *State) {
	w.changed = true
	if !loser.known {
		return
	}
	if loser.version < w.s.version {
		w.s.version = loser.version
		w.d = l.since(w.s.version)
	}
	w.d.set.Fit(&w.s.facts)
	w.d.set.Fit(&loser.facts)
	w.d.set.Merge(&w.s.facts, &loser.facts)
	w.s.unsubscribed = w.s.unsubscribed || loser.unsubscribed
}

// readCommand reads the JSON of a command.
func readCommand(c *derive.Command) (*machine.Command, error) {
	var out machine.Command
	dec := json.NewDecoder(strings.NewReader(c.JSON))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return nil, fmt.Errorf("command %s: %w", c.What, err)
	}
	out.What = c.What
	return &out, nil
}

// TakeOver implements derive.Logic. Nobody begins a journey for what was before. Taken over
// anew, runs and entries go on as they were. What follows for runs is told, which a take-over
// cannot: such a contact is filled instead, at once.
func (l *Logic) TakeOver(before State, k *derive.Known, now time.Time) (State, []derive.Timer) {
	w := &work{l: l, d: l.whole(), s: State{known: true, version: l.fills, runs: before.runs.Clone()}, now: now}
	goesOn := k.Contact != nil && w.s.runs.GoesOn()
	if goesOn {
		w.d, w.s.version, w.s.due = l.since(0), 0, packed.Micros(now)
	}
	w.know(k, &w.s.facts)
	switch {
	case goesOn:
		return w.s, w.s.timers()
	case k.Contact == nil: // its survivor is handed what is known of it
		var err error
		if w.s.runs, err = w.d.m.Recall(w.s.runs, w.lookedBackAt(k), now); err != nil {
			panic(err) // events that are stored were read before
		}
		return w.s, w.s.timers()
	}
	result, err := w.step(func() (machine.Result, error) { return w.d.m.Refill(w.s.runs, w.known(k), w, now) })
	if err != nil {
		panic(err) // without runs, no fact follows from another
	}
	return result.State, result.Timers
}

// Refill implements derive.Refills. Runs of journeys that have changed exit, where those say
// so, and runs that stood still go on. What was due before is done before, with the
// definitions that have not changed and as of when it was due.
func (l *Logic) Refill(s State, k *derive.Known, now time.Time) (derive.Result[State], error) {
	w := &work{l: l, d: l.since(s.version), s: s.clone(), now: now, changed: true}
	w.d.set.Fit(&w.s.facts)
	var due derive.Result[State]
	if w.s.runs.GoesOn() {
		var err error
		if due, err = w.step(func() (machine.Result, error) {
			return w.d.m.Step(w.s.runs, &machine.Input{ContactID: k.Contact.ID}, w, now)
		}); err != nil {
			return due, err
		}
	}
	w.d = l.whole()
	var history predicate.State
	w.know(k, &history)
	w.d.set.Fill(&w.s.facts, &history)
	w.s.version = l.fills
	result, err := w.step(func() (machine.Result, error) { return w.d.m.Refill(w.s.runs, w.known(k), w, now) })
	return after(due, result), err
}

// know applies what Postgres knows: the row to the state, and the events to history, which
// may be the same.
func (w *work) know(k *derive.Known, history *predicate.State) {
	for i := range k.Events {
		said := derive.EventRecord(&k.Events[i])
		w.d.set.Apply(history, &said, nil)
	}
	if b := k.Beside; b != nil {
		w.s.unsubscribed = w.s.unsubscribed || b.Unsubscribed
		for bucket, epoch := range b.Buckets {
			w.s.enter(bucket, epoch)
		}
	}
	if c := k.Contact; c != nil {
		said := derive.ContactRecord(c)
		w.d.set.Apply(&w.s.facts, &said, nil)
	}
}

// known is what the machine is told of a contact.
func (w *work) known(k *derive.Known) *machine.Known {
	c := k.Contact
	return &machine.Known{
		ContactID: c.ID, Properties: c.Properties, UserID: c.ExternalID, Email: c.Email, AnonymousID: c.AnonymousID, Events: w.lookedBackAt(k),
	}
}

// lookedBackAt are the events that waits may look back at.
func (w *work) lookedBackAt(k *derive.Known) (events []*schemas.Event) {
	back := w.d.m.LooksBack()
	for i := range k.Events {
		if e := &k.Events[i]; slices.Contains(back, e.Name) && uuid.Validate(e.ID) == nil {
			events = append(events, derive.StoredEvent(e))
		}
	}
	return events
}

// HandOver implements derive.Logic: runs go on with the survivor. What was due before is done
// and told, for it is as old as the run that did not wait for the merge. A call that this takes
// back is not: nobody waits for it, and its time ends it.
func (l *Logic) HandOver(s State, contact string, now time.Time) (State, []schemas.Message) {
	var due derive.Result[State]
	if s.due != 0 && packed.Instant(s.due).Before(now) {
		w := l.work(s.clone(), now)
		result, err := w.step(func() (machine.Result, error) {
			return w.d.m.Step(w.s.runs, &machine.Input{ContactID: contact}, w, now.Add(-time.Microsecond))
		})
		if err == nil { // else it is the survivor's to do
			s, due = result.State, result
		}
	}
	s.due, s.members = 0, nil
	return s, due.Outputs
}

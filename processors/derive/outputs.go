package derive

import (
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// publish emits what a step said, each with its place.
func (m *machine[S]) publish(c *contact[S], causeID string, cause *stream.Record, outputs []schemas.Message, hops int, now time.Time) error {
	for i, o := range outputs {
		switch o := o.(type) {
		case *schemas.Fact:
			c.row.Written++
			c.touched = true
			number(o, &c.row, causeID, i, now)
			o.Hops = hops
		case *schemas.Input:
			m.say(o, c.row.ContactID, causeID, i, now)
			o.Hops = hops
		case *schemas.EmailRequest:
			m.request(o, c.row.ContactID, causeID, i, now)
			o.Hops = hops
		case *schemas.Signal:
			m.command(o, c.row.ContactID, causeID, i, now)
			o.Hops = hops
		case *schemas.Outbox:
			m.address(o, c.row.ContactID, causeID, i, now)
			o.Hops = hops
		}
		if err := m.out.Emit(cause, o); err != nil {
			return err
		}
	}
	return nil
}

// number says where a derived fact stands: after which record, and its writer's own number.
func number(f *schemas.Fact, row *storage.Derived, cause string, ordinal int, now time.Time) {
	f.ContactID, f.CauseID = row.ContactID, cause
	f.CauseSeq, f.Era, f.WriterSeq = row.Seq, row.Era, row.Written
	if f.ID == "" {
		f.ID = schemas.Derive(cause, f.Type, ordinal)
	}
	if f.OccurredAt.IsZero() {
		f.OccurredAt = now
	}
}

// address says who asks, and about whom.
func (m *machine[S]) address(o *schemas.Outbox, contact, cause string, ordinal int, now time.Time) {
	o.ContactID, o.Asker = contact, m.p.Name()
	if o.ID == "" {
		o.ID = schemas.Derive(cause, "outbox:"+m.p.Name(), ordinal)
	}
	if o.OccurredAt.IsZero() {
		o.OccurredAt = now
	}
}

// say completes an input: it is about the contact, whatever that is called by, and nobody
// can fake it from outside.
func (m *machine[S]) say(in *schemas.Input, contact, cause string, ordinal int, now time.Time) {
	in.ContactID, in.ReceivedAt = &contact, now
	if in.ID == "" {
		in.ID = schemas.Derive(cause, "input:"+m.p.Name(), ordinal)
	}
	if in.OccurredAt.IsZero() {
		in.OccurredAt = now
	}
}

// request completes an email request.
func (m *machine[S]) request(e *schemas.EmailRequest, contact, cause string, ordinal int, now time.Time) {
	e.ContactID = contact
	if e.ID == "" {
		e.ID = schemas.Derive(cause, "email:"+m.p.Name(), ordinal)
	}
	if e.OccurredAt.IsZero() {
		e.OccurredAt = now
	}
}

// command completes what another processor is told to do with the contact.
func (m *machine[S]) command(s *schemas.Signal, contact, cause string, ordinal int, now time.Time) {
	s.Type, s.ContactID = schemas.SignalCommand, contact
	if s.ID == "" {
		s.ID = schemas.Derive(cause, "command:"+m.p.Name(), ordinal)
	}
	if s.OccurredAt.IsZero() {
		s.OccurredAt = now
	}
}

// anyHops says that something of it may cause what caused it.
func anyHops(outputs []schemas.Message) bool {
	return slices.ContainsFunc(outputs, func(o schemas.Message) bool {
		switch o.(type) {
		case *schemas.Fact, *schemas.Input, *schemas.Outbox, *schemas.EmailRequest, *schemas.Signal:
			return true
		}
		return false
	})
}

// arm makes these the timers of the contact. One that stays as it is keeps its epoch;
// any other has one that was never used before, so that what was sent for it is stale.
func (c *contact[S]) arm(timers []Timer, hops int, now time.Time) {
	kept := make([]storage.Timer, 0, len(timers))
	for _, t := range timers {
		due := t.Due.UTC().Truncate(time.Microsecond) // as Postgres has it
		i := slices.IndexFunc(c.timers, func(a storage.Timer) bool { return a.What == t.What && a.Due.Equal(due) })
		if i >= 0 {
			kept = append(kept, c.timers[i])
			continue
		}
		kept = append(kept, c.timer(t, hops, now))
	}
	if i := slices.IndexFunc(c.timers, isWaiting); i >= 0 && len(c.held) > 0 {
		kept = append(kept, c.timers[i])
	}
	c.timers = kept
}

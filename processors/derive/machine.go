package derive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// outlet is where outputs go. Implemented by *loop.Batch.
type outlet interface {
	Emit(cause *stream.Record, m schemas.Message) error
	DeadLetter(cause *stream.Record, source, reason string, failure error) error
}

// machine applies records to contacts.
type machine[S any] struct {
	p     Processor[S]
	codec *schemas.Codec
	out   outlet
	now   time.Time
	off   rule
}

// handle applies a record to its contact, or has it wait, and then whatever waited for it.
func (m *machine[S]) handle(c *contact[S], in *incoming) error {
	if c.row.Ended {
		return m.late(c, in)
	}
	var err error
	if in.kind() == command {
		err = m.obey(c, in)
	} else if in.kind() != derived || m.p.Wants(in.fact.Type) {
		c.hold(in, m.off)
	}
	if err != nil {
		return err
	}
	return m.settle(c, in)
}

// settle applies what has waited long enough, and hands over a contact of which
// everything was applied.
func (m *machine[S]) settle(c *contact[S], in *incoming) error {
	for next := c.ready(m.off); next != nil; next = c.ready(m.off) {
		c.release(next)
		if err := m.apply(c, next); err != nil {
			return err
		}
	}
	if c.row.Survivor != "" && !c.row.Ended && (c.complete() || m.off.has(ruleLast)) {
		return m.handOver(c, in.cause)
	}
	return nil
}

// obey does what a signal says.
func (m *machine[S]) obey(c *contact[S], in *incoming) error {
	s := in.signal
	switch {
	case s.Type == schemas.SignalDeleted:
		m.erase(c)
	case s.Type == schemas.SignalMerged && s.Merged != nil:
		c.row.Survivor, c.row.Last, c.row.LastEra, c.touched = s.Merged.Survivor, s.Merged.Seq, s.Merged.Era, true
	case s.Type == schemas.SignalTimer:
		return m.due(c, in)
	case s.Type == schemas.SignalRecord:
		return m.again(c, in)
	}
	return nil
}

func (m *machine[S]) erase(c *contact[S]) {
	c.end("")
	if m.off.has(ruleOwnMark) {
		c.row.Ended, c.row.Seq = false, 0
	}
}

// late is for what reaches a contact that ended. A survivor is given what it has to know;
// what was erased is gone.
func (m *machine[S]) late(c *contact[S], in *incoming) error {
	switch {
	case c.row.Survivor == "":
		return nil
	case in.kind() == handover, in.kind() == command && in.signal.Type == schemas.SignalRecord:
		return m.forwardSignal(c, in)
	case in.kind() == derived && m.p.Wants(in.fact.Type):
		return m.forwardFact(c, in)
	}
	return nil
}

// apply steps a record, which takes its number whatever comes of it.
func (m *machine[S]) apply(c *contact[S], in *incoming) error {
	r := &Record[S]{ID: in.id, ContactID: c.row.ContactID, Event: in.event, Fact: in.fact}
	switch in.kind() {
	case numbered:
		c.row.Seq, c.row.Era = max(in.seq, c.row.Seq), in.era
	case derived:
		c.hear(in.fact)
	}
	c.touched = true
	if in.event == nil && in.fact == nil {
		return nil // given up
	}
	if loser := in.merges(); loser != "" {
		var err error
		if r.Loser, err = m.takeIn(c, loser); err != nil {
			return m.giveUp(in, "failed", err)
		}
	}
	return m.step(c, r, in.cause, in.hops(), m.now)
}

// hear remembers the writer's number of a derived fact.
func (c *contact[S]) hear(f *schemas.Fact) {
	if c.row.Heard == nil {
		c.row.Heard = make(map[string]int64)
	}
	c.row.Heard[writer(f, c.row.ContactID)] = f.WriterSeq
	c.touched = true
}

// takeIn is what a loser handed over; nil when that was taken in before.
func (m *machine[S]) takeIn(c *contact[S], loser string) (*Loser[S], error) {
	if slices.Contains(c.row.Took, loser) {
		return nil, nil
	}
	in := c.handoverOf(loser)
	if in == nil {
		return nil, nil // rule wait is off
	}
	h, err := in.handed()
	if err != nil {
		return nil, err
	}
	l := &Loser[S]{ContactID: loser, Took: h.Took}
	if err := json.Unmarshal(h.State, &l.State); err != nil {
		return nil, fmt.Errorf("state of loser %s: %w", loser, err)
	}
	c.took(append([]string{loser}, h.Took...)...)
	return l, nil
}

// due steps a timer, unless it was armed anew or left out since.
func (m *machine[S]) due(c *contact[S], in *incoming) error {
	i := slices.IndexFunc(c.timers, func(t storage.Timer) bool { return t.What == in.signal.What && t.Epoch == in.signal.Epoch })
	if i < 0 {
		return nil
	}
	t := c.timers[i]
	c.timers = slices.Delete(slices.Clone(c.timers), i, i+1)
	c.touched = true
	hops := t.Hops
	if t.Due.Sub(t.ArmedAt) >= longWait {
		hops = 0
	}
	now := m.now
	if now.Before(t.Due) {
		now = t.Due
	}
	r := &Record[S]{ID: in.id, ContactID: c.row.ContactID, OccurredAt: t.Due, Timer: &Timer{What: t.What, Due: t.Due}}
	return m.step(c, r, in.cause, hops, now)
}

// again steps a record that was forwarded or redriven. It has had its number.
func (m *machine[S]) again(c *contact[S], in *incoming) error {
	inner, err := in.open(m.codec)
	if errors.Is(err, schemas.ErrRegistryUnavailable) {
		return err
	}
	if err != nil {
		return m.giveUp(in, "undecodable", err)
	}
	switch inner.kind() {
	case derived:
		if !inner.redriven {
			if inner.fact.WriterSeq <= c.row.Heard[writer(inner.fact, c.row.ContactID)] {
				return nil
			}
			c.hear(inner.fact)
		}
	case handover, command:
		return m.handle(c, inner)
	}
	r := &Record[S]{ID: inner.id, ContactID: c.row.ContactID, Event: inner.event, Fact: inner.fact}
	return m.step(c, r, in.cause, inner.hops(), m.now)
}

// step calls the processor and takes over what it says. Of a record that fails nothing
// is left but its number and a dead letter.
func (m *machine[S]) step(c *contact[S], r *Record[S], cause *stream.Record, hops int, now time.Time) error {
	r.Seq, r.Era = c.row.Seq, c.row.Era
	switch {
	case r.Event != nil:
		r.OccurredAt = r.Event.OccurredAt
	case r.Fact != nil:
		r.OccurredAt = r.Fact.OccurredAt
	}
	result, err := m.guarded(c.state, r, now)
	reason := "failed"
	if err == nil && hops+1 > maxHops && anyHops(result.Outputs) {
		reason, err = "loop", fmt.Errorf("%d facts followed from one another up to %s %s, and more would follow: a circle", hops, cause.Type, cause.ID)
	}
	if err != nil {
		return m.giveUp(&incoming{cause: cause}, reason, err)
	}
	c.state, c.stepped = result.State, true
	c.arm(result.Timers, hops, now)
	return m.publish(c, r, cause, result.Outputs, hops+1, now)
}

// guarded turns a panic of the processor into an error: it is as deterministic as one.
func (m *machine[S]) guarded(s S, r *Record[S], now time.Time) (result Result[S], err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %s", schemas.PanicText(p))
		}
	}()
	return m.p.Step(s, r, now)
}

func (m *machine[S]) giveUp(in *incoming, reason string, failure error) error {
	return m.out.DeadLetter(in.cause, "processor:"+m.p.Name(), reason, failure)
}

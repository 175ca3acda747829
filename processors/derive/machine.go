package derive

import (
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
	l     Logic[S]
	codec *schemas.Codec
	out   outlet
	now   time.Time
	alone bool // the batch is one record: it cannot be halved to find the one at fault
	off   rule

	beside           map[string]*storage.Beside // of contacts that are taken over or filled
	filled, unfilled int                        // contacts
	cancelled        []string                   // outbox records that steps took back
	why              error                      // the last of those could not be filled
	answers          []storage.Answer           // to who waits
}

// handle applies a record to its contact, or has it wait, and then whatever waited for it.
func (m *machine[S]) handle(c *contact[S], in *incoming) error {
	if c.row.Ended {
		return m.late(c, in)
	}
	var err error
	switch kind := in.kind(); {
	case kind == direct && (in.isOf(schemas.SignalTimer) || !m.mustWait(c, in)):
		err = m.obey(c, in)
	case kind != derived || m.l.Wants(in.fact.Type):
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
	for next := c.ready(m.off); next != nil && !m.mustWait(c, next); next = c.ready(m.off) {
		c.release(next)
		if err := m.apply(c, next); err != nil {
			return err
		}
	}
	if c.row.Survivor == "" || c.row.Ended || !c.complete() && !m.off.has(ruleLast) {
		return nil
	}
	if err := m.sayLast(c, in); err != nil {
		return err
	}
	return m.handOver(c, in.cause)
}

// obey does what a signal says.
func (m *machine[S]) obey(c *contact[S], in *incoming) error {
	s := in.signal
	switch {
	case s.Type == schemas.SignalDeleted:
		m.erase(c)
	case s.Type == schemas.SignalMerged && s.Merged != nil:
		c.row.Survivor, c.row.Last, c.row.LastEra, c.touched = s.Merged.Survivor, s.Merged.Seq, s.Merged.Era, true
		c.whole = true
	case s.Type == schemas.SignalTimer:
		return m.due(c, in)
	case s.Type == schemas.SignalRecord:
		return m.again(c, in)
	case s.Type == schemas.SignalCommand && c.known():
		r := &Record[S]{ID: in.id, ContactID: c.row.ContactID, OccurredAt: s.OccurredAt, Command: commandOf(s)}
		return m.step(c, r, in.cause, in.hops(), m.now)
	}
	return nil
}

// erase leaves nothing of a contact, nor of those that wait to be taken in: what of them is
// kept beside states is the survivor's to forget.
func (m *machine[S]) erase(c *contact[S]) {
	c.forget = append(append(c.forget, c.row.ContactID), c.row.Took...)
	for _, in := range c.held {
		c.forgetHanded(in)
	}
	c.end("")
	if m.off.has(ruleOwnMark) {
		c.row.Ended, c.row.Seq = false, 0
	}
}

// forgetHanded forgets whom a hand-over is of.
func (c *contact[S]) forgetHanded(in *incoming) {
	if h, err := in.handed(); err == nil {
		c.forget = append(append(c.forget, h.Loser), h.Took...)
	}
}

// late is for what reaches a contact that ended. A survivor is given what it has to know;
// what was erased is gone.
func (m *machine[S]) late(c *contact[S], in *incoming) error {
	switch {
	case c.row.Survivor == "":
		c.forgetHanded(in)
		return nil
	case in.kind() == handover, in.isOf(schemas.SignalRecord), in.isOf(schemas.SignalCommand), in.kind() == receipt:
		return m.forwardSignal(c, in)
	case in.kind() == derived && m.l.Wants(in.fact.Type):
		return m.forwardFact(c, in)
	}
	return nil
}

// apply steps a record, which takes its number whatever comes of it.
func (m *machine[S]) apply(c *contact[S], in *incoming) error {
	if in.kind() == direct {
		return m.obey(c, in)
	}
	r := &Record[S]{ID: in.id, ContactID: c.row.ContactID, Event: in.event, Fact: in.fact}
	switch in.kind() {
	case numbered:
		c.row.Seq, c.row.Era = max(in.seq, c.row.Seq), in.era
	case derived:
		c.hear(in.fact)
	}
	c.touched = true
	if in.kind() == receipt {
		if !c.known() {
			return nil
		}
		r.Receipt, r.OccurredAt = in.signal.Receipt, in.signal.OccurredAt
		r.ReceiptEpoch = in.signal.Epoch
		return m.step(c, r, in.cause, in.hops(), m.now)
	}
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
	c.touched, c.whole = true, true
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
	if l.State, err = m.p.Decode(h.State); err != nil {
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
	if !isWaiting(t) {
		if again := m.lacks(c, in); !again.IsZero() {
			c.postpone(i, again)
			return nil
		}
	}
	c.timers = slices.Delete(slices.Clone(c.timers), i, i+1)
	c.touched = true
	if isWaiting(t) {
		return nil // whoever calls looks at what waits
	}
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
	case handover, direct, receipt:
		return m.handle(c, inner)
	}
	r := &Record[S]{ID: inner.id, ContactID: c.row.ContactID, Event: inner.event, Fact: inner.fact}
	return m.step(c, r, in.cause, inner.hops(), m.now)
}

// step calls the processor and takes over what it says. Of a record that fails nothing
// is left but its number and a dead letter.
func (m *machine[S]) step(c *contact[S], r *Record[S], cause *stream.Record, hops int, now time.Time) error {
	r.Seq, r.Era, r.Hops = c.row.Seq, c.row.Era, hops
	r.Place = Place{cause.Topic, cause.Partition, cause.Offset, cause.AppendTime}
	switch {
	case r.Event != nil:
		r.OccurredAt = r.Event.OccurredAt
	case r.Fact != nil:
		r.OccurredAt = r.Fact.OccurredAt
	}
	before, err := m.before(c, hops)
	if err != nil {
		return err
	}
	result, err := guarded(before.known, func() (Result[S], error) { return m.l.Step(c.state, r, now) })
	hops = result.led(hops)
	reason := "failed"
	if err == nil && hops+1 > maxHops && anyHops(result.Outputs) {
		reason, err = "loop", fmt.Errorf("%d facts followed from one another up to %s %s, and more would follow: a circle", hops, cause.Type, cause.ID)
	}
	if err != nil {
		return errors.Join(m.giveUp(&incoming{cause: cause}, reason, err), m.restore(c, &before))
	}
	return m.accept(c, r.ID, cause, &result, hops, now)
}

// led is how many causes led to what follows, when as many led to the record.
func (r *Result[S]) led(hops int) int {
	if r.Hops != nil {
		return *r.Hops
	}
	return hops
}

// accept takes over what the logic says.
func (m *machine[S]) accept(c *contact[S], causeID string, cause *stream.Record, result *Result[S], hops int, now time.Time) error {
	c.state = result.State
	c.stepped = c.stepped || !result.Same
	c.arm(result.Timers, hops, now)
	m.cancelled = append(m.cancelled, result.Cancel...)
	if result.Answer != nil {
		m.answers = append(m.answers, *result.Answer)
	}
	return m.publish(c, causeID, cause, result.Outputs, hops+1, now)
}

// earlier is the state before a step, which one that fails may leave half changed.
type earlier[S any] struct {
	known  bool
	loaded bool // it is as it was loaded
	state  S    // a copy; of one that is not as it was loaded
}

// before keeps the state as it is now: as it was loaded, or a copy where that is worth it.
func (m *machine[S]) before(c *contact[S], hops int) (e earlier[S], err error) {
	switch {
	case !c.stepped:
		return earlier[S]{known: true, loaded: true}, nil
	case m.alone || hops >= maxHops:
		if e.state, err = m.p.Clone(c.state); err != nil {
			return e, fmt.Errorf("state of contact %s: %w", c.row.ContactID, err)
		}
		e.known = true
	}
	return e, nil
}

// restore goes back to the state before a step, where that is known; else the step only
// returned an error, and so it left the state alone.
func (m *machine[S]) restore(c *contact[S], e *earlier[S]) (err error) {
	switch {
	case !e.known:
		return nil
	case !e.loaded:
		c.state = e.state
		return nil
	}
	if c.state, err = decodeState(m.p, c.loaded); err != nil {
		return fmt.Errorf("state of contact %s: %w", c.row.ContactID, err)
	}
	return nil
}

// decodeState is a state as it was encoded; the zero one when it was not.
func decodeState[S any](p Processor[S], text []byte) (s S, err error) {
	if text == nil {
		return s, nil
	}
	return p.Decode(text)
}

// guarded turns a panic of the logic into an error, for it is as deterministic as one, if
// the state before it is known. Else the batch fails, and its records come again in
// smaller ones.
func guarded[S any](known bool, call func() (Result[S], error)) (result Result[S], err error) {
	defer func() {
		if !known {
			return
		}
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %s", schemas.PanicText(p))
		}
	}()
	return call()
}

func (m *machine[S]) giveUp(in *incoming, reason string, failure error) error {
	return m.out.DeadLetter(in.cause, "processor:"+m.p.Name(), reason, failure)
}

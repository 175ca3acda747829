package derive

import (
	"encoding/json"
	"fmt"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// handOver sends all that is kept of a contact that was merged away to its survivor, also
// when that is nothing: the survivor waits for it. What waits here for other contacts goes
// the same way.
func (m *machine[S]) handOver(c *contact[S], cause *stream.Record) error {
	signal, err := m.handoverOf(c)
	if err != nil {
		return err
	}
	if err := m.out.Emit(cause, signal); err != nil {
		return err
	}
	for _, in := range c.held {
		switch in.kind() {
		case handover, receipt:
			err = m.forwardSignal(c, in)
		case direct:
			if in.isOf(schemas.SignalRecord) || in.isOf(schemas.SignalCommand) {
				err = m.forwardSignal(c, in)
			}
		case derived:
			err = m.forwardFact(c, in)
		}
		if err != nil {
			return err
		}
	}
	last := c.state
	c.end(c.row.Survivor)
	c.last = last
	return nil
}

// sayLast publishes what a contact that is merged away says last. When it was taken over as
// one, nothing was ever told of it, and nothing is told now.
func (m *machine[S]) sayLast(c *contact[S], in *incoming) error {
	now := m.now
	if at := in.cause.AppendTime; !at.IsZero() && at.Before(now) {
		now = at // it is late
	}
	state, said := m.l.HandOver(c.state, c.row.ContactID, now)
	c.state = state
	return m.publish(c, schemas.Derive(c.row.ContactID, "last:"+m.p.Name(), 0), in.cause, said, in.hops()+1, m.now)
}

func (m *machine[S]) handoverOf(c *contact[S]) (*schemas.Signal, error) {
	state, err := m.p.Encode(c.state)
	if err != nil {
		return nil, fmt.Errorf("state of contact %s: %w", c.row.ContactID, err)
	}
	text, err := json.Marshal(handed{Loser: c.row.ContactID, Took: c.row.Took, State: state})
	if err != nil {
		return nil, fmt.Errorf("hand contact %s over: %w", c.row.ContactID, err)
	}
	doc := string(text)
	return &schemas.Signal{
		ID: schemas.Derive(c.row.ContactID, "handover:"+m.p.Name(), 0), Type: schemas.SignalHandover, For: m.p.Name(),
		ContactID: c.row.Survivor, OccurredAt: m.now, State: &doc,
	}, nil
}

// forwardSignal sends a signal on to the survivor.
func (m *machine[S]) forwardSignal(c *contact[S], in *incoming) error {
	onward := *in.signal
	onward.ID, onward.ContactID = schemas.Derive(in.signal.ID, "forward", 0), c.row.Survivor
	return m.out.Emit(in.cause, &onward)
}

// forwardFact sends a derived fact on to the survivor, once.
func (m *machine[S]) forwardFact(c *contact[S], in *incoming) error {
	if in.fact.WriterSeq <= c.row.Heard[writer(in.fact, c.row.ContactID)] {
		return nil
	}
	c.hear(in.fact)
	onward, err := stream.Enclose(in.cause, m.p.Name(), c.row.Survivor, false)
	if err != nil {
		return err
	}
	return m.out.Emit(in.cause, onward)
}

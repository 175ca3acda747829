package derive

import (
	"fmt"
	"slices"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// takeOver is a contact as Postgres knows it, or that it has ended; nil of a mark that is
// not looked at. A contact that was merged away hands over what is stored of it, in case
// the survivor has not taken it in yet.
func (m *machine[S]) takeOver(t *storage.Taken, cause *stream.Record) (*contact[S], error) {
	c := &contact[S]{row: storage.Derived{ContactID: t.ContactID, Partition: t.Partition}, touched: true}
	var before S
	if t.Before != nil { // its numbers go on
		c.row.Written, c.row.Epoch, c.row.Heard = t.Before.Written, t.Before.Epoch, t.Before.Heard
		var err error
		if before, err = decodeState(m.p, t.Before.State); err != nil {
			return nil, fmt.Errorf("state of contact %s from before: %w", t.ContactID, err)
		}
	}
	switch {
	case t.Contact != nil:
		c.row.Seq, c.row.Era, c.row.Took = t.Contact.Seq, t.Contact.Era, slices.Clone(t.Contact.Merged)
	case m.off.has(ruleMarks):
		return nil, nil
	case t.Survivor == "":
		c.end("")
		if t.Before != nil && t.Before.State != nil {
			c.forget = append(c.forget, t.ContactID)
		}
		return c, nil
	default:
		c.row.Survivor, c.row.Took = t.Survivor, t.Losers
	}
	var timers []Timer
	c.state, timers = m.l.TakeOver(before, &Known{Contact: t.Contact, Events: t.Events, Beside: m.beside[t.ContactID]}, m.now)
	c.stepped = true
	if t.Contact != nil {
		c.arm(timers, 0, m.now)
		return c, nil
	}
	if t.Before != nil && t.Before.State != nil { // it was told of, and this is silent
		c.state, _ = m.l.HandOver(c.state, t.ContactID, m.now)
	}
	if m.off.has(ruleMarkHand) {
		c.end(t.Survivor)
		return c, nil
	}
	return c, m.handOver(c, cause)
}

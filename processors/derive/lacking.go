package derive

import (
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Lacking is a Logic that lacks something which other processes may have, as the code of a
// definition while a deploy goes on. What needs that waits, and with it what comes later for
// its contact, until a process steps it that has it, or until the Logic goes on without.
type Lacking[S any] interface {
	Logic[S]
	// Lacks says that a step of the record needs what this process lacks: the record waits, and
	// is looked at again at that time, by whoever has the contact then. Zero: it is stepped. Of
	// r its ids and what it is about are set.
	Lacks(s S, r *Record[S], now time.Time) time.Time
}

// lacks is when a record is to be looked at again, because a step of it needs what this
// process lacks; zero when it does not.
func (m *machine[S]) lacks(c *contact[S], in *incoming) time.Time {
	l, lacking := m.l.(Lacking[S])
	if !lacking {
		return time.Time{}
	}
	r := &Record[S]{ID: in.id, ContactID: c.row.ContactID, Event: in.event, Fact: in.fact}
	switch {
	case in.event != nil || in.fact != nil:
	case in.kind() == receipt:
		r.Receipt, r.ReceiptEpoch = in.signal.Receipt, in.signal.Epoch
	case in.isOf(schemas.SignalTimer):
		r.Timer = &Timer{What: in.signal.What}
	case in.isOf(schemas.SignalCommand):
		r.Command = commandOf(in.signal)
	case in.isOf(schemas.SignalRecord):
		inner, err := in.open(m.codec)
		if err != nil {
			return time.Time{} // again says so
		}
		return m.lacks(c, inner)
	default: // no step comes of it
		return time.Time{}
	}
	return l.Lacks(c.state, r, m.now)
}

// isWaiting says that a timer has its contact looked at again, and is none of the logic's.
func isWaiting(t storage.Timer) bool { return t.What == storage.TimerWaiting }

// mustWait says that a record waits for another process, and has the contact looked at again.
func (m *machine[S]) mustWait(c *contact[S], in *incoming) bool {
	again := m.lacks(c, in)
	if again.IsZero() {
		return false
	}
	if !slices.ContainsFunc(c.timers, isWaiting) {
		c.timers = append(slices.Clip(c.timers), c.timer(Timer{storage.TimerWaiting, again}, 0, m.now))
	}
	return true
}

// postpone has a timer told again later.
func (c *contact[S]) postpone(i int, again time.Time) {
	t := c.timers[i]
	later := c.timer(Timer{t.What, again}, t.Hops, t.ArmedAt)
	c.timers = slices.Concat(c.timers[:i], []storage.Timer{later}, c.timers[i+1:])
}

// timer is a timer that is armed now.
func (c *contact[S]) timer(t Timer, hops int, now time.Time) storage.Timer {
	c.row.Epoch++
	c.touched = true
	return storage.Timer{
		ContactID: c.row.ContactID, Partition: c.row.Partition, What: t.What, Due: t.Due.UTC().Truncate(time.Microsecond), Epoch: c.row.Epoch, Hops: hops, ArmedAt: now,
	}
}

// commandOf is what a signal tells the processor to do.
func commandOf(s *schemas.Signal) *Command {
	c := &Command{What: s.What}
	if s.State != nil {
		c.JSON = *s.State
	}
	return c
}

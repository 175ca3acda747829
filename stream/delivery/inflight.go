package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// work makes one attempt after the other while there is something to send.
func (c *courier) work(f *flight) {
	for f != nil {
		started, replay := time.Now(), f.track.backfill != nil
		out := c.attempt(f)
		c.mu.Lock()
		c.settle(f, out, started)
		c.flying--
		if replay {
			c.replaying--
		}
		f = c.next()
		c.mu.Unlock()
	}
}

// attempt delivers the flight, or appends its dead letters, within the deadline.
// A panic is the fault of the record that caused it: another try would end the
// same way, and one record must not end the process again and again.
//
// The deadline counts from when the lease was checked: a process that is stopped
// right after that, and wakes up when another has the lease, must not send it.
func (c *courier) attempt(f *flight) (out Outcome) {
	ctx, done := context.WithDeadline(f.track.holding.ctx, f.sentAt.Add(c.env.cfg.Deadline))
	defer done()
	defer func() {
		if cause := recover(); cause != nil {
			c.env.log.Error("delivery.panicked", zap.String("destination", f.dest.Name), zap.String("panic", schemas.PanicText(cause)), zap.Stack("stack"))
			out = Outcome{Verdict: Reject, Err: "panic: " + schemas.PanicText(cause)}
		}
	}()
	if f.dead != nil {
		return c.appendDead(ctx, f)
	}
	d := Delivery{Destination: f.dest, Records: f.records, Attempt: f.tries + 1, ReplayID: f.track.replay}
	if f.track.backfill != nil {
		d.CPULimiter = c.env.cpu
	}
	return c.env.deliverer.Deliver(ctx, d)
}

// appendDead appends the dead letters of a flight. One that is too large with the
// original bytes in it goes without them; the log has them for a while.
func (c *courier) appendDead(ctx context.Context, f *flight) Outcome {
	err := c.env.appender.Append(ctx, f.dead...)
	if err == nil {
		return Outcome{Verdict: Delivered}
	}
	if errors.Is(err, stream.ErrTooLarge) {
		for _, m := range f.dead {
			if d, ok := m.(*schemas.DeadLetter); ok && d.RecordValue != nil {
				d.RecordValue = nil
				d.Error += "; the record is too large to be copied here"
			}
		}
	}
	return Outcome{Verdict: Retry, Err: err.Error()}
}

// inFlight holds the attempts under way, so that a destination that takes requests
// and answers none is noticed before their deadlines are over: the circuit opens
// when nothing was answered for hangAfter and requests of circuitKeys contacts, or
// all that may be in flight, have been waiting that long. One that is only slow
// loses little by that: its next answer closes the circuit. Guarded by the
// courier's mutex.
type inFlight struct {
	flights  []*flight
	answered time.Time // when the last attempt ended with any answer but a failure
	timer    *time.Timer
	watching bool
}

const (
	// hangAfter leaves time for a few requests and a look at them within the 10 s in
	// which a circuit is to open.
	hangAfter = 7 * time.Second
	hangPoll  = 500 * time.Millisecond // the poll interval while nothing is answered
)

// started notes that an attempt begins.
func (a *inFlight) started(c *courier, f *flight, now time.Time) {
	f.slot, f.sentAt = len(a.flights), now
	a.flights = append(a.flights, f)
	if !a.watching {
		a.watching = true
		a.checkIn(c, hangAfter)
	}
}

// ended notes that an attempt has ended.
func (a *inFlight) ended(f *flight) {
	last := a.flights[len(a.flights)-1]
	a.flights[f.slot], last.slot = last, f.slot
	a.flights[len(a.flights)-1] = nil
	a.flights = a.flights[:len(a.flights)-1]
}

func (a *inFlight) checkIn(c *courier, wait time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, c.watchInFlight)
		return
	}
	a.timer.Reset(wait)
}

// watchInFlight opens the circuit when requests hang, and checks again as long as any
// is under way.
func (c *courier) watchInFlight() {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.inFlight
	if len(a.flights) == 0 || c.ended {
		a.watching = false
		return
	}
	now := time.Now()
	silent := now.Sub(a.answered)
	if silent < hangAfter {
		a.checkIn(c, hangAfter-silent)
		return
	}
	hanging, contacts := a.hanging(now)
	if !c.circuit.open && !c.halted && (contacts >= circuitKeys || hanging >= c.limit) {
		c.openCircuit(now, Outcome{Err: fmt.Sprintf("%d requests have had no answer for %s", hanging, hangAfter)})
		c.rearm()
	}
	a.checkIn(c, hangPoll)
}

// hanging counts the attempts that have been waiting for too long, and their
// contacts up to circuitKeys.
func (a *inFlight) hanging(now time.Time) (hanging, contacts int) {
	var keys map[string]struct{}
	for _, f := range a.flights {
		if f.dead != nil || now.Sub(f.sentAt) < hangAfter {
			continue // a dead letter says nothing about the destination
		}
		hanging++
		keys = addKeys(keys, f, circuitKeys)
	}
	return hanging, len(keys)
}

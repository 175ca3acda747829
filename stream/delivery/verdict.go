package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// settle draws the consequence of an attempt. The mutex is held.
func (c *courier) settle(f *flight, out Outcome, started time.Time) {
	t := f.track
	t.flying--
	c.air.land(f)
	f.tries++
	if f.started.IsZero() {
		f.started = started
	}
	if f.dead == nil {
		c.note(f, out, started)
		c.health.note(out, time.Now())
	}
	if t.retired {
		if f.probe {
			c.circuit.probing = false
		}
		// Whoever owns the partition now starts from the cursor; only a success is
		// worth keeping, so that it is not repeated.
		switch out.Verdict {
		case Delivered, Skipped, Erased:
			t.finish(f)
		case Partial:
			done, _, _ := c.divide(f, out)
			t.finish(done)
		}
		c.env.flush.mark(t)
		if t.flying == 0 {
			close(t.idle)
		}
		return
	}
	c.watch(f, out)
	c.judge(f, out)
	c.enqueue(t)
	c.env.flush.mark(t)
	if c.circuit.open {
		c.rearm()
	}
}

func (c *courier) judge(f *flight, out Outcome) {
	verdict := out.Verdict
	if verdict == Partial && len(out.Results) != len(f.items) {
		verdict = Retry // cannot be: the Deliverer says one for each
	}
	if f.dead != nil && verdict != Delivered {
		verdict = Retry
	}
	if len(f.items) > 1 && verdict == Reject {
		verdict = Split
	} else if len(f.items) == 1 && verdict == Split {
		verdict = Reject
	}
	switch verdict {
	case Delivered, Skipped, Erased:
		c.arrived(f, verdict)
	case Reject:
		c.bury(f, "rejected", out)
	case Split:
		f.tries-- // no failure of theirs: the halves have been tried as often as before
		f.split()
		c.again.push(f)
	case Partial:
		c.settleEach(f, out)
	case Refuse, Gone:
		c.refused(f, out)
		c.retry(f, out)
	default:
		c.retry(f, out)
	}
}

// arrived finishes a flight.
func (c *courier) arrived(f *flight, verdict Verdict) {
	if verdict == Delivered && f.dead == nil {
		c.accepted()
	}
	f.track.finish(f)
	switch {
	case f.after != nil:
		f.after()
	case f.then != nil:
		c.again.push(f.then)
	}
	c.freeFlight(f)
}

// retry keeps the flight's lanes busy until the next attempt is due, parks the key
// that holds them up, or gives the records up when they have failed for the whole
// retry horizon.
func (c *courier) retry(f *flight, out Outcome) {
	now := time.Now()
	if f.dead == nil {
		c.clock.failed(f, now)
	}
	open := c.openTime(now)
	if f.firstFailed.IsZero() {
		f.since, f.firstFailed, f.lastFailed = open, f.started, f.started
		f.unpin()
	}
	loaded := len(f.items) == 1 && f.items[0].stored != nil && f.dead == nil
	switch {
	case loaded && c.expired(f, open), !loaded && f.dead == nil && open-f.since >= c.horizon():
		c.bury(f, "expired", out)
		return
	case loaded:
		c.park(f, out, now)
		return
	case c.shouldPark(f, now) && len(f.items) == 1:
		c.park(f, out, now)
		return
	case c.shouldPark(f, now):
		// One of the batch is at fault: halves, until it is alone.
		f.lastFailed = now
		f.split()
		c.again.push(f)
		return
	}
	f.lastFailed, f.asked = now, now.Add(out.RetryAfter)
	f.due = now.Add(backoff(f.tries, c.env.cfg.BackoffBase, c.env.cfg.BackoffMax, rand.Float64(), out.RetryAfter))
	if parkAt := f.firstFailed.Add(parkAfter); f.track.parks() && f.due.After(parkAt) && now.Before(parkAt) {
		f.notBefore, f.due = f.due, parkAt
	}
	if c.later.add(f) {
		c.rearm()
	}
}

// waited says whether a flight that was to wait may start now. One that is to wait
// for longer than parkAfter is looked at in between: it may have to be parked.
func (c *courier) waited(f *flight, now time.Time) bool {
	if !now.Before(f.notBefore) {
		return true
	}
	if c.shouldPark(f, now) && len(f.items) == 1 {
		c.park(f, Outcome{Verdict: Retry, Err: "the receiver asked to wait"}, now)
		return false
	}
	f.due, f.notBefore = f.notBefore, time.Time{}
	c.later.add(f)
	return false
}

func (c *courier) horizon() time.Duration {
	if h := c.dest.RetryHorizon; h > 0 {
		return h
	}
	return c.env.cfg.RetryHorizon
}

// rearm sets the timer to the first retry that is not due yet. Those that are
// due and could not start are taken by whatever frees their way: a worker that
// ends, a renewed lease, a flush, a resume.
func (c *courier) rearm() {
	var wait time.Duration
	switch {
	case c.halted, c.circuit.probing:
		return
	case c.circuit.open:
		wait = time.Until(c.circuit.probeAt)
	case len(c.later) > 0:
		wait = time.Until(c.later[0].due)
	default:
		return
	}
	switch {
	case wait <= 0:
	case c.timer == nil:
		c.timer = time.AfterFunc(wait, c.remind)
	default:
		c.timer.Reset(wait)
	}
}

// remind is called when the first retry is due.
func (c *courier) remind() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dispatch()
	c.rearm()
	if c.circuit.open && !c.circuit.probing { // there was nothing to probe with
		for _, t := range c.tracks {
			t.holding.wake()
		}
		c.env.loader.wake()
	}
}

// bury gives the records of a flight up: they become dead letters, appended
// before their offsets count as finished.
func (c *courier) bury(f *flight, reason string, out Outcome) {
	for i, r := range f.records {
		cause := out.Err
		if out.Results != nil {
			cause = out.Results[i].Err
		}
		if cause == "" {
			cause = fmt.Sprintf("HTTP %d", out.Status)
		}
		d := stream.NewDeadLetter(r, "destination:"+c.dest.Name, reason, errors.New(cause), time.Now())
		d.Attempts, d.DestinationID = f.tries, &c.id
		if out.Status != 0 {
			d.ResponseCode = &out.Status
		}
		if len(out.Response) > 0 {
			body := stream.CleanText(string(out.Response))
			d.ResponseBody = &body
		}
		f.dead = append(f.dead, d)
	}
	f.tries = 0
	c.again.push(f)
	c.metrics.dead.Add(float64(len(f.dead)))
}

// The destination is at fault when this many attempts in a row were refused, over
// at least so many contacts: one contact may be refused for its own sake.
const (
	suspendAfter = 20
	suspendKeys  = 5
)

// refused counts an answer that is the destination's fault and suspends the
// destination when there are too many: a rotated secret or a moved URL must not
// empty a topic into dead letters.
func (c *courier) refused(f *flight, out Outcome) {
	c.refusals++
	if c.refusedKeys == nil {
		c.refusedKeys = map[string]struct{}{}
	}
	for _, r := range f.records {
		if len(c.refusedKeys) < suspendKeys {
			c.refusedKeys[string(r.Key)] = struct{}{}
		}
	}
	if c.halted || out.Verdict != Gone && (c.refusals < suspendAfter || len(c.refusedKeys) < suspendKeys) {
		return
	}
	last := out.Class()
	reason := fmt.Sprintf("%d attempts in a row were refused, the last with: %s", c.refusals, last)
	if out.Verdict == Gone {
		reason = "the receiver is gone: " + last
	}
	c.halt(true)
	c.suspended = c.dest.Revision
	c.metrics.suspended.Inc()
	c.env.log.Error("destination.suspended", zap.String("destination", c.dest.Name), zap.String("id", c.id), zap.String("reason", reason))
	c.env.suspend(c.dest, reason)
}

// note writes the attempt to the delivery log and the metrics.
func (c *courier) note(f *flight, out Outcome, started time.Time) {
	policy := cmp.Or(c.dest.DeliveryLog, c.env.cfg.DeliveryLog)
	if policy == "off" {
		return
	}
	t := f.track
	each := out.Verdict == Partial && len(out.Results) == len(f.records)
	written := 0
	for i, r := range f.records {
		if each {
			out.Verdict, out.Err = out.Results[i].Verdict, out.Results[i].Err
		}
		status, latency, response := out.Status, out.Latency, out.Response
		if out.Verdict == Skipped { // the request was about others
			status, latency, response = 0, 0, nil
		}
		if policy == "failures" && (out.Verdict == Delivered || out.Verdict == Skipped || out.Verdict == Erased) {
			continue
		}
		written++
		t.results = append(t.results, storage.Attempt{
			At: started, DestinationID: c.id, ReplayID: t.replay,
			RecordID: r.ID, RecordType: r.Type, RecordKey: string(r.Key),
			Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset,
			Attempt: f.tries, Outcome: out.Verdict.String(), Status: status,
			Latency: latency, Error: stream.CleanText(out.Err), Response: response,
		})
	}
	t.unflushed += written
	c.env.flush.pending.Add(int64(written))
}

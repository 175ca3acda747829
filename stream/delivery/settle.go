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

// settle ends an attempt: it is logged, what it tells of the destination is kept, and
// what follows from it (consequence.go) is carried out. The mutex is held.
func (c *courier) settle(f *flight, out Outcome, started time.Time) {
	t, now := f.track, time.Now()
	t.flying--
	c.inFlight.ended(f)
	f.tries++
	if f.started.IsZero() {
		f.started = started
	}
	c.learn(f, &out, started, now)
	s := c.situation(f, now)
	q := decide(&s, &out, now, &c.env.cfg, rand.Float64())
	c.carryOut(f, &out, &q, now)
	c.enqueue(t)
	c.env.flush.mark(t)
	if c.circuit.open {
		c.rearm()
	}
	if t.retired && t.flying == 0 {
		close(t.idle)
	}
}

// learn keeps what an attempt tells of the destination.
func (c *courier) learn(f *flight, out *Outcome, started, now time.Time) {
	if f.probe {
		c.circuit.probing = false
	}
	if f.dead != nil {
		return
	}
	c.logAttempt(f, *out, started)
	c.health.note(*out, now)
	if f.track.retired {
		return
	}
	if out.Verdict == Refuse || out.Verdict == Gone {
		c.refusals++
		c.refusedKeys = addKeys(c.refusedKeys, f, suspendKeys)
	}
	if out.Verdict != Skipped {
		c.watch(f, out, now)
	}
}

// addKeys adds the contacts of a flight to a set of at most so many.
func addKeys(keys map[string]struct{}, f *flight, most int) map[string]struct{} {
	if keys == nil {
		keys = map[string]struct{}{}
	}
	for _, r := range f.records {
		if len(keys) < most {
			keys[string(r.Key)] = struct{}{}
		}
	}
	return keys
}

// situation is the one of a flight whose attempt has just ended, or which waits.
func (c *courier) situation(f *flight, now time.Time) situation {
	s := situation{
		records: f.records, letters: f.dead != nil, probe: f.probe, retired: f.track.retired, tries: f.tries,
		firstFailed: f.firstFailed, lastFailed: f.lastFailed, asked: f.asked,
		parkable: f.track.parks(), asks: f.asks(), notAfter: f.notAfter(),
		halted: c.halted, circuitOpen: c.circuit.open, mostFail: c.circuit.mostFail, lastDelivery: c.lastDelivery,
		refusals: c.refusals, refusedKeys: len(c.refusedKeys), horizon: c.horizon(),
	}
	switch first := f.items[0]; {
	case len(f.items) == 1 && first.stored != nil && f.dead == nil:
		s.loaded, s.failing = true, f.track.failingFor(first, c.openTime(now))
	case !f.firstFailed.IsZero():
		s.failing = c.openTime(now) - f.since
	}
	if f.firstFailed.IsZero() {
		s.firstFailed, s.lastFailed = f.started, f.started
	}
	return s
}

// carryOut does what follows from an attempt, and nothing else does.
func (c *courier) carryOut(f *flight, out *Outcome, q *consequence, now time.Time) {
	c.changeCircuit(q.circuit, out, now)
	if q.suspend != "" {
		c.suspend(q.suspend)
	}
	if q.accepted {
		c.accepted(now)
	}
	if q.failed {
		c.failed(f, now)
	}
	switch q.fate {
	case forget:
	case finish:
		c.finish(f, out)
	case retry:
		c.wait(f, q, now.Add(out.RetryAfter))
	case park:
		c.park(f, out, q.at, now)
	case bury:
		c.bury(f, q.reason, out)
	case split:
		if !q.failed {
			f.tries-- // no failure of theirs: the halves have been tried as often as before
		}
		f.split()
		c.again.push(f)
	case divide:
		c.divide(f, out, q)
	}
}

// suspend stops the destination at its position, and has that recorded.
func (c *courier) suspend(reason string) {
	c.halt(true)
	c.suspended = c.dest.Revision
	c.metrics.suspended.Inc()
	c.env.log.Error("delivery.destination_suspended", zap.String("destination", c.dest.Name), zap.String("id", c.id), zap.String("reason", reason))
	c.env.suspend(c.dest, reason)
}

// failed notes that the records of a flight have failed.
func (c *courier) failed(f *flight, now time.Time) {
	if f.dead == nil {
		c.clock.failed(f, now)
	}
	if f.firstFailed.IsZero() {
		f.since, f.firstFailed = c.openTime(now), f.started
		f.unpin()
	}
	f.lastFailed = now
}

// finish finishes the records of a flight, which have ended with this outcome; what waited for
// it goes on.
func (c *courier) finish(f *flight, out *Outcome) {
	f.tell(out, time.Now())
	f.track.finish(f)
	next, retired := f.then, f.track.retired
	c.freeFlight(f)
	switch {
	case next == nil || retired:
	case next.unsettled != nil:
		c.retryRest(next)
	default:
		c.again.push(next)
	}
}

// divide finishes some of a flight's records, gives some up, and sends the rest again.
// The rest waits for the dead letters: both may hold records of one lane.
func (c *courier) divide(f *flight, out *Outcome, q *consequence) {
	t := f.track
	done, dead := c.newFlight(t), c.newFlight(t)
	dead.tries = f.tries
	rejected := Outcome{Verdict: Reject, Status: out.Status, Response: out.Response, Answer: out.Answer}
	ended := Outcome{Verdict: Partial, Status: out.Status, Response: out.Response, Answer: out.Answer}
	i := -1
	f.removeIf(func(it item) bool {
		i++
		switch q.each[i] {
		case finish:
			done.add(it)
			ended.Results = append(ended.Results, out.Results[i])
		case bury:
			dead.add(it)
			rejected.Results = append(rejected.Results, out.Results[i])
		default:
			return false
		}
		return true
	})
	done.tries = f.tries
	c.finish(done, &ended)
	if t.retired {
		return
	}
	rest, next := q.rest, f
	f.unsettled = &rest
	if len(f.items) == 0 {
		next = f.then
		c.freeFlight(f)
	}
	dead.then = next
	if len(dead.items) > 0 {
		c.bury(dead, "rejected", &rejected)
	} else {
		c.finish(dead, &rejected)
	}
}

// retryRest goes on with what an attempt has left to be sent again.
func (c *courier) retryRest(f *flight) {
	out, now := f.unsettled, time.Now()
	f.unsettled = nil
	s := c.situation(f, now)
	q := s.again(out, now, &c.env.cfg, rand.Float64())
	c.carryOut(f, out, &q, now)
}

// bury gives the records of a flight up: they become dead letters, appended
// before their offsets count as finished.
func (c *courier) bury(f *flight, reason string, out *Outcome) {
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
		if status := out.Status; status != 0 {
			d.ResponseCode = &status
		}
		if len(out.Response) > 0 {
			body := stream.CleanText(string(out.Response))
			d.ResponseBody = &body
		}
		f.dead = append(f.dead, d)
	}
	f.lastOut, f.madeTries = *out, f.tries
	f.tries = 0
	c.again.push(f)
	c.metrics.dead.Add(float64(len(f.dead)))
}

func (c *courier) horizon() time.Duration {
	if h := c.dest.RetryHorizon; h > 0 {
		return h
	}
	return c.env.cfg.RetryHorizon
}

// logAttempt writes the attempt to the delivery log.
func (c *courier) logAttempt(f *flight, out Outcome, started time.Time) {
	policy := cmp.Or(c.dest.DeliveryLog, c.env.cfg.DeliveryLog)
	if policy == "off" {
		return
	}
	t := f.track
	each := (out.Verdict == Partial || out.Verdict == Delivered) && len(out.Results) == len(f.records)
	written := 0
	for i, r := range f.records {
		if each {
			out.Verdict, out.Err = out.Results[i].Verdict, out.Results[i].Err
		}
		status, latency, response := out.Status, out.Latency, out.Response
		if out.Verdict == Skipped { // the request was about others
			status, latency, response = 0, 0, nil
		}
		if policy == "failures" && (out.Verdict == Delivered || !out.Verdict.sent()) {
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

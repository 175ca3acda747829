package delivery

import (
	"container/heap"
	"time"

	"go.uber.org/zap"
)

// A circuit opens when most of a destination's calls fail, over several contacts,
// or when most of those under way hang (inflight.go).
// While it is open Kafka is the buffer: little more is fetched, and one request
// after the other probes, with a growing pause between them; one that gets any
// answer but a failure closes it, and everything goes on in its lanes, in order.
// Guarded by the courier's mutex.
type circuit struct {
	seconds [circuitSlots]struct {
		slot                  int64
		calls, failed, slowed int
	}
	keys     map[string]struct{} // that failed since the last success
	mostFail bool                // the last call failed, as most of late did: it is to open
	open     bool
	probing  bool
	probeAt  time.Time
	pause    time.Duration
}

// The circuit opens when, of the calls that ended within circuitSlots times
// circuitSlot, at least circuitFailures and more than half failed, over
// circuitKeys contacts without a success in between: a few contacts may fail for
// their own sake.
const (
	circuitSlots    = 10
	circuitSlot     = 500 * time.Millisecond
	circuitFailures = 10
	circuitKeys     = 5

	probePauseMin = time.Second
	probePauseMax = time.Minute
)

// watch takes note of how a call ended.
func (c *courier) watch(f *flight, out *Outcome, now time.Time) {
	if !out.failed() {
		c.inFlight.answered = now
		rate, limit := c.circuit.accepted(out.slowed(), now)
		c.limiter.slow.answered(out.slowed() && limit, rate, now)
	}
	if !c.circuit.open {
		c.circuit.mostFail = c.circuit.count(f, out.failed(), now)
	}
}

// count says whether so much has failed by now that the circuit is to open.
func (ci *circuit) count(f *flight, failed bool, now time.Time) bool {
	slot := now.UnixNano() / int64(circuitSlot)
	s := &ci.seconds[slot%circuitSlots]
	if s.slot != slot {
		s.slot, s.calls, s.failed, s.slowed = slot, 0, 0, 0
	}
	s.calls++
	if !failed {
		clear(ci.keys)
		return false
	}
	s.failed++
	ci.keys = addKeys(ci.keys, f, circuitKeys)
	calls, failures := 0, 0
	for i := range ci.seconds {
		if slot-ci.seconds[i].slot < circuitSlots {
			calls, failures = calls+ci.seconds[i].calls, failures+ci.seconds[i].failed
		}
	}
	return failures >= circuitFailures && 2*failures > calls && len(ci.keys) >= circuitKeys
}

// accepted notes a 429, and returns how many calls a second were answered otherwise
// of late and whether so many got a 429 that it tells of a limit: at least five, and
// more than a tenth.
func (ci *circuit) accepted(tooMany bool, now time.Time) (rate float64, limit bool) {
	slot := now.UnixNano() / int64(circuitSlot)
	if s := &ci.seconds[slot%circuitSlots]; tooMany && s.slot == slot {
		s.slowed++
	}
	calls, slowed, first := 0, 0, slot
	for _, s := range ci.seconds {
		if slot-s.slot < circuitSlots {
			calls, slowed, first = calls+s.calls, slowed+s.slowed, min(first, s.slot)
		}
	}
	return float64(calls-slowed) / (float64(slot-first+1) * circuitSlot.Seconds()), slowed >= 5 && 10*slowed > calls
}

// changeCircuit carries out what follows for the circuit.
func (c *courier) changeCircuit(change circuitChange, out *Outcome, now time.Time) {
	switch change {
	case circuitStays:
	case circuitOpens:
		c.openCircuit(now, *out)
	case circuitCloses:
		c.closeCircuit(now)
	case circuitProbesLater:
		c.circuit.pause = min(2*c.circuit.pause, probePauseMax)
		c.circuit.probeAt = now.Add(c.circuit.pause)
	}
}

func (c *courier) openCircuit(now time.Time, out Outcome) {
	c.circuit = circuit{open: true, pause: probePauseMin, probeAt: now.Add(probePauseMin)}
	c.setClock(now)
	c.metrics.circuits.Inc()
	c.env.log.Warn("delivery.circuit_opened", zap.String("destination", c.dest.Name), zap.Int("status", out.Status), zap.String("error", out.Class()))
}

// closeCircuit lets everything go on at once that the receiver did not ask to wait.
func (c *courier) closeCircuit(now time.Time) {
	c.circuit = circuit{}
	c.setClock(now)
	for _, f := range c.later {
		f.due, f.notBefore = f.asked, time.Time{}
		if parkAt := now.Add(parkAfter); f.track.parks() && f.due.After(parkAt) {
			f.notBefore, f.due = f.due, parkAt
		}
	}
	heap.Init(&c.later)
	c.env.log.Info("delivery.circuit_closed", zap.String("destination", c.dest.Name))
	for _, t := range c.tracks {
		t.full = false
		t.holding.wake()
	}
	c.env.loader.wake()
	c.dispatch()
}

// circuitBlocks says whether no attempt may start now because the circuit is open.
func (c *courier) circuitBlocks(now time.Time) bool {
	return c.circuit.open && (c.circuit.probing || now.Before(c.circuit.probeAt))
}

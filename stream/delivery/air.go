package delivery

import (
	"fmt"
	"time"
)

// The air holds the attempts under way, so that a destination that takes requests
// and answers none is noticed before their deadlines are over: the circuit opens
// when nothing was answered for hangAfter and requests of circuitKeys contacts, or
// all that may be in flight, have been waiting that long. One that is only slow
// loses little by that: its next answer closes the circuit. Guarded by the
// courier's mutex.
type air struct {
	flights  []*flight
	answered time.Time // when the last attempt ended with any answer but a failure
	timer    *time.Timer
	watching bool
}

const (
	// hangAfter leaves time for a few requests and a look at them within the 10 s in
	// which a circuit is to open.
	hangAfter = 7 * time.Second
	hangLook  = 500 * time.Millisecond // between two looks while nothing is answered
)

// takeOff notes that an attempt begins. The mutex is held.
func (c *courier) takeOff(f *flight, now time.Time) {
	a := &c.air
	f.slot, f.tookOff = len(a.flights), now
	a.flights = append(a.flights, f)
	if !a.watching {
		a.watching = true
		a.look(c, hangAfter)
	}
}

// land notes that an attempt has ended.
func (a *air) land(f *flight) {
	last := a.flights[len(a.flights)-1]
	a.flights[f.slot], last.slot = last, f.slot
	a.flights[len(a.flights)-1] = nil
	a.flights = a.flights[:len(a.flights)-1]
}

func (a *air) look(c *courier, wait time.Duration) {
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, c.watchAir)
		return
	}
	a.timer.Reset(wait)
}

// watchAir opens the circuit when requests hang, and looks again as long as any is
// under way.
func (c *courier) watchAir() {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &c.air
	if len(a.flights) == 0 || c.ended {
		a.watching = false
		return
	}
	now := time.Now()
	silent := now.Sub(a.answered)
	if silent < hangAfter {
		a.look(c, hangAfter-silent)
		return
	}
	hanging, contacts := a.hanging(now)
	if !c.circuit.open && !c.halted && (contacts >= circuitKeys || hanging >= c.limit) {
		c.openCircuit(now, Outcome{Err: fmt.Sprintf("%d requests have had no answer for %s", hanging, hangAfter)})
		c.rearm()
	}
	a.look(c, hangLook)
}

// hanging counts the attempts that have been waiting for too long, and their
// contacts up to circuitKeys.
func (a *air) hanging(now time.Time) (hanging, contacts int) {
	keys := map[string]struct{}{}
	for _, f := range a.flights {
		if f.dead != nil || now.Sub(f.tookOff) < hangAfter {
			continue // a dead letter says nothing about the destination
		}
		hanging++
		for _, r := range f.records {
			if len(keys) < circuitKeys {
				keys[string(r.Key)] = struct{}{}
			}
		}
	}
	return hanging, len(keys)
}

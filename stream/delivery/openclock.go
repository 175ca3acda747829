package delivery

import "time"

// An openClock counts a destination's open time: how long it was delivered to. The
// retry horizon is counted in it, so it stands still while the destination is halted
// and while its circuit is open. It also stops when nothing has been delivered for
// acceptsFor although attempts fail, which need not open the circuit: the receiver
// answers everything with 429, or refuses the few contacts there are. Guarded by the
// courier's mutex.
type openClock struct {
	total  time.Duration
	since  time.Time // it runs since then, unless it stands
	stands bool
	// Since the last delivery: when the first attempt failed, and the contacts whose
	// attempts did, up to circuitKeys.
	failing time.Time
	keys    map[string]struct{}
}

// acceptsFor is how long after the first failure since a delivery a destination still
// counts as one that accepts; acceptedFor how long it counts as one that did, once
// there is another delivery and only a few contacts have failed in between.
const (
	acceptsFor  = 5 * time.Minute
	acceptedFor = time.Hour
)

// at is the open time.
func (o *openClock) at(now time.Time) time.Duration {
	return o.within(acceptsFor, now)
}

// within is the open time when no more than so much counts of how long attempts fail.
func (o *openClock) within(failing time.Duration, now time.Time) time.Duration {
	if o.stands {
		return o.total
	}
	if until := o.failing.Add(failing); !o.failing.IsZero() && now.After(until) {
		now = until
	}
	return o.total + max(0, now.Sub(o.since))
}

// set stops the clock, or lets it go on.
func (o *openClock) set(stands bool, now time.Time) {
	if stands == o.stands {
		return
	}
	o.total = o.at(now)
	o.stands, o.since = stands, now
	o.failing, o.keys = time.Time{}, nil
}

// failed notes an attempt that failed.
func (o *openClock) failed(f *flight, now time.Time) {
	if o.failing.IsZero() {
		o.failing = now
	}
	o.keys = addKeys(o.keys, f, circuitKeys)
}

// delivered notes a delivery. When only a few contacts have failed since the one
// before, they did for their own sake, and the destination was open meanwhile:
// otherwise one with little to deliver would hardly ever give up a record.
func (o *openClock) delivered(now time.Time) {
	if o.failing.IsZero() {
		return
	}
	counts := acceptedFor
	if len(o.keys) >= circuitKeys {
		counts = acceptsFor
	}
	o.total, o.since = o.within(counts, now), now
	o.failing, o.keys = time.Time{}, nil
}

// openTime is how long the destination has been delivered to.
func (c *courier) openTime(now time.Time) time.Duration { return c.clock.at(now) }

// setClock stops the destination's open time, or lets it go on. The mutex is held.
func (c *courier) setClock(now time.Time) { c.clock.set(c.halted || c.circuit.open, now) }

// accepted notes that the destination took something just now.
func (c *courier) accepted(now time.Time) {
	c.refusals, c.refusedKeys = 0, nil
	c.lastDelivery = now
	c.clock.delivered(now)
}

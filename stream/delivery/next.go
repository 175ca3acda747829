package delivery

import (
	"cmp"
	"slices"
	"time"
)

// Which record of a destination goes next: one that waited and is due, then one from
// the tracks in turn, of each from the contact whose lane has been ready for longest.

// dispatch starts workers while there is something to send. The mutex is held.
func (c *courier) dispatch() {
	for {
		f := c.next()
		if f == nil {
			return
		}
		c.workers.Go(func() { c.work(f) })
	}
}

// next chooses the next flight and starts it: what is due again first, then the tracks
// in turn. nil when nothing can start now. The mutex is held.
func (c *courier) next() *flight {
	for !c.halted && c.flying < c.limit && !c.env.stopped.Load() && !c.env.flush.full() {
		now := time.Now()
		if c.circuitBlocks(now) || !c.hasWork(now) || c.rateLimited(now) {
			return nil
		}
		f, t := c.due(now)
		if f == nil && t == nil {
			return nil
		}
		if t.retired {
			continue
		}
		if !t.holding.mayStart(now.Add(c.env.cfg.Deadline)) {
			t.held = true
			if f != nil {
				t.waiting = append(t.waiting, f)
			}
			continue
		}
		if f == nil {
			f = t.cut(c.maxRecords, c.maxBytes)
			c.enqueue(t)
		}
		if c.dropUnwanted(f, now) {
			c.start(f, now)
			return f
		}
	}
	return nil
}

// start notes that a flight starts; its worker makes the attempt (inflight.go).
func (c *courier) start(f *flight, now time.Time) {
	f.dest = c.dest
	c.limiter.used(now)
	f.probe, c.circuit.probing = c.circuit.open, c.circuit.open
	c.inFlight.started(c, f, now)
	c.flying++
	f.track.flying++
	if f.track.backfill != nil {
		c.replaying++
	}
}

// due is a flight that waited, or else the track whose turn it is.
func (c *courier) due(now time.Time) (*flight, *track) {
	if c.circuit.open {
		return c.nextProbe(now)
	}
	for f := c.later.popDue(now); f != nil; f = c.later.popDue(now) {
		if c.waited(f, now) {
			c.rearm()
			return f, f.track
		}
	}
	if c.again.len() > 0 {
		f := c.again.pop()
		return f, f.track
	}
	return nil, c.nextTrack()
}

// nextProbe chooses what probes: rather a contact that has not failed yet, for its
// success says more.
func (c *courier) nextProbe(now time.Time) (*flight, *track) {
	if t := c.nextTrack(); t != nil {
		return nil, t
	}
	if c.again.len() > 0 {
		f := c.again.pop()
		return f, f.track
	}
	if f := c.later.popAsked(now); f != nil {
		return f, f.track
	}
	return nil, nil
}

// nextTrack is the track whose turn it is: live before backfills, mostly. The
// mutex is held.
func (c *courier) nextTrack() *track {
	c.turns++
	first, second := &c.turn, &c.replayTurn
	if c.replaying >= c.replayCap() || c.env.flush.busy() {
		second = nil
	} else if c.turns%replayEvery == 0 {
		first, second = second, first
	}
	for _, ring := range []*ring[*track]{first, second} {
		for ring != nil && ring.len() > 0 {
			t := ring.pop()
			t.inTurn = false
			if !t.retired && !t.held && t.ready.len() > 0 {
				return t
			}
		}
	}
	return nil
}

// replayEvery gives backfills every 8th turn even when live has much to send, so that
// they end some day.
const replayEvery = 8

// replayCap is how many requests of backfills may be in flight at once: a quarter
// stays for live.
func (c *courier) replayCap() int { return max(1, c.limit*3/4) }

// hasWork says whether something could start now, limits aside.
func (c *courier) hasWork(now time.Time) bool {
	return c.again.len() > 0 || c.turn.len() > 0 || c.replayTurn.len() > 0 || c.circuit.open ||
		len(c.later) > 0 && !c.later[0].due.After(now)
}

// cut makes a flight of what is ready. Lanes are taken in the order in which
// they became ready, so a busy contact waits behind the others after each record.
func (t *track) cut(maxRecords, maxBytes int) *flight {
	f := t.courier.newFlight(t)
	size := 0
	for t.ready.len() > 0 && len(f.items) < maxRecords {
		l := t.ready.first()
		if l.retrying && len(f.items) > 0 {
			break // it goes alone, for it may fail again
		}
		before := len(f.items)
		for l.queue.len() > 0 && len(f.items) < maxRecords {
			it := l.queue.first()
			if size += len(it.record.Value); size > maxBytes && len(f.items) > 0 {
				break
			}
			f.items = append(f.items, l.queue.pop())
			l.busy++
		}
		if len(f.items) == before {
			break
		}
		t.ready.pop()
		if maxRecords == 1 || size > maxBytes || l.retrying {
			break
		}
	}
	if maxRecords > 1 {
		slices.SortFunc(f.items, byOffset)
	}
	for _, it := range f.items {
		f.records = append(f.records, it.record)
	}
	if l := f.items[0].lane; l.parked != nil && len(f.items) == 1 {
		f.tries = l.parked.Attempts
	}
	return f
}

// byOffset is the order of a batch. It keeps the order of each lane: within a
// topic a lane is in offset order, and between topics none is promised.
func byOffset(a, b item) int {
	if c := cmp.Compare(a.record.Topic, b.record.Topic); c != 0 {
		return -c // outbox, then lifecycle before events
	}
	return cmp.Compare(a.record.Offset, b.record.Offset)
}

// dropUnwanted finishes the records of a flight that are not to be sent any more: as skipped
// those that the destination has ceased to subscribe to since they were queued or
// parked, as erased those of people who were erased, be it that they are only on their
// way to the dead letters, and what is too late or was taken back by whoever asked for it. It
// reports whether any are left.
func (c *courier) dropUnwanted(f *flight, now time.Time) bool {
	for _, v := range []Verdict{Erased, Cancelled, Expired} {
		goes := func(it item) bool {
			how, ended := c.env.ended(&it, now)
			return ended && how == v && (v != Expired || f.dead == nil)
		}
		if !c.finishUnsent(f, goes, Outcome{Verdict: v}, now) {
			return false
		}
	}
	unwanted := func(it item) bool {
		return f.dead == nil && (c.narrowed || it.stored != nil) &&
			!(c.subscription.Matches(it.record.Type) && f.track.backfill.takes(it.record.Type))
	}
	const noLonger = "the destination no longer subscribes to it"
	return c.finishUnsent(f, unwanted, Outcome{Verdict: Skipped, Err: noLonger, Reason: noLonger}, now)
}

// finishUnsent finishes the records of a flight that are to go, with this outcome.
func (c *courier) finishUnsent(f *flight, goes func(item) bool, out Outcome, now time.Time) (left bool) {
	if !slices.ContainsFunc(f.items, goes) {
		return true
	}
	t := f.track
	gone := c.newFlight(t)
	gone.tries = f.tries + 1
	kept := f.dead[:0]
	for i, it := range f.items {
		switch {
		case goes(it):
			gone.add(it)
		case f.dead != nil:
			kept = append(kept, f.dead[i])
		}
	}
	f.dead = kept
	f.removeIf(goes)
	c.logAttempt(gone, out, now)
	c.finish(gone, &out)
	if len(f.items) == 0 {
		c.finish(f, &out) // what waited for it goes on
	}
	c.enqueue(t)
	c.env.flush.mark(t)
	return len(f.items) > 0
}

// enqueue gives the track its place in the turn.
func (c *courier) enqueue(t *track) {
	if t.ready.len() == 0 {
		t.readySince = time.Time{}
	}
	if !t.inTurn && !t.held && !t.retired && t.ready.len() > 0 && !c.lingers(t) {
		t.inTurn = true
		if t.backfill != nil {
			c.replayTurn.push(t)
		} else {
			c.turn.push(t)
		}
	}
}

// lingers says whether what is ready of a track waits for more, and arranges that
// it is checked again in time: it does not when it fills a request, in number or
// bytes, or when the first of it has waited for long enough. What is there while
// requests are under way has waited as well. The mutex is held.
func (c *courier) lingers(t *track) bool {
	if c.linger <= 0 {
		return false
	}
	now := time.Now()
	if t.readySince.IsZero() {
		t.readySince = now
	}
	wait := c.linger - now.Sub(t.readySince)
	if wait <= 0 || t.fillsRequest(c.maxRecords, c.maxBytes) {
		return false
	}
	if t.lingering == nil {
		t.lingering = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.enqueue(t)
			c.dispatch()
		})
	} else {
		t.lingering.Reset(wait)
	}
	return true
}

// fillsRequest says whether what is ready is worth a request at once. A record that
// has failed before goes alone and waits for no other.
func (t *track) fillsRequest(maxRecords, maxBytes int) bool {
	records, size := 0, 0
	for i := range t.ready.len() {
		l := t.ready.at(i)
		if l.retrying {
			return true
		}
		for j := range l.queue.len() {
			records++
			if size += len(l.queue.at(j).record.Value); records >= maxRecords || size >= maxBytes {
				return true
			}
		}
	}
	return false
}

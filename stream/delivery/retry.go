package delivery

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// retries is a heap of flights by the time they are due.
type retries []*flight

func (r retries) Len() int           { return len(r) }
func (r retries) Less(i, j int) bool { return r[i].due.Before(r[j].due) }
func (r retries) Swap(i, j int)      { r[i], r[j] = r[j], r[i] }
func (r *retries) Push(x any)        { *r = append(*r, x.(*flight)) }
func (r *retries) Pop() any {
	old := *r
	f := old[len(old)-1]
	old[len(old)-1] = nil
	*r = old[:len(old)-1]
	return f
}

// add puts a flight in; true when it is now the first.
func (r *retries) add(f *flight) bool {
	heap.Push(r, f)
	return (*r)[0] == f
}

// popDue takes out a flight that is due, nil when none is.
func (r *retries) popDue(now time.Time) *flight {
	if len(*r) == 0 || (*r)[0].due.After(now) {
		return nil
	}
	return heap.Pop(r).(*flight)
}

// popAsked takes out the first flight that the receiver has not asked to wait, due or
// not; nil when there is none. One that was asked to must not hide the others.
func (r *retries) popAsked(now time.Time) *flight {
	first := -1
	for i, f := range *r {
		if !now.Before(f.asked) && (first < 0 || f.due.Before((*r)[first].due)) {
			first = i
		}
	}
	if first < 0 {
		return nil
	}
	return heap.Remove(r, first).(*flight)
}

// drop takes out the flights of a track.
func (r *retries) drop(t *track) {
	kept := (*r)[:0]
	for _, f := range *r {
		if f.track != t {
			kept = append(kept, f)
		}
	}
	clear((*r)[len(kept):])
	*r = kept
	heap.Init(r)
}

// wait keeps the lanes of a flight busy until its next attempt is due.
func (c *courier) wait(f *flight, q *consequence, asked time.Time) {
	f.asked, f.due, f.notBefore = asked, q.at, time.Time{}
	if !q.lookAt.IsZero() {
		f.due, f.notBefore = q.lookAt, q.at
	}
	if c.later.add(f) {
		c.rearm()
	}
}

// waited says whether a flight that was to wait may start now. One that is to wait
// for longer than parkAfter is checked in between: it may have to be parked.
func (c *courier) waited(f *flight, now time.Time) bool {
	if !now.Before(f.notBefore) {
		return true
	}
	out := Outcome{Verdict: Retry, Err: "the receiver asked to wait"}
	s := c.situation(f, now)
	q := s.whileWaiting(&out, f.notBefore, now, &c.env.cfg, rand.Float64())
	if q.fate == park {
		c.park(f, &out, q.at, now)
		return false
	}
	f.due, f.notBefore = q.at, time.Time{}
	c.later.add(f)
	return false
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

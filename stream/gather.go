package stream

import (
	"sync"
	"time"
)

// gathering holds small calls back for a moment while the log is busy, so that a
// request to the broker carries more of them: until there are many, a millisecond
// is over, or nothing is on its way any more. Without it, 32 senders of single
// records made requests of four records each: more work for the client and,
// above all, for the broker.
type gathering struct {
	mu      sync.Mutex
	waiting []*appendCall
	records int64
	flying  int64     // records of the calls that were handed over and are not answered
	last    time.Time // when calls were last handed over
	due     *time.Timer
}

const (
	// gatherFrom is how many records have to be on their way for a call to wait:
	// a few senders never do.
	gatherFrom = 4
	// gatherFor is how long a call waits at most, counted from when others were
	// handed over.
	gatherFor = time.Millisecond
	// gatherUpTo is how many records are handed over without waiting.
	gatherUpTo = 64
)

// hand gives a call to the client, at once or with others that come within a
// millisecond, and never before a call that was made earlier.
func (l *Log) hand(call *appendCall) {
	g := &l.gather
	g.mu.Lock()
	now := time.Now()
	since := now.Sub(g.last)
	if l.records.Load() < gatherFrom || call.sent >= gatherUpTo || since >= gatherFor && len(g.waiting) == 0 {
		g.handAll(now)
		g.flying += call.sent
		g.mu.Unlock()
		call.produce()
		return
	}
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, call)
	if g.records += call.sent; g.records >= gatherUpTo {
		g.handAll(now)
	} else if len(g.waiting) == 1 {
		g.due.Reset(gatherFor - since)
	}
}

// handGathered gives the client what is waiting.
func (l *Log) handGathered() {
	l.gather.mu.Lock()
	defer l.gather.mu.Unlock()
	l.gather.handAll(time.Now())
}

// handAll is called with the lock held, which keeps the order.
func (g *gathering) handAll(now time.Time) {
	g.flying += g.records
	for _, call := range g.waiting {
		call.produce()
	}
	if len(g.waiting) > 0 {
		g.due.Stop()
	}
	clear(g.waiting)
	g.waiting, g.records, g.last = g.waiting[:0], 0, now
}

// landed notes that a call was answered. When nothing is on its way any more,
// what is waiting goes: there is nothing left to wait for.
func (g *gathering) landed(records int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.flying -= records; g.flying == 0 && len(g.waiting) > 0 {
		g.handAll(time.Now())
	}
}

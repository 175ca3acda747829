package stream

import (
	"context"
	"runtime"
	"time"
)

// A Workshop lets few backfills at once compute: parse what was read of the log,
// decode its records and build requests of them. Live deliveries do not enter it.
//
// They would suffer otherwise: a live record is computed for a tenth of a
// millisecond and changes hands some ten times on its way, between goroutines and
// the network. A backfill computes for milliseconds at a time, as much as there are
// cores for. When all of them compute, Go's runtime looks at the network only every
// 10 ms, and each change of hands waits for that. So a place of the workshop is a
// core that the others do not have, half of them at most; and whoever computes for
// long lets go of it for a moment now and then (Breathe), which is what helps a
// process with one core.
//
// The nil Workshop lets everybody in. Safe for concurrent use.
type Workshop struct{ places chan struct{} }

// NewWorkshop leaves half of the cores to the others.
func NewWorkshop() *Workshop {
	return &Workshop{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Enter waits for a place, and says whether it has one: false when ctx ended first.
// Leave gives it back.
func (w *Workshop) Enter(ctx context.Context) bool {
	if w == nil {
		return true
	}
	select {
	case w.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// Leave gives the place back.
func (w *Workshop) Leave() {
	if w != nil {
		<-w.places
	}
}

// Spans of computing: at most workSpan without a breath of workBreath, which is
// long enough for whoever waits for the core, in this process or another, to get it.
const (
	workSpan   = time.Millisecond
	workBreath = 50 * time.Microsecond
)

// Breathe is called every few records by whoever has a place, with the time at
// which it last began to compute; it returns that time anew.
func (w *Workshop) Breathe(ctx context.Context, since time.Time) time.Time {
	if w == nil || time.Since(since) < workSpan {
		return since
	}
	pause(ctx, workBreath)
	return time.Now()
}

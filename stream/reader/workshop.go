package reader

import (
	"context"
	"runtime"
	"time"

	"github.com/hogstream/hogstream/stream"
)

// A Workshop lets few backfills compute at once: parse what was read of the log,
// decode its records and build requests of them. Live deliveries do not enter it.
//
// A live record needs a tenth of a millisecond of computing and changes hands some
// ten times on its way, between goroutines, processes and the network. A backfill
// computes for milliseconds at a time, on as many cores as there are. When all of
// them compute, Go's runtime looks at the network only every 10 ms, and live
// deliveries wait for it at each change of hands. So there is room for half of the
// cores, and whoever computes for long lets go of the core now and then (Breathe),
// which is what helps a process with one core.
//
// The nil Workshop lets everybody compute at once. Safe for concurrent use.
type Workshop struct {
	places chan struct{} // a token of each that computes
}

// NewWorkshop leaves half of the cores to the others.
func NewWorkshop() *Workshop {
	return &Workshop{places: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Do computes in the workshop, when there is a place, and returns when it is done;
// false when ctx ended before there was one.
func (w *Workshop) Do(ctx context.Context, work func()) bool {
	if w == nil {
		work()
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	select {
	case w.places <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-w.places }()
	work()
	return true
}

// Spans of computing: at most workSpan without a breath of workBreath, which is
// long enough for whoever waits for the core, in this process or another, to get it.
const (
	workSpan   = time.Millisecond
	workBreath = 50 * time.Microsecond
)

// Breathe is called every few records by whoever computes in the workshop, with the
// time at which it last began to; it returns that time anew.
func (w *Workshop) Breathe(ctx context.Context, since time.Time) time.Time {
	if w == nil || time.Since(since) < workSpan {
		return since
	}
	stream.Pause(ctx, workBreath)
	return time.Now()
}

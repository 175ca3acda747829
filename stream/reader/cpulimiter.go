package reader

import (
	"context"
	"runtime"
	"time"

	"github.com/hogstream/hogstream/stream"
)

// A CPULimiter bounds how many backfills compute at once: parse what was read of the
// log, decode its records and build requests of them. Live deliveries are not limited.
//
// A live record needs a tenth of a millisecond of computing and changes hands some
// ten times on its way, between goroutines, processes and the network. A backfill
// computes for milliseconds at a time, on as many cores as there are. When all of
// them compute, Go's runtime looks at the network only every 10 ms, and live
// deliveries wait for it at each change of hands. So backfills get half of the cores,
// and whoever computes for long yields the core now and then (Yield), which is what
// helps a process with one core.
//
// The nil CPULimiter limits nothing. Safe for concurrent use.
type CPULimiter struct {
	slots chan struct{} // a token for each that computes
}

// NewCPULimiter leaves half of the cores to the others.
func NewCPULimiter() *CPULimiter {
	return &CPULimiter{slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Do runs work when a slot is free, and returns when it is done; false when ctx ended
// before there was one.
func (l *CPULimiter) Do(ctx context.Context, work func()) bool {
	if l == nil {
		work()
		return true
	}
	if ctx.Err() != nil {
		return false
	}
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-l.slots }()
	work()
	return true
}

// Whoever computes yields after at most yieldAfter, for yieldTime, which is
// long enough for whoever waits for the core, in this process or another, to get it.
const (
	yieldAfter = time.Millisecond
	yieldTime  = 50 * time.Microsecond
)

// Yield is called every few records by whoever computes within Do, with the time at
// which it last began; it returns that time anew.
func (l *CPULimiter) Yield(ctx context.Context, since time.Time) time.Time {
	if l == nil || time.Since(since) < yieldAfter {
		return since
	}
	stream.Pause(ctx, yieldTime)
	return time.Now()
}

package stream

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"
)

// A Workshop lets few backfills at once compute: parse what was read of the log,
// decode its records and build requests of them. Live deliveries do not enter it.
//
// They would suffer otherwise: a live record is computed for a tenth of a
// millisecond and changes hands some ten times on its way, between goroutines,
// processes and the network. A backfill computes for milliseconds at a time, as much
// as there are cores for. When all of them compute, Go's runtime looks at the network
// only every 10 ms, and each change of hands waits for that, or for the kernel to
// take the core from whoever computes. So there is room for half of the cores at
// most; what is computed here has threads of its own, which have less priority for
// the kernel where there is such a thing (Linux), so that broker, receiver and live
// deliveries on the same machine go first; and whoever computes for long lets go of
// its place for a moment now and then (Breathe), which is what helps a process with
// one core.
//
// The nil Workshop lets everybody compute at once. Safe for concurrent use.
type Workshop struct {
	places  chan struct{} // a token of each that computes
	threads chan struct{} // and of each thread, as many at most
	jobs    chan *job     // to a thread that waits for the next
	rest    time.Duration // how long a thread waits for the next before it ends
}

// NewWorkshop leaves half of the cores to the others.
func NewWorkshop() *Workshop {
	half := max(1, runtime.GOMAXPROCS(0)/2)
	return &Workshop{
		places: make(chan struct{}, half), threads: make(chan struct{}, half), jobs: make(chan *job), rest: 5 * time.Second,
	}
}

// Do computes in the workshop, when there is a place, and returns when it is done;
// false when ctx ended before there was one. A panic of work is the caller's, as
// [Panicked].
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
	j := &job{work: work, done: make(chan struct{})}
	w.hand(j)
	<-j.done
	if j.panicked != nil {
		panic(j.panicked)
	}
	return true
}

// hand gives a job to a thread that waits, and to a new one only when there are
// fewer than places: the one that is about to wait again will have it.
func (w *Workshop) hand(j *job) {
	select {
	case w.jobs <- j:
		return
	default:
	}
	select {
	case w.jobs <- j:
	case w.threads <- struct{}{}:
		go w.serve(j)
	}
}

// serve does jobs on a thread of its own, which ends with it: one that has less
// priority cannot get it back.
func (w *Workshop) serve(j *job) {
	defer func() { <-w.threads }()
	runtime.LockOSThread()
	if yieldThread() {
		addSpare()
		defer dropSpare()
	} else {
		runtime.UnlockOSThread()
	}
	rest := time.NewTimer(w.rest)
	defer rest.Stop()
	for {
		j.do()
		rest.Reset(w.rest)
		select {
		case j = <-w.jobs:
		case <-rest.C:
			return
		}
	}
}

// job is something to be computed.
type job struct {
	work     func()
	done     chan struct{}
	panicked *Panicked
}

func (j *job) do() {
	defer close(j.done)
	defer func() {
		if cause := recover(); cause != nil {
			j.panicked = &Panicked{Cause: cause, Stack: debug.Stack()}
		}
	}()
	j.work()
}

// Panicked is the panic of something that was computed in a Workshop, with the stack
// there.
type Panicked struct {
	Cause any
	Stack []byte
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
	pause(ctx, workBreath)
	return time.Now()
}

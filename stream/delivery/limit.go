package delivery

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A limiter keeps a destination's requests to its rate over all processes: each
// leases short runs of evenly spaced moments from Postgres, on Postgres's clock,
// and starts a request at each of them. No two runs overlap, so whatever the
// number of processes, all their requests together are evenly spaced; a process
// with nothing to send asks for none. It is one for all lanes, partition numbers
// and backfills, which share it in the order in which they become ready.
//
// Beside it stands what the receiver's 429 answers have taught this process.
// Guarded by the courier's mutex.
type limiter struct {
	rate   float64 // a second; 0 for no limit
	runs   []run
	asking bool
	clock  otherClock // Postgres's
	timer  *time.Timer
	slow   slowdown
}

// A run is a lease: left moments, every apart, from next on.
type run struct {
	next  time.Time
	every time.Duration
	left  int
}

const (
	// runLength is how long the moments of one lease last.
	runLength = 200 * time.Millisecond
	// runLate is how late a moment may be used. What is later is lost, or a process
	// that was held up would send at once what belongs apart.
	runLate = 10 * time.Millisecond
)

// set changes the limit.
func (l *limiter) set(rate float64) {
	if rate > 0 {
		rate = max(rate, storage.LeastRate)
	}
	if rate != l.rate {
		l.rate, l.runs = rate, nil
	}
}

// left is how many moments are leased and still to come.
func (l *limiter) left(now time.Time) (n int) {
	for len(l.runs) > 0 {
		r := &l.runs[0]
		for r.left > 0 && now.Sub(r.next) > runLate+r.every {
			r.next, r.left = r.next.Add(r.every), r.left-1
		}
		if r.left > 0 {
			break
		}
		l.runs = l.runs[1:]
	}
	for i := range l.runs {
		n += l.runs[i].left
	}
	return n
}

// used takes note that a request starts.
func (l *limiter) used(now time.Time) {
	l.slow.used(now)
	if len(l.runs) > 0 {
		l.runs[0].next, l.runs[0].left = l.runs[0].next.Add(l.runs[0].every), l.runs[0].left-1
	}
}

// rateLimited says whether a request has to wait for its moment, and has the courier
// woken up then. The courier has something to send.
func (c *courier) rateLimited(now time.Time) bool {
	l := &c.limiter
	wait := l.slow.next.Sub(now)
	if l.rate > 0 {
		left := l.left(now)
		if n := max(1, int(l.rate*runLength.Seconds())); left < max(1, n/2) && !l.asking {
			l.asking = true
			rate := l.rate
			c.workers.Go(func() { c.leaseRate(rate, n) })
		}
		if left == 0 {
			return true // the answer wakes
		}
		wait = max(wait, l.runs[0].next.Sub(now))
	}
	if wait <= 0 {
		return false
	}
	wait = max(wait, time.Millisecond)
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, c.wakeUp)
	} else {
		l.timer.Reset(wait)
	}
	return true
}

// leaseRate asks for the next run.
func (c *courier) leaseRate(rate float64, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), c.env.cfg.Deadline)
	defer cancel()
	asked := time.Now()
	lease, err := c.env.db.LeaseRate(ctx, c.id, rate, n)
	answered := time.Now()
	if err != nil {
		c.env.log.Warn("delivery.rate_lease_failed", zap.String("id", c.id), zap.Error(err))
		stream.Pause(ctx, time.Second)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limiter.asking = false
	if err == nil {
		c.limiter.clock.heard(lease.Now, asked, answered)
	}
	if err == nil && rate == c.limiter.rate {
		start := c.limiter.clock.here(lease.Start, answered)
		c.limiter.runs = append(c.limiter.runs, run{next: start, every: time.Duration(float64(time.Second) / rate), left: n})
	}
	if !c.ended {
		c.dispatch()
	}
}

// An otherClock is how far another machine's clock is ahead of ours. It read its
// clock between a question and the answer: at their middle, give or take the half. So
// the quickest answer tells best, and by what that is off runs of two processes may
// overlap.
type otherClock struct {
	ahead, within time.Duration
	heardAt       time.Time // zero for never
}

// otherClockKeeps is how long an answer counts: clocks drift, some 3 ms in this time.
const otherClockKeeps = time.Minute

// heard takes note that the other clock showed theirs between asked and answered.
func (o *otherClock) heard(theirs, asked, answered time.Time) {
	within := answered.Sub(asked) / 2
	ahead := theirs.Sub(asked.Add(within))
	moved := (ahead - o.ahead).Abs() > within+o.within // one of the two was set
	if o.heardAt.IsZero() || moved || within <= o.within || answered.Sub(o.heardAt) > otherClockKeeps {
		*o = otherClock{ahead: ahead, within: within, heardAt: answered}
	}
}

// here is a moment of the other clock on ours.
func (o *otherClock) here(theirs, now time.Time) time.Time {
	return now.Add(theirs.Sub(now) - o.ahead)
}

// A slowdown is a rate below the receiver's limit, found by trying: many 429
// answers cut it, not below what is accepted, and each second without raises it a
// little. It ends when there was no reason for long.
type slowdown struct {
	rate   float64 // a second; 0 for none
	next   time.Time
	cut    time.Time
	raised time.Time
}

const (
	slowStep = time.Second     // the least time between two cuts, or two raises
	slowEnds = 5 * time.Minute // without a 429
	slowMin  = 0.2             // requests a second
)

func (s *slowdown) used(now time.Time) {
	if s.rate > 0 {
		s.next = now.Add(time.Duration(float64(time.Second) / s.rate))
	}
}

// answered takes note of an answer: one 429 too many, or any other; accepted is how
// many a second were not refused of late.
func (s *slowdown) answered(tooMany bool, accepted float64, now time.Time) {
	switch {
	case tooMany && now.Sub(s.cut) < slowStep:
	case tooMany && s.rate == 0:
		s.rate, s.cut, s.raised = max(accepted, slowMin), now, now
	case tooMany:
		s.rate, s.cut, s.raised = max(s.rate*0.8, accepted, slowMin), now, now
	case s.rate == 0:
	case now.Sub(s.cut) > slowEnds:
		*s = slowdown{}
	case now.Sub(s.raised) >= slowStep:
		s.rate, s.raised = s.rate+max(0.1, s.rate*0.02), now
	}
}

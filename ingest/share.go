package ingest

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// How processes that take requests share the limits.
const (
	beatEvery = 3 * time.Second
	// beatLasts is how long a process counts that is not heard of.
	beatLasts = 10 * time.Second
	// leaseTimeout bounds how long a request waits for a lease, and leaseRetry is
	// for how long nobody asks again after one failed.
	leaseTimeout = 500 * time.Millisecond
	leaseRetry   = time.Second
	// A run is the fiftieth part of a limit: so a key costs a process at most some
	// fifty leases a minute, and what one holds and does not use is little.
	runsInWindow = 50
	ratesKept    = time.Hour
)

// sharing is what limiters know of the other processes. A process that is alone
// counts for itself. As soon as there are others, the tokens of a key are in
// Postgres, and each process takes them from there in runs, the next one while
// it still spends the last. A request waits for a lease only when its key has no
// run, and none is asked for a key that was refused before a token is back. While
// Postgres is away each process allows its part of the limit, by the number of
// processes it last knew, and takes what was spent so from the shared bucket later.
type sharing struct {
	db        *storage.DB
	id        string       // of this start
	instances atomic.Int32 // that take requests, this one included
	downUntil atomic.Int64 // no lease is asked for before

	mu     sync.Mutex
	closed bool
	leases sync.WaitGroup // none begins once closed
}

func newSharing(db *storage.DB) *sharing {
	s := &sharing{db: db, id: uuid.NewString()}
	s.instances.Store(1)
	return s
}

// others says how many processes share the limits, when this one is not alone.
func (s *sharing) others() (int, bool) {
	if s == nil {
		return 1, false
	}
	n := int(s.instances.Load())
	return n, n > 1
}

// begin runs f beside the caller, or reports false after the end of run.
func (s *sharing) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.leases.Go(f)
	}
	return !s.closed
}

// down says that no lease is to be asked for before a time.
func (s *sharing) down(until int64) {
	if was := s.downUntil.Load(); was < until {
		s.downUntil.CompareAndSwap(was, until) // who was faster said much the same
	}
}

// close lets the leases under way end; what is still asked gets its part.
func (s *sharing) close() {
	s.mu.Lock()
	s.closed = true
	s.downUntil.Store(math.MaxInt64)
	s.mu.Unlock()
	s.leases.Wait()
}

// run tells the others of this process and hears of them, until ctx ends.
func (s *sharing) run(ctx context.Context, log *zap.Logger) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for known, beats := true, 0; ; beats++ {
		err := s.beat(ctx, beats)
		if err != nil && known && ctx.Err() == nil {
			log.Warn("limits.instances_unknown", zap.Int32("last_known", s.instances.Load()), zap.Error(err))
		}
		known = err == nil
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		s.close()
		leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseTimeout)
		defer cancel()
		if err := s.db.LeaveIngest(leave, s.id); err != nil {
			log.Debug("limits.leave_failed", zap.Error(err)) // the others find out
		}
		return
	}
}

func (s *sharing) beat(ctx context.Context, beats int) error {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	n, err := s.db.BeatIngest(ctx, s.id, beatLasts)
	if err != nil {
		return err
	}
	s.instances.Store(int32(n))
	if hourly := int(ratesKept / beatEvery); beats%hourly == 0 {
		_, err = s.db.CleanRequestRates(ctx, time.Now().Add(-ratesKept))
	}
	return err
}

// share is what a process holds of a bucket that all share.
type share struct {
	mu     sync.Mutex
	on     atomic.Bool   // the bucket is shared; else bucket.fullAt counts
	tokens int           // leased and not spent
	until  int64         // tokens are worth nothing from then on: they are back in the bucket
	fullAt int64         // when the shared bucket is full, by the last lease
	closed int64         // the shared bucket is empty until then
	spent  int           // without a lease
	part   atomic.Int64  // when this process's part is full, while Postgres is away
	asking chan struct{} // closed when the lease under way is decided
}

// takeShared takes a token of a bucket that n processes share.
func (l *limiter) takeShared(b *bucket, caller string, n int, now time.Time) verdict {
	s, at := &b.share, now.UnixNano()
	for {
		s.mu.Lock()
		if !s.on.Load() {
			s.spent, s.tokens, s.closed = l.tokens(b.fullAt.Load()-at), 0, 0
			s.on.Store(true)
		}
		if at >= s.until {
			s.tokens = 0
		}
		down := at < l.sharing.downUntil.Load()
		switch {
		case s.tokens > 0:
			s.tokens--
			if s.tokens < l.run()/2 && at >= s.closed && !down {
				l.lease(s, caller, now)
			}
			v := l.left(s, at)
			s.mu.Unlock()
			return v
		case at < s.closed:
			v := l.left(s, at)
			s.mu.Unlock()
			v.ok, v.retry = false, time.Duration(s.closed-at)
			return v
		case down:
			v := l.takePart(&s.part, n, at)
			if v.ok {
				s.spent++
			}
			s.mu.Unlock()
			return v
		}
		l.lease(s, caller, now)
		decided := s.asking
		s.mu.Unlock()
		if decided != nil { // nil: no lease begins any more
			<-decided
		}
	}
}

// run is how many tokens are leased at once.
func (l *limiter) run() int { return max(l.max/runsInWindow, 1) }

// tokens is how many tokens come back in a time, rounded up.
func (l *limiter) tokens(ns int64) int {
	return int((max(ns, 0) + int64(l.interval) - 1) / int64(l.interval))
}

// left tells what is left of a shared bucket, with what this process has leased.
func (l *limiter) left(s *share, at int64) verdict {
	used := max(s.fullAt-at-int64(s.tokens)*int64(l.interval), 0)
	return verdict{ok: true, max: l.max, remaining: max(l.max-l.tokens(used), s.tokens), full: time.Duration(used)}
}

// lease asks for the next run, unless somebody does. s.mu is held.
func (l *limiter) lease(s *share, caller string, now time.Time) {
	if s.asking != nil {
		return
	}
	ask := storage.RequestLease{Bucket: l.name + ":" + caller, Max: l.max, Interval: l.interval, Want: l.run(), Spent: s.spent}
	begun := l.sharing.begin(func() {
		ctx, cancel := context.WithTimeout(context.Background(), leaseTimeout)
		defer cancel()
		granted, full, err := l.sharing.db.LeaseRequests(ctx, ask)
		s.mu.Lock()
		defer s.mu.Unlock()
		defer func() { close(s.asking); s.asking = nil }()
		if err != nil {
			l.sharing.down(now.Add(leaseRetry).UnixNano())
			return
		}
		s.spent -= ask.Spent
		s.tokens += granted
		s.until, s.fullAt = now.Add(limitWindow).UnixNano(), now.Add(full).UnixNano()
		if granted == 0 {
			s.closed = now.Add(max(full-time.Duration(l.max-1)*l.interval, 1)).UnixNano()
		}
	})
	if begun {
		s.asking = make(chan struct{}) // the lease ends only after s.mu is free
	}
}

// unshare takes up counting alone where the shared bucket is, as this process
// knows it.
func (l *limiter) unshare(b *bucket, at int64) {
	s := &b.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on.Load() {
		b.fullAt.Store(max(s.fullAt, at) + int64(s.spent-s.tokens)*int64(l.interval))
		s.on.Store(false)
	}
}

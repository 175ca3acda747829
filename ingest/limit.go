package ingest

import (
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hogstream/hogstream/web"
)

// limitWindow is the time that limits are given for.
const limitWindow = time.Minute

// maxBuckets bounds the memory of a limiter.
const maxBuckets = 50_000

// limiter allows max requests in a window for each caller, at once or spread:
// a token bucket that holds max and refills evenly. A rejected request takes no
// token, so a client that keeps asking gets in as soon as one is there.
//
// With a sharing, it does so for all processes together: a limiter with a name by
// leases, and one without by allowing each process its part.
type limiter struct {
	max      int
	interval time.Duration // in which one token comes back
	name     string
	sharing  *sharing

	mu      sync.RWMutex
	buckets map[string]*bucket
}

// bucket holds the time, in Unix nanoseconds, at which it is full again.
type bucket struct {
	fullAt atomic.Int64
	share  share
}

// newLimiter returns a limiter; one with max 0 allows everything.
func newLimiter(maxRequests int, name string, s *sharing) *limiter {
	l := &limiter{max: maxRequests, name: name, sharing: s, buckets: map[string]*bucket{}}
	if maxRequests > 0 {
		l.interval = max(limitWindow/time.Duration(maxRequests), 1)
	}
	return l
}

// verdict is what a limiter says to one request.
type verdict struct {
	ok        bool
	max       int
	remaining int
	full      time.Duration // until the bucket is full again
	retry     time.Duration // until the next token, when not ok
}

// take takes a token of a caller.
func (l *limiter) take(caller string, now time.Time) verdict {
	b := l.bucket(caller, now)
	n, shared := l.sharing.others()
	if shared && l.name != "" {
		return l.takeShared(b, caller, n, now)
	}
	if b.share.on.Load() {
		l.unshare(b, now.UnixNano())
	}
	return l.takePart(&b.fullAt, n, now.UnixNano())
}

// takePart takes a token of the n-th part of the limit.
func (l *limiter) takePart(fullAt *atomic.Int64, n int, at int64) verdict {
	most, interval := max(l.max/n, 1), l.interval*time.Duration(n)
	for {
		was := fullAt.Load()
		next := max(was, at) + int64(interval)
		used := time.Duration(next - at) // of the window
		if over := used - time.Duration(most)*interval; over > 0 {
			return verdict{max: most, retry: over, full: used - interval}
		}
		if fullAt.CompareAndSwap(was, next) {
			return verdict{ok: true, max: most, remaining: most - int((used+interval-1)/interval), full: used}
		}
	}
}

func (l *limiter) bucket(caller string, now time.Time) *bucket {
	l.mu.RLock()
	b := l.buckets[caller]
	l.mu.RUnlock()
	if b != nil {
		return b
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b = l.buckets[caller]; b != nil {
		return b
	}
	if len(l.buckets) >= maxBuckets {
		l.sweep(now)
	}
	b = &bucket{}
	l.buckets[caller] = b
	return b
}

// sweep drops buckets that are full, which is as good as none, and when that is
// not enough, any.
func (l *limiter) sweep(now time.Time) {
	for caller, b := range l.buckets {
		if b.fullAt.Load() <= now.UnixNano() {
			delete(l.buckets, caller)
		}
	}
	for caller := range l.buckets {
		if len(l.buckets) < maxBuckets*9/10 {
			return
		}
		delete(l.buckets, caller)
	}
}

// limit takes a token of a caller and says so in the headers; without one it
// answers 429 and reports false.
func (a *API) limit(x *web.Exchange, l *limiter, caller string) bool {
	if l.max == 0 {
		return true
	}
	now := a.now()
	v := l.take(caller, now)
	full := now.Add(v.full + time.Second - 1)
	values := &[5]string{
		strconv.Itoa(v.max), strconv.Itoa(v.remaining), strconv.FormatInt(full.Unix(), 10),
		strconv.Itoa(seconds(v.full)), strconv.Itoa(v.max) + ";w=60",
	}
	h := x.Header()
	h["X-Ratelimit-Limit"], h["Ratelimit-Limit"] = values[0:1:1], values[0:1:1]
	h["X-Ratelimit-Remaining"], h["Ratelimit-Remaining"] = values[1:2:2], values[1:2:2]
	h["X-Ratelimit-Reset"], h["Ratelimit-Reset"] = values[2:3:3], values[3:4:4]
	h["Ratelimit-Policy"] = values[4:5:5]
	if !v.ok {
		a.metrics.limited.Inc()
		h.Set("Retry-After", strconv.Itoa(max(seconds(v.retry), 1)))
		x.Fail(http.StatusTooManyRequests, "Rate limit exceeded", "wait for the time in Retry-After; events can be sent up to 1000 in one request, see POST /v1/events/batch")
	}
	return v.ok
}

// seconds rounds up.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

package delivery

import (
	"container/heap"
	"time"
)

// backoff is how long to wait after the n-th failed attempt in a row (1 is the
// first): exponential with full jitter, chance being in [0, 1), and never sooner
// than the receiver asked for. Full jitter spreads the retries of many keys that
// failed at the same moment over the whole delay.
func backoff(n int, base, limit time.Duration, chance float64, retryAfter time.Duration) time.Duration {
	ceiling := limit
	if shift := n - 1; shift < 32 && base<<shift>>shift == base && base<<shift < limit {
		ceiling = base << shift
	}
	return max(time.Duration(chance*float64(ceiling)), retryAfter)
}

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

package delivery

import (
	"time"

	"github.com/hogstream/hogstream/storage"
)

// Lingerer is a Deliverer whose batching destinations may wait a little for more
// records, so that there are fewer requests.
type Lingerer interface {
	Deliverer
	// Linger is how long the first record of a request waits for others; 0 for none.
	Linger(dest *storage.Destination) time.Duration
}

// lingerOf is the destination's linger.
func (env *courierEnv) lingerOf(dest *storage.Destination, maxRecords int) time.Duration {
	if l, ok := env.deliverer.(Lingerer); ok && maxRecords > 1 {
		return l.Linger(dest)
	}
	return 0
}

// lingers says whether what is ready of a track waits for more, and arranges that
// it is looked at again in time: it does not when it fills a request, in number or
// bytes, or when the first of it has waited for long enough. What is there while
// requests are under way has waited as well. The mutex is held.
func (c *courier) lingers(t *track) bool {
	if c.linger <= 0 {
		return false
	}
	now := time.Now()
	if t.readySince.IsZero() {
		t.readySince = now
	}
	wait := c.linger - now.Sub(t.readySince)
	if wait <= 0 || t.fillsRequest(c.maxRecords, c.maxBytes) {
		return false
	}
	if t.lingering == nil {
		t.lingering = time.AfterFunc(wait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.enqueue(t)
			c.dispatch()
		})
	} else {
		t.lingering.Reset(wait)
	}
	return true
}

// fillsRequest says whether what is ready is worth a request at once. A record that
// has failed before goes alone and waits for no other.
func (t *track) fillsRequest(maxRecords, maxBytes int) bool {
	records, size := 0, 0
	for i := range t.ready.len() {
		l := t.ready.at(i)
		if l.retrying {
			return true
		}
		for j := range l.queue.len() {
			records++
			if size += len(l.queue.at(j).record.Value); records >= maxRecords || size >= maxBytes {
				return true
			}
		}
	}
	return false
}

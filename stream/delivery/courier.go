package delivery

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// courierEnv is what all couriers of a process share.
type courierEnv struct {
	cfg       Config
	deliverer Deliverer
	appender  stream.Appender
	flush     *flusher
	log       *zap.Logger
	metrics   *sinkMetrics
	loader    *loader // nil: nothing is parked
	db        *storage.DB
	erased    *noted // contacts that were erased; nil: nobody is
	cancelled *noted // outbox records that were taken back; nil: none was
	codec     OutboxCodec
	cpu       *reader.CPULimiter // of backfills
	// suspend records that a destination is suspended; it retries by itself.
	suspend func(dest *storage.Destination, reason string)
	// refresh has tracks reconciled: a backfill's has come to its end.
	refresh func()

	held    atomic.Int64 // bytes of records admitted and not finished, of all couriers
	tracks  atomic.Int64 // of all couriers
	notes   atomic.Int64 // how often somebody was erased, or an outbox record taken back
	stopped atomic.Bool  // no new attempt starts
}

// A courier delivers the records of one destination, on all partition numbers
// that this process owns. Its workers are goroutines that exist while there is
// something to send, one a request in flight.
type courier struct {
	env *courierEnv
	id  string

	mu           sync.Mutex
	dest         *storage.Destination
	subscription schemas.Subscription
	narrowed     bool // the subscription has changed: what is queued may not be wanted any more
	maxRecords   int
	maxBytes     int
	linger       time.Duration
	limit        int // requests in flight

	tracks map[trackKey]*track
	held   int64        // its part of env.held
	turn   ring[*track] // live tracks with a ready lane, one place each
	again  ring[*flight]
	later  retries
	timer  *time.Timer
	flying int
	// Of backfills: the same, and their part of flying; turns counts for both.
	replayTurn ring[*track]
	replaying  int
	turns      int
	halted     bool // paused or suspended: nothing starts
	inFlight   inFlight
	// suspended is the revision that the rules suspended; any later one says again
	// whether to go on.
	suspended int64

	clock   openClock
	circuit circuit
	limiter limiter
	health  health

	ended        bool // its destination was deleted
	used         bool // there was a track since it was last released
	lastDelivery time.Time
	stamped      time.Time // lastDelivery as last written
	refusals     int       // in a row
	refusedKeys  map[string]struct{}
	recovered    int // parked keys delivered since the last one failed, bounded

	freeLanes   []*lane
	freeFlights []*flight
	workers     sync.WaitGroup
	metrics     destinationMetrics
}

type trackKey struct {
	partition int32
	replay    string
}

func newCourier(env *courierEnv, dest *storage.Destination) (*courier, error) {
	c := &courier{env: env, id: dest.ID, tracks: map[trackKey]*track{}, clock: openClock{since: time.Now()}}
	c.metrics = env.metrics.of(dest)
	if err := c.update(dest); err != nil {
		return nil, err
	}
	return c, nil
}

// update takes over a changed destination. Attempts under way end as they began.
func (c *courier) update(dest *storage.Destination) error {
	subscription, err := schemas.ParseSubscription(dest.EventTypes)
	if err != nil {
		return fmt.Errorf("destination %s: %w", dest.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dest != nil && dest.Revision < c.dest.Revision {
		return nil
	}
	if dest.Unreadable != "" && (c.dest == nil || c.dest.Unreadable == "") {
		c.env.log.Error("delivery.destination_unreadable", zap.String("destination", dest.Name), zap.String("id", c.id), zap.String("reason", dest.Unreadable))
	}
	c.narrowed = c.narrowed || c.dest != nil && !slices.Equal(c.dest.EventTypes, dest.EventTypes)
	c.dest, c.subscription = dest, subscription.For(dest.ID)
	c.maxRecords, c.maxBytes = c.env.deliverer.Batch(dest)
	c.maxRecords = max(c.maxRecords, 1)
	if c.maxBytes <= 0 {
		c.maxBytes = schemas.MaxRecord
	}
	c.linger = c.env.lingerOf(dest, c.maxRecords)
	c.limit = dest.Concurrency
	if c.limit <= 0 {
		c.limit = c.env.cfg.Concurrency
		if c.maxRecords > 1 {
			c.limit = c.env.cfg.BatchConcurrency
		}
	}
	c.limiter.set(dest.RateLimit)
	c.halt(dest.Status != storage.DestinationActive || dest.Unreadable != "" || dest.Revision == c.suspended)
	c.dispatch()
	c.rearm()
	return nil
}

// halt stops or goes on with starting attempts. The mutex is held.
func (c *courier) halt(stop bool) {
	if stop == c.halted {
		return
	}
	if !stop {
		c.refusals, c.refusedKeys = 0, nil
		c.circuit = circuit{}
	}
	c.halted = stop
	c.setClock(time.Now())
}

// newTrack makes a track at its stored cursors; add starts it.
func (c *courier) newTrack(h *holding, key trackKey, places []*place, b *backfill) *track {
	return &track{
		courier: c, holding: h, partition: key.partition, replay: key.replay,
		places: places, lanes: map[string]*lane{}, idle: make(chan struct{}), replayState: replayState{backfill: b},
	}
}

// add starts a track.
func (c *courier) add(t *track) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tracks[trackKey{t.partition, t.replay}] = t
	c.used = true
	c.env.tracks.Add(1)
}

// retire ends a track: nothing of it starts any more, what is under way may
// finish. The channel is closed when nothing is; the flusher may still hold
// results then. It may be called twice.
func (c *courier) retire(t *track) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.retired {
		return t.idle
	}
	t.retired = true
	if c.tracks[trackKey{t.partition, t.replay}] == t {
		delete(c.tracks, trackKey{t.partition, t.replay})
	}
	c.later.drop(t)
	t.waiting = nil
	if t.cursorMoved() {
		c.env.flush.mark(t)
	}
	c.held -= int64(t.openBytes)
	c.env.held.Add(-int64(t.openBytes))
	c.env.tracks.Add(-1)
	t.openBytes = 0
	if t.flying == 0 {
		close(t.idle)
	}
	return t.idle
}

// release lets a track that waited for its lease go on.
func (c *courier) release(t *track) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.held || t.retired {
		return
	}
	t.held = false
	for _, f := range t.waiting {
		c.again.push(f)
	}
	t.waiting = nil
	c.enqueue(t)
	c.dispatch()
}

// wakeUp starts what can start, after something outside has changed.
func (c *courier) wakeUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dispatch()
}

// lingerOf is the destination's linger.
func (env *courierEnv) lingerOf(dest *storage.Destination, maxRecords int) time.Duration {
	if l, ok := env.deliverer.(Lingerer); ok && maxRecords > 1 {
		return l.Linger(dest)
	}
	return 0
}

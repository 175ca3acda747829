package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
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
	erased    *erasures        // nil: nobody is
	workshop  *reader.Workshop // of backfills
	// suspend records that a destination is suspended; it retries by itself.
	suspend func(dest *storage.Destination, reason string)
	// refresh has tracks looked at again: a backfill's has come to its end.
	refresh func()

	held    atomic.Int64 // bytes of records admitted and not finished, of all couriers
	tracks  atomic.Int64 // of all couriers
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
	air        air
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
		c.env.log.Error("destination.unreadable", zap.String("destination", dest.Name), zap.String("id", c.id), zap.String("reason", dest.Unreadable))
	}
	c.narrowed = c.narrowed || c.dest != nil && !slices.Equal(c.dest.EventTypes, dest.EventTypes)
	c.dest, c.subscription = dest, subscription
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
	if t.touched() {
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

// feed reads on from the log at every cursor of the track, as far as there are
// records and room, and starts what can start.
//
// low takes the lowest place of any track on each topic.
func (c *courier) feed(t *track, r *reader.Reader, low map[schemas.Topic]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.retired || c.halted {
		return
	}
	for _, p := range t.places {
		c.feedPlace(t, p, r)
		if p.stray || p.end >= 0 && p.cursor.Next() >= p.end {
			continue // needs no more of the log, however long the track stays for what is parked
		}
		if at, ok := low[p.topic]; !ok || p.cursor.Next() < at {
			low[p.topic] = p.cursor.Next()
		}
	}
	c.enqueue(t)
	c.dispatch()
	if t.touched() {
		c.env.flush.markMoved(t)
	}
	if t.ended() {
		c.env.refresh()
	}
}

// touched says whether a cursor moved without a result to report.
func (t *track) touched() bool {
	for _, p := range t.places {
		if p.changed {
			return true
		}
	}
	return false
}

func (c *courier) feedPlace(t *track, p *place, r *reader.Reader) {
	for !t.full && (p.end < 0 || p.cursor.Next() < p.end) {
		seen := r.At(reader.LogKey{Topic: p.topic, Partition: t.partition}, p.id, p.cursor.Next(), t.backfill != nil)
		if c.strays(t, p, seen.ID) {
			return
		}
		switch {
		case seen.Gap > 0:
			c.skipGap(t, p, seen.Gap)
		case seen.Chunk == nil:
			return
		case !t.admit(p, seen.Chunk):
			return
		}
	}
}

// strays says whether the place is on the log of a former topic: nothing is read for
// it until an operator says from where to go on. A place that does not know its log
// yet, from before ids were kept, takes the one that is read now.
func (c *courier) strays(t *track, p *place, now uuid.UUID) bool {
	if p.id == uuid.Nil && now != uuid.Nil {
		p.id, p.changed = now, true
	}
	strays := storage.OtherLog(p.id, now)
	if strays && !p.stray {
		c.env.log.Error("delivery.partition_stopped", zap.String("destination", c.dest.Name), zap.String("topic", string(p.topic)),
			zap.Int32("partition", t.partition), zap.Int64("position", p.cursor.Position()), zap.String("replay_id", t.replay),
			zap.String("why", stream.MadeAnew(p.topic, p.id, now)), zap.String("mend", stream.MendStray(c.dest.Name, t.replay)))
	}
	p.stray = strays
	return strays
}

// strays is how many cursors of a destination, or of all when it is "", wait for an
// operator here.
func (s *Sinks) strays(destination string) (n int) {
	for _, t := range s.listTracks() {
		t.courier.mu.Lock()
		for _, p := range t.places {
			if p.stray && (destination == "" || t.courier.dest.Name == destination) {
				n++
			}
		}
		t.courier.mu.Unlock()
	}
	return n
}

// skipGap takes note of records that retention removed before they were read:
// one dead letter names the range, and the cursor goes on at the log's start.
func (c *courier) skipGap(t *track, p *place, start int64) {
	from := p.cursor.Next()
	if p.end >= 0 {
		start = min(start, p.end)
	}
	if !p.cursor.Admit(from) {
		return
	}
	p.advance(start)
	r := &stream.Record{Topic: p.topic, Partition: t.partition, Offset: from, AppendTime: time.Now()}
	t.count(1, r.Size())
	d := c.giveUp(t, item{record: r, place: p}, "gap",
		fmt.Errorf("retention removed offsets %d to %d before they were delivered", from, start-1))
	d.EndOffset = &start
	c.metrics.gaps.Inc()
	c.env.log.Error("delivery.gap", zap.String("destination", c.dest.Name), zap.String("topic", string(p.topic)),
		zap.Int32("partition", t.partition), zap.Int64("from", from), zap.Int64("to", start))
}

// errKey is why a record is given up before an attempt is made: its key has no
// place in the delivery log, nor in Postgres when it has to wait.
var errKey = fmt.Errorf("the record's key is not text in UTF-8 of at most %d bytes", maxKey)

// maxKey fits into an index of Postgres. Our own keys are contact ids.
const maxKey = 1 << 10

// giveUp makes a dead letter of a record that is admitted and in no lane.
func (c *courier) giveUp(t *track, it item, reason string, failure error) *schemas.DeadLetter {
	f := c.newFlight(t)
	f.add(it)
	d := stream.NewDeadLetter(it.record, "destination:"+c.dest.Name, reason, failure, time.Now())
	d.DestinationID = &c.id
	f.dead = []schemas.Message{d}
	c.again.push(f)
	return d
}

// enqueue gives the track its place in the turn.
func (c *courier) enqueue(t *track) {
	if t.ready.len() == 0 {
		t.readySince = time.Time{}
	}
	if !t.inTurn && !t.held && !t.retired && t.ready.len() > 0 && !c.lingers(t) {
		t.inTurn = true
		if t.backfill != nil {
			c.replayTurn.push(t)
		} else {
			c.turn.push(t)
		}
	}
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

// dispatch starts workers while there is something to send. The mutex is held.
func (c *courier) dispatch() {
	for {
		f := c.take()
		if f == nil {
			return
		}
		c.workers.Go(func() { c.work(f) })
	}
}

// take chooses the next flight: what is due again first, then the tracks in
// turn. nil when nothing can start now. The mutex is held.
func (c *courier) take() *flight {
	for !c.halted && c.flying < c.limit && !c.env.stopped.Load() && !c.env.flush.full() {
		now := time.Now()
		if c.barred(now) || !c.hasWork(now) || c.limited(now) {
			return nil
		}
		f, t := c.due(now)
		if f == nil && t == nil {
			return nil
		}
		if t.retired {
			continue
		}
		if !t.holding.mayStart(now.Add(c.env.cfg.Deadline)) {
			t.held = true
			if f != nil {
				t.waiting = append(t.waiting, f)
			}
			continue
		}
		if f == nil {
			f = t.cut(c.maxRecords, c.maxBytes)
			c.enqueue(t)
		}
		if !c.weed(f, now) {
			continue
		}
		f.dest = c.dest
		c.limiter.used(now)
		f.probe, c.circuit.probing = c.circuit.open, c.circuit.open
		c.takeOff(f, now)
		c.flying++
		t.flying++
		if t.backfill != nil {
			c.replaying++
		}
		return f
	}
	return nil
}

// weed finishes the records of a flight that are not to be sent any more: as skipped
// those that the destination has ceased to subscribe to since they were queued or
// parked, as erased those of people who were erased, be it that they are only on their
// way to the dead letters. It reports whether any are left.
func (c *courier) weed(f *flight, now time.Time) bool {
	erased := func(it item) bool { return c.env.erased.has(it.record) }
	unwanted := func(it item) bool {
		return f.dead == nil && (c.narrowed || it.stored != nil) &&
			!(c.subscription.Matches(it.record.Type) && f.track.backfill.takes(it.record.Type))
	}
	left := c.weedOut(f, erased, Outcome{Verdict: Erased}, now)
	return left && c.weedOut(f, unwanted, Outcome{Verdict: Skipped, Err: "the destination no longer subscribes to it"}, now)
}

// weedOut finishes the records of a flight that are to go, with this outcome.
func (c *courier) weedOut(f *flight, goes func(item) bool, out Outcome, now time.Time) (left bool) {
	if !slices.ContainsFunc(f.items, goes) {
		return true
	}
	t := f.track
	gone := c.newFlight(t)
	gone.tries = f.tries + 1
	kept := f.dead[:0]
	for i, it := range f.items {
		switch {
		case goes(it):
			gone.add(it)
		case f.dead != nil:
			kept = append(kept, f.dead[i])
		}
	}
	f.dead = kept
	f.take(goes)
	c.note(gone, out, now)
	c.finish(gone)
	if len(f.items) == 0 {
		c.finish(f) // what waited for it goes on
	}
	c.enqueue(t)
	c.env.flush.mark(t)
	return len(f.items) > 0
}

// due is a flight that waited, or else the track whose turn it is.
func (c *courier) due(now time.Time) (*flight, *track) {
	if c.circuit.open {
		return c.nextProbe(now)
	}
	for f := c.later.popDue(now); f != nil; f = c.later.popDue(now) {
		if c.waited(f, now) {
			c.rearm()
			return f, f.track
		}
	}
	if c.again.len() > 0 {
		f := c.again.pop()
		return f, f.track
	}
	return nil, c.nextTrack()
}

// work makes one attempt after the other while there is something to send.
func (c *courier) work(f *flight) {
	for f != nil {
		started, replay := time.Now(), f.track.backfill != nil
		out := c.attempt(f)
		c.mu.Lock()
		c.settle(f, out, started)
		c.flying--
		if replay {
			c.replaying--
		}
		f = c.take()
		c.mu.Unlock()
	}
}

// attempt delivers the flight, or appends its dead letters, within the deadline.
// A panic is the fault of the record that caused it: another try would end the
// same way, and one record must not end the process again and again.
//
// The deadline counts from when the lease was looked at: a process that is stopped
// right after that, and wakes up when another has the lease, must not send it.
func (c *courier) attempt(f *flight) (out Outcome) {
	ctx, done := context.WithDeadline(f.track.holding.ctx, f.tookOff.Add(c.env.cfg.Deadline))
	defer done()
	defer func() {
		if cause := recover(); cause != nil {
			c.env.log.Error("delivery.panicked", zap.String("destination", f.dest.Name), zap.String("panic", schemas.PanicText(cause)), zap.Stack("stack"))
			out = Outcome{Verdict: Reject, Err: "panic: " + schemas.PanicText(cause)}
		}
	}()
	if f.dead != nil {
		return c.appendDead(ctx, f)
	}
	d := Delivery{Destination: f.dest, Records: f.records, Attempt: f.tries + 1, ReplayID: f.track.replay}
	if f.track.backfill != nil {
		d.Workshop = c.env.workshop
	}
	return c.env.deliverer.Deliver(ctx, d)
}

// appendDead appends the dead letters of a flight. One that is too large with the
// original bytes in it goes without them; the log has them for a while.
func (c *courier) appendDead(ctx context.Context, f *flight) Outcome {
	err := c.env.appender.Append(ctx, f.dead...)
	if err == nil {
		return Outcome{Verdict: Delivered}
	}
	if errors.Is(err, stream.ErrTooLarge) {
		for _, m := range f.dead {
			if d, ok := m.(*schemas.DeadLetter); ok && d.RecordValue != nil {
				d.RecordValue = nil
				d.Error += "; the record is too large to be copied here"
			}
		}
	}
	return Outcome{Verdict: Retry, Err: err.Error()}
}

// Lanes and flights come and go with every record; the courier keeps some.
const keepFree = 1024

func (c *courier) newLane(key string) *lane {
	if n := len(c.freeLanes); n > 0 {
		l := c.freeLanes[n-1]
		c.freeLanes = c.freeLanes[:n-1]
		l.key = key
		return l
	}
	return &lane{key: key}
}

func (c *courier) freeLane(l *lane) {
	l.parked, l.retrying, l.recovered = nil, false, false
	if len(c.freeLanes) < keepFree && len(l.queue.buf) <= 64 {
		l.key = ""
		c.freeLanes = append(c.freeLanes, l)
	}
}

func (c *courier) newFlight(t *track) *flight {
	var f *flight
	if n := len(c.freeFlights); n > 0 {
		f = c.freeFlights[n-1]
		c.freeFlights = c.freeFlights[:n-1]
	} else {
		f = &flight{}
	}
	f.track = t
	if f.items == nil {
		f.items, f.records = f.one[:0], f.oneRec[:0]
	}
	return f
}

func (c *courier) freeFlight(f *flight) {
	if len(c.freeFlights) >= keepFree || cap(f.items) > 1024 {
		return
	}
	clear(f.items)
	clear(f.records)
	*f = flight{items: f.items[:0], records: f.records[:0]}
	c.freeFlights = append(c.freeFlights, f)
}

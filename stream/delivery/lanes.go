package delivery

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A track is what a destination has of one partition number: its cursors and the
// lanes of the records that are read and not finished. All of it is guarded by
// the courier's mutex.
//
// The path of a record: feed reads it from the log, admits it at its cursor and
// puts it at the end of its contact's lane; a lane that is free and not empty is
// ready; cut takes the first record of a ready lane (for batching kinds, of many)
// into a flight; settle finishes the flight's records or keeps their lanes busy
// until the next attempt. A lane has at most one flight, so there are never two
// deliveries under way for one contact.
type track struct {
	courier   *courier
	holding   *holding
	partition int32
	replay    string // of a backfill; "" for live
	replayState
	places []*place

	lanes map[string]*lane
	ready ring[*lane]
	// When the first of what is ready became so, and what ends its linger.
	readySince time.Time
	lingering  *time.Timer

	open      int // records admitted and not finished
	openBytes int
	full      bool // feed stopped for the window
	wakeAt    int  // with open at or below, feed is called again

	flying  int       // flights with a worker
	inTurn  bool      // stands in courier.turn
	held    bool      // waits for the lease to be renewed
	waiting []*flight // due, while held

	retired bool
	idle    chan struct{} // closed when retired and nothing flies
	watched atomic.Bool   // somebody waits for idle

	results   []storage.Attempt // not collected by the flusher yet
	unflushed int               // records finished and attempts made since then
	dirty     bool              // the flusher knows of it
	moved     bool              // the flusher knows that a cursor moved

	parking parking

	receipts []*schemas.Signal // not collected by the flusher yet
}

// A place is a cursor of a track: where it stands on one topic.
type place struct {
	topic    schemas.Topic
	cursor   *Cursor
	epoch    int64
	id       uuid.UUID // of the topic whose log the cursor is on; zero while unknown
	orphaned bool      // the topic is another now: it waits for an operator
	end      int64     // exclusive; -1 without an end
	changed  bool      // since it was last flushed
	answers  bool      // its records have receipts
	ahead    ahead     // of one that answers: what was looked at beyond the cursor

	wanted []bool // for each type of the chunk at hand
}

// A lane is the queue of one contact's records.
type lane struct {
	key   string
	queue ring[item]
	busy  int // records of it in a flight

	// Of a lane that was loaded from Postgres:
	parked    *storage.ParkedKey // nil for a lane that was read from the log
	retrying  bool               // its first record has failed before
	recovered bool               // and was delivered now
}

// An item is a record on its way, with where it belongs.
type item struct {
	record *stream.Record
	place  *place
	lane   *lane   // nil for a gap
	stored *stored // nil for one read from the log; else place is nil
	// ask is what was asked for, of a topic that answers: it has a receipt.
	ask *schemas.Outbox
}

// A flight is one request: its records and what has happened to it so far.
type flight struct {
	track   *track
	items   []item
	records []*stream.Record
	tries   int           // attempts made
	since   time.Duration // the courier's open time at the first failure
	due     time.Time     // of the next attempt
	// When the first attempt that failed began and the last one ended, and what the
	// receiver asked to wait for.
	started, firstFailed, lastFailed, asked time.Time
	notBefore                               time.Time // due is earlier, to look whether to park
	probe                                   bool      // of an open circuit
	slot                                    int       // in the courier's inFlight
	sentAt                                  time.Time // of the attempt under way

	// What goes on when this one is finished: the other half of a split or, of a batch,
	// what is to be sent again, for which unsettled is what came of the attempt.
	then      *flight
	unsettled *Outcome

	dead []schemas.Message // to be appended; the records are given up
	// Of records that are given up: what came of the last attempt, and how many were made.
	lastOut   Outcome
	madeTries int

	dest   *storage.Destination // as it is for this attempt
	one    [1]item
	oneRec [1]*stream.Record
}

func (t *track) enqueue(it item) {
	l := t.lanes[string(it.record.Key)]
	if l == nil {
		l = t.courier.newLane(string(it.record.Key))
		t.lanes[l.key] = l
	}
	it.lane = l
	l.queue.push(it)
	t.count(1, it.record.Size())
	if l.busy == 0 && l.queue.len() == 1 {
		t.ready.push(l)
	}
}

func (t *track) count(records, size int) {
	if t.retired {
		return // no longer counted
	}
	t.open += records
	t.openBytes += size
	t.courier.held += int64(size)
	t.courier.env.held.Add(int64(size))
}

// add puts a record in.
func (f *flight) add(it item) {
	f.items, f.records = append(f.items, it), append(f.records, it.record)
}

// finish closes the flight's records and frees their lanes.
func (t *track) finish(f *flight) {
	for _, it := range f.items {
		if it.stored != nil {
			t.unflushed++
			t.courier.env.flush.pending.Add(1)
			t.removed(it, f.dead == nil)
		} else {
			if it.place.cursor.Finish(it.record.Offset) {
				t.unflushed++
				t.courier.env.flush.pending.Add(1)
			}
			it.place.changed = true
		}
		t.count(-1, -it.record.Size())
		t.leave(it.lane)
	}
	t.roomAgain()
}

// roomAgain has the track fed again when its window has become free enough.
func (t *track) roomAgain() {
	if t.full && t.open <= t.wakeAt {
		t.full = false
		t.holding.wake()
	}
	if t.ended() {
		t.courier.env.refresh()
	}
}

// leave takes one record of a flight off its lane; the last one frees it.
func (t *track) leave(l *lane) {
	if l == nil {
		return
	}
	l.busy--
	if l.busy > 0 {
		return
	}
	if l.queue.len() > 0 {
		t.ready.push(l)
		return
	}
	if l.parked != nil {
		t.unload(l)
	} else if t.isParked([]byte(l.key)) {
		t.courier.env.loader.wake() // spilled: it goes on from Postgres
	}
	delete(t.lanes, l.key)
	t.courier.freeLane(l)
}

// unpin gives the flight copies of its records, so that what waits for long does
// not keep the whole fetched range in memory.
func (f *flight) unpin() {
	for i := range f.items {
		r := f.items[i].record.Clone()
		f.items[i].record, f.records[i] = r, r
	}
}

// split cuts the flight in halves that fly one after the other, because both may
// hold records of one lane.
func (f *flight) split() {
	half := len(f.items) / 2
	other := &flight{track: f.track, tries: f.tries, then: f.then, firstFailed: f.firstFailed, lastFailed: f.lastFailed, since: f.since}
	other.items = slices.Clone(f.items[half:])
	other.records = slices.Clone(f.records[half:])
	f.items, f.records, f.then = f.items[:half], f.records[:half], other
}

// ring is a queue that keeps its memory.
type ring[T any] struct {
	buf  []T
	head int
	n    int
}

func (r *ring[T]) len() int   { return r.n }
func (r *ring[T]) first() T   { return r.buf[r.head] }
func (r *ring[T]) at(i int) T { return r.buf[(r.head+i)%len(r.buf)] }

func (r *ring[T]) push(v T) {
	if r.n == len(r.buf) {
		grown := make([]T, max(2, 2*len(r.buf)))
		for i := range r.n {
			grown[i] = r.buf[(r.head+i)%len(r.buf)]
		}
		r.buf, r.head = grown, 0
	}
	r.buf[(r.head+r.n)%len(r.buf)] = v
	r.n++
}

func (r *ring[T]) pop() T {
	var zero T
	v := r.buf[r.head]
	r.buf[r.head] = zero
	r.head = (r.head + 1) % len(r.buf)
	r.n--
	return v
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

// removeIf takes records out of a flight.
func (f *flight) removeIf(out func(item) bool) {
	kept, records := f.items[:0], f.records[:0]
	for i, it := range f.items {
		if out(it) {
			continue
		}
		kept, records = append(kept, it), append(records, f.records[i])
	}
	clear(f.items[len(kept):])
	clear(f.records[len(records):])
	f.items, f.records = kept, records
}

// without takes the records of a lane out of a flight.
func (f *flight) without(l *lane, out func(item)) {
	f.removeIf(func(it item) bool {
		if it.lane == l {
			out(it)
		}
		return it.lane == l
	})
}

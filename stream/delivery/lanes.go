package delivery

import (
	"cmp"
	"slices"
	"sort"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
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
}

// A place is a cursor of a track: where it stands on one topic.
type place struct {
	topic   schemas.Topic
	cursor  *Cursor
	epoch   int64
	id      uuid.UUID // of the topic whose log the cursor is on; zero while unknown
	stray   bool      // the topic is another now: it waits for an operator
	end     int64     // exclusive; -1 without an end
	changed bool      // since the flusher looked

	wanted []bool // for each type of the chunk that is looked at
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
	slot                                    int       // in the courier's air
	tookOff                                 time.Time // of the attempt under way

	// What goes on when this one is finished: the other half of a split or, of a batch,
	// what is to be sent again, for which unsettled is what came of the attempt.
	then      *flight
	unsettled *Outcome

	dead   []schemas.Message    // to be appended; the records are given up
	dest   *storage.Destination // as it is for this attempt
	one    [1]item
	oneRec [1]*stream.Record
}

// admit puts the wanted records of a chunk that the cursor has not seen yet into
// lanes, until the window is full. It reports whether all of the chunk was seen.
func (t *track) admit(p *place, c *reader.Chunk) bool {
	wanted, few := p.match(c, t.courier.subscription, t.backfill)
	records := c.Records
	first := sort.Search(len(records), func(i int) bool { return records[i].Offset >= p.cursor.Next() })
	for i := first; i < len(records); i++ {
		r := &records[i]
		if p.end >= 0 && r.Offset >= p.end {
			p.advance(p.end)
			return false
		}
		if !wanted[c.Kind[i]] && r.Unreadable == nil || r.Offset < p.cursor.Next() || !t.backfill.takesKey(r.Key) {
			continue
		}
		if t.windowFull(r.Size()) || t.early() {
			// What lies before is known to be unwanted; the next look starts here.
			p.advance(r.Offset)
			return false
		}
		if !p.cursor.Admit(r.Offset) {
			continue
		}
		if few {
			r = r.Clone()
		}
		if err := unfit(r); err != nil {
			t.count(1, r.Size())
			t.courier.giveUp(t, item{record: r, place: p}, "undecodable", err)
			t.courier.metrics.dead.Inc()
			continue
		}
		if t.isParked(r.Key) {
			t.count(1, r.Size())
			t.divert(item{record: r, place: p})
		} else {
			t.enqueue(item{record: r, place: p})
		}
	}
	p.advance(c.To)
	return true
}

// unfit is why a record is given up before it is in a lane: nobody can say whether it
// is wanted, or what its lane is.
func unfit(r *stream.Record) error {
	if r.Unreadable == nil && (len(r.Key) > maxKey || !stream.IsText(r.Key)) {
		return errKey
	}
	return r.Unreadable
}

// match evaluates the subscription once for each type in the chunk. few says that
// less than a quarter of the chunk is wanted: a record is a slice of the whole that
// it was read with, and one that is open keeps all of that in memory.
func (p *place) match(c *reader.Chunk, s schemas.Subscription, b *backfill) (wanted []bool, few bool) {
	p.wanted = p.wanted[:0]
	all := true
	for _, typ := range c.Kinds {
		is := s.Matches(typ) && b.takes(typ)
		p.wanted = append(p.wanted, is)
		all = all && is
	}
	if all {
		return p.wanted, !b.takesAllKeys()
	}
	size := 0
	for i, kind := range c.Kind {
		if i < len(c.Records) && p.wanted[kind] {
			size += c.Records[i].Size()
		}
	}
	return p.wanted, size < c.Bytes/4 || !b.takesAllKeys()
}

func (p *place) advance(to int64) {
	if p.end >= 0 {
		to = min(to, p.end)
	}
	if to > p.cursor.Next() {
		p.cursor.Advance(to)
		p.changed = true
	}
}

// windowFull says whether one more record of this size would be too much, and
// remembers it, so that finishing some calls feed again.
func (t *track) windowFull(size int) bool {
	env := t.courier.env
	window := env.cfg.Window
	if t.courier.circuit.open {
		window /= 4 // Kafka is the buffer
	}
	full := t.open >= window || t.openBytes+size > env.cfg.WindowBytes || !t.mayHold(size)
	if !full || t.open == 0 {
		return false
	}
	t.full, t.wakeAt = true, t.open*3/4
	t.spill()
	return true
}

// heldMin is what of HeldBytes each track has for itself, when there are not too many.
const heldMin = 256 << 10

// mayHold says whether the track's part of the process's memory allows for one more
// record. A quarter is divided evenly among all tracks. Of the rest a destination has
// as much as is left over by all of them together, and a third at most: destinations
// that are stuck with what they hold leave room for one that is not, however many
// they are. Backfills have half of that.
func (t *track) mayHold(size int) bool {
	c := t.courier
	most := c.env.cfg.HeldBytes / 4
	if int64(t.openBytes+size) <= min(heldMin, most/max(1, c.env.tracks.Load())) {
		return true
	}
	most *= 3
	if t.backfill != nil {
		most /= 2
	}
	return c.held+int64(size) <= min(most/3, most-c.env.held.Load())
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

// cut makes a flight of what is ready. Lanes are taken in the order in which
// they became ready, so a busy contact waits behind the others after each record.
func (t *track) cut(maxRecords, maxBytes int) *flight {
	f := t.courier.newFlight(t)
	size := 0
	for t.ready.len() > 0 && len(f.items) < maxRecords {
		l := t.ready.first()
		if l.retrying && len(f.items) > 0 {
			break // it goes alone, for it may fail again
		}
		before := len(f.items)
		for l.queue.len() > 0 && len(f.items) < maxRecords {
			it := l.queue.first()
			if size += len(it.record.Value); size > maxBytes && len(f.items) > 0 {
				break
			}
			f.items = append(f.items, l.queue.pop())
			l.busy++
		}
		if len(f.items) == before {
			break
		}
		t.ready.pop()
		if maxRecords == 1 || size > maxBytes || l.retrying {
			break
		}
	}
	if maxRecords > 1 {
		slices.SortFunc(f.items, byOffset)
	}
	for _, it := range f.items {
		f.records = append(f.records, it.record)
	}
	if l := f.items[0].lane; l.parked != nil && len(f.items) == 1 {
		f.tries = l.parked.Attempts
	}
	return f
}

// add puts a record in.
func (f *flight) add(it item) {
	f.items, f.records = append(f.items, it), append(f.records, it.record)
}

// byOffset is the order of a batch. It keeps the order of each lane: within a
// topic a lane is in offset order, and between topics none is promised.
func byOffset(a, b item) int {
	if c := cmp.Compare(a.record.Topic, b.record.Topic); c != 0 {
		return -c // lifecycle before events
	}
	return cmp.Compare(a.record.Offset, b.record.Offset)
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

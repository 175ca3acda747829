package delivery

import (
	"bytes"
	"hash/maphash"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A key is parked when its first record fails while others succeed, and spilled
// when its lane holds too much of the window: its records wait in Postgres, in
// order, and count as finished at the cursor from the transaction that writes
// them there. Everything that comes for it later is diverted to the same place
// until all of that is delivered. The loader (loader.go) brings the first records
// of keys that are due back into their lanes.
//
// In memory a parked key costs a mark under the hash of its name. Two keys of one
// hash share the mark: then both are diverted, and both are delivered from
// Postgres, until both are done.
//
// The order in Postgres is the one of offsets, not of arrival: after a restart the
// log is read again from the oldest open record, and one of a spilled key that was
// in flight comes back after later ones that are parked.

// parking is what a track has parked. Guarded by the courier's mutex.
type parking struct {
	marks    map[uint64]mark
	out      map[string]*outKey
	retrying int // loaded lanes whose first record has failed before
	ops      []parkOp
	// gone are the records that were removed from Postgres while what has ended there is looked
	// for; nil at other times. The look may have read them before.
	gone map[parkedPlace]bool
}

// A parkedPlace is where on the log a parked record stands.
type parkedPlace struct {
	topic  string
	offset int64
}

type mark struct {
	rows int32 // in Postgres, or on the way there
	// origin is the destination's open time at which the key began to fail, or
	// last had a record delivered.
	origin time.Duration
}

// An outKey is a key of which memory knows more than Postgres: its first records
// are loaded, or something about it is not flushed yet. It is not loaded then.
type outKey struct {
	loaded    bool
	unflushed int
	// ending says that what is unflushed are removals of records that have ended where they are
	// parked, and ended their offsets.
	ending bool
	ended  []int64
}

// A parkOp is one thing to be written: a record to park, one to remove, or the
// state of a key.
type parkOp struct {
	kind   parkKind
	track  *track
	record storage.ParkedRecord
	size   int // of a record to park: what it takes off the window when written
	state  storage.ParkedKey
}

type parkKind uint8

const (
	parkRecord parkKind = iota
	removeRecord
	saveKey
)

// stored is what an item that came from Postgres knows beside its record.
type stored struct {
	since time.Duration // how long its key had been failing when it was parked
}

var hashSeed = maphash.MakeSeed()

func keyHash(key []byte) uint64 { return maphash.Bytes(hashSeed, key) }

// parks says whether the track may park. What a backfill parks stands apart from
// live, so that each keeps its order.
func (t *track) parks() bool { return t.courier.env.loader != nil }

// isParked says whether records of the key are to be diverted.
func (t *track) isParked(key []byte) bool {
	if len(t.parking.marks) == 0 {
		return false
	}
	_, parked := t.parking.marks[keyHash(key)]
	return parked
}

// setMark remembers rows of a key that were parked before this track began.
func (t *track) setMark(key string, rows int, failing time.Duration) {
	if t.parking.marks == nil {
		t.parking.marks = map[uint64]mark{}
	}
	h := keyHash([]byte(key))
	m := t.parking.marks[h]
	m.rows += int32(rows)
	m.origin = t.courier.openTime(time.Now()) - failing
	t.parking.marks[h] = m
}

func (t *track) parkedTrack() storage.ParkedTrack {
	replay := t.replay
	if replay == "" {
		replay = storage.LiveReplay
	}
	return storage.ParkedTrack{DestinationID: t.courier.id, ReplayID: replay, Partition: t.partition}
}

// divert sends an admitted record to Postgres. Its offset is finished from the
// flush that writes it; until then it counts in the window.
func (t *track) divert(it item) {
	r := it.record
	now := t.courier.openTime(time.Now())
	if t.parking.marks == nil {
		t.parking.marks = map[uint64]mark{}
	}
	h := keyHash(r.Key)
	m, known := t.parking.marks[h]
	if !known {
		m.origin = now
	}
	m.rows++
	t.parking.marks[h] = m
	if it.place.cursor.Finish(r.Offset) {
		t.unflushed++
		t.courier.env.flush.pending.Add(1)
	}
	it.place.changed = true
	op := parkOp{kind: parkRecord, size: r.Size(), record: storage.ParkedRecord{
		ParkedTrack: t.parkedTrack(), Key: string(r.Key), Topic: string(r.Topic), Offset: r.Offset, AppendTime: r.AppendTime,
		RecordID: r.ID, RecordType: r.Type, OccurredAt: r.OccurredAt, TraceParent: r.TraceParent, TraceState: r.TraceState,
		Value: bytes.Clone(r.Value), Since: now - m.origin, Epoch: it.place.epoch,
	}}
	t.courier.env.parkAsk(&op.record, it.ask)
	t.op(string(r.Key), op)
}

func (t *track) op(key string, op parkOp) {
	op.track = t
	t.parking.ops = append(t.parking.ops, op)
	t.outKey(key).unflushed++
	t.courier.env.flush.mark(t)
}

func (t *track) outKey(key string) *outKey {
	if t.parking.out == nil {
		t.parking.out = map[string]*outKey{}
	}
	o := t.parking.out[key]
	if o == nil {
		o = &outKey{}
		t.parking.out[key] = o
	}
	return o
}

func (op *parkOp) key() string {
	if op.kind == saveKey {
		return op.state.Key
	}
	return op.record.Key
}

// parked takes note that operations of tracks are written, or void because their
// lease is lost. No mutex is held.
func parked(ops []parkOp) {
	for len(ops) > 0 {
		t := ops[0].track
		t.courier.mu.Lock()
		for len(ops) > 0 && ops[0].track == t {
			op := &ops[0]
			ops = ops[1:]
			if o := t.parking.out[op.key()]; o != nil {
				if o.unflushed--; o.unflushed == 0 {
					o.ending, o.ended = false, nil
				}
			}
			switch {
			case op.kind == parkRecord:
				t.count(-1, -op.size)
			case op.kind == removeRecord && t.parking.gone != nil:
				t.parking.gone[parkedPlace{op.record.Topic, op.record.Offset}] = true
			}
		}
		t.roomAgain()
		t.courier.mu.Unlock()
	}
}

// park gives the key of a flight of one record up for now: the record, and what
// its lane holds, wait in Postgres. Its next attempt is at the given time.
func (c *courier) park(f *flight, out *Outcome, at, now time.Time) {
	t, l := f.track, f.items[0].lane
	h := keyHash(f.items[0].record.Key)
	state := l.parked
	c.recovered = 0
	if state == nil {
		first := f.firstFailed.UTC()
		state = &storage.ParkedKey{ParkedTrack: t.parkedTrack(), Key: l.key, FirstFailedAt: &first}
		c.env.log.Warn("delivery.key_parked", zap.String("destination", c.dest.Name), zap.Int32("partition", t.partition),
			zap.String("key", l.key), zap.Int("attempts", f.tries), zap.Int("status", out.Status))
		c.metrics.parked.Inc()
		if t.parking.marks == nil {
			t.parking.marks = map[uint64]mark{}
		}
		m := t.parking.marks[h]
		m.origin = f.since
		t.parking.marks[h] = m
	} else if state.FirstFailedAt == nil {
		first := now.UTC()
		state.FirstFailedAt = &first
	}
	state.Reason, state.Attempts = storage.ParkedFailing, f.tries
	state.Failing = c.openTime(now) - t.parking.marks[h].origin
	state.Status, state.Error = out.Status, out.Class()
	state.NextAttemptAt = at
	c.clearLane(f, l)
	t.op(l.key, parkOp{kind: saveKey, state: *state})
	c.drop(t, l)
	c.freeFlight(f)
}

// clearLane takes everything of the lane out of memory: the flight's record, those
// of the flights after it, and the queue.
func (c *courier) clearLane(f *flight, l *lane) {
	t := f.track
	t.evict(f.items[0])
	var rest []*flight
	for g := f.then; g != nil; g = g.then {
		if g.without(l, t.evict); len(g.items) > 0 {
			rest = append(rest, g)
		}
	}
	for l.queue.len() > 0 {
		t.evict(l.queue.pop())
	}
	for i, g := range rest {
		if g.then = nil; i+1 < len(rest) {
			g.then = rest[i+1]
		}
	}
	if len(rest) > 0 {
		c.again.push(rest[0])
	}
	l.busy = 0
}

// evict takes an item out of memory: one that came from Postgres is there still.
func (t *track) evict(it item) {
	if it.stored != nil {
		t.count(-1, -it.record.Size())
		return
	}
	t.divert(it)
}

// drop forgets a lane whose key stays parked.
func (c *courier) drop(t *track, l *lane) {
	if l.parked != nil {
		t.outKey(l.key).loaded = false
		if l.retrying {
			t.parking.retrying--
		}
	}
	delete(t.lanes, l.key)
	c.freeLane(l)
	t.roomAgain()
}

// failingFor is for how much open time a parked record has failed, or waited behind one
// that does.
func (t *track) failingFor(it item, open time.Duration) time.Duration {
	failing := open - t.parking.marks[keyHash(it.record.Key)].origin
	if it.stored.since <= failing {
		failing -= it.stored.since
	}
	return failing
}

// removed takes note that a parked record is finished, delivered or given up.
func (t *track) removed(it item, delivered bool) {
	r, l := it.record, it.lane
	h := keyHash(r.Key)
	m := t.parking.marks[h]
	m.rows--
	if delivered {
		m.origin = t.courier.openTime(time.Now())
	}
	if m.rows <= 0 {
		delete(t.parking.marks, h)
	} else {
		t.parking.marks[h] = m
	}
	if l.retrying {
		if c := t.courier; delivered {
			c.recovered = min(c.recovered+2, loadKeys)
		}
		l.retrying = false
		t.parking.retrying--
	}
	l.recovered = l.recovered || l.parked.Attempts > 0
	l.parked.Attempts, l.parked.FirstFailedAt = 0, nil
	t.op(l.key, parkOp{kind: removeRecord, record: storage.ParkedRecord{
		ParkedTrack: t.parkedTrack(), Key: l.key, Topic: string(r.Topic), Offset: r.Offset,
	}})
}

// unload ends the lane of a parked key when all that was loaded is finished. What
// is left in Postgres is due at once.
func (t *track) unload(l *lane) {
	t.outKey(l.key).loaded = false
	_, more := t.parking.marks[keyHash([]byte(l.key))]
	if !more || l.recovered {
		state := *l.parked
		state.NextAttemptAt, state.FirstFailedAt, state.Failing = dueFirst(time.Now()), nil, 0
		state.Status, state.Error, state.Reason = 0, "", storage.ParkedSpilled
		state.SkipBefore = nil // obeyed in part: the wish stands until a record beyond it is tried
		t.op(l.key, parkOp{kind: saveKey, state: state})
	}
}

// spill makes room in a full window: lanes that hold over a quarter of it go on
// from Postgres. What is in flight stays. A backfill does not spill: it is in no
// hurry, and one of a single contact would be copied as a whole.
func (t *track) spill() {
	env := t.courier.env
	if !t.parks() || t.backfill != nil {
		return
	}
	for _, l := range t.lanes {
		if l.parked != nil || l.queue.len() <= env.cfg.Window/4 && l.bytes() <= env.cfg.WindowBytes/4 {
			continue
		}
		n := l.queue.len()
		for i := range n {
			if it := l.queue.pop(); i == 0 && l.busy == 0 {
				l.queue.push(it) // the lane stands among the ready ones
			} else {
				t.divert(it)
			}
		}
		t.op(l.key, parkOp{kind: saveKey, state: storage.ParkedKey{
			ParkedTrack: t.parkedTrack(), Key: l.key, Reason: storage.ParkedSpilled, NextAttemptAt: dueFirst(time.Now()),
		}})
		env.log.Info("delivery.key_spilled", zap.String("destination", t.courier.dest.Name), zap.Int32("partition", t.partition),
			zap.String("key", l.key), zap.Int("records", n))
		t.courier.metrics.spilled.Inc()
	}
}

// dueFirst is when a key is due that waits for room only: before every one that has
// failed, however many of them are due and cannot be tried, and after those that came
// to wait for room before it. It lies within the hour before 1970.
func dueFirst(now time.Time) time.Time {
	return time.Unix(0, now.UnixNano()/1_000_000).Add(-time.Hour)
}

func (l *lane) bytes() int {
	size := 0
	for i := range l.queue.len() {
		size += l.queue.at(i).record.Size()
	}
	return size
}

// recordOf is the record as it was before it was parked.
func recordOf(r *storage.ParkedRecord) *stream.Record {
	return &stream.Record{
		Topic: schemas.Topic(r.Topic), Partition: r.Partition, Offset: r.Offset, Key: []byte(r.Key), Value: r.Value, AppendTime: r.AppendTime,
		ID: r.RecordID, Type: r.RecordType, OccurredAt: r.OccurredAt, TraceParent: r.TraceParent, TraceState: r.TraceState,
	}
}

package delivery

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// The loader brings the first records of parked keys that are due back into their
// lanes: for all destinations and partition numbers of the process with a constant
// number of statements, and for each of them never more than a few, so that memory
// does not grow with what is parked.
type loader struct {
	db     *storage.DB
	log    *zap.Logger
	tracks func() []*track
	signal chan struct{}
}

const (
	// loadKeys is how many parked keys of one track are in memory at once.
	loadKeys = 64
	// loadRecords and loadBytes bound what is loaded of a key at once; of one whose
	// first record has failed before, that record alone.
	loadRecords = 256
	loadBytes   = 256 << 10
	// loadEvery is the poll interval, for requests whose notification was lost; loadSoon
	// the pause before what could not be loaded now is tried again.
	loadEvery = 30 * time.Second
	loadSoon  = 100 * time.Millisecond
)

func newLoader(db *storage.DB, log *zap.Logger, tracks func() []*track) *loader {
	return &loader{db: db, log: log, tracks: tracks, signal: make(chan struct{}, 1)}
}

// wake has the loader look again. It may be called on nil.
func (ld *loader) wake() {
	if ld != nil {
		stream.Signal(ld.signal)
	}
}

// run loads until ctx ends.
func (ld *loader) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ld.signal:
		case <-timer.C:
		}
		wait, err := ld.pass(ctx)
		if err != nil && ctx.Err() == nil {
			ld.log.Warn("delivery.parked_load_failed", zap.Error(err))
			wait = time.Second
		}
		timer.Reset(wait)
	}
}

// A loading is what one pass wants of one track.
type loading struct {
	track *track
	next  []int64 // of each place, as it stood before Postgres was asked
	room  int     // keys that may be loaded
}

// pass loads what is due and returns when to look again.
func (ld *loader) pass(ctx context.Context) (time.Duration, error) {
	now := time.Now()
	var wanted []loading
	var tracks []storage.ParkedTrack
	var limits []int
	for _, t := range ld.tracks() {
		if w, limit, ok := t.mayLoad(); ok {
			wanted, tracks, limits = append(wanted, w), append(tracks, t.parkedTrack()), append(limits, limit)
		}
	}
	if len(wanted) == 0 {
		return loadEvery, nil
	}
	due, err := ld.db.DueParkedKeys(ctx, tracks, limits, now)
	if err != nil {
		return 0, err
	}
	chosen, counts := choose(wanted, due)
	wait := loadEvery
	if len(chosen) > 0 {
		loaded, err := ld.db.LoadParkedRecords(ctx, chosen, counts, loadBytes)
		for i, k := range chosen {
			w := &wanted[k.Track]
			switch {
			case err != nil:
				w.track.load(w, k.ParkedKey, nil, false)
			case !w.track.load(w, k.ParkedKey, loaded[i], true):
				wait = loadSoon
			}
		}
		if err != nil {
			return 0, err
		}
	}
	next, err := ld.db.NextParked(ctx, tracks, now)
	if err == nil && !next.IsZero() {
		wait = min(wait, max(time.Until(next), time.Millisecond))
	}
	return wait, err
}

// mayLoad says what may be loaded of the track now, and how many due keys to ask
// for, counting those of which memory knows more.
func (t *track) mayLoad() (w loading, limit int, ok bool) {
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	loaded := 0
	for key, o := range t.parking.out {
		if o.loaded {
			loaded++
		} else if o.unflushed == 0 {
			delete(t.parking.out, key)
		}
	}
	if t.retired || c.halted || len(t.parking.marks) == 0 || t.open >= c.env.cfg.Window || loaded >= loadKeys {
		return w, 0, false
	}
	w = loading{track: t, room: loadKeys - loaded}
	for _, p := range t.places {
		w.next = append(w.next, p.cursor.Next())
	}
	return w, len(t.parking.out) + len(t.spilling()) + w.room, true
}

// spilling are the keys that are parked and have a lane read from the log still.
func (t *track) spilling() (keys []string) {
	for key, l := range t.lanes {
		if l.parked == nil && t.isParked([]byte(key)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// choose takes the keys that may be loaded, and how many records of each.
func choose(wanted []loading, due []storage.DueKey) (chosen []storage.DueKey, counts []int) {
	for _, k := range due {
		w := &wanted[k.Track]
		if n := w.claim(&k.ParkedKey); n > 0 {
			chosen, counts = append(chosen, k), append(counts, n)
		}
	}
	return chosen, counts
}

// claim reserves a key to be loaded and returns how many of its records; 0 when it
// cannot be now. Keys that have failed before take at most a quarter of the
// destination's requests, for each of them may end in a timeout; more when those
// before were delivered. While the circuit is open only those that have not failed
// are loaded: when everything else fails for its own sake, it is they that close it.
func (w *loading) claim(k *storage.ParkedKey) int {
	t := w.track
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.room == 0 || t.retired || t.parking.out[k.Key] != nil || t.lanes[k.Key] != nil {
		return 0
	}
	retrying := k.Attempts > 0
	if retrying && (c.circuitBlocks(time.Now()) || c.retrying() >= max(1, c.limit/4)+c.recovered) {
		return 0
	}
	w.room--
	t.outKey(k.Key).loaded = true
	if !retrying || k.SkipBefore != nil {
		return loadRecords
	}
	t.parking.retrying++
	return 1
}

// retrying is how many keys that have failed before are loaded.
func (c *courier) retrying() (n int) {
	for _, t := range c.tracks {
		n += t.parking.retrying
	}
	return n
}

// load puts records of a claimed key into its lane. It reports false when none of
// them can be delivered yet.
func (t *track) load(w *loading, k storage.ParkedKey, rows []storage.ParkedRecord, asked bool) bool {
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	retrying := k.Attempts > 0 && k.SkipBefore == nil
	none := asked && len(rows) == 0
	n := 0
	for n < len(rows) && t.reached(w, &rows[n]) {
		n++
	}
	if t.retired || n == 0 {
		t.outKey(k.Key).loaded = false
		if retrying {
			t.parking.retrying--
		}
		if o := t.outKey(k.Key); none && !t.retired && o.unflushed == 0 {
			// A key without records is removed.
			delete(t.parking.marks, keyHash([]byte(k.Key)))
			t.op(k.Key, parkOp{kind: saveKey, state: k})
			t.roomAgain()
		}
		return t.retired || !asked || none
	}
	l := c.newLane(k.Key)
	l.parked, l.retrying = &k, retrying
	t.lanes[l.key] = l
	var skipped *flight
	for i := range rows[:n] {
		if rows[i].Skip && l.queue.len() > 0 {
			break // in its turn
		}
		r := recordOf(&rows[i])
		it := item{record: r, lane: l, stored: &stored{since: rows[i].Since}, ask: c.env.askOfParked(&rows[i])}
		t.count(1, r.Size())
		if !rows[i].Skip {
			l.queue.push(it)
			continue
		}
		if skipped == nil {
			skipped = c.newFlight(t)
		}
		skipped.add(it)
		l.busy++
	}
	if skipped != nil {
		c.bury(skipped, "skipped", &Outcome{Err: "skipped by an operator"})
	} else {
		t.ready.push(l)
	}
	c.enqueue(t)
	c.dispatch()
	return true
}

// reached says whether the log was read beyond the record before Postgres was
// asked. After a restart it is read again from the oldest open record, which may
// be an earlier one of the same key.
func (t *track) reached(w *loading, r *storage.ParkedRecord) bool {
	for i, p := range t.places {
		if string(p.topic) == r.Topic {
			return r.Offset < w.next[i]
		}
	}
	return true
}

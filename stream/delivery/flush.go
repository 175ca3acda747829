package delivery

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// The flusher writes results: as soon as there are some, at least
// SinksConfig.FlushEvery apart. One Postgres transaction writes the attempts and
// the changed cursors of all destinations, for every partition number with
// something to write whose lease this process still holds; those it lost are left
// out, for their new owner starts from the cursor. Fewer, larger transactions cost
// Postgres less than one for each partition number.
//
// While Postgres is away the results stay here, and no attempt starts once
// SinksConfig.MaxUnflushed of them wait.
type flusher struct {
	cfg     Config
	db      *storage.DB
	log     *zap.Logger
	metrics *sinkMetrics
	erased  *noted // nil: nobody is

	appender  stream.Appender // of receipts
	cancelled *noted          // nil: nothing was
	// stale is told when a cursor was not saved: rewound, or its destination deleted.
	stale func()
	// flushed is told when a flush has made room again.
	flushed func()
	// parked is told when something parked was written.
	parked func()

	pending atomic.Int64 // attempts and finished records that are not flushed

	mu     sync.Mutex
	dirty  []*track
	moved  []*track // whose cursors passed what is not wanted, and no more
	signal chan struct{}

	writing sync.Mutex // one flush at a time
	kept    results    // of the flush that failed
}

// Results are what one flush writes.
type results struct {
	attempts []held
	parking  []parkOp // in the order in which they came about
	receipts []told   // to be appended first
	cancels  []string // outbox records that were taken back and have ended
	count    int64    // what it takes off pending
}

// held is an attempt with the lease it was made under.
type held struct {
	storage.Attempt
	holding *holding
}

func newFlusher(cfg Config, db *storage.DB, log *zap.Logger, m *sinkMetrics) *flusher {
	return &flusher{cfg: cfg, db: db, log: log, metrics: m, signal: make(chan struct{}, 1), stale: func() {}, flushed: func() {}, parked: func() {}}
}

// full says that no more may be added by new attempts.
func (fl *flusher) full() bool { return fl.pending.Load() >= int64(fl.cfg.MaxUnflushed) }

// busy says that results wait in such number that backfills must stop, so that
// live deliveries still have room when Postgres is slow.
func (fl *flusher) busy() bool { return fl.pending.Load() >= int64(fl.cfg.MaxUnflushed/2) }

// mark says that a track has something to flush. The courier's mutex is held.
func (fl *flusher) mark(t *track) {
	if t.dirty {
		return
	}
	t.dirty = true
	fl.mu.Lock()
	fl.dirty = append(fl.dirty, t)
	fl.mu.Unlock()
	select {
	case fl.signal <- struct{}{}:
	default:
	}
}

// movedEvery is how often cursors are written that only passed records nobody
// wanted. With many destinations that is most of them, and nothing is repeated
// when it is lost.
const movedEvery = 2 * time.Second

// markMoved says that a cursor of the track moved without a result. The courier's
// mutex is held.
func (fl *flusher) markMoved(t *track) {
	if t.dirty || t.moved {
		return
	}
	t.moved = true
	fl.mu.Lock()
	fl.moved = append(fl.moved, t)
	fl.mu.Unlock()
}

// takeMoved has the cursors that moved written with the next flush.
func (fl *flusher) takeMoved() {
	fl.mu.Lock()
	moved := fl.moved
	fl.moved = nil
	fl.mu.Unlock()
	for _, t := range moved {
		t.courier.mu.Lock()
		t.moved = false
		if t.cursorMoved() {
			fl.mark(t)
		}
		t.courier.mu.Unlock()
	}
}

// run flushes until ctx ends.
func (fl *flusher) run(ctx context.Context) {
	failures := 0
	tick := time.NewTicker(movedEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			fl.takeMoved()
			continue
		case <-fl.signal:
		}
		started := time.Now()
		wait := fl.cfg.FlushEvery
		if err := fl.sync(ctx); err != nil && ctx.Err() == nil {
			failures++
			wait = max(wait, min(50*time.Millisecond<<min(failures, 6), 2*time.Second))
			if failures == 1 || failures%30 == 0 {
				fl.log.Warn("delivery.flush_failed", zap.Int64("waiting", fl.pending.Load()), zap.Error(err))
			}
		} else {
			failures = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait - time.Since(started)):
		}
	}
}

// sync writes everything that is known now. On an error all of it is kept for the
// next call.
func (fl *flusher) sync(ctx context.Context) error {
	fl.writing.Lock()
	defer fl.writing.Unlock()
	fl.mu.Lock()
	tracks := fl.dirty
	fl.dirty = nil
	fl.mu.Unlock()
	cursors := fl.collect(tracks)
	if len(cursors) == 0 && len(fl.kept.attempts) == 0 && len(fl.kept.parking) == 0 {
		fl.done()
		return nil
	}
	started := time.Now()
	ctx, cancel := context.WithTimeout(ctx, fl.cfg.Lease)
	defer cancel()
	err := fl.appendReceipts(ctx)
	var saved int
	if err == nil {
		saved, err = fl.write(ctx, cursors)
	}
	if err != nil {
		fl.again(tracks)
		return err
	}
	fl.metrics.flushed(len(fl.kept.attempts), len(cursors), time.Since(started))
	fl.done()
	if saved < len(cursors) {
		fl.stale()
	}
	return nil
}

// collect takes the results out of tracks, and the cursors that changed.
func (fl *flusher) collect(tracks []*track) []heldCursor {
	var cursors []heldCursor
	for _, t := range tracks {
		c := t.courier
		c.mu.Lock()
		t.dirty = false
		for _, a := range t.results {
			fl.kept.attempts = append(fl.kept.attempts, held{a, t.holding})
		}
		t.results = t.results[:0]
		for _, r := range t.receipts {
			fl.kept.receipts = append(fl.kept.receipts, told{r, t.holding})
		}
		t.receipts = nil
		fl.kept.parking = append(fl.kept.parking, t.parking.ops...)
		t.parking.ops = nil
		fl.kept.count += int64(t.unflushed)
		t.unflushed = 0
		for _, p := range t.places {
			if p.changed {
				p.changed = false
				cursors = append(cursors, t.snapshot(p))
			}
		}
		c.mu.Unlock()
	}
	return cursors
}

// heldCursor is a cursor with the lease it was moved under.
type heldCursor struct {
	storage.Cursor
	holding *holding
}

// replayID is the replay id of the track's cursors.
func (t *track) replayID() string {
	if t.replay == "" {
		return storage.LiveReplay
	}
	return t.replay
}

func (t *track) snapshot(p *place) heldCursor {
	position := p.cursor.Position()
	return heldCursor{storage.Cursor{
		DestinationID: t.courier.id, ReplayID: t.replayID(), Topic: string(p.topic), Partition: t.partition,
		Position: position, Finished: packRanges(position, p.cursor.Finished(nil)), Epoch: p.epoch, TopicID: p.id,
	}, t.holding}
}

// again puts tracks whose cursors were not saved back.
func (fl *flusher) again(tracks []*track) {
	for _, t := range tracks {
		t.courier.mu.Lock()
		for _, p := range t.places {
			p.changed = true
		}
		fl.mark(t)
		t.courier.mu.Unlock()
	}
	if len(tracks) == 0 { // only attempts are left over
		select {
		case fl.signal <- struct{}{}:
		default:
		}
	}
}

// done forgets what was written and lets attempts start that waited for room.
func (fl *flusher) done() {
	wasBusy := fl.busy()
	fl.pending.Add(-fl.kept.count)
	clear(fl.kept.attempts)
	if cap(fl.kept.attempts) > 4*fl.cfg.MaxUnflushed {
		fl.kept.attempts = nil
	}
	ops := fl.kept.parking
	fl.kept = results{attempts: fl.kept.attempts[:0], receipts: fl.kept.receipts[:0]}
	if len(ops) > 0 {
		parked(ops)
		fl.parked()
	}
	if wasBusy {
		fl.flushed()
	}
}

// write is the transaction. It returns how many of the cursors need no more
// writing.
func (fl *flusher) write(ctx context.Context, cursors []heldCursor) (saved int, err error) {
	held := heldBy(cursors, fl.kept)
	if len(held) == 0 {
		return len(cursors), nil
	}
	leases := make([]storage.Lease, 0, len(held))
	for _, h := range held {
		leases = append(leases, h.lease())
	}
	err = fl.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		valid, err := tx.HoldLeases(ctx, leases)
		if err != nil {
			return err
		}
		ours := map[*holding]bool{}
		for _, p := range valid {
			ours[held[p]] = true
		}
		saved, err = fl.writeHeld(ctx, tx, ours, cursors)
		return err
	})
	return saved, err
}

// writeHeld writes what was done under the given holdings. Whether one is lost is not asked
// again here: that may change between two statements, and a cursor must not be saved without
// the records that are finished at it because they are parked.
func (fl *flusher) writeHeld(ctx context.Context, tx *storage.Tx, ours map[*holding]bool, cursors []heldCursor) (saved int, err error) {
	rows := make([]storage.Cursor, 0, len(cursors))
	for _, c := range cursors {
		if ours[c.holding] {
			rows = append(rows, c.Cursor)
		}
	}
	saved = len(cursors) - len(rows)
	if len(rows) > 0 {
		n, err := tx.SaveCursors(ctx, rows)
		if err != nil {
			return 0, err
		}
		saved += n
	}
	if err := fl.writeParking(ctx, tx, ours); err != nil {
		return 0, err
	}
	if len(fl.kept.cancels) > 0 {
		if err := tx.EndCancels(ctx, fl.kept.cancels); err != nil {
			return 0, err
		}
	}
	attempts := make([]storage.Attempt, 0, len(fl.kept.attempts))
	for _, a := range fl.kept.attempts {
		if ours[a.holding] {
			attempts = append(attempts, fl.withoutErased(a.Attempt))
		}
	}
	if len(attempts) == 0 {
		return saved, nil
	}
	return saved, tx.WriteAttempts(ctx, attempts)
}

// withoutErased is an attempt as it is logged: without texts, which may quote it, when
// it was about somebody who was erased by now.
func (fl *flusher) withoutErased(a storage.Attempt) storage.Attempt {
	if fl.erased.hasKey(a.RecordKey) {
		a.Error, a.Response = "", nil
	}
	return a
}

// parkedWithoutErased is a record as it is parked: without its value, which is not to
// be sent, when it is about somebody who was erased by now.
func (fl *flusher) parkedWithoutErased(r storage.ParkedRecord) storage.ParkedRecord {
	if fl.erased.has(&stream.Record{Key: []byte(r.Key), Type: r.RecordType}) {
		r.Value = nil
	}
	return r
}

// writeParking writes what was parked and what of it is finished. Records come
// before removals, for one may be both; of the states of a key the last counts.
func (fl *flusher) writeParking(ctx context.Context, tx *storage.Tx, ours map[*holding]bool) error {
	type keyOf struct {
		storage.ParkedTrack
		key string
	}
	var rows, gone []storage.ParkedRecord
	states := map[keyOf]storage.ParkedKey{}
	for i := range fl.kept.parking {
		op := &fl.kept.parking[i]
		if !ours[op.track.holding] {
			continue
		}
		switch op.kind {
		case parkRecord:
			rows = append(rows, fl.parkedWithoutErased(op.record))
		case removeRecord:
			gone = append(gone, op.record)
		case saveKey:
			state := op.state
			if fl.erased.hasKey(state.Key) {
				state.Error = ""
			}
			states[keyOf{state.ParkedTrack, state.Key}] = state
		}
	}
	if len(rows) > 0 {
		if err := tx.ParkRecords(ctx, rows); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		if err := tx.RemoveParkedRecords(ctx, gone); err != nil {
			return err
		}
	}
	if len(states) == 0 {
		return nil
	}
	return tx.SaveParkedKeys(ctx, slices.Collect(maps.Values(states)))
}

// heldBy are the holdings, by partition, under which something is to be written and that are
// not lost as yet. A holding is marked lost before the next one of its partition begins, so at
// most one of them is not.
func heldBy(cursors []heldCursor, kept results) map[int32]*holding {
	held := map[int32]*holding{}
	add := func(h *holding) {
		if !h.lost.Load() {
			held[h.partition] = h
		}
	}
	for _, c := range cursors {
		add(c.holding)
	}
	for _, a := range kept.attempts {
		add(a.holding)
	}
	for i := range kept.parking {
		add(kept.parking[i].track.holding)
	}
	return held
}

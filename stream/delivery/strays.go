package delivery

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// An outbox record that no destination takes is a stray: what it is addressed to is not there
// (any more), or takes no outbox records. The owner of a partition looks at every record and
// refuses the strays. A cursor on the topic begins and ends where this look stands, under a
// lock, so every record is either a stray or some destination's (storage.OutboxPlace).

const (
	// straysEvery is the least time between two looks at who takes what was read.
	straysEvery = 250 * time.Millisecond
	// straysMost bounds what is read and not looked at yet, of a partition.
	straysMost = 20_000
)

// strays is the look at a partition of topic outbox.
type strays struct {
	mu       sync.Mutex
	begun    bool
	position int64     // as it is stored
	next     int64     // read up to here
	id       uuid.UUID // of the topic; zero while unknown
	asked    map[string][]int64
	count    int // of offsets in asked
}

// tail is how far the partition was read.
func (st *strays) tail() int64 {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.next
}

// begin goes on from the place that is stored.
func (st *strays) begin(p storage.OutboxPlace) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.begun {
		st.begun, st.position, st.next, st.id, st.asked = true, p.Position, p.Position, p.TopicID, map[string][]int64{}
	}
}

// beginStrays has the look begin on partitions that were taken.
func (s *Sinks) beginStrays(ctx context.Context, holdings []*holding) error {
	var fresh []*holding
	var partitions []int32
	for _, h := range holdings {
		h.strays.mu.Lock()
		if !h.strays.begun {
			fresh, partitions = append(fresh, h), append(partitions, h.partition)
		}
		h.strays.mu.Unlock()
	}
	if len(fresh) == 0 {
		return nil
	}
	places, err := s.db.OutboxPlaces(ctx, partitions)
	if err != nil {
		return err
	}
	var missing []storage.OutboxPlace
	var failed error // the first of them; it keeps nothing else from beginning
	for _, p := range partitions {
		if slices.ContainsFunc(places, func(o storage.OutboxPlace) bool { return o.Partition == p }) {
			continue
		}
		start, _, err := s.reader.Bounds(ctx, stream.TopicPartition{Topic: schemas.TopicOutbox, Partition: p})
		if err != nil {
			failed = cmp.Or(failed, err)
			continue
		}
		missing = append(missing, storage.OutboxPlace{Partition: p, Position: start})
	}
	if len(missing) > 0 {
		if err := s.db.BeginOutboxPlaces(ctx, missing); err != nil {
			return err
		}
		places = append(places, missing...)
	}
	for _, p := range places {
		for _, h := range fresh {
			if h.partition == p.Partition {
				h.strays.begin(p)
				h.wake()
			}
		}
	}
	return failed
}

// feedStrays reads on. low takes its place, as of any other reader.
func (s *Sinks) feedStrays(h *holding, low map[schemas.Topic]int64) {
	st := &h.strays
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.begun {
		return
	}
	key := stream.TopicPartition{Topic: schemas.TopicOutbox, Partition: h.partition}
	for st.count < straysMost {
		seen := s.reader.At(key, st.id, st.next, false)
		if storage.OtherLog(st.id, seen.ID) {
			s.log.Error("delivery.outbox_made_anew", zap.Int32("partition", h.partition), zap.String("why", stream.MadeAnew(key.Topic, st.id, seen.ID)))
			st.position, st.next, st.asked, st.count = 0, 0, map[string][]int64{}, 0
			st.id = seen.ID
			continue
		}
		if st.id == uuid.Nil {
			st.id = seen.ID
		}
		switch {
		case seen.Gap > 0:
			st.next = seen.Gap
			continue
		case seen.Chunk != nil:
			st.add(seen.Chunk)
			continue
		}
		break
	}
	if at, ok := low[key.Topic]; !ok || st.next < at {
		low[key.Topic] = st.next
	}
	if st.next > st.position {
		stream.Signal(s.strayed)
	}
}

// add notes to whom the records of a chunk are addressed; "" stands for nobody who could be.
func (st *strays) add(c *reader.Chunk) {
	for i := range c.Records {
		r := &c.Records[i]
		if r.Offset < st.next {
			continue
		}
		to, ok := schemas.AddressOf(r.Type)
		if !ok || r.Unreadable != nil {
			to = ""
		}
		st.asked[to] = append(st.asked[to], r.Offset)
		st.count++
	}
	st.next = c.To
}

// stray refuses strays until ctx ends.
func (s *Sinks) stray(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.strayed:
		}
		if err := s.strayRound(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.strays_failed", zap.Error(err))
			stream.Signal(s.strayed)
		}
		stream.Pause(ctx, straysEvery)
	}
}

// A strayMove is a place that is about to be moved.
type strayMove struct {
	h     *holding
	to    storage.OutboxPlace
	asked map[string][]int64 // up to there
}

// snapshot is the move that may be made now; false when there is none.
func (st *strays) snapshot(h *holding) (m strayMove, ok bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.begun || st.next <= st.position {
		return m, false
	}
	m = strayMove{h, storage.OutboxPlace{Partition: h.partition, Position: st.next, TopicID: st.id}, map[string][]int64{}}
	for to, offsets := range st.asked {
		m.asked[to] = slices.Clone(offsets)
	}
	return m, true
}

// moved takes note of a move that is stored.
func (st *strays) moved(to storage.OutboxPlace) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if storage.OtherLog(st.id, to.TopicID) {
		return
	}
	st.position, st.count = to.Position, 0
	for dest, offsets := range st.asked {
		kept := slices.DeleteFunc(offsets, func(o int64) bool { return o < to.Position })
		if st.asked[dest] = kept; len(kept) == 0 {
			delete(st.asked, dest)
		}
		st.count += len(kept)
	}
}

// strayRound looks who takes what was read since the last one, refuses the strays, and moves
// the places, all under their lock: no destination begins or ceases to take any meanwhile.
func (s *Sinks) strayRound(ctx context.Context) error {
	var moves []strayMove
	var partitions []int32
	var leases []storage.Lease
	for _, h := range s.listHoldings() {
		if m, ok := h.strays.snapshot(h); ok && !h.lost.Load() {
			moves, partitions, leases = append(moves, m), append(partitions, h.partition), append(leases, h.lease())
		}
	}
	if len(moves) == 0 {
		return nil
	}
	var done []strayMove
	var left []storage.Skip
	err := s.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		done = nil
		held, err := tx.HoldLeases(ctx, leases)
		if err != nil {
			return err
		}
		if err := tx.LockOutboxPlaces(ctx, partitions); err != nil {
			return err
		}
		var asked []storage.OutboxReader
		for _, m := range moves {
			for to := range m.asked {
				asked = append(asked, storage.OutboxReader{Partition: m.h.partition, Destination: to})
			}
		}
		unread, err := tx.UnreadOutbox(ctx, asked)
		if err != nil {
			return err
		}
		if left = nil; len(unread) > 0 {
			if left, err = s.db.LoadSkips(ctx, partitions); err != nil {
				return err
			}
		}
		for _, m := range moves {
			if slices.Contains(held, m.h.partition) && s.refuseStrays(ctx, m, unread, left) {
				done = append(done, m)
			}
		}
		places := make([]storage.OutboxPlace, len(done))
		for i, m := range done {
			places[i] = m.to
		}
		return tx.MoveOutboxPlaces(ctx, places)
	})
	if err != nil {
		return err
	}
	for _, m := range done {
		m.h.strays.moved(m.to)
		m.h.wake()
	}
	if len(done) < len(moves) {
		stream.Signal(s.strayed)
	}
	if len(left) > 0 {
		s.refresh() // what destinations left open may wait for the place to pass it
	}
	return nil
}

// refuseStrays refuses what nobody takes of a move. It reports false when that is to be tried
// again: what a destination that is gone had in flight here has not ended yet, or Kafka is away.
func (s *Sinks) refuseStrays(ctx context.Context, m strayMove, unread []storage.OutboxReader, left []storage.Skip) bool {
	var offsets []int64
	for _, u := range unread {
		if u.Partition != m.h.partition {
			continue
		}
		if slices.ContainsFunc(m.h.list(), func(t *track) bool { return t.answers() && t.courier.id == u.Destination }) {
			return false
		}
		open, err := notLeft(m.asked[u.Destination], u, left)
		if err != nil {
			s.log.Error("delivery.strays_failed", zap.Int32("partition", m.h.partition), zap.Error(err))
			return false
		}
		offsets = append(offsets, open...)
	}
	if len(offsets) == 0 {
		return true
	}
	slices.Sort(offsets)
	told, err := s.strayReceipts(ctx, m, offsets)
	if err == nil {
		err = appendLetters(ctx, s.env.appender, told)
	}
	if err != nil {
		s.log.Warn("delivery.strays_failed", zap.Int32("partition", m.h.partition), zap.Error(err))
		return false
	}
	return true
}

// notLeft are the offsets that a destination neither ended before it was gone nor left open: for
// those there are skips, which stay until the place has passed them.
func notLeft(offsets []int64, u storage.OutboxReader, left []storage.Skip) ([]int64, error) {
	for i := range left {
		k := &left[i]
		if k.Refused == "" || k.DestinationID != u.Destination || k.Partition != u.Partition {
			continue
		}
		finished, err := UnpackRanges(k.Position, k.Finished)
		if err != nil {
			return nil, err
		}
		done := reader.Wanted{Finished: map[stream.TopicPartition][]int64{{}: finished}}
		offsets = slices.DeleteFunc(slices.Clone(offsets), func(o int64) bool {
			return o < max(k.EndOffset, k.Position) || !done.TakesOffset(stream.TopicPartition{}, o)
		})
	}
	return offsets, nil
}

// passed says whether the place has passed all that a destination has ended or left open.
func (st *strays) passed(k *storage.Skip) (bool, error) {
	finished, err := UnpackRanges(k.Position, k.Finished)
	if err != nil {
		return false, err
	}
	last := max(k.Position, k.EndOffset)
	if n := len(finished); n > 0 {
		last = max(last, finished[n-1])
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.begun && st.position >= last, nil
}

// errNobody is why a record that is addressed to nobody is given up.
var errNobody = errors.New("the record names no destination")

// strayReceipts are the receipts of strays; of what nobody can read a dead letter.
func (s *Sinks) strayReceipts(ctx context.Context, m strayMove, offsets []int64) (told []schemas.Message, err error) {
	admin := &stream.Admin{Config: s.kafka, Client: s.reader.Far, Kadm: kadm.NewClient(s.reader.Far)}
	log, err := reader.NewScanner(ctx, admin, schemas.TopicOutbox)
	if err != nil {
		return nil, err
	}
	key := stream.TopicPartition{Topic: schemas.TopicOutbox, Partition: m.h.partition}
	for _, offset := range offsets {
		r, err := log.One(ctx, key, offset)
		if err != nil {
			return nil, err
		}
		if r == nil {
			continue // retention was faster
		}
		now := time.Now()
		o, err := s.env.ask(r)
		switch {
		case errors.Is(err, schemas.ErrRegistryUnavailable):
			return nil, err
		case err == nil && o.Asker != "" && uuid.Validate(o.ID) == nil:
			receipt := schemas.Receipt{Result: schemas.ReceiptRefused, Reason: "no destination of this name or id takes outbox records: add one, or outbox to its event types"}
			if s.env.erased.hasKey(o.ContactID) {
				receipt = schemas.Receipt{Result: schemas.ReceiptErased}
			}
			told = append(told, schemas.ReceiptOf(o, receipt, now))
			s.env.metrics.receipts.WithLabelValues(receipt.Result).Inc()
		case !s.env.erased.has(r):
			if err == nil {
				err = errNobody
			}
			told = append(told, stream.NewDeadLetter(r, "outbox", "undecodable", err, now))
		}
	}
	return told, nil
}

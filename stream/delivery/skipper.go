package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// The skipper makes dead letters "skipped" of what rewinds forward left out (package
// storage, Skip). It needs no lanes: nothing is sent, so it works for destinations that
// are paused, suspended or failing as well, one piece of the log at a time for all of
// them. A skip begins when nothing of the cursor before the rewind is under way here any
// more and its results are flushed: what was delivered until then is no longer in it.
//
// Letters come before the note that they are written, so a crash in between writes
// them again, under the same ids.
type skipper struct {
	signal chan struct{}

	mu    sync.Mutex
	ready []string // ids of skips that may be worked on, as reconcile last saw them
}

const (
	// skipBytes is how much of the log is made letters of at once, and of what is
	// parked, of which it is skipParked records at most.
	skipBytes  = 1 << 20
	skipParked = 500
)

// reason of the letters.
var errSkipped = errors.New("skipped by an operator: a rewind went on beyond it")

// readySkips finds the skips that may be worked on. It is called where tracks begin,
// after that: one of the cursor before a rewind is in its holding by now, or never
// begins.
func (s *Sinks) readySkips(ctx context.Context, holdings []*holding, partitions []int32) error {
	skips, err := s.db.LoadSkips(ctx, partitions)
	if err != nil {
		return err
	}
	var ready []string
	for i := range skips {
		if !delivers(holdings, &skips[i]) {
			ready = append(ready, skips[i].ID)
		}
	}
	s.skipper.mu.Lock()
	s.skipper.ready = ready
	s.skipper.mu.Unlock()
	if len(ready) > 0 {
		stream.Signal(s.skipper.signal)
	}
	return nil
}

// delivers says whether a track of the cursor before the rewind is still there.
func delivers(holdings []*holding, k *storage.Skip) bool {
	for _, h := range holdings {
		if h.partition != k.Partition {
			continue
		}
		for _, t := range h.list() {
			before := slices.ContainsFunc(t.places, func(p *place) bool { return string(p.topic) == k.Topic && p.epoch <= k.Epoch })
			if t.backfill == nil && t.courier.id == k.DestinationID && before {
				return true
			}
		}
	}
	return false
}

// skip works on skips until ctx ends.
func (s *Sinks) skip(ctx context.Context) {
	admin := &stream.Admin{Config: s.kafka, Client: s.reader.Far, Kadm: kadm.NewClient(s.reader.Far)}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.skipper.signal:
		}
		if err := s.skipRound(ctx, admin); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.skip_failed", zap.Error(err))
			stream.Pause(ctx, time.Second)
			s.refresh() // finds again what could not go on
		}
	}
}

// skipRound takes turns among the skips that are ready, a piece each, until none of
// them can go on.
func (s *Sinks) skipRound(ctx context.Context, admin *stream.Admin) error {
	log, err := reader.NewScanner(ctx, admin, schemas.FedTopics()...)
	if err != nil {
		return err
	}
	var failed error // the first
	for {
		s.skipper.mu.Lock()
		ready := slices.Clone(s.skipper.ready)
		s.skipper.mu.Unlock()
		if len(ready) == 0 || ctx.Err() != nil {
			return failed
		}
		for _, id := range ready {
			through, err := s.skipPiece(ctx, log, id)
			failed = cmp.Or(failed, err)
			if through || err != nil {
				s.skipper.leave(id)
			}
		}
	}
}

// leave takes a skip from those that are ready, until reconcile finds it again.
func (k *skipper) leave(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready = slices.DeleteFunc(slices.Clone(k.ready), func(other string) bool { return other == id })
}

// skipPiece makes letters of a piece of a skip. It reports true when there is nothing
// more to do here: the skip is through, or its partition is no longer ours.
func (s *Sinks) skipPiece(ctx context.Context, log *reader.Scanner, id string) (through bool, err error) {
	k, err := s.db.GetSkip(ctx, id)
	if err != nil || k == nil {
		return true, err
	}
	h := s.holdingOf(k.Partition)
	if h == nil {
		return true, nil
	}
	if k.Position < k.EndOffset {
		return s.skipLog(ctx, log, h, k)
	}
	return s.skipStored(ctx, h, k)
}

func (s *Sinks) holdingOf(partition int32) *holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holdings[partition]
	if h == nil || h.lost.Load() || h.closing.Load() {
		return nil
	}
	return h
}

// skipLog makes letters of what is open in the next piece of the log.
func (s *Sinks) skipLog(ctx context.Context, log *reader.Scanner, h *holding, k *storage.Skip) (lost bool, err error) {
	finished, err := UnpackRanges(k.Position, k.Finished)
	if err != nil {
		return false, fmt.Errorf("skip of destination %s on %s/%d: %w", k.Destination, k.Topic, k.Partition, err)
	}
	cursor := NewCursor(k.Position, finished)
	letters, err := s.skippedLetters(ctx, log, k, cursor)
	if err != nil {
		return false, err
	}
	k.Position = cursor.Position()
	k.Finished = packRanges(k.Position, cursor.Finished(nil))
	return s.writeSkipped(ctx, h, k, letters, func(tx *storage.Tx) error { return tx.MoveSkip(ctx, k) })
}

// skippedLetters are the letters of one read, beyond which it moves the cursor.
func (s *Sinks) skippedLetters(ctx context.Context, log *reader.Scanner, k *storage.Skip, cursor *Cursor) (letters []schemas.Message, err error) {
	subscription, err := schemas.ParseSubscription(k.EventTypes)
	if err != nil {
		return nil, fmt.Errorf("skip of destination %s: %w", k.Destination, err)
	}
	subscription = subscription.For(k.DestinationID)
	key, from := stream.TopicPartition{Topic: schemas.Topic(k.Topic), Partition: k.Partition}, cursor.Next()
	if from >= k.EndOffset {
		return nil, nil // all of the rest was delivered
	}
	if k.TopicID != nil && storage.OtherLog(*k.TopicID, log.Leaders[key].ID) {
		cursor.Advance(k.EndOffset)
		gap := skippedGapTo(k, key, from, k.EndOffset)
		gap.Error = "these records went with their topic, which was deleted and made anew before they became dead letters"
		return []schemas.Message{gap}, nil
	}
	c, err := log.Read(ctx, key, from, skipBytes)
	if reader.IsOutOfRange(err) {
		gap, err := s.skippedGap(ctx, k, key, from)
		if err != nil {
			return nil, err
		}
		cursor.Advance(*gap.EndOffset)
		return []schemas.Message{gap}, nil
	}
	if err == nil && c == nil {
		return nil, s.skipEmpty(ctx, k, key, cursor)
	}
	if err != nil {
		return nil, err
	}
	for i := range c.Records {
		r := &c.Records[i]
		if r.Offset < k.EndOffset && r.Offset >= cursor.Next() && (r.Unreadable != nil && k.Refused == "" || subscription.Matches(r.Type)) && cursor.Admit(r.Offset) {
			cursor.Finish(r.Offset)
			ask, _ := s.env.ask(r) // without it there is a dead letter
			letters = s.addSkipped(letters, k, r, ask)
		}
	}
	cursor.Advance(min(c.To, k.EndOffset))
	return letters, nil
}

// skipEmpty goes on where nothing can be read: the log ends there, or a transaction is
// still open.
func (s *Sinks) skipEmpty(ctx context.Context, k *storage.Skip, key stream.TopicPartition, cursor *Cursor) error {
	_, end, err := s.reader.Bounds(ctx, key)
	if err != nil {
		return err
	}
	if cursor.Next() < end {
		return fmt.Errorf("skip of destination %s: nothing can be read yet at %s/%d@%d", k.Destination, k.Topic, k.Partition, cursor.Next())
	}
	cursor.Advance(k.EndOffset)
	return nil
}

// skippedGap is the letter of records that the log no longer has.
func (s *Sinks) skippedGap(ctx context.Context, k *storage.Skip, key stream.TopicPartition, from int64) (*schemas.DeadLetter, error) {
	start, _, err := s.reader.Bounds(ctx, key)
	if err != nil {
		return nil, err
	}
	to := k.EndOffset
	if from < start {
		to = min(to, start)
	}
	d := skippedGapTo(k, key, from, to)
	d.Error = fmt.Sprintf("the log no longer has offsets %d to %d, which were not delivered", from, to-1)
	return d, nil
}

func skippedGapTo(k *storage.Skip, key stream.TopicPartition, from, to int64) *schemas.DeadLetter {
	d := skippedLetter(k, &stream.Record{Topic: key.Topic, Partition: key.Partition, Offset: from, AppendTime: time.Now()})
	d.Reason, d.EndOffset = "gap", &to
	return d
}

// skipStored makes letters of some of what was parked, and ends the skip after the last.
func (s *Sinks) skipStored(ctx context.Context, h *holding, k *storage.Skip) (through bool, err error) {
	rows, err := s.db.SkippedParked(ctx, k, skipParked, skipBytes)
	if err != nil {
		return false, err
	}
	if len(rows) == 0 && k.Refused != "" {
		if passed, err := h.strays.passed(k); err != nil || !passed {
			return true, err
		}
	}
	letters := make([]schemas.Message, 0, len(rows))
	for i := range rows {
		letters = s.addSkipped(letters, k, recordOf(&rows[i]), s.env.askOfParked(&rows[i]))
	}
	lost, err := s.writeSkipped(ctx, h, k, letters, func(tx *storage.Tx) error {
		if len(rows) == 0 {
			return tx.EndSkip(ctx, k.ID)
		}
		return tx.RemoveParkedRecords(ctx, rows)
	})
	return lost || len(rows) == 0, err
}

// addSkipped adds the letter of a record, unless it is about somebody who was erased, or its
// receipt where what is left out is refused.
func (s *Sinks) addSkipped(letters []schemas.Message, k *storage.Skip, r *stream.Record, ask *schemas.Outbox) []schemas.Message {
	if k.Refused != "" && ask != nil {
		it := item{record: r, ask: ask}
		receipt := schemas.Receipt{Result: schemas.ReceiptRefused, Reason: k.Refused}
		if v, ended := s.env.ended(&it, time.Now()); ended {
			receipt = schemas.Receipt{Result: resultOf(v, false)}
		}
		s.env.metrics.receipts.WithLabelValues(receipt.Result).Inc()
		return append(letters, schemas.ReceiptOf(ask, receipt, time.Now()))
	}
	if s.env.erased.has(r) {
		return letters
	}
	return append(letters, skippedLetter(k, r))
}

func skippedLetter(k *storage.Skip, r *stream.Record) *schemas.DeadLetter {
	d := stream.NewDeadLetter(r, "destination:"+k.Destination, "skipped", errSkipped, time.Now())
	d.DestinationID = &k.DestinationID
	return d
}

// writeSkipped appends letters and then notes that they are written, unless the lease
// was lost meanwhile.
func (s *Sinks) writeSkipped(ctx context.Context, h *holding, k *storage.Skip, letters []schemas.Message, note func(*storage.Tx) error) (lost bool, err error) {
	if err := appendLetters(ctx, s.env.appender, letters); err != nil {
		return false, fmt.Errorf("dead letters of what destination %s skips: %w", k.Destination, err)
	}
	err = s.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		held, err := tx.HoldLeases(ctx, []storage.Lease{h.lease()})
		if lost = len(held) == 0; err != nil || lost {
			return err
		}
		return note(tx)
	})
	if err == nil && !lost {
		s.countDead(k.DestinationID, len(letters))
	}
	return lost, err
}

func (s *Sinks) countDead(id string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.couriers[id]; c != nil {
		c.metrics.dead.Add(float64(n))
	}
}

// appendLetters appends dead letters. Those that are too large with the original bytes
// in them go without; the log has them for a while.
func appendLetters(ctx context.Context, to stream.Appender, letters []schemas.Message) error {
	err := to.Append(ctx, letters...)
	var failed *stream.AppendError
	if !errors.As(err, &failed) {
		return err
	}
	again := make([]schemas.Message, 0, len(failed.Failed))
	for _, f := range failed.Failed {
		d, ok := letters[f.Index].(*schemas.DeadLetter)
		if !ok || !errors.Is(f.Err, stream.ErrTooLarge) || d.RecordValue == nil {
			return err
		}
		d.RecordValue = nil
		d.Error += "; the record is too large to be copied here"
		again = append(again, d)
	}
	return to.Append(ctx, again...)
}

package loop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// batch is one turn through apply and publish: records of several partitions,
// under one assignment.
type batch struct {
	records []*stream.Record
	parts   map[int32]*advance
	taken   int // how many of the intake's waiting records it covers
	outputs []*kgo.Record
}

// advance is how far a batch moves a partition.
type advance struct {
	part   *part
	next   map[string]int64 // by topic
	format int32            // in which it is applied
	ranges storage.Ranges   // as written by apply, of the topics consumed
}

func (w *worker) emptyBatch() *batch { return &batch{parts: make(map[int32]*advance)} }

// add makes a partition move to where the log was read.
func (b *batch) add(p *part) *advance {
	a := b.parts[p.number]
	if a == nil {
		a = &advance{part: p, next: make(map[string]int64, len(p.at))}
		for topic, at := range p.at {
			a.next[topic] = at
		}
		b.parts[p.number] = a
	}
	return a
}

// nextBatch takes what is waiting, up to the bounds, in the order fetched; nil
// when there is no record. Transaction markers only move their partition.
func (w *worker) nextBatch() *batch {
	b := w.emptyBatch()
	limit := w.narrow.limit(w.cfg.batchLimit())
	size := 0
	arena := make([]stream.Record, 0, min(limit, len(w.intake.waiting))) // one allocation for all
	for _, kr := range w.intake.waiting {
		if len(b.records) >= limit || size >= maxBatchBytes {
			break
		}
		b.taken++
		p := w.parts[kr.Partition]
		topic, ours := w.cfg.Kafka.TopicOf(kr.Topic)
		if p == nil || p.stage != ready || !ours || kr.Offset < p.at[string(topic)] {
			continue
		}
		if kr.Attrs.IsControl() {
			// A marker behind records of this batch moves with them.
			if a := b.parts[p.number]; a != nil {
				a.next[string(topic)] = kr.Offset + 1
			} else {
				p.at[string(topic)] = kr.Offset + 1
			}
			continue
		}
		b.add(p).next[string(topic)] = kr.Offset + 1
		arena = arena[:len(arena)+1]
		r, like := &arena[len(arena)-1], ""
		if len(arena) > 1 {
			like = arena[len(arena)-2].Type // one text for all of a type
		}
		stream.FillRecord(r, topic, kr, like)
		b.records = append(b.records, r)
		size += len(kr.Key) + len(kr.Value)
	}
	if len(b.records) == 0 {
		w.intake.taken(b.taken)
		return nil
	}
	return b
}

// process applies a batch and publishes it. On an error nothing is lost: what
// was not applied is still waiting, what was not published is pending, and its
// partitions are settled before anything else happens on them.
func (w *worker) process(ctx context.Context, b *batch) (err error) {
	w.agree(ctx, b)
	if !w.member.hold(w.assignment) {
		return nil // revoked; the next turn follows
	}
	defer w.member.release()
	ctx, cancel := w.finishing(ctx)
	defer cancel()

	if err := w.cfg.hooks.step(stepApplying, slices.Sorted(maps.Keys(b.parts))); err != nil {
		return err
	}
	if len(b.records) > 0 {
		w.publisher.beginBeside(ctx, w.member, w.assignment, w.ahead(b))
		defer func() { w.publisher.through(ctx, err) }()
	}
	if err := w.apply(ctx, b); err != nil {
		return w.notApplied(b, err)
	}
	w.noteRaised(b)
	w.narrow.applied(len(b.records))
	w.intake.taken(b.taken)
	if err := w.cfg.hooks.step(stepApplied, slices.Sorted(maps.Keys(b.parts))); err != nil {
		w.unsettleAll(b)
		return err
	}
	return w.publishBatch(ctx, b)
}

// ahead are the offsets of a batch that will in all likelihood be applied and have
// outputs; none for another, whose transaction would have to be aborted.
func (w *worker) ahead(b *batch) offsets {
	if !w.emitting || w.failures > 0 || w.narrow.suspects > 0 {
		return nil
	}
	return w.moved(b)
}

// moved is where a batch moves the group's offsets.
func (w *worker) moved(b *batch) offsets {
	at := make(offsets)
	for n, a := range b.parts {
		for topic, next := range a.next {
			at.set(w.topicName(topic), n, next)
		}
	}
	return at
}

// apply runs the batch in one transaction in Postgres, again and at once when
// it lost a race there.
func (w *worker) apply(ctx context.Context, b *batch) error {
	begun := time.Now()
	var err error
	for range 10 {
		err = w.applyOnce(ctx, b)
		if !storage.IsRetryable(err) {
			break
		}
	}
	if err == nil {
		w.metrics.apply.Observe(time.Since(begun).Seconds())
		if len(b.records) > 0 {
			w.metrics.batch.Observe(float64(len(b.records)))
		}
		w.metrics.records.Add(float64(len(b.records)))
	}
	return err
}

func (w *worker) applyOnce(ctx context.Context, b *batch) error {
	b.outputs = nil
	return w.cfg.DB.InBatch(ctx, func(tx *storage.Tx) error {
		if err := w.expect(ctx, tx, b); err != nil || len(b.parts) == 0 {
			return err
		}
		out := NewBatch(w.cfg.Encoder, time.Now(), b.records)
		out.formats, out.Log = b.formats(), w.log
		packed := sync.OnceValue(func() packing { return w.pack(b, out.Outputs()) })
		var early sync.WaitGroup
		out.whenDecided = func() { early.Go(func() { packed() }) }
		spans := w.startSpans(ctx, out)
		err := w.decide(ctx, tx, out)
		endSpans(spans, err)
		early.Wait()
		if err != nil {
			return err
		}
		p := packed()
		if p.err != nil {
			return p.err
		}
		b.outputs = p.records
		return tx.WriteProgress(ctx, w.name, p.rows)
	})
}

// packing are a batch's outputs as they go to Postgres and to Kafka.
type packing struct {
	rows    []storage.Progress
	records []*kgo.Record
	err     error
}

// pack runs beside Postgres when the processor says that it has decided.
func (w *worker) pack(b *batch, outputs []Output) packing {
	rows, err := w.rows(b, outputs)
	if err != nil {
		return packing{err: err}
	}
	return packing{rows: rows, records: kafkaRecords(w.cfg.Kafka, outputs)}
}

// formats are the formats in which the partitions are applied.
func (b *batch) formats() map[int32]int32 {
	all := make(map[int32]int32, len(b.parts))
	for n, a := range b.parts {
		all[n] = a.format
	}
	return all
}

// expect locks the rows and drops the partitions whose row is not where this
// owner stands, or is of a newer release: another owner was here, and the table of
// recovery decides (rule expect).
func (w *worker) expect(ctx context.Context, tx *storage.Tx, b *batch) error {
	rows, err := tx.LockProgress(ctx, w.name, slices.Sorted(maps.Keys(b.parts)))
	if err != nil {
		return err
	}
	for n, a := range b.parts {
		a.format = w.formats.of(rows[n].Format)
	}
	if w.cfg.hooks.off.has(ruleExpect) {
		return nil
	}
	dropped := false
	for n, a := range b.parts {
		row, exists := rows[n]
		if exists && row.Format <= w.formats.highest && row.Ranges.Of(w.topics).SameNext(a.part.ranges) || !exists && w.cfg.hooks.off.has(ruleSeed) {
			continue
		}
		delete(b.parts, n)
		w.unsettle(a.part)
		dropped = true
	}
	if dropped {
		kept := make([]*stream.Record, 0, len(b.records))
		for _, r := range b.records {
			if b.parts[r.Partition] != nil {
				kept = append(kept, r)
			}
		}
		b.records, b.taken = kept, 0 // unsettling took records out of the queue
	}
	return nil
}

// decide lets the processor apply the records, or gives up the one record that
// was found to fail alone.
func (w *worker) decide(ctx context.Context, tx *storage.Tx, out *Batch) error {
	switch {
	case len(out.Records) == 0:
		return nil
	case w.narrow.condemns(out.Records):
		return w.giveUp(ctx, tx, out)
	}
	if err := w.guarded(ctx, tx, out); err != nil {
		return fmt.Errorf("apply %d records: %w", len(out.Records), err)
	}
	if out.tooLarge() {
		return ErrBatchTooLarge // the processor did not pass it on
	}
	return nil
}

// giveUp makes a dead letter of the record that fails alone.
func (w *worker) giveUp(ctx context.Context, tx *storage.Tx, out *Batch) error {
	r := out.Records[0]
	if err := out.DeadLetter(r, "processor:"+w.name, reasonFailed, w.narrow.cause); err != nil {
		return err
	}
	if p, ok := w.cfg.Processor.(GivesUp); ok {
		return p.GaveUp(ctx, tx, out, r)
	}
	return nil
}

// reasonFailed stands in dead letters of records that fail deterministically.
const reasonFailed = "failed"

// guarded turns a panic of the processor into an error: it is as deterministic
// as one.
func (w *worker) guarded(ctx context.Context, tx *storage.Tx, out *Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			w.log.Error("processor.panicked", zap.String("panic", schemas.PanicText(r)), zap.ByteString("stack", debug.Stack()))
			err = fmt.Errorf("panic: %s", schemas.PanicText(r))
		}
	}()
	return w.cfg.Processor.Apply(ctx, tx, out)
}

// rows are the progress rows after this batch. Outputs belong to the partition
// number of their cause, and keep their order there.
func (w *worker) rows(b *batch, outputs []Output) ([]storage.Progress, error) {
	byPart := make(map[int32][]*Output, len(b.parts))
	for i := range outputs {
		o := &outputs[i]
		if o.Cause == nil || b.parts[o.Cause.Partition] == nil {
			return nil, fmt.Errorf("output %s %s has no cause in the batch", o.Topic, o.Meta.ID)
		}
		byPart[o.Cause.Partition] = append(byPart[o.Cause.Partition], o)
	}
	rows := make([]storage.Progress, 0, len(b.parts))
	for _, n := range slices.Sorted(maps.Keys(b.parts)) {
		a := b.parts[n]
		a.ranges = make(storage.Ranges, len(a.next))
		for topic, next := range a.next {
			a.ranges[topic] = storage.Range{From: a.part.ranges[topic].Next, Next: next, TopicID: a.part.ids[topic]}
		}
		rows = append(rows, storage.Progress{Partition: n, Ranges: a.ranges.With(a.part.left), Format: a.format, Pending: encodePending(byPart[n])})
	}
	return rows, nil
}

// publishBatch makes the partitions ready for the next batch, or leaves them to
// the table of recovery.
func (w *worker) publishBatch(ctx context.Context, b *batch) error {
	at := w.moved(b)
	if len(at) == 0 {
		return nil // another owner was everywhere
	}
	if err := w.publish(ctx, b.outputs, at); err != nil {
		w.unsettleAll(b)
		return err
	}
	w.emitting = len(b.outputs) > 0
	now := time.Now()
	for _, a := range b.parts {
		a.part.ranges, a.part.published, a.part.active = a.ranges, false, now
		for topic, next := range a.next {
			a.part.at[topic] = max(a.part.at[topic], next)
		}
	}
	return nil
}

func (w *worker) unsettleAll(b *batch) {
	for _, a := range b.parts {
		w.unsettle(a.part)
	}
}

// notApplied decides what follows from an apply that failed: an outage is
// waited out with the batch still waiting; anything else is deterministic, and
// the batch is halved until the record at fault is alone.
func (w *worker) notApplied(b *batch, err error) error {
	if len(b.records) > 1 && (errors.Is(err, ErrBatchTooLarge) || errors.Is(err, storage.ErrTooMuch)) {
		w.narrow.tooLarge(len(b.records))
		return nil
	}
	if errors.Is(err, ErrElsewhere) {
		w.unsettleAll(b)
		return fmt.Errorf("%w: %w", errStale, err)
	}
	if !poison(err) || w.narrow.condemns(b.records) {
		return err
	}
	w.narrow.failed(b.records, err)
	if len(b.records) == 1 {
		r := b.records[0]
		w.metrics.deadLetters.Inc()
		w.log.Error("processor.record_failed", zap.String("topic", string(r.Topic)), zap.Int32("partition", r.Partition),
			zap.Int64("offset", r.Offset), zap.String("id", r.ID), zap.Error(err))
	}
	return nil
}

// ErrElsewhere is wrapped by an error of Apply that says that the state is not of the
// records that come: the table of recovery is asked where the partition stands.
var ErrElsewhere = errors.New("the state is not of these records")

// poison tells a failure that will not go away by waiting. What Postgres
// refuses for another reason than the data (a missing table, a permission) is
// ours to mend, and no reason to empty a topic into dead letters.
func poison(err error) bool {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errCrash),
		errors.Is(err, schemas.ErrRegistryUnavailable), // whatever it or a proxy answered: no verdict on the record
		storage.IsRetryable(err), storage.IsUnavailable(err):
		return false
	}
	return storage.IsRecordFault(err) || !storage.IsRefusal(err)
}

// narrowing halves batches around a record at fault, and those that are too large.
type narrowing struct {
	fits      int // how many records fitted into memory lately; 0 for no bound
	suspects  int // one of the first so many waiting records is at fault
	condemned *stream.Record
	cause     error
}

// limit is how many records the next batch may have.
func (n *narrowing) limit(most int) int {
	if n.fits > 0 {
		most = min(most, n.fits)
	}
	if n.suspects == 0 {
		return most
	}
	return min(most, max(1, n.suspects/2))
}

// tooLarge notes that this many records need too much memory at once. None of them is
// at fault.
func (n *narrowing) tooLarge(records int) { n.fits = max(1, records/2) }

// failed notes that these records, the first ones waiting, cannot be applied.
func (n *narrowing) failed(records []*stream.Record, err error) {
	n.suspects = len(records)
	if len(records) == 1 {
		n.condemned, n.cause = records[0], err
	}
}

// condemns says that the records are the one that failed alone.
func (n *narrowing) condemns(records []*stream.Record) bool {
	if n.condemned == nil || len(records) != 1 {
		return false
	}
	r := records[0]
	return r.Topic == n.condemned.Topic && r.Partition == n.condemned.Partition && r.Offset == n.condemned.Offset
}

// applied notes that the first so many waiting records went through.
func (n *narrowing) applied(records int) {
	if n.fits > 0 && records >= n.fits {
		// Back towards the bound little by little: a backlog of large records is
		// worked off in batches that mostly fit.
		if n.fits += n.fits/8 + 1; n.fits > wideEnough {
			n.fits = 0
		}
	}
	if n.suspects > records {
		n.suspects -= records
		return
	}
	*n = narrowing{fits: n.fits}
}

// wideEnough is more records than any batch has.
const wideEnough = 1 << 20

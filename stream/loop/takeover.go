package loop

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// noteEnds inserts the rows of all partitions, at the ends of their logs: also of those
// that others own, for what one partition's take-over hands to another must lie behind
// the end that is noted there.
func (w *worker) noteEnds(ctx context.Context) error {
	rows, err := NoteEnds(ctx, w.member.client, w.cfg.Kafka, w.cfg.Processor.Topics())
	if err != nil {
		return err
	}
	return w.cfg.DB.StartTakeOver(ctx, w.name, rows)
}

// NoteBeginning notes where a processor that takes over begins, if nothing was noted of it
// before. Its loop does so, too, when it is assigned partitions; the earlier it is noted,
// the less of what is said while processors start is taken over and not told.
func NoteBeginning(ctx context.Context, a *stream.Admin, db *storage.DB, processor string, topics []schemas.Topic) error {
	rows, err := db.LoadProgress(ctx, processor, nil)
	if err != nil || len(rows) > 0 {
		return err
	}
	for _, topic := range topics {
		committed, err := Committed(ctx, a, processor, topic)
		if err != nil || len(committed) > 0 { // offsets without a row are for an operator
			return err
		}
	}
	ends, err := NoteEnds(ctx, a.Client, a.Config, topics)
	if err != nil {
		return err
	}
	return db.StartTakeOver(ctx, processor, ends)
}

// NoteEnds are the ends of topics, as a reader of committed records can reach them, by
// partition.
func NoteEnds(ctx context.Context, client *kgo.Client, cfg stream.Config, topics []schemas.Topic) (map[int32]storage.Ranges, error) {
	names := make([]string, len(topics))
	for i, topic := range topics {
		names[i] = cfg.Topic(topic)
	}
	ids, err := stream.TopicIDs(ctx, client, names...) // before the ends
	if err != nil {
		return nil, err
	}
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the ends of the topics: %w", err)
	}
	rows := make(map[int32]storage.Ranges)
	for i, topic := range topics {
		for n, end := range ends[names[i]] {
			if rows[n] == nil {
				rows[n] = make(storage.Ranges)
			}
			rows[n][string(topic)] = storage.Range{From: end.Offset, Next: end.Offset, TopicID: ids[names[i]]}
		}
	}
	return rows, nil
}

// takeOverTime is for how long partitions are taken over before they are looked at again.
const takeOverTime = 5 * time.Second

// takeOver takes over what Postgres knows of partitions, a step at a time.
func (w *worker) takeOver(ctx context.Context, all []found) error {
	if len(all) == 0 {
		return nil
	}
	why, err := w.cfg.DB.TakeOverWaits(ctx)
	if err != nil {
		return err
	}
	if why != "" {
		for _, f := range all {
			w.wait(w.parts[f.partition], why)
		}
		return nil
	}
	until := time.Now().Add(takeOverTime)
	for _, f := range all {
		for through := false; !through; {
			if time.Now().After(until) || ctx.Err() != nil {
				return ctx.Err()
			}
			var err error
			if through, err = w.takeOverStep(ctx, f); err != nil {
				return fmt.Errorf("take over partition %d: %w", f.partition, err)
			}
		}
		w.log.Info("processor.taken_over", zap.Int32("partition", f.partition))
	}
	return nil
}

// waitsAgain is how often it is asked whether a take-over has to wait any longer.
const waitsAgain = time.Second

// wait leaves a partition whose take-over cannot begin yet.
func (w *worker) wait(p *part, why string) {
	if p.reason != why {
		w.log.Info("processor.take_over_waits", zap.Int32("partition", p.number), zap.String("for", why))
	}
	p.stage, p.reason, p.newer, p.waits, p.doubt = halted, why, false, true, ""
	p.recheck = time.Now().Add(min(waitsAgain, w.cfg.timing.Recheck))
	w.noteStopped()
}

// takeOverStep publishes its outputs before it commits: after a crash they come again, as
// the group's offsets, which say what is published, do not move.
func (w *worker) takeOverStep(ctx context.Context, f found) (through bool, err error) {
	if !w.member.hold(w.assignment) {
		return false, errStale
	}
	defer w.member.release()
	err = w.cfg.DB.InBatch(ctx, func(tx *storage.Tx) error {
		rows, err := tx.LockProgress(ctx, w.name, []int32{f.partition})
		if err != nil {
			return err
		}
		at := rows[f.partition].TakingOver
		if through = at == nil; through {
			return nil // another owner was here
		}
		out := NewBatch(w.cfg.Encoder, time.Now(), nil)
		out.Log = w.log
		last, err := w.takesOver.TakeOver(ctx, tx, out, f.partition, *at)
		if err != nil {
			return err
		}
		if err := w.publishTakenOver(ctx, f, out.Outputs()); err != nil {
			return err
		}
		next := &last
		if last == uuid.Nil {
			next, through = nil, true
		}
		return tx.MoveTakeOver(ctx, w.name, f.partition, next, w.formats.highest)
	})
	return through, err
}

func (w *worker) publishTakenOver(ctx context.Context, f found, outputs []Output) error {
	if len(outputs) == 0 {
		return nil
	}
	at := make(offsets)
	w.addNext(at, f)
	return w.publish(ctx, kafkaRecords(w.cfg.Kafka, outputs), at)
}

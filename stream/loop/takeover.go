package loop

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// noteEnds inserts the rows of all partitions, at the ends of their logs: also of those
// that others own, for what one partition's take-over hands to another must lie behind
// the end that is noted there.
func (w *worker) noteEnds(ctx context.Context) error {
	names := make([]string, len(w.topics))
	for i, topic := range w.topics {
		names[i] = w.topicName(topic)
	}
	ids, err := stream.TopicIDs(ctx, w.member.client, names...) // before the ends
	if err != nil {
		return err
	}
	ends, err := kadm.NewClient(w.member.client).ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("list the ends of the topics: %w", err)
	}
	rows := make(map[int32]storage.Ranges)
	for i, topic := range w.topics {
		for n, end := range ends[names[i]] {
			if rows[n] == nil {
				rows[n] = make(storage.Ranges)
			}
			rows[n][topic] = storage.Range{From: end.Offset, Next: end.Offset, TopicID: ids[names[i]]}
		}
	}
	return w.cfg.DB.StartTakeOver(ctx, w.name, rows)
}

// takeOverTime is for how long partitions are taken over before they are looked at again.
const takeOverTime = 5 * time.Second

// takeOver takes over what Postgres knows of partitions, a step at a time.
func (w *worker) takeOver(ctx context.Context, all []found) error {
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

package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// StartOffsets are the places of the oldest records that topics still have.
func (a *Admin) StartOffsets(ctx context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error) {
	return a.starts(ctx, topics, a.Kadm.ListStartOffsets)
}

// OffsetsAt are the places of the first records appended at or after a time; the
// end for partitions that have none.
func (a *Admin) OffsetsAt(ctx context.Context, at time.Time, topics ...schemas.Topic) ([]storage.CursorStart, error) {
	return a.starts(ctx, topics, func(ctx context.Context, names ...string) (kadm.ListedOffsets, error) {
		return a.Kadm.ListOffsetsAfterMilli(ctx, SinceEpoch(at), names...)
	})
}

// SinceEpoch is a time as Kafka is asked about it. Nothing is older than 1970, and
// negative numbers have meanings of their own: -1 is the end.
func SinceEpoch(at time.Time) int64 { return max(at.UnixMilli(), 0) }

// From is OffsetsAt of a time.
func (a *Admin) From(at time.Time) func(context.Context, ...schemas.Topic) ([]storage.CursorStart, error) {
	return func(ctx context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error) {
		return a.OffsetsAt(ctx, at, topics...)
	}
}

func (a *Admin) starts(ctx context.Context, topics []schemas.Topic, list func(context.Context, ...string) (kadm.ListedOffsets, error)) ([]storage.CursorStart, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = a.Config.Topic(t)
	}
	ids, err := a.TopicIDs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	listed, err := list(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets of %v: %w", topics, err)
	}
	var starts []storage.CursorStart
	for i, t := range topics {
		for p, o := range listed[names[i]] {
			starts = append(starts, storage.CursorStart{Topic: string(t), Partition: p, Offset: o.Offset})
		}
	}
	slices.SortFunc(starts, func(a, b storage.CursorStart) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return withIDs(starts, ids), nil
}

// ErrNoTarget is returned by Rewind without any place to go to.
var ErrNoTarget = errors.New("a rewind needs a time, offsets, or the start or end of the log")

// Rewind sets the live cursors of a destination, back or forward, to the given
// places in one transaction. The owners finish what is in flight and go on from
// there; a second rewind before that simply wins. What is open before a place that
// lies ahead becomes dead letters "skipped". Places come from OffsetsAt,
// StartOffsets, EndOffsets, or are named one by one.
func (a *Admin) Rewind(ctx context.Context, db *storage.DB, id string, to []storage.CursorStart) error {
	if len(to) == 0 {
		return ErrNoTarget
	}
	// A flush and a rewind may wait for each other's rows; Postgres then ends one.
	return db.InRetriedTx(ctx, func(tx *storage.Tx) error { return tx.RewindCursors(ctx, id, to) })
}

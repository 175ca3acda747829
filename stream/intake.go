package stream

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// intake fetches the records of the owned partitions, each from the offset the
// table of recovery decided. The client fetches the next records while a batch
// is applied and published, up to its bound in bytes.
type intake struct {
	client  *kgo.Client
	waiting []*kgo.Record // fetched and not yet taken into a batch
	reading map[string]map[int32]bool
	ends    offsets // the last stable offsets heard of
}

func newIntake(cfg ProcessorConfig) (*intake, error) {
	client, err := cfg.Kafka.NewClient("intake."+cfg.Processor.Name(), cfg.Logger,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(int32(cfg.FetchBytes)),
		kgo.FetchMaxPartitionBytes(int32(max(cfg.FetchBytes/4, 1<<20))),
	)
	if err != nil {
		return nil, err
	}
	return &intake{client: client, reading: make(map[string]map[int32]bool), ends: make(offsets)}, nil
}

// seek makes the partition be read from these offsets (by topic), forgetting
// what was fetched of it before.
func (in *intake) seek(partition int32, at map[string]int64) {
	in.drop(partition)
	add := make(map[string]map[int32]kgo.Offset, len(at))
	for t, o := range at {
		add[t] = map[int32]kgo.Offset{partition: kgo.NewOffset().At(o)}
		if in.reading[t] == nil {
			in.reading[t] = make(map[int32]bool)
		}
		in.reading[t][partition] = true
	}
	in.client.AddConsumePartitions(add)
}

// drop stops reading a partition.
func (in *intake) drop(partition int32) {
	remove := make(map[string][]int32)
	for t, ps := range in.reading {
		if ps[partition] {
			remove[t] = []int32{partition}
			delete(ps, partition)
		}
	}
	if len(remove) == 0 {
		return
	}
	in.client.RemoveConsumePartitions(remove)
	kept := in.waiting[:0]
	for _, r := range in.waiting {
		if r.Partition != partition {
			kept = append(kept, r)
		}
	}
	clear(in.waiting[len(kept):])
	in.waiting = kept
}

// fetchFault says that a partition cannot be read where it stands.
type fetchFault struct {
	partition int32
	err       error
}

// fetch waits for records until ctx ends, and then returns nothing. broken are
// partitions whose place in the log is gone; the error is an outage.
func (in *intake) fetch(ctx context.Context, limit int) (broken []fetchFault, err error) {
	fetches := in.client.PollRecords(ctx, limit)
	if fetches.IsClientClosed() {
		return nil, kgo.ErrClientClosed
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		switch {
		case p.Err == nil:
			if p.LastStableOffset >= 0 {
				in.ends.set(p.Topic, p.Partition, p.LastStableOffset)
			}
		case errors.Is(p.Err, context.Canceled), errors.Is(p.Err, context.DeadlineExceeded):
		case placeGone(p.Err):
			broken = append(broken, fetchFault{p.Partition, fmt.Errorf("fetch %s/%d: %w", p.Topic, p.Partition, p.Err)})
		default:
			err = fmt.Errorf("fetch %s/%d: %w", p.Topic, p.Partition, p.Err)
		}
		in.waiting = append(in.waiting, p.Records...)
	})
	return broken, err
}

// placeGone reports that the partition was truncated, expired below us, or made
// anew. With resets off the client does not go on by itself.
func placeGone(err error) bool {
	var loss *kgo.ErrDataLoss
	return errors.As(err, &loss) || errors.Is(err, kerr.OffsetOutOfRange) ||
		errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

// taken forgets the first n waiting records.
func (in *intake) taken(n int) {
	clear(in.waiting[:n])
	in.waiting = in.waiting[n:]
	if len(in.waiting) == 0 {
		in.waiting = nil // let go of the array
	}
}

func (in *intake) close() { in.client.Close() }

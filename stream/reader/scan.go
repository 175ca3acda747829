package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// A Scanner reads single ranges of the log, anywhere and in any order, without a
// group and without a position: for previews, dead letters and redelivery. Safe
// for concurrent use.
type Scanner struct {
	cfg     stream.Config
	cl      *kgo.Client
	Leaders map[stream.TopicPartition]leader
}

// NewScanner looks up who leads the topics. It is made anew for each task, so
// leaders that move end one task and no more.
func NewScanner(ctx context.Context, a *stream.Admin, topics ...schemas.Topic) (*Scanner, error) {
	s := &Scanner{cfg: a.Config, cl: a.Client, Leaders: map[stream.TopicPartition]leader{}}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = a.Config.Topic(t)
	}
	found, err := a.Kadm.ListTopics(ctx, names...)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up leaders of %v: %w", topics, err)
	}
	for i, name := range names {
		for _, p := range found[name].Partitions {
			if p.Err != nil || p.Leader < 0 {
				return nil, fmt.Errorf("%s partition %d has no leader: %w", name, p.Partition, p.Err)
			}
			s.Leaders[stream.TopicPartition{Topic: topics[i], Partition: p.Partition}] = leader{p.Leader, p.LeaderEpoch, uuid.UUID(found[name].ID)} //nolint:gosec // names are as many as topics
		}
	}
	return s, nil
}

// Read fetches committed records from offset on, about maxBytes of them. nil
// means that there is nothing to read there yet. An offset below the log's start
// is an error that is kerr.OffsetOutOfRange.
func (s *Scanner) Read(ctx context.Context, key stream.TopicPartition, offset int64, maxBytes int32) (*Chunk, error) {
	return s.read(ctx, key, offset, maxBytes, scanWait)
}

// scanWait is how long a read waits for records at the end of the log.
const scanWait = 100 * time.Millisecond

func (s *Scanner) read(ctx context.Context, key stream.TopicPartition, offset int64, maxBytes int32, wait time.Duration) (*Chunk, error) {
	l, ok := s.Leaders[key]
	if !ok {
		return nil, fmt.Errorf("%s has no partition %d", key.Topic, key.Partition)
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(wait.Milliseconds())
	req.MinBytes, req.MaxBytes, req.IsolationLevel, req.SessionEpoch = 1, max(maxBytes, 1<<20), 1, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = s.cfg.Topic(key.Topic), l.ID
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = key.Partition, offset, maxBytes, l.epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)

	answer, err := s.cl.Broker(int(l.broker)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.Topic, key.Partition, offset, err)
	}
	resp := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.Topic, key.Partition, offset, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("read %s/%d at %d: no answer for it", key.Topic, key.Partition, offset)
	}
	c, fp := decodeChunk(key, offset, &resp.Topics[0].Partitions[0], s.cfg)
	if fp.Err != nil && c == nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.Topic, key.Partition, offset, fp.Err)
	}
	return c, nil
}

// ReadRecord reads one record where it stands; nil when it is not there any more
// or never was.
func ReadRecord(ctx context.Context, a *stream.Admin, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error) {
	s, err := NewScanner(ctx, a, topic)
	if err != nil {
		return nil, err
	}
	key := stream.TopicPartition{Topic: topic, Partition: partition}
	if _, ok := s.Leaders[key]; !ok {
		return nil, nil // there is no such partition
	}
	return s.One(ctx, key, offset)
}

// One reads a single record; nil when there is none at that offset.
func (s *Scanner) One(ctx context.Context, key stream.TopicPartition, offset int64) (*stream.Record, error) {
	c, err := s.Read(ctx, key, offset, 64<<10)
	if IsOutOfRange(err) || err == nil && c == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range c.Records {
		if c.Records[i].Offset == offset {
			return &c.Records[i], nil
		}
	}
	return nil, nil
}

// SoughtByID is how many offsets of each partition people wait for when they look for a
// record by its id alone.
const SoughtByID = 50_000

// FindRecord looks for a record by its id, the newest first, among at most `most`
// offsets of each partition of the topics; nil when it is not among them.
func FindRecord(ctx context.Context, a *stream.Admin, id string, most int64, topics ...schemas.Topic) (*stream.Record, error) {
	s, err := NewScanner(ctx, a, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := a.EndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	starts, err := a.StartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	const window = 2000
	for back := int64(0); back < most; back += window {
		for _, end := range ends {
			key := stream.TopicPartition{Topic: schemas.Topic(end.Topic), Partition: end.Partition}
			to := end.Offset - back
			from := max(to-window, OffsetIn(starts, end), 0)
			if r, err := s.find(ctx, key, from, to, id); r != nil || err != nil {
				return r, err
			}
		}
	}
	return nil, nil
}

// find looks for a record by its id within [from, to).
func (s *Scanner) find(ctx context.Context, key stream.TopicPartition, from, to int64, id string) (*stream.Record, error) {
	for at := from; at < to; {
		c, err := s.Read(ctx, key, at, 1<<20)
		if IsOutOfRange(err) || err == nil && c == nil {
			return nil, nil // retention was faster
		}
		if err != nil {
			return nil, err
		}
		for i := range c.Records {
			if r := &c.Records[i]; r.ID == id && r.Offset < to {
				return r, nil
			}
		}
		at = c.To
	}
	return nil, nil
}

package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
)

// A scanner reads single ranges of the log, anywhere and in any order, without a
// group and without a position: for previews, dead letters and redelivery. Safe
// for concurrent use.
type scanner struct {
	cfg     Config
	cl      *kgo.Client
	leaders map[logKey]leader
}

// newScanner looks up who leads the topics. It is made anew for each task, so
// leaders that move end one task and no more.
func (a *Admin) newScanner(ctx context.Context, topics ...schemas.Topic) (*scanner, error) {
	s := &scanner{cfg: a.cfg, cl: a.cl, leaders: map[logKey]leader{}}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = a.cfg.Topic(t)
	}
	found, err := a.adm.ListTopics(ctx, names...)
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
			s.leaders[logKey{topics[i], p.Partition}] = leader{p.Leader, p.LeaderEpoch, uuid.UUID(found[name].ID)} //nolint:gosec // names are as many as topics
		}
	}
	return s, nil
}

// read fetches committed records from offset on, about maxBytes of them. nil
// means that there is nothing to read there yet. An offset below the log's start
// is an error that is kerr.OffsetOutOfRange.
func (s *scanner) read(ctx context.Context, key logKey, offset int64, maxBytes int32) (*chunk, error) {
	l, ok := s.leaders[key]
	if !ok {
		return nil, fmt.Errorf("%s has no partition %d", key.topic, key.partition)
	}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32((100 * time.Millisecond).Milliseconds())
	req.MinBytes, req.MaxBytes, req.IsolationLevel, req.SessionEpoch = 1, max(maxBytes, 1<<20), 1, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = s.cfg.Topic(key.topic), l.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = key.partition, offset, maxBytes, l.epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)

	answer, err := s.cl.Broker(int(l.broker)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.topic, key.partition, offset, err)
	}
	resp := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.topic, key.partition, offset, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("read %s/%d at %d: no answer for it", key.topic, key.partition, offset)
	}
	c, fp := decodeChunk(key, offset, &resp.Topics[0].Partitions[0], s.cfg)
	if fp.Err != nil && c == nil {
		return nil, fmt.Errorf("read %s/%d at %d: %w", key.topic, key.partition, offset, fp.Err)
	}
	return c, nil
}

// ReadRecord reads one record where it stands; nil when it is not there any more
// or never was.
func (a *Admin) ReadRecord(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (*Record, error) {
	s, err := a.newScanner(ctx, topic)
	if err != nil {
		return nil, err
	}
	key := logKey{topic, partition}
	if _, ok := s.leaders[key]; !ok {
		return nil, nil // there is no such partition
	}
	return s.one(ctx, key, offset)
}

func (s *scanner) one(ctx context.Context, key logKey, offset int64) (*Record, error) {
	c, err := s.read(ctx, key, offset, 64<<10)
	if isOutOfRange(err) || err == nil && c == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range c.records {
		if c.records[i].Offset == offset {
			return &c.records[i], nil
		}
	}
	return nil, nil
}

// FindRecord looks for a record by its id, the newest first, among at most `most`
// offsets of each partition of the topics; nil when it is not among them.
func (a *Admin) FindRecord(ctx context.Context, id string, most int64, topics ...schemas.Topic) (*Record, error) {
	s, err := a.newScanner(ctx, topics...)
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
			key := logKey{schemas.Topic(end.Topic), end.Partition}
			to := end.Offset - back
			from := max(to-window, offsetIn(starts, end), 0)
			if r, err := s.find(ctx, key, from, to, id); r != nil || err != nil {
				return r, err
			}
		}
	}
	return nil, nil
}

// find looks for a record by its id within [from, to).
func (s *scanner) find(ctx context.Context, key logKey, from, to int64, id string) (*Record, error) {
	for at := from; at < to; {
		c, err := s.read(ctx, key, at, 1<<20)
		if isOutOfRange(err) || err == nil && c == nil {
			return nil, nil // retention was faster
		}
		if err != nil {
			return nil, err
		}
		for i := range c.records {
			if r := &c.records[i]; r.ID == id && r.Offset < to {
				return r, nil
			}
		}
		at = c.to
	}
	return nil, nil
}

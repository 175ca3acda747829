package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// nearBytesRead is how much of the log a read near some time is, and nearRecords by how many
// offsets those that go back begin earlier.
const (
	nearBytesRead = 64 << 10
	nearRecords   = 500
)

// Partitions is how many partitions of a topic there are.
func (s *Scanner) Partitions(topic schemas.Topic) (n int) {
	for key := range s.Leaders {
		if key.Topic == topic {
			n++
		}
	}
	return n
}

// After calls fn with the records that were appended to a partition at a time or later, in
// their order, until fn returns false, the log ends, or so many reads of 64 KiB are done. It
// says where the first of them stands, negative for none, and whether the log or fn ended it:
// else there may be more.
func (s *Scanner) After(ctx context.Context, key stream.TopicPartition, at time.Time, reads int, fn func(*stream.Record) bool) (first int64, through bool, err error) {
	if first, err = s.offsetAt(ctx, key, stream.SinceEpoch(at)); err != nil || first < 0 {
		return -1, true, err
	}
	through, err = s.Range(ctx, key, first, -1, reads, fn)
	return first, through, err
}

// Range is After from an offset on, up to another, which is not read; negative is the end.
func (s *Scanner) Range(ctx context.Context, key stream.TopicPartition, from, to int64, reads int, fn func(*stream.Record) bool) (through bool, err error) {
	for at := from; to < 0 || at < to; reads-- {
		if reads == 0 {
			return false, nil
		}
		c, err := s.read(ctx, key, at, nearBytesRead, time.Millisecond)
		if IsOutOfRange(err) || err == nil && c == nil {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		for i := range c.Records {
			r := &c.Records[i]
			if r.Offset < from || to >= 0 && r.Offset >= to {
				continue
			}
			if !fn(r) {
				return true, nil
			}
		}
		at = c.To
	}
	return true, nil
}

// Before calls fn with the records before an offset, the newest ranges first, in order
// within each, until fn returns false, the log begins, or so many ranges of 500 offsets are
// read. It says whether the log or fn ended it.
func (s *Scanner) Before(ctx context.Context, key stream.TopicPartition, offset int64, ranges int, fn func(*stream.Record) bool) (through bool, err error) {
	start, err := s.offsetAt(ctx, key, earliest)
	if err != nil {
		return false, err
	}
	enough := false
	for ; ranges > 0 && offset > start && !enough; ranges-- {
		from := max(start, offset-nearRecords)
		_, err := s.Range(ctx, key, from, offset, nearRecords, func(r *stream.Record) bool {
			enough = !fn(r)
			return !enough
		})
		if err != nil {
			return false, err
		}
		offset = from
	}
	return enough || offset <= start, nil
}

// OffsetAfter is the offset of the first record that was appended at a time or later, or that
// of the next to come.
func (s *Scanner) OffsetAfter(ctx context.Context, key stream.TopicPartition, at time.Time) (int64, error) {
	offset, err := s.offsetAt(ctx, key, stream.SinceEpoch(at))
	if err == nil && offset < 0 {
		offset, err = s.offsetAt(ctx, key, latest)
	}
	return offset, err
}

// What asks for the first offset, or for that of the next record, instead of one at a time.
const (
	earliest = -2
	latest   = -1
)

// offsetAt is where the first record stands that was appended at a time, in milliseconds,
// or later; negative when there is none.
func (s *Scanner) offsetAt(ctx context.Context, key stream.TopicPartition, millis int64) (int64, error) {
	l, ok := s.Leaders[key]
	if !ok {
		return 0, fmt.Errorf("%s has no partition %d", key.Topic, key.Partition)
	}
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, 1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = s.cfg.Topic(key.Topic)
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = key.Partition, millis, l.epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	answer, err := s.cl.Broker(int(l.broker)).RetriableRequest(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("look for a place on %s/%d: %w", key.Topic, key.Partition, err)
	}
	resp := answer.(*kmsg.ListOffsetsResponse)
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("look for a place on %s/%d: no answer for it", key.Topic, key.Partition)
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return 0, fmt.Errorf("look for a place on %s/%d: %w", key.Topic, key.Partition, err)
	}
	return resp.Topics[0].Partitions[0].Offset, nil
}

package reader

import (
	"context"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Impatient shortens how long Tail waits for records before its end.
func (o TailOptions) Impatient(idle, stalled time.Duration) TailOptions {
	o.patience = tailPatience{idle, stalled}
	return o
}

// Empty says whether a range of the log has no record, and can be read beyond.
func Empty(ctx context.Context, a *stream.Admin, topic schemas.Topic, partition int32, from, to int64) (bool, error) {
	s, err := NewScanner(ctx, a, topic)
	if err != nil {
		return false, err
	}
	return s.empty(ctx, a, stream.TopicPartition{Topic: topic, Partition: partition}, from, to)
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
)

// experience is what a Log has lately seen of its appends.
type experience struct {
	mu      sync.Mutex
	took    time.Time // when the log last took one
	refused time.Time // when it last did not
	cause   error     // of that
	topicID [16]byte  // of ingest when last probed; zero when not known
}

const (
	// takenCounts is for how long an append that was taken proves that the next is.
	takenCounts = time.Second
	// refusedCounts is for how long one that was refused proves that the next is
	// refused too, unless one is taken meanwhile. After that a probe decides: while a
	// process is not ready nobody sends it anything that could prove the opposite.
	refusedCounts = 5 * time.Second
)

// note keeps what came of an append that was answered.
func (e *experience) note(err error) {
	switch {
	case err == nil:
		e.mu.Lock()
		defer e.mu.Unlock()
		e.took = time.Now()
	case !errors.Is(err, ErrTooLarge): // which says nothing of the log
		e.failed(err)
	}
}

func (e *experience) failed(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused, e.cause = time.Now(), err
}

// verdict is what the appends of late prove; known is false when they prove nothing.
func (e *experience) verdict(now time.Time) (known bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.refused.After(e.took) && now.Sub(e.refused) < refusedCounts:
		return true, e.cause
	case e.took.After(e.refused) && now.Sub(e.took) < takenCounts:
		return true, nil
	}
	return false, nil
}

// Ready is nil when an input would be appended, and otherwise says why not. The
// appends of late decide; when there were none, the brokers are asked whether topic
// ingest can be written to. It returns when ctx ends, at the latest. Safe for
// concurrent use.
func (l *Log) Ready(ctx context.Context) error {
	if l.closed.Load() {
		return ErrClosed
	}
	if known, err := l.experience.verdict(time.Now()); known {
		return err
	}
	return l.probe(ctx)
}

// probe asks the brokers for the partitions of topic ingest.
func (l *Log) probe(ctx context.Context) error {
	name := l.topics[schemas.TopicIngest]
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &name
	req.Topics = append(req.Topics, topic)
	client := l.clients.client()
	resp, err := req.RequestWith(ctx, client.Client)
	if err != nil {
		return fmt.Errorf("ask for topic %s: %w", name, err)
	}
	if len(resp.Topics) != 1 {
		return fmt.Errorf("topic %s: the brokers told of %d topics", name, len(resp.Topics))
	}
	if err := writable(&resp.Topics[0]); err != nil {
		return fmt.Errorf("topic %s: %w", name, err)
	}
	if l.experience.anew(resp.Topics[0].TopicID) {
		l.replaceClient(client, fmt.Errorf("topic %s was made anew", name))
	}
	return nil
}

// writable says whether every partition of a topic has a leader.
func writable(t *kmsg.MetadataResponseTopic) error {
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		return err
	}
	if len(t.Partitions) == 0 {
		return errors.New("it has no partitions")
	}
	for _, p := range t.Partitions {
		// Without a replica that is down a partition can still be written to.
		if err := kerr.ErrorForCode(p.ErrorCode); err != nil && !errors.Is(err, kerr.ReplicaNotAvailable) {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
		if p.Leader < 0 {
			return fmt.Errorf("partition %d has no leader", p.Partition)
		}
	}
	return nil
}

// anew keeps the id of topic ingest and says whether it is another than before.
// Brokers that know of no ids tell the zero one, which says nothing.
func (e *experience) anew(id [16]byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.topicID
	if id != [16]byte{} {
		e.topicID = id
	}
	return before != [16]byte{} && before != e.topicID
}

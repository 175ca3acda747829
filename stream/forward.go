package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// A Forwarder appends records to one topic of any cluster, for a destination of
// kind kafka. It is safe for concurrent use.
type Forwarder struct {
	cl    *kgo.Client
	topic string
}

// Forwarded is a record to append.
type Forwarded struct {
	Key, Value []byte
	Headers    [][2]string // name, value
	Timestamp  time.Time
}

// OpenForwarder makes a client of the cluster that cfg names; the prefix of cfg
// does not apply to topic. It does not wait for a broker. Close releases it.
func OpenForwarder(cfg Config, topic string, logger *zap.Logger) (*Forwarder, error) {
	// An unknown topic is to be told at once: the lanes retry.
	cl, err := cfg.NewClient("forward", logger, kgo.DefaultProduceTopic(topic), kgo.UnknownTopicRetries(1))
	if err != nil {
		return nil, err
	}
	return &Forwarder{cl: cl, topic: topic}, nil
}

// Close gives up what is under way and closes the connections.
func (f *Forwarder) Close() { f.cl.Close() }

// Forward appends records, in order for each key, and returns when all in-sync
// replicas have them or ctx ends. After Retry some may be appended all the same.
func (f *Forwarder) Forward(ctx context.Context, records []Forwarded) Outcome {
	start := time.Now()
	results := make(chan error, len(records)) // never blocks a promise that outlives ctx
	for i := range records {
		f.cl.Produce(ctx, records[i].record(), func(_ *kgo.Record, err error) { results <- err })
	}
	out := Outcome{Verdict: Delivered}
	for range records {
		select {
		case err := <-results:
			if err != nil {
				out = worse(out, judgeProduce(err))
			}
		case <-ctx.Done():
			return Outcome{Verdict: Retry, Err: fmt.Sprintf("timeout after %s", time.Since(start).Round(time.Millisecond)), Latency: time.Since(start)}
		}
	}
	out.Latency = time.Since(start)
	return out
}

func (r *Forwarded) record() *kgo.Record {
	rec := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return rec
}

// worse keeps the outcome of a batch: anything that must be tried again wins over
// a rejection, since a rejected batch is divided and would be delivered twice.
func worse(a, b Outcome) Outcome {
	if a.Verdict == Delivered || a.Verdict == Reject && b.Verdict != Reject {
		return b
	}
	return a
}

// judgeProduce tells the fault of a record, of the destination, and of the moment
// apart.
func judgeProduce(err error) Outcome {
	out := Outcome{Verdict: Retry, Err: err.Error()}
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidRecord):
		out.Verdict = Reject
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InvalidTopicException),
		errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed),
		errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism):
		out.Verdict = Refuse
	}
	return out
}

package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/stream"
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
func OpenForwarder(cfg stream.Config, topic string, logger *zap.Logger) (*Forwarder, error) {
	// An unknown topic is to be told at once: the lanes retry. What an attempt has
	// given up must not be appended later, behind what was sent since: the lanes try it
	// again in its turn, and delivery is at least once anyhow.
	cl, err := cfg.NewClient("forward", logger, kgo.DefaultProduceTopic(topic), kgo.UnknownTopicRetries(1),
		kgo.AllowIdempotentProduceCancellation())
	if err != nil {
		return nil, err
	}
	return &Forwarder{cl: cl, topic: topic}, nil
}

// ClusterID is the id of the cluster, which no other has; empty when it does not say.
func (f *Forwarder) ClusterID(ctx context.Context) (string, error) {
	metadata, err := kadm.NewClient(f.cl).BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("ask kafka for its cluster id: %w", err)
	}
	return metadata.Cluster, nil
}

// Close gives up what is under way and closes the connections.
func (f *Forwarder) Close() { f.cl.Close() }

// Forward appends records, in order for each key, and returns when all in-sync
// replicas have them or ctx ends. What came of each record is told apart: the outcome
// is Partial when only some were appended. After Retry some may be appended all the
// same.
func (f *Forwarder) Forward(ctx context.Context, records []Forwarded) Outcome {
	start := time.Now()
	results := f.append(ctx, records)
	f.alone(ctx, records, results)
	out := forwarded(results)
	out.Latency = time.Since(start)
	return out
}

// append appends all records at once and says what came of each.
func (f *Forwarder) append(ctx context.Context, records []Forwarded) []Result {
	type answer struct {
		index int
		err   error
	}
	start := time.Now()
	answers := make(chan answer, len(records)) // never blocks a promise that outlives ctx
	for i := range records {
		f.cl.Produce(ctx, records[i].record(), func(_ *kgo.Record, err error) { answers <- answer{i, err} })
	}
	results := make([]Result, len(records))
	for i := range results {
		results[i].Verdict = Retry // unless it is answered for
	}
	for range records {
		select {
		case a := <-answers:
			results[a.index] = judgeProduce(a.err)
			continue
		default: // what is answered counts, also when ctx has ended
		}
		select {
		case a := <-answers:
			results[a.index] = judgeProduce(a.err)
		case <-ctx.Done():
			return late(results, time.Since(start))
		}
	}
	return results
}

// late says of what was not answered for why it is to be sent again.
func late(results []Result, after time.Duration) []Result {
	for i := range results {
		if results[i].Verdict == Retry && results[i].Err == "" {
			results[i].Err = fmt.Sprintf("timeout after %s", after.Round(time.Millisecond))
		}
	}
	return results
}

// alone appends the records of rejected batches one by one: a broker rejects a batch
// of its own making as a whole, for the size or the fault of one record in it. What
// was appended already and stands behind one of them in its key's order is appended
// again, so that the newest word is the last.
func (f *Forwarder) alone(ctx context.Context, records []Forwarded, results []Result) {
	if len(records) == 1 {
		return
	}
	behind := map[string]bool{}
	for i := range records {
		key := string(records[i].Key)
		suspect := results[i].Verdict == Reject
		if !suspect && (results[i].Verdict != Delivered || !behind[key]) {
			continue
		}
		results[i] = f.append(ctx, records[i:i+1])[0]
		if suspect && results[i].Verdict == Delivered {
			behind[key] = true
		}
	}
}

// forwarded is the outcome of them all. While nothing is appended and something is
// refused, the destination is at fault; beside what was appended a refusal is that of
// a partition, and tried again.
func forwarded(results []Result) Outcome {
	count := map[Verdict]int{}
	first := map[Verdict]string{}
	for _, r := range results {
		if count[r.Verdict]++; count[r.Verdict] == 1 {
			first[r.Verdict] = r.Err
		}
	}
	for _, v := range []Verdict{Delivered, Retry, Reject} {
		if count[v] == len(results) && (v != Reject || len(results) == 1) {
			return Outcome{Verdict: v, Err: first[v]}
		}
	}
	if count[Refuse] > 0 && count[Delivered] == 0 {
		return Outcome{Verdict: Refuse, Err: first[Refuse]}
	}
	for i := range results {
		if results[i].Verdict == Refuse {
			results[i].Verdict = Retry
		}
	}
	return Outcome{Verdict: Partial, Err: cmp.Or(first[Refuse], first[Retry], first[Reject]), Results: results}
}

func (r *Forwarded) record() *kgo.Record {
	rec := &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	for _, h := range r.Headers {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	return rec
}

// judgeProduce tells the fault of a record, of the destination, and of the moment
// apart.
func judgeProduce(err error) Result {
	if err == nil {
		return Result{Verdict: Delivered}
	}
	out := Result{Verdict: Retry, Err: err.Error()}
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

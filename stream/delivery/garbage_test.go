package delivery_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// noText are bytes that neither Avro nor Postgres takes as a text, and such that
// only Postgres refuses.
var noText = [][]byte{{0xff, 0xfe}, []byte("a\x00b"), {0xc3}, []byte("\x00")}

// withHeaders gives a record the value in every header that a record of ours has.
func withHeaders(kr *kgo.Record, value []byte) *kgo.Record {
	kr.Headers = nil
	for _, key := range []string{"id", "type", "occurred-at", "traceparent", "tracestate"} {
		kr.Headers = append(kr.Headers, kgo.RecordHeader{Key: key, Value: value})
	}
	return kr
}

// Postgres keeps parked keys in an index, in which a long one has no place.
func TestALongKeyDoesNotStopDelivery(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*")
	long := make([]byte, 0, 16<<10)
	for i := 0; len(long) < cap(long)-40; i++ { // text that does not compress
		long = append(long, schemas.Derive(fmt.Sprint(i), "key", 0)...)
	}
	f := fact("c", schemas.FactContactUpdated)
	value, err := w.Codec.Encode(f)
	require.NoError(t, err)
	kr := stream.NewKafkaRecord(w.Config.Topic(schemas.TopicLifecycle), string(long), value, f.Meta(), stream.Trace{})
	kr.Partition = w.PartitionOf("good")
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if len(dv.Records[0].Key) > 100 {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503} // until it is parked
		}
		return delivery.Outcome{Status: 200}
	}
	w.Produce(kr)
	w.start("one", func(c *delivery.Config) { c.ParkedMax = c.BackoffMax })
	letters := schemas.TopicDeadLetters
	w.Eventually(func(context.Context) (bool, error) { // others are accepted, so that the one that fails is given up
		w.Append(fact("good", schemas.FactContactUpdated))
		return len(w.ReadAll(letters, true)) > 0, nil
	}, "it is given up")
	w.waitFlushed(d)
	require.Equal(t, storage.DestinationActive, w.status(d))
}

func TestHeadersAndKeysThatAreNoTextDoNotStopDelivery(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "*", "event.tracked")
	raw := func(key, header []byte) *kgo.Record {
		f := fact("c", schemas.FactContactUpdated)
		value, err := w.Codec.Encode(f)
		require.NoError(t, err)
		kr := stream.NewKafkaRecord(w.Config.Topic(schemas.TopicLifecycle), "", value, f.Meta(), stream.Trace{})
		kr.Key, kr.Partition = key, w.PartitionOf("good")
		if header != nil {
			kr.Topic = w.Config.Topic(schemas.TopicEvents)
			kr.Headers = append(withHeaders(kr, header).Headers, kgo.RecordHeader{Key: "type", Value: append([]byte("event.tracked:"), header...)})
		}
		return kr
	}
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if string(dv.Records[0].Key) == "bad" && dv.Attempt < 8 {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503} // until it is parked
		}
		return delivery.Outcome{Status: 200}
	}
	for _, b := range noText {
		w.Produce(raw([]byte("good"), b), raw([]byte("bad"), b), raw(b, nil))
	}
	w.start("one", func(c *delivery.Config) { c.ParkedMax = c.BackoffMax })
	good := 0
	w.Eventually(func(context.Context) (bool, error) { // others are accepted, so that the one that fails is parked
		if w.r.count("crm") < good+len(noText) || w.r.count("crm") >= 2*len(noText)+good {
			return w.r.count("crm") >= 2*len(noText)+good, nil
		}
		w.Append(fact("good", schemas.FactContactUpdated))
		good++
		return false, nil
	}, "what has a key is delivered")
	w.waitFlushed(d)
	require.NotZero(t, w.countAttempts("delivered"))
	for _, l := range w.WaitRecords(schemas.TopicDeadLetters, len(noText)) {
		letter, err := w.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.Equal(t, "undecodable", letter.Reason)
	}
	// A cursor does not wait for what is parked, so it may be flushed later.
	w.Eventually(func(ctx context.Context) (bool, error) {
		var parked int
		err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT count(*) FROM parked_records`).Scan(&parked)
		return parked == 0, err
	}, "nothing to be parked any more")
	require.Equal(t, storage.DestinationActive, w.status(d))
}

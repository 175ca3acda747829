package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
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

func TestHeadersAndKeysThatAreNoTextDoNotStopAProcessor(t *testing.T) {
	r := newRig(t, 1)
	var records []*kgo.Record
	for _, raw := range noText {
		records = append(records, withHeaders(r.input(schemas.TopicIngest, 0, "x"), raw))
		keyed := r.input(schemas.TopicIngest, 0, "y")
		keyed.Key = raw
		records = append(records, keyed)
	}
	require.NoError(t, r.client.ProduceSync(t.Context(), records...).FirstErr())
	refuse := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *stream.Batch, rec *stream.Record) error {
			return b.DeadLetter(rec, "processor:copier", "undecodable", errors.New("no input: "+string(rec.Key)))
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *stream.ProcessorConfig) { c.Encoder, c.Processor = r.env.Codec, refuse })
	r.eventually("all are given up", func() bool { return r.committed(schemas.TopicIngest, 0) == int64(len(records)) })
	letters := r.env.WaitRecords(schemas.TopicDeadLetters, len(records))
	keys := map[string]bool{}
	for _, l := range letters {
		d, err := r.env.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.True(t, utf8.ValidString(d.Error))
		keys[string(d.RecordKey)] = true
	}
	for _, raw := range noText {
		require.True(t, keys[string(raw)], "the key %x stands in its dead letter as it was", raw)
	}
}

// What is copied into a dead letter, and into its key and headers, has a size too.
func TestHeadersAndKeysOfMegabytesDoNotStopAProcessor(t *testing.T) {
	r := newRig(t, 1)
	large := bytes.Repeat([]byte("x"), 1<<20)
	keyed := r.input(schemas.TopicIngest, 0, "y")
	keyed.Key = bytes.Repeat(large, 3)
	traced := r.input(schemas.TopicIngest, 0, string(bytes.Repeat(large, 3)))
	traced.Headers = []kgo.RecordHeader{{Key: "id", Value: []byte("traced")}, {Key: "tracestate", Value: large[:900<<10]}}
	records := []*kgo.Record{withHeaders(r.input(schemas.TopicIngest, 0, "x"), large[:800<<10]), keyed, traced}
	for _, kr := range records {
		require.NoError(t, r.client.ProduceSync(t.Context(), kr).FirstErr())
	}
	refuse := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *stream.Batch, rec *stream.Record) error {
			return b.DeadLetter(rec, "processor:copier", "undecodable", errors.New("no input"))
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *stream.ProcessorConfig) { c.Encoder, c.Processor = r.env.Codec, refuse })
	r.eventually("all are given up", func() bool { return r.committed(schemas.TopicIngest, 0) == int64(len(records)) })
	for _, l := range r.env.WaitRecords(schemas.TopicDeadLetters, len(records)) {
		d, err := r.env.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.NotEmpty(t, d.RecordKey)
		require.NotEmpty(t, d.RecordValue)
	}
}

// A name of megabytes stands in the value of an event, and in its type, a header.
func TestAnEventWhoseNameHasMegabytesIsGivenUp(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 2)
	name := string(bytes.Repeat([]byte("x"), 3<<20))
	emit := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *stream.Batch, rec *stream.Record) error {
			if rec.Offset > 0 {
				return nil
			}
			id := schemas.Derive("event", "test", 0)
			return b.Emit(rec, &schemas.Event{ID: id, ContactID: id, Name: name, Properties: "{}", Source: "test"})
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *stream.ProcessorConfig) { c.Encoder, c.Processor = r.env.Codec, emit })
	r.eventually("the partition goes on", func() bool { return r.committed(schemas.TopicIngest, 0) == 2 })
	letter, err := r.env.Codec.DecodeDeadLetter(r.env.WaitRecords(schemas.TopicDeadLetters, 1)[0].Value)
	require.NoError(t, err)
	require.EqualValues(t, 0, letter.Offset)
	err = r.env.Log().Append(t.Context(), &schemas.Event{ID: letter.ID, ContactID: letter.ID, Name: name, Properties: "{}", Source: "test"})
	require.ErrorIs(t, err, stream.ErrTooLarge)
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
	w.r.answer = func(_ context.Context, dv stream.Delivery) stream.Outcome {
		if len(dv.Records[0].Key) > 100 {
			return stream.Outcome{Verdict: stream.Retry, Status: 503} // until it is parked
		}
		return stream.Outcome{Status: 200}
	}
	w.Produce(kr)
	w.start("one", func(c *stream.SinksConfig) { c.ParkedMax = c.BackoffMax })
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
	w.r.answer = func(_ context.Context, dv stream.Delivery) stream.Outcome {
		if string(dv.Records[0].Key) == "bad" && dv.Attempt < 8 {
			return stream.Outcome{Verdict: stream.Retry, Status: 503} // until it is parked
		}
		return stream.Outcome{Status: 200}
	}
	for _, b := range noText {
		w.Produce(raw([]byte("good"), b), raw([]byte("bad"), b), raw(b, nil))
	}
	w.start("one", func(c *stream.SinksConfig) { c.ParkedMax = c.BackoffMax })
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
		err := w.db.QueryRow(ctx, `SELECT count(*) FROM parked_records`).Scan(&parked)
		return parked == 0, err
	}, "nothing to be parked any more")
	require.Equal(t, storage.DestinationActive, w.status(d))
}

package loop_test

import (
	"bytes"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

func TestHeadersAndKeysThatAreNoTextDoNotStopAProcessor(t *testing.T) {
	r := newRig(t, 1)
	var records []*kgo.Record
	for _, raw := range unreadable {
		records = append(records, withBadHeaders(r.input(schemas.TopicIngest, 0, "x"), raw))
		keyed := r.input(schemas.TopicIngest, 0, "y")
		keyed.Key = raw
		records = append(records, keyed)
	}
	require.NoError(t, r.client.ProduceSync(t.Context(), records...).FirstErr())
	refuse := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *loop.Batch, rec *stream.Record) error {
			return b.DeadLetter(rec, "processor:copier", "undecodable", errors.New("no input: "+string(rec.Key)))
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *loop.Config) { c.Encoder, c.Processor = r.env.Codec, refuse })
	r.eventually("all are given up", func() bool { return r.committed(schemas.TopicIngest, 0) == int64(len(records)) })
	letters := r.env.WaitRecords(schemas.TopicDeadLetters, len(records))
	keys := map[string]bool{}
	for _, l := range letters {
		d, err := r.env.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.True(t, utf8.ValidString(d.Error))
		keys[string(d.RecordKey)] = true
	}
	for _, raw := range unreadable {
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
	records := []*kgo.Record{withBadHeaders(r.input(schemas.TopicIngest, 0, "x"), large[:800<<10]), keyed, traced}
	for _, kr := range records {
		require.NoError(t, r.client.ProduceSync(t.Context(), kr).FirstErr())
	}
	refuse := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *loop.Batch, rec *stream.Record) error {
			return b.DeadLetter(rec, "processor:copier", "undecodable", errors.New("no input"))
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *loop.Config) { c.Encoder, c.Processor = r.env.Codec, refuse })
	r.eventually("all are given up", func() bool { return r.committed(schemas.TopicIngest, 0) == int64(len(records)) })
	for _, l := range r.env.WaitRecords(schemas.TopicDeadLetters, len(records)) {
		d, err := r.env.Codec.DecodeDeadLetter(l.Value)
		require.NoError(t, err)
		require.NotEmpty(t, d.RecordKey)
		require.NotEmpty(t, d.RecordValue)
	}
}

func withBadHeaders(kr *kgo.Record, value []byte) *kgo.Record {
	kr.Headers = nil
	for _, key := range []string{"id", "type", "occurred-at", "traceparent", "tracestate"} {
		kr.Headers = append(kr.Headers, kgo.RecordHeader{Key: key, Value: value})
	}
	return kr
}

// A name of megabytes stands in the value of an event, and in its type, a header.
func TestAnEventWhoseNameHasMegabytesIsGivenUp(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 2)
	name := string(bytes.Repeat([]byte("x"), 3<<20))
	emit := copier{
		topics: []schemas.Topic{schemas.TopicIngest},
		extra: func(b *loop.Batch, rec *stream.Record) error {
			if rec.Offset > 0 {
				return nil
			}
			id := schemas.Derive("event", "test", 0)
			return b.Emit(rec, &schemas.Event{ID: id, ContactID: id, Name: name, Properties: "{}", Source: "test"})
		},
		silent: func(*stream.Record) bool { return true },
	}
	r.start("a", func(c *loop.Config) { c.Encoder, c.Processor = r.env.Codec, emit })
	r.eventually("the partition goes on", func() bool { return r.committed(schemas.TopicIngest, 0) == 2 })
	letter, err := r.env.Codec.DecodeDeadLetter(r.env.WaitRecords(schemas.TopicDeadLetters, 1)[0].Value)
	require.NoError(t, err)
	require.EqualValues(t, 0, letter.Offset)
	err = r.env.Log().Append(t.Context(), &schemas.Event{ID: letter.ID, ContactID: letter.ID, Name: name, Properties: "{}", Source: "test"})
	require.ErrorIs(t, err, stream.ErrTooLarge)
}

// unreadable are bytes that neither Avro nor Postgres takes as a text, and such that
// only Postgres refuses.
var unreadable = [][]byte{{0xff, 0xfe}, []byte("a\x00b"), {0xc3}, []byte("\x00")}

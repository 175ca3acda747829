package reader_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func tailAll(t *testing.T, e *streamtest.Env, opts reader.TailOptions) []string {
	t.Helper()
	if opts.Topics == nil {
		opts.Topics = []schemas.Topic{schemas.TopicIngest}
	}
	var got []string
	require.NoError(t, reader.Tail(e.Context(), e.Config, opts, nil, func(r *stream.Record) error {
		got = append(got, fmt.Sprintf("%s@%d", r.Key, r.Offset))
		return nil
	}))
	return got
}

func TestTailEndsWhereTheLogEndedAndFilters(t *testing.T) {
	e := streamtest.New(t)
	require.Empty(t, tailAll(t, e, reader.TailOptions{}))
	e.Append(streamtest.Inputs("a", 0, 4)...)
	e.Append(streamtest.Inputs("b", 0, 3)...)
	require.Len(t, tailAll(t, e, reader.TailOptions{}), 7)
	require.Equal(t, []string{"u:a@0", "u:a@1", "u:a@2", "u:a@3"}, onlyKey(tailAll(t, e, reader.TailOptions{Key: "u:a"}), "u:a"))
	require.Len(t, tailAll(t, e, reader.TailOptions{Limit: 2}), 2)
	require.Len(t, tailAll(t, e, reader.TailOptions{Types: []string{"event"}}), 7)
	require.Empty(t, tailAll(t, e, reader.TailOptions{Types: []string{"contact"}}))
	require.Len(t, tailAll(t, e, reader.TailOptions{Types: []string{"contact.*", "ev*"}}), 7)
	require.Empty(t, tailAll(t, e, reader.TailOptions{From: reader.AtEnd()}))
	require.Len(t, tailAll(t, e, reader.TailOptions{From: reader.AtOffset(-100)}), 7)
	require.Empty(t, tailAll(t, e, reader.TailOptions{From: reader.AtOffset(100)}))
}

func TestATopicThatIsNotThereIsNamed(t *testing.T) {
	e := streamtest.New(t)
	opts := reader.TailOptions{Topics: []schemas.Topic{"nope"}}
	err := reader.Tail(e.Context(), e.Config, opts, nil, func(*stream.Record) error { return nil })
	require.ErrorContains(t, err, "there is no topic")
	require.ErrorContains(t, err, "hogstream topics ls")
}

func onlyKey(got []string, key string) []string {
	for _, g := range got {
		if g[:len(key)] != key {
			return []string{"also " + g}
		}
	}
	return got
}

func TestTailFromATimeStartsAtTheFirstRecordAppendedThen(t *testing.T) {
	e := streamtest.New(t)
	e.Append(streamtest.Inputs("a", 0, 4)...)
	last := e.ReadAll(schemas.TopicIngest, true)[3].AppendTime
	for !time.Now().After(last.Add(3 * time.Millisecond)) { // let the broker's clock move on
		e.Ends(schemas.TopicIngest)
	}
	e.Append(streamtest.Inputs("a", 4, 6)...)
	require.Equal(t, []string{"u:a@4", "u:a@5"}, tailAll(t, e, reader.TailOptions{From: reader.AtTime(last.Add(2 * time.Millisecond))}))
	require.Empty(t, tailAll(t, e, reader.TailOptions{From: reader.AtTime(time.Now().Add(time.Hour))}))
}

func TestTheBrokersTimeIsTheRecordsTime(t *testing.T) {
	e := streamtest.New(t)
	r := stream.NewKafkaRecord(e.Config.Topic(schemas.TopicEvents), "k", []byte("v"), schemas.Meta{ID: "1"}, stream.Trace{})
	r.Timestamp = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) // a producer's opinion
	e.Produce(r)
	require.WithinDuration(t, time.Now(), e.ReadAll(schemas.TopicEvents, true)[0].AppendTime, 10*time.Second)
}

func TestTailShowsNothingOfAnAbortedTransactionAndEndsAllTheSame(t *testing.T) {
	e := streamtest.New(t)
	e.Append(streamtest.Inputs("a", 0, 2)...)
	cl, err := e.Config.NewClient("txn", nil, kgo.TransactionalID(e.Config.Group("t")))
	require.NoError(t, err)
	defer cl.Close()
	require.NoError(t, cl.BeginTransaction())
	in := streamtest.Input("a", 9)
	value, err := e.Codec.Encode(in)
	require.NoError(t, err)
	require.NoError(t, cl.ProduceSync(e.Context(), stream.NewKafkaRecord(e.Config.Topic(schemas.TopicIngest), in.Key(), value, in.Meta(), stream.Trace{})).FirstErr())
	require.Len(t, tailAll(t, e, reader.TailOptions{}), 2, "while it is open")
	require.NoError(t, cl.EndTransaction(e.Context(), kgo.TryAbort))

	require.Len(t, tailAll(t, e, reader.TailOptions{}), 2)
	require.Len(t, tailAll(t, e, reader.TailOptions{Uncommitted: true}), 3)
	require.Len(t, e.ReadAll(schemas.TopicIngest, true), 2)

	admin, err := stream.OpenAdmin(e.Config, e.Logger)
	require.NoError(t, err)
	defer admin.Close()
	for _, c := range []struct {
		from, to int64
		empty    bool
	}{{0, 4, false}, {1, 2, false}, {2, 4, true}, {3, 4, true}, {2, 5, false}} { // 2 was aborted, 3 is the marker, 4 is not there yet
		empty, err := reader.Empty(e.Context(), admin, schemas.TopicIngest, e.PartitionOf(in.Key()), c.from, c.to)
		require.NoError(t, err)
		require.Equal(t, c.empty, empty, c)
	}
	require.Len(t, e.ReadAll(schemas.TopicIngest, false), 3)
}

func TestTailDoesNotTakeASilentBrokerForTheEnd(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	e.Append(streamtest.Inputs("a", 0, 4)...)
	began := time.Now()
	e.Cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		if time.Since(began) > 700*time.Millisecond {
			return nil, nil, false
		}
		e.Cluster.KeepControl()
		return nil, errors.New("no answer"), true
	})
	require.Len(t, tailAll(t, e, reader.TailOptions{}.Impatient(100*time.Millisecond, 20*time.Second)), 4)
}

func TestTailFailsWhenTheBrokerStaysSilent(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	e.Append(streamtest.Inputs("a", 0, 4)...)
	e.Cluster.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.Cluster.KeepControl()
		return nil, errors.New("no answer"), true
	})
	opts := reader.TailOptions{Topics: []schemas.Topic{schemas.TopicIngest}}.Impatient(50*time.Millisecond, 300*time.Millisecond)
	err := reader.Tail(e.Context(), e.Config, opts, nil, func(*stream.Record) error { return nil })
	require.ErrorContains(t, err, "at offset 0, and its end is 4")
}

func TestFollowShowsWhatComesUntilItsContextEnds(t *testing.T) {
	e := streamtest.New(t)
	ctx, cancel := context.WithCancel(e.Context())
	ids := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- reader.Tail(ctx, e.Config, reader.TailOptions{Topics: []schemas.Topic{schemas.TopicIngest}, Follow: true}, nil,
			func(r *stream.Record) error { ids <- r.ID; return nil })
	}()
	for n := range 3 {
		in := streamtest.Input("a", n)
		e.Append(in)
		require.Equal(t, in.ID, <-ids)
	}
	cancel()
	require.NoError(t, <-ended)
}

func TestTheNewestRecordsAreFoundBehindMarkersAndWhatIsNotWanted(t *testing.T) {
	e := streamtest.New(t)
	newest := func(opts reader.TailOptions) []string { return tailAll(t, e, opts) }
	require.Empty(t, newest(reader.TailOptions{Newest: 3}))
	e.Append(streamtest.Inputs("a", 0, 200)...)
	e.Append(streamtest.Inputs("b", 0, 1)...)
	require.Equal(t, []string{"u:a@198", "u:a@199"}, newest(reader.TailOptions{Newest: 2, Key: "u:a"}))
	got := newest(reader.TailOptions{Newest: 1})
	require.Equal(t, "u:b", got[0][:3], "of all partitions")
	require.Len(t, newest(reader.TailOptions{Newest: 1000}), 201)
	require.Empty(t, newest(reader.TailOptions{Newest: 3, Types: []string{"contact"}}))

	cl, err := e.Config.NewClient("txn", nil, kgo.TransactionalID(e.Config.Group("n")))
	require.NoError(t, err)
	defer cl.Close()
	in := streamtest.Input("a", 9)
	value, err := e.Codec.Encode(in)
	require.NoError(t, err)
	for range 40 { // each leaves a marker, and no record
		require.NoError(t, cl.BeginTransaction())
		require.NoError(t, cl.ProduceSync(e.Context(), stream.NewKafkaRecord(e.Config.Topic(schemas.TopicIngest), in.Key(), value, in.Meta(), stream.Trace{})).FirstErr())
		require.NoError(t, cl.EndTransaction(e.Context(), kgo.TryAbort))
	}
	require.Equal(t, []string{"u:a@198", "u:a@199"}, newest(reader.TailOptions{Newest: 2, Key: "u:a"}))
}

func TestTheNewestRecordsAreFollowedByWhatComes(t *testing.T) {
	e := streamtest.New(t)
	e.Append(streamtest.Inputs("a", 0, 5)...)
	var got []string
	opts := reader.TailOptions{Topics: []schemas.Topic{schemas.TopicIngest}, Newest: 2, Follow: true}
	require.NoError(t, reader.Tail(e.Context(), e.Config, opts, nil, func(r *stream.Record) error {
		got = append(got, fmt.Sprintf("%s@%d", r.Key, r.Offset))
		switch len(got) {
		case 2:
			e.Append(streamtest.Inputs("a", 5, 6)...)
		case 3:
			return reader.ErrStopTail
		}
		return nil
	}))
	require.Equal(t, []string{"u:a@3", "u:a@4", "u:a@5"}, got)
}

package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/trace"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestAppendedMessagesStandOnTheLogInOrderForEachKey(t *testing.T) {
	e := streamtest.New(t)
	l := e.Log()
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for from := 0; from < 50; from += 10 {
				if err := l.Append(context.Background(), streamtest.Inputs(fmt.Sprint("k", k), from, from+10)...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	next := make(map[string]string)
	records := e.ReadAll(schemas.TopicIngest, true)
	require.Len(t, records, 8*50)
	for _, r := range records {
		in, err := e.Codec.DecodeInput(r.Value)
		require.NoError(t, err)
		require.Equal(t, in.ID, r.ID)
		require.Equal(t, "u:"+*in.UserID, string(r.Key))
		require.Equal(t, e.PartitionOf(string(r.Key)), r.Partition)
		require.True(t, in.OccurredAt.Truncate(time.Microsecond).Equal(r.OccurredAt.Truncate(time.Microsecond)))
		require.WithinDuration(t, time.Now(), r.AppendTime, 10*time.Second)
		require.Less(t, next[string(r.Key)], fmt.Sprintf("%03d", r.OccurredAt.Nanosecond()))
		next[string(r.Key)] = fmt.Sprintf("%03d", r.OccurredAt.Nanosecond())
	}
}

func TestAppendCarriesTheTraceOfItsContext(t *testing.T) {
	e := streamtest.New(t)
	state, err := trace.ParseTraceState("vendor=x")
	require.NoError(t, err)
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0x4b, 0xf9, 15: 1}, SpanID: trace.SpanID{7: 2}, TraceFlags: trace.FlagsSampled, TraceState: state,
	}))
	require.NoError(t, e.Log().Append(ctx, streamtest.Input("a", 1)))

	r := e.WaitRecords(schemas.TopicIngest, 1)[0]
	require.Equal(t, "00-4bf90000000000000000000000000001-0000000000000002-01", r.TraceParent)
	require.Equal(t, "vendor=x", r.TraceState)
}

func TestABatchThatIsDecidedTakesNoMoreOutputs(t *testing.T) {
	cause := &stream.Record{Topic: schemas.TopicIngest}
	b := loop.NewBatch(schemas.NewCodec(), time.Now(), []*stream.Record{cause})
	for i := range 50 { // more than one piece of memory
		require.NoError(t, b.Emit(cause, streamtest.Input(fmt.Sprint(i), i)))
	}
	require.NoError(t, b.Emit(cause, &schemas.Tombstone{ContactID: "c"}))
	b.Decided()
	b.Decided()
	require.ErrorContains(t, b.Emit(cause, streamtest.Input("a", 1)), "the batch is decided")
	require.Len(t, b.Outputs(), 51)
	for i, o := range b.Outputs()[:50] {
		in, err := schemas.NewCodec().DecodeInput(o.Value)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), *in.UserID)
	}
	require.Nil(t, b.Outputs()[50].Value)
}

func TestARecordWithoutOurHeadersIsReadAllTheSame(t *testing.T) {
	e := streamtest.New(t)
	r := stream.NewKafkaRecord(e.Config.Topic(schemas.TopicEvents), "k", []byte("v"), schemas.Meta{}, stream.Trace{})
	require.Empty(t, r.Headers)
	e.Produce(r)
	got := e.ReadAll(schemas.TopicEvents, true)[0]
	require.Equal(t, "v", string(got.Value))
	require.Empty(t, got.ID+got.Type+got.TraceParent)
	require.True(t, got.OccurredAt.IsZero())
}

func TestAFullBufferRefusesAtOnceAndABrokerThatIsBackEmptiesIt(t *testing.T) {
	e := streamtest.New(t, streamtest.WithConfig(func(c *stream.Config) {
		c.AppendTimeout = 300 * time.Millisecond
	}))
	l := e.Log()
	l.Buffer(100)
	require.NoError(t, l.Append(context.Background(), streamtest.Inputs("a", 0, 10)...))

	e.Network.Stall() // requests arrive, answers do not: their fate is unknown
	err := l.Append(context.Background(), streamtest.Inputs("a", 10, 90)...)
	require.ErrorIs(t, err, stream.ErrBusy)
	require.ErrorContains(t, err, "no acknowledgement within")
	start := time.Now()
	err = l.Append(context.Background(), streamtest.Inputs("a", 90, 150)...)
	require.ErrorIs(t, err, stream.ErrBusy)
	require.ErrorContains(t, err, "wait for the broker")
	require.Less(t, time.Since(start), 200*time.Millisecond)

	e.Network.Heal()
	e.Eventually(func(ctx context.Context) (bool, error) {
		err := l.Append(ctx, streamtest.Inputs("a", 150, 160)...)
		return err == nil, err
	}, "the log to take records again")
	var last int
	seen := make(map[string]bool)
	for _, r := range e.ReadAll(schemas.TopicIngest, true) {
		require.False(t, seen[r.ID], "a record of unknown fate was appended twice")
		seen[r.ID] = true
		require.GreaterOrEqual(t, r.OccurredAt.Nanosecond(), min(last, 150))
		last = r.OccurredAt.Nanosecond()
	}
	require.GreaterOrEqual(t, len(seen), 100)
}

func TestTheLogGoesOnByItselfAfterALongOutage(t *testing.T) {
	for name, outage := range map[string]func(*streamtest.Network){
		"connections cut": (*streamtest.Network).Cut, "answers swallowed": (*streamtest.Network).Stall,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := streamtest.New(t, streamtest.WithConfig(func(c *stream.Config) {
				c.AppendTimeout = 200 * time.Millisecond
			}))
			l := e.Log()
			l.Buffer(500)
			require.NoError(t, l.Append(context.Background(), streamtest.Inputs("a", 0, 10)...))
			acked := 10
			outage(e.Network)
			until := time.Now().Add(2 * time.Second) // ten timeouts
			for time.Now().Before(until) {
				ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
				require.ErrorIs(t, l.Append(ctx, streamtest.Inputs("b", 0, 20)...), stream.ErrBusy)
				cancel()
			}
			e.Network.Heal()
			e.Eventually(func(ctx context.Context) (bool, error) {
				err := l.Append(ctx, streamtest.Inputs("a", 10, 20)...)
				if err == nil {
					acked += 10
				}
				return err == nil, err
			}, "the log to take records again")
			require.NoError(t, l.Close(e.Context()))
			require.GreaterOrEqual(t, len(e.ReadAll(schemas.TopicIngest, true)), acked)
		})
	}
}

func TestAFailingPartitionIsReportedByIndexAndTheOthersAreAppended(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	l := e.Log()
	broken := e.PartitionOf("u:a")
	e.Cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: e.Config.Topic(schemas.TopicIngest), Partitions: []int32{broken},
		Err: kerr.TopicAuthorizationFailed, Count: -1,
	})
	var msgs []schemas.Message
	var want []int
	for i := range 20 {
		key := fmt.Sprint(string(rune('a' + i)))
		if e.PartitionOf("u:"+key) == broken {
			want = append(want, i)
		}
		msgs = append(msgs, streamtest.Input(key, i))
	}
	err := l.Append(context.Background(), msgs...)
	var failed *stream.AppendError
	require.ErrorAs(t, err, &failed)
	var got []int
	for _, f := range failed.Failed {
		got = append(got, f.Index)
	}
	require.Equal(t, want, got)
	require.ErrorIs(t, err, kerr.TopicAuthorizationFailed)
	require.NotErrorIs(t, err, stream.ErrBusy)
	require.Len(t, e.ReadAll(schemas.TopicIngest, true), 20-len(want))
}

func TestATooLargeMessageFailsAlone(t *testing.T) {
	e := streamtest.New(t)
	big := streamtest.Input("a", 2)
	text := `{"x":"` + strings.Repeat("x", schemas.MaxRecord) + `"}`
	big.EventProperties = &text
	large := streamtest.Input("a", 3)
	fits := `{"x":"` + strings.Repeat("x", schemas.MaxRecord-80<<10) + `"}`
	large.EventProperties = &fits
	err := e.Log().Append(context.Background(), streamtest.Input("a", 1), big, large)
	require.ErrorIs(t, err, stream.ErrTooLarge)
	var failed *stream.AppendError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Failed, 1)
	require.Equal(t, 1, failed.Failed[0].Index)
	require.Len(t, e.ReadAll(schemas.TopicIngest, true), 2)
}

func TestATransientRefusalOfTheBrokerIsRetriedWithoutDuplicates(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	e.Cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: 2},
		kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotLeaderForPartition, Count: 2},
	)
	require.NoError(t, e.Log().Append(context.Background(), streamtest.Inputs("a", 0, 20)...))
	require.Len(t, e.ReadAll(schemas.TopicIngest, true), 20)
}

func TestCloseFlushesAndThenRefuses(t *testing.T) {
	e := streamtest.New(t)
	reg := prometheus.NewRegistry()
	l, err := stream.OpenLog(e.Context(), e.Config, e.Codec, e.Logger, reg)
	require.NoError(t, err)
	require.NoError(t, l.Ready(e.Context()))
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the sender left"))
	err = l.Append(ctx, streamtest.Input("a", 1)) // taken, and then not waited for
	if err != nil {
		require.ErrorIs(t, err, stream.ErrBusy)
	}
	require.NoError(t, l.Close(e.Context()))
	require.NoError(t, l.Close(e.Context()))
	require.ErrorIs(t, l.Append(context.Background(), streamtest.Input("a", 2)), stream.ErrClosed)
	require.Len(t, e.ReadAll(schemas.TopicIngest, true), 1)
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

func TestABrokerKilledAndRestartedLosesNothingAcknowledged(t *testing.T) {
	p := streamtest.StartProcess(t, streamtest.WithConfig(func(c *stream.Config) { c.AppendTimeout = 500 * time.Millisecond }))
	l := p.Log()
	acked := make(map[string]bool)
	next := 0
	add := func(ctx context.Context) error {
		msg := streamtest.Input("a", next)
		next++
		err := l.Append(ctx, msg)
		if err == nil {
			acked[msg.ID] = true
		}
		return err
	}
	for round := range 3 {
		for range 50 {
			require.NoError(t, add(context.Background()), "round %d", round)
		}
		p.Kill()
		require.ErrorIs(t, add(context.Background()), stream.ErrBusy)
		p.Restart()
		p.Eventually(func(ctx context.Context) (bool, error) {
			err := add(ctx)
			return err == nil, err
		}, "the log to take records again")
	}
	seen := make(map[string]int)
	for _, r := range p.ReadAll(schemas.TopicIngest, true) {
		seen[r.ID]++
		require.Equal(t, 1, seen[r.ID])
	}
	for id := range acked {
		require.Contains(t, seen, id)
	}
}

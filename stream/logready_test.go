package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestALogGoesOnByItselfAfterItsTopicWasMadeAnew(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly(), streamtest.WithConfig(func(c *stream.Config) { c.AppendTimeout = time.Second }))
	l := e.Log()
	appends := func(ctx context.Context) (bool, error) {
		for _, key := range []string{"a", "b", "c", "d", "e"} { // on more than one partition
			if err := l.Append(ctx, streamtest.Input(key, 1)); err != nil {
				return false, err
			}
		}
		return true, nil
	}
	taken, err := appends(e.Context())
	require.NoError(t, err)
	require.True(t, taken)
	require.NoError(t, l.Ready(e.Context()))

	e.DeleteTopic(schemas.TopicIngest)
	e.Eventually(func(ctx context.Context) (bool, error) { // while appends fail
		_, err := appends(ctx)
		return err != nil && l.Ready(ctx) != nil, nil
	}, "the log to refuse appends and not to be ready")

	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	e.Eventually(appends, "the log to take appends again")
	require.NoError(t, l.Ready(e.Context()))
	require.GreaterOrEqual(t, len(e.ReadAll(schemas.TopicIngest, true)), 5)
}

// Nobody sends anything to a process that is not ready, so it must find out alone.
func TestALogToWhichNobodyAppendsIsReadyAgainByItself(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly(), streamtest.WithConfig(func(c *stream.Config) { c.AppendTimeout = time.Second }))
	l := e.Log()
	require.NoError(t, l.Append(e.Context(), streamtest.Input("a", 1)))
	e.DeleteTopic(schemas.TopicIngest)
	e.Eventually(func(ctx context.Context) (bool, error) {
		return l.Append(ctx, streamtest.Input("a", 1)) != nil && l.Ready(ctx) != nil, nil
	}, "the log not to be ready")
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	e.Eventually(func(ctx context.Context) (bool, error) { err := l.Ready(ctx); return err == nil, err }, "the log to be ready")
	e.Eventually(func(ctx context.Context) (bool, error) {
		err := l.Append(ctx, streamtest.Input("a", 2))
		return err == nil, err
	}, "the log to take appends again")
}

func TestATopicThatWasMadeAnewWhileNobodyAppendedIsFoundByTheProbe(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	l := e.Log()
	require.NoError(t, l.Ready(e.Context())) // knows its id from then on
	require.NoError(t, l.Append(e.Context(), streamtest.Input("a", 1)))
	e.DeleteTopic(schemas.TopicIngest)
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	require.NoError(t, l.Probe(e.Context())) // as Ready does a second after the last append
	require.NoError(t, l.Append(e.Context(), streamtest.Input("a", 2)), "the first append after the log was found ready")
}

func TestAnAppendThatIsRefusedSaysThatTheLogIsNotReadyUntilOneIsTaken(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	l := e.Log()
	require.NoError(t, l.Ready(e.Context()))
	e.Cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Topic: e.Config.Topic(schemas.TopicIngest), Err: kerr.TopicAuthorizationFailed, Count: 1,
	})
	require.ErrorIs(t, l.Append(e.Context(), streamtest.Input("a", 1)), kerr.TopicAuthorizationFailed)
	require.ErrorIs(t, l.Ready(e.Context()), kerr.TopicAuthorizationFailed, "the brokers answer, and take nothing")
	require.NoError(t, l.Append(e.Context(), streamtest.Input("a", 2)))
	require.NoError(t, l.Ready(e.Context()))
}

func TestACallerThatLeavesSaysNothingOfTheLog(t *testing.T) {
	e := streamtest.New(t)
	l := e.Log()
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errors.New("the sender left"))
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { l.Append(ctx, streamtest.Input("a", 1)) }) //nolint:errcheck // it left
	}
	wg.Wait()
	require.NoError(t, l.Ready(e.Context()))
}

func TestALogIsNotReadyWithoutItsTopicOrABroker(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly(), streamtest.NoTopics())
	l := e.Log()
	require.ErrorIs(t, l.Ready(e.Context()), kerr.UnknownTopicOrPartition)
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	require.NoError(t, l.Ready(e.Context()))
	e.Network.Cut()
	ctx, cancel := context.WithTimeout(e.Context(), 500*time.Millisecond)
	defer cancel()
	require.Error(t, l.Ready(ctx))
	e.Network.Heal()
	require.NoError(t, l.Ready(e.Context()))
}

package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Callers leave before, while and after their messages are sent, beside callers
// that wait: what a caller was told is on the log is there once, and so is all else
// that arrived there, each with what its caller gave.
func TestCallersThatLeaveAtAnyMomentLoseDoubleAndChangeNothing(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	e.Cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		e.Cluster.SleepControl(func() { // so that callers leave while the broker has their records
			<-time.After(time.Millisecond)
		})
		return nil, nil, false
	})
	l := e.Log()
	const rounds = 150
	var mu sync.Mutex
	given, taken := map[string]*schemas.Input{}, map[string]bool{}
	send := func(ctx context.Context, n int, key string) error {
		msgs := streamtest.Inputs(key, n, n+1+n%3)
		mu.Lock()
		for _, m := range msgs {
			given[m.Meta().ID] = m.(*schemas.Input)
		}
		mu.Unlock()
		err := l.Append(ctx, msgs...)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range msgs {
				taken[m.Meta().ID] = true
			}
		}
		return err
	}
	var wg sync.WaitGroup
	for s := range 8 {
		wg.Go(func() {
			for n := range rounds {
				if err := send(context.Background(), n, fmt.Sprint("stays", s)); err != nil {
					t.Error(err)
					return
				}
			}
		})
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(s), 1))
			for n := range rounds {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(3000))*time.Microsecond)
				send(ctx, n, fmt.Sprint("leaves", s)) //nolint:errcheck // it may have left in time
				cancel()
			}
		})
	}
	wg.Wait()
	require.NoError(t, l.Close(e.Context()))
	seen := map[string]bool{}
	for _, r := range e.ReadAll(schemas.TopicIngest, false) {
		in, err := e.Codec.DecodeInput(r.Value)
		require.NoError(t, err)
		require.Equal(t, in.ID, r.ID)
		require.False(t, seen[in.ID], "input %s is on the log twice", in.ID)
		seen[in.ID] = true
		want := given[in.ID]
		require.NotNil(t, want, "nobody appended input %s", in.ID)
		require.Equal(t, *want.UserID, *in.UserID)
		require.Equal(t, *want.EventProperties, *in.EventProperties)
		require.Equal(t, want.Key(), string(r.Key))
	}
	for id := range taken {
		require.True(t, seen[id], "input %s was acknowledged and is lost", id)
	}
}

package stream_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// The client gives up everything that waits for a partition when the first of it is
// too old. Who came later is not refused for that: its own time counts.
func TestAnAppendIsNotGivenUpForTheAgeOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := streamtest.New(t, streamtest.Virtual(), streamtest.Partitions(2), streamtest.WithConfig(func(c *stream.Config) {
			c.AppendTimeout = time.Minute
		}))
		keys := keysOfPartitions(e, 2)
		l := e.Log()
		require.NoError(t, l.Append(t.Context(), streamtest.Inputs(keys[0], 0, 1)...))
		e.Network.Cut()

		var all sync.WaitGroup
		busy := func(key string) {
			all.Go(func() {
				if err := l.Append(t.Context(), streamtest.Inputs(key, 1, 2)...); err == nil {
					t.Errorf("%s was taken by a broker that is away", key)
				}
			})
			synctest.Wait()
		}
		busy(keys[0]) // finds the connection closed: perhaps it was sent
		busy(keys[1]) // is not sent
		<-time.After(30 * time.Second)
		later := streamtest.Inputs(keys[1], 2, 11)
		for i := 0; i < len(later); i += 3 {
			all.Go(func() {
				if err := l.Append(t.Context(), later[i:i+3]...); err != nil {
					t.Error(err)
				}
			})
		}
		<-time.After(40 * time.Second)
		e.Network.Heal()
		all.Wait()

		require.NoError(t, l.Close(context.Background()))
		seen := map[string]bool{}
		for _, r := range e.ReadAll(schemas.TopicIngest, false) {
			require.False(t, seen[r.ID], "%s is on the log twice", r.ID)
			seen[r.ID] = true
		}
		for _, m := range later {
			require.True(t, seen[m.Meta().ID])
		}
	})
}

// keysOfPartitions are keys, one of each partition.
func keysOfPartitions(e *streamtest.Env, partitions int32) []string {
	keys := make([]string, partitions)
	for n, left := 0, partitions; left > 0; n++ {
		key := fmt.Sprint("key-", n)
		// An input is keyed by its subject.
		if p := e.PartitionOf(streamtest.Inputs(key, 0, 1)[0].Key()); keys[p] == "" {
			keys[p] = key
			left--
		}
	}
	return keys
}

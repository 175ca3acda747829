package reader_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/reader"
)

func TestBackfillsComputeOnHalfOfTheCores(t *testing.T) {
	limiter := reader.NewCPULimiter()
	release := make(chan struct{})
	var computing, left sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		computing.Add(1)
		left.Go(func() {
			limiter.Do(context.Background(), func() { computing.Done(); <-release })
		})
	}
	computing.Wait()
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.False(t, limiter.Do(soon, func() { t.Error("there is no slot") }))

	close(release)
	left.Wait()
	done := false
	require.True(t, limiter.Do(t.Context(), func() { done = true }))
	require.True(t, done)
}

func TestAPanicFreesItsSlotOfTheCPULimiter(t *testing.T) {
	limiter := reader.NewCPULimiter()
	for range 2 * runtime.GOMAXPROCS(0) {
		require.PanicsWithValue(t, "a bad record", func() { limiter.Do(t.Context(), func() { panic("a bad record") }) })
	}
	require.True(t, limiter.Do(t.Context(), func() {}))
}

func TestWhoeverComputesForLongYields(t *testing.T) {
	limiter := reader.NewCPULimiter()
	now := time.Now()
	require.Equal(t, now, limiter.Yield(t.Context(), now), "not yet")

	long := now.Add(-time.Second)
	require.False(t, limiter.Yield(t.Context(), long).Before(now), "begins anew after yielding")
}

func TestANilCPULimiterLimitsNothing(t *testing.T) {
	var limiter *reader.CPULimiter
	done := false
	require.True(t, limiter.Do(t.Context(), func() { done = true }))
	require.True(t, done)
	require.Equal(t, time.Time{}, limiter.Yield(t.Context(), time.Time{}))
}

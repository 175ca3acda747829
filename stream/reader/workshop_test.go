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

func TestAWorkshopHasRoomForHalfOfTheCores(t *testing.T) {
	w := reader.NewWorkshop()
	release := make(chan struct{})
	var computing, left sync.WaitGroup
	for range max(1, runtime.GOMAXPROCS(0)/2) {
		computing.Add(1)
		left.Go(func() {
			w.Do(context.Background(), func() { computing.Done(); <-release })
		})
	}
	computing.Wait()
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.False(t, w.Do(soon, func() { t.Error("there is no place") }))

	close(release)
	left.Wait()
	done := false
	require.True(t, w.Do(t.Context(), func() { done = true }))
	require.True(t, done)
}

func TestAPanicInAWorkshopFreesItsPlace(t *testing.T) {
	w := reader.NewWorkshop()
	for range 2 * runtime.GOMAXPROCS(0) {
		require.PanicsWithValue(t, "a bad record", func() { w.Do(t.Context(), func() { panic("a bad record") }) })
	}
	require.True(t, w.Do(t.Context(), func() {}))
}

func TestWhoeverComputesForLongInAWorkshopTakesABreath(t *testing.T) {
	w := reader.NewWorkshop()
	now := time.Now()
	require.Equal(t, now, w.Breathe(t.Context(), now), "not yet")

	long := now.Add(-time.Second)
	require.False(t, w.Breathe(t.Context(), long).Before(now), "begins anew after a breath")
}

func TestLiveDeliveriesNeedNoWorkshop(t *testing.T) {
	var w *reader.Workshop
	done := false
	require.True(t, w.Do(t.Context(), func() { done = true }))
	require.True(t, done)
	require.Equal(t, time.Time{}, w.Breathe(t.Context(), time.Time{}))
}

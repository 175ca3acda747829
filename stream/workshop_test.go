package stream_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream"
)

func TestAWorkshopHasRoomForHalfOfTheCores(t *testing.T) {
	w := stream.NewWorkshop()
	places := max(1, runtime.GOMAXPROCS(0)/2)
	for range places {
		require.True(t, w.Enter(t.Context()))
	}
	full, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, w.Enter(full), "all %d places are taken", places)

	w.Leave()
	require.True(t, w.Enter(t.Context()))
}

func TestWhoeverComputesForLongInAWorkshopTakesABreath(t *testing.T) {
	w := stream.NewWorkshop()
	now := time.Now()
	require.Equal(t, now, w.Breathe(t.Context(), now), "not yet")

	long := now.Add(-time.Second)
	require.False(t, w.Breathe(t.Context(), long).Before(now), "begins anew after a breath")
}

func TestLiveDeliveriesNeedNoWorkshop(t *testing.T) {
	var w *stream.Workshop
	require.True(t, w.Enter(t.Context()))
	require.Equal(t, time.Time{}, w.Breathe(t.Context(), time.Time{}))
	w.Leave()
}

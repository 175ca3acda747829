package loop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABatchWaitsForThePaceUnlessThereIsMoreThanOneBatch(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	require.Equal(t, batchPace, pauseFor(begun, begun, 0))
	require.Equal(t, batchPace-3*time.Millisecond, pauseFor(begun, begun.Add(3*time.Millisecond), 0))
	require.Zero(t, pauseFor(begun, begun.Add(3*time.Millisecond), 1), "records of a full batch are left")
	require.Zero(t, pauseFor(begun, begun.Add(time.Minute), 0), "what comes after a rest waits for nothing")
	require.Zero(t, pauseFor(time.Time{}, begun, 0), "nor does the first")
}

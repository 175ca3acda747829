package stream_test

import (
	"bytes"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream"
)

func TestWhatIsComputedInAWorkshopYieldsToAllElse(t *testing.T) {
	before := threadNice(t)
	inside := 0
	require.True(t, stream.NewWorkshop().Do(t.Context(), func() { inside = threadNice(t) }))
	require.Equal(t, min(before+10, 19), inside)
	require.Equal(t, before, threadNice(t), "the thread that waits for it does not")
}

func TestAThreadThatYieldsTakesNobodysTurn(t *testing.T) {
	threads, most := stream.SpareThreads() // some may be left of other tests
	own := most - threads
	w := stream.NewWorkshopOfRest(time.Millisecond)
	inside := 0
	require.True(t, w.Do(t.Context(), func() {
		inside, most = stream.SpareThreads()
		require.Positive(t, inside)
		require.Equal(t, own+inside, most)
	}))
	require.Eventually(t, func() bool {
		threads, most = stream.SpareThreads()
		return threads < inside && most == own+threads
	}, 5*time.Second, time.Millisecond, "it has ended")
}

// threadNice is how nice the thread is that this runs on.
func threadNice(t *testing.T) int {
	text, err := os.ReadFile("/proc/thread-self/stat")
	require.NoError(t, err)
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	nice, err := strconv.Atoi(string(fields[16]))
	require.NoError(t, err)
	return nice
}

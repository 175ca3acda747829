package delivery

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A lingeringVendor's destination waits for more records.
type lingeringVendor struct {
	*batchVendor
	linger time.Duration
}

func (v *lingeringVendor) Linger(*storage.Destination) time.Duration { return v.linger }

func newLingerBench(t *testing.T, linger time.Duration) (*courierBench, *batchVendor) {
	b := newCourierBench(t, nil)
	v := newBatchVendor(t, b)
	v.answer = func(*stream.Record) Result { return Result{} }
	b.courier.env.deliverer = &lingeringVendor{v, linger}
	require.NoError(t, b.courier.update(b.destination(3, storage.DestinationActive)))
	return b, v
}

// requests are the sizes of those that were sent since the last call.
func (v *batchVendor) requests() []int {
	synctest.Wait()
	v.mu.Lock()
	defer v.mu.Unlock()
	sizes := v.sizes
	v.sizes = nil
	return sizes
}

func TestARequestLingersForMoreRecordsUntilItIsFullOrItsTimeHasCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := newLingerBench(t, 100*time.Millisecond)
		for i := range 10 {
			b.append(fmt.Sprint("key-", i))
			letPass(9 * time.Millisecond)
		}
		require.Empty(t, v.requests(), "90 ms have passed")
		letPass(10 * time.Millisecond)
		require.Equal(t, []int{10}, v.requests(), "all that came within 100 ms of the first")

		var full []string
		for i := range 120 {
			full = append(full, fmt.Sprint("full-", i))
		}
		b.append(full...)
		letPass(time.Millisecond)
		require.Equal(t, []int{50, 50}, v.requests(), "a full request does not wait")
		letPass(100 * time.Millisecond)
		require.Equal(t, []int{20}, v.requests(), "what did not fill one waits as long as any")

		b.append("one")
		letPass(99 * time.Millisecond)
		require.Empty(t, v.requests(), "the time begins anew")
		letPass(2 * time.Millisecond)
		require.Equal(t, []int{1}, v.requests())
		letPass(time.Second)
		require.Equal(t, b.next, b.position())
	})
}

func TestWithoutLingerARecordIsSentAtOnceAndThoseThatComeMeanwhileTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := newLingerBench(t, 0)
		b.append("a")
		require.Equal(t, []int{1}, v.requests())
		letPass(time.Second)
	})
}

func TestADestinationThatIsPausedOrChangedWhileItLingersSendsWhatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, v := newLingerBench(t, time.Second)
		b.append("a", "b")
		letPass(500 * time.Millisecond)
		require.NoError(t, b.courier.update(b.destination(4, storage.DestinationPaused)))
		letPass(time.Minute)
		require.Empty(t, v.requests())
		require.NoError(t, b.courier.update(b.destination(5, storage.DestinationActive)))
		require.Equal(t, []int{2}, v.requests())
		letPass(time.Second)
		require.Equal(t, b.next, b.position())
	})
}

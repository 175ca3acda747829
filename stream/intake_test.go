package stream

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What waits is bounded in bytes too: few records may be large.
func TestFetchedRecordsAreNotTakenInWhileABatchOfBytesWaits(t *testing.T) {
	record := func(size int) *kgo.Record { return &kgo.Record{Value: make([]byte, size)} }
	in := &intake{limit: 100, most: 1000, fetched: []*kgo.Record{record(900), record(900)}}
	in.change = sync.NewCond(&in.mu)
	take := func() {
		_, err := in.take()
		require.NoError(t, err)
	}
	take()
	require.Len(t, in.waiting, 2)
	in.fetched = []*kgo.Record{record(900)}
	take()
	require.Len(t, in.waiting, 2, "it is a batch already")
	require.Len(t, in.fetched, 1)
	in.taken(1)
	take()
	require.Len(t, in.waiting, 2)
	require.Empty(t, in.fetched)
}

package loop

import (
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
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

// Between the look at a topic's id and the first fetch the topic may be made anew, and
// the client then takes the new one for what it was told to read.
func TestRecordsOfAnotherLogThanTheOneThatIsReadAreNotTakenIn(t *testing.T) {
	kept, other := uuid.New(), uuid.New()
	for name, tc := range map[string]struct {
		id   uuid.UUID // of what was fetched
		err  error
		take bool
	}{
		"of the log that is read": {id: kept, take: true},
		"of another log":          {id: other},
		"a broker without ids":    {take: true},
		"the log is not there":    {id: kept, err: kerr.UnknownTopicID},
		"both":                    {id: other, err: kerr.UnknownTopicID},
		"an error of another log": {id: other, err: kerr.NotLeaderForPartition},
	} {
		t.Run(name, func(t *testing.T) {
			in := &intake{ids: map[string]map[int32]uuid.UUID{}, ends: offsets{}, anew: map[string]bool{}}
			in.expect("x", 3, kept)
			in.keep(kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "x", TopicID: tc.id, Partitions: []kgo.FetchPartition{
				{Partition: 3, Err: tc.err, LastStableOffset: 7, Records: []*kgo.Record{{Topic: "x", Partition: 3, Value: []byte("v")}}},
			}}}}})
			require.NoError(t, in.err)
			if tc.take {
				require.Len(t, in.fetched, 1)
				require.Empty(t, in.broken)
				require.EqualValues(t, 7, in.stableEnd("x", 3))
				return
			}
			require.Len(t, in.broken, 1)
			require.ErrorIs(t, in.broken[0].err, kerr.UnknownTopicID)
			require.True(t, in.anew["x"], "the client is to look the topic up afresh")
			if tc.err == nil {
				require.Empty(t, in.fetched)
				require.Equal(t, none, in.stableEnd("x", 3))
			}
		})
	}
}

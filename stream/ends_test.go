package stream_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestEndsAreWhereTheNextRecordGoes(t *testing.T) {
	e := streamtest.New(t, streamtest.Partitions(2))
	a, err := stream.OpenAdmin(e.Config, nil)
	require.NoError(t, err)
	defer a.Close()
	e.Append(streamtest.Inputs("a", 0, 5)...)
	ends, err := a.EndOffsets(e.Context(), schemas.TopicIngest, schemas.TopicEvents)
	require.NoError(t, err)
	want := e.Ends(schemas.TopicIngest)
	ids, err := a.TopicIDs(e.Context(), schemas.TopicIngest, schemas.TopicEvents)
	require.NoError(t, err)
	for i := range ends {
		require.Equal(t, ids[schemas.Topic(ends[i].Topic)], ends[i].TopicID)
		require.NotZero(t, ends[i].TopicID)
		ends[i].TopicID = uuid.Nil
	}
	require.Equal(t, []storage.CursorStart{
		{Topic: "events", Partition: 0}, {Topic: "events", Partition: 1},
		{Topic: "ingest", Partition: 0, Offset: want[0]}, {Topic: "ingest", Partition: 1, Offset: want[1]},
	}, ends)
	require.EqualValues(t, 5, want[0]+want[1])

	none, err := a.EndOffsets(e.Context())
	require.NoError(t, err)
	require.Empty(t, none)
}

package destinations

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// away are the ends of a broker that does not answer.
type away struct{}

func (away) EndOffsets(context.Context, ...schemas.Topic) ([]storage.CursorStart, error) {
	return nil, errors.New("no broker")
}

func TestADestinationTellsHowFarItIsBehindAndWhatFailedLast(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{URL: "https://example.com/hook", EventTypes: []string{"contact.*", "event.tracked"}})
	require.NoError(t, err)
	v, err := o.Inspect(t.Context(), made.Name)
	require.NoError(t, err)
	require.Zero(t, *v.Lag)
	require.Equal(t, "closed", v.Circuit)
	require.Nil(t, v.LastError)

	_, err = storagetest.SQL(o.db).Exec(t.Context(), `UPDATE cursors SET position = position - 4 WHERE destination_id::text = $1 AND topic = 'events'`, made.ID)
	require.NoError(t, err)
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `INSERT INTO cursors (destination_id, replay_id, topic, partition, position, end_offset) VALUES ($1::text::uuid, gen_random_uuid(), 'events', 0, 0, 9)`, made.ID)
	require.NoError(t, err)
	at := time.Now().UTC().Truncate(time.Millisecond)
	require.NoError(t, o.db.WriteHealth(t.Context(), "one", []storage.HolderHealth{{DestinationID: made.ID, Failures: 3, LastError: "HTTP 500", LastErrorAt: at}}))
	_, err = o.db.AcquireLeases(t.Context(), storage.Holder{Name: "one"}, []int32{0, 1}, time.Minute)
	require.NoError(t, err)
	v, err = o.Inspect(t.Context(), made.ID)
	require.NoError(t, err)
	require.EqualValues(t, 8, *v.Lag, "two partitions, live ones only")
	list, err := o.List(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 8, *list[0].Lag)
	for _, shown := range []View{*v, list[0]} {
		require.EqualValues(t, 3, shown.Failures)
		require.Equal(t, "HTTP 500", *shown.LastError)
		require.True(t, at.Equal(shown.LastErrorAt.Time))
		require.Equal(t, 2, shown.Owners[0].Partitions)
	}

	require.Empty(t, v.Stopped)
	_, err = storagetest.SQL(o.db).Exec(t.Context(), `UPDATE cursors SET topic_id = $2 WHERE destination_id::text = $1 AND topic = 'events' AND partition = 1 AND end_offset IS NULL`, made.ID, uuid.New())
	require.NoError(t, err)
	o.ends.id = uuid.New() // of every topic
	v, err = o.Inspect(t.Context(), made.ID)
	require.NoError(t, err)
	require.EqualValues(t, 4+11, *v.Lag, "all of a log that was made anew")
	list, err = o.List(t.Context())
	require.NoError(t, err)
	for _, shown := range []View{*v, list[0]} {
		require.Len(t, shown.Stopped, 1)
		require.Equal(t, "events", shown.Stopped[0].Topic)
		require.EqualValues(t, 1, shown.Stopped[0].Partition)
		require.EqualValues(t, 7, shown.Stopped[0].Position)
		require.Contains(t, shown.Stopped[0].Why, "made anew")
		require.Contains(t, shown.Stopped[0].Mend, "hogstream replay "+made.Name)
	}

	o.Operations.ends = away{}
	v, err = o.Inspect(t.Context(), made.ID)
	require.NoError(t, err)
	require.Nil(t, v.Lag)
	list, err = o.List(t.Context())
	require.NoError(t, err)
	require.Nil(t, list[0].Lag)
	require.Equal(t, "HTTP 500", *v.LastError, "the rest is wanted most when something is out of order")
}

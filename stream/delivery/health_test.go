package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestOperatorsSeeTheLastErrorTheFailuresInARowAndTheCircuitOfEachOwner(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	healthy := w.destination("calm", "contact.*")
	var down atomic.Bool
	down.Store(true)
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if down.Load() && dv.Destination.ID == d.ID {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
		}
		return delivery.Outcome{Status: 200}
	}
	p := w.start("one")
	w.Append(facts(30, 1)...)
	health := func() *storage.DestinationHealth {
		p.WriteHealth(w.Context())
		all, err := w.db.ReadHealth(w.Context(), []string{d.ID, healthy.ID})
		require.NoError(t, err)
		require.Equal(t, "closed", all[healthy.ID].Circuit)
		require.Nil(t, all[healthy.ID].LastError)
		require.Zero(t, all[healthy.ID].Failures)
		return all[d.ID]
	}
	w.waitDelivered("calm", 30)
	w.Eventually(func(context.Context) (bool, error) { return health().Circuit == "open", nil }, "the circuit is open")
	h := health()
	require.GreaterOrEqual(t, h.Failures, int64(10))
	require.Equal(t, "HTTP 503", *h.LastError)
	require.WithinDuration(t, time.Now(), h.LastErrorAt.Time, time.Minute)
	require.Len(t, h.Owners, 1)
	require.Equal(t, "one", h.Owners[0].Instance)
	require.Positive(t, h.Owners[0].Partitions)
	require.Equal(t, "open", h.Owners[0].Circuit)
	require.NotNil(t, h.Owners[0].NextProbeAt)
	before := w.revision(d)

	down.Store(false)
	w.waitDelivered("crm", 30)
	h = health()
	require.Equal(t, "closed", h.Circuit)
	require.Zero(t, h.Failures)
	require.Nil(t, h.Owners[0].NextProbeAt)
	require.Equal(t, "HTTP 503", *h.LastError, "it stays, with its time")
	require.Equal(t, before, w.revision(d), "this is no change of the destination")

	p.stop()
	all, err := w.db.ReadHealth(w.Context(), []string{d.ID})
	require.NoError(t, err)
	require.Empty(t, all[d.ID].Owners)
	require.Equal(t, "HTTP 503", *all[d.ID].LastError)
}

func (w *world) revision(d *storage.Destination) int64 {
	now, err := w.store.Get(w.Context(), d.ID)
	require.NoError(w.t, err)
	return now.Revision
}

func TestWhatAKilledProcessSaidOfACircuitDoesNotOutliveIt(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	at := time.Now()
	row := storage.HolderHealth{DestinationID: d.ID, CircuitOpen: true, ProbeAt: at, Failures: 40, LastError: "reset", LastErrorAt: at}
	require.NoError(t, w.db.WriteHealth(w.Context(), "one", []storage.HolderHealth{row}))
	require.NoError(t, w.db.WriteHealth(w.Context(), "gone", []storage.HolderHealth{row}))
	p := w.start("one")
	p.WriteHealth(w.Context())
	w.Append(facts(3, 1)...)
	w.waitDelivered("crm", 3)
	all, err := w.db.ReadHealth(w.Context(), []string{d.ID})
	require.NoError(t, err)
	require.Equal(t, "closed", all[d.ID].Circuit)
	require.Zero(t, all[d.ID].Failures)
	require.Equal(t, "reset", *all[d.ID].LastError)

	require.NoError(t, w.db.DropHealth(w.Context(), time.Now().Add(time.Hour)))
	var holders []string
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT array_agg(holder) FROM destination_health`).Scan(&holders))
	require.Equal(t, []string{"one"}, holders, "of who has no lease")
}

func TestTheLagIsWhatIsNotFinishedBelowTheEnd(t *testing.T) {
	was, is := uuid.New(), uuid.New()
	for name, tc := range map[string]struct {
		cursor  storage.Cursor
		id      uuid.UUID // of the topic
		lag     int64
		stopped string
	}{
		"all behind the position":                 {cursor: storage.Cursor{Position: 5}, id: is, lag: 15},
		"but what is finished beyond":             {cursor: storage.Cursor{Position: 5, Finished: []byte{2, 3, 4, 20}}, lag: 15 - 3 - 6}, // [7, 10) and [14, 34)
		"beyond the end it waits for an operator": {cursor: storage.Cursor{Position: 30, TopicID: was}, id: was, stopped: "beyond the end of the log, 20"},
		"of another log, all of the present one":  {cursor: storage.Cursor{Position: 19, TopicID: was}, id: is, lag: 20, stopped: "made anew"},
		"a broker without ids says nothing":       {cursor: storage.Cursor{Position: 19, TopicID: was}, lag: 1},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cursor.ReplayID = storage.LiveReplay
			lag, stopped, err := delivery.Standing(tc.cursor, "crm", storage.CursorStart{Offset: 20, TopicID: tc.id})
			require.NoError(t, err)
			require.Equal(t, tc.lag, lag)
			if tc.stopped == "" {
				require.Nil(t, stopped)
				return
			}
			require.Contains(t, stopped.Why, tc.stopped)
			require.Contains(t, stopped.Mend, "hogstream replay crm --rewind --to start")
			require.Contains(t, stopped.Mend, "hogstream destinations skip crm")
		})
	}
}

package destinations

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

func TestARecordIsRedeliveredToAPausedDestinationAndEachAttemptStandsInTheDeliveryLog(t *testing.T) {
	o := newOperations(t)
	var ids []string
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		ids = append(ids, r.Header.Get("Webhook-Id"))
	}))
	defer receiver.Close()
	made, err := o.Create(t.Context(), Settings{URL: receiver.URL, EventTypes: []string{"contact.*"}, Disabled: true})
	require.NoError(t, err)
	now := time.Now()
	record := sinktest.Record(&schemas.Fact{ID: uuid.NewString(), Type: schemas.FactContactCreated, ContactID: uuid.NewString(), OccurredAt: now, CauseID: uuid.NewString(),
		Contact: &schemas.ContactFact{Properties: "{}", FirstSeenAt: now, LastSeenAt: now, CreatedAt: now, UpdatedAt: now}}, 7)
	for range 2 {
		out, err := o.Redeliver(t.Context(), made.ID, record, -1)
		require.NoError(t, err)
		require.Equal(t, delivery.Delivered, out.Verdict, out.Err)
	}
	require.Equal(t, []string{"msg_" + record.ID, "msg_" + record.ID}, ids, "under the same id")
	rows, _, err := o.db.SearchAttempts(t.Context(), made.ID, storage.AttemptFilter{RecordID: record.ID}, "", 10)
	require.NoError(t, err)
	require.Len(t, rows, 2)
	require.Equal(t, []int{2, 1}, []int{rows[0].Attempt, rows[1].Attempt})

	// Before the record was appended there can be no attempt: the log is not read so far back.
	require.NoError(t, o.db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.WriteAttempts(t.Context(), []storage.Attempt{{At: now.Add(-2 * time.Hour), DestinationID: made.ID, RecordID: "other",
			RecordType: record.Type, RecordKey: "k", Topic: string(record.Topic), Partition: 0, Offset: 8, Attempt: 41, Outcome: "delivered"}})
	}))
	record.Offset = 8
	_, err = o.Redeliver(t.Context(), made.ID, record, -1)
	require.NoError(t, err)
	_, err = o.Redeliver(t.Context(), made.ID, record, 6)
	require.NoError(t, err)
	rows, _, err = o.db.SearchAttempts(t.Context(), made.ID, storage.AttemptFilter{Topic: string(record.Topic), Offset: 8, From: now.Add(-time.Minute)}, "", 10)
	require.NoError(t, err)
	require.Equal(t, []int{7, 1}, []int{rows[0].Attempt, rows[1].Attempt}, "who knows how many were made says so")

	_, err = o.Redeliver(t.Context(), uuid.NewString(), record, -1)
	require.ErrorIs(t, err, ErrNotFound)
}

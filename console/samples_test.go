package console_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
)

func TestARecordIsPreviewedByItsPlaceItsIDOrPasted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	at := "/webhooks/" + id + "/preview"

	previewed := func(body string) string {
		out := s.request(http.MethodPost, at, body, http.StatusOK)
		require.Equal(t, "sent", out["result"])
		return out["body"].(string)
	}
	require.Contains(t, previewed(""), `"type":"webhook.test"`)
	require.Contains(t, previewed(`{"record":"lifecycle-1-7"}`), recordID(1))
	require.Contains(t, previewed(`{"record":"msg_`+lately+`"}`), lately, "found on the log")

	logged := uuid.NewString()
	row := storage.Attempt{At: time.Now(), DestinationID: id, RecordID: logged, Topic: "events", Partition: 2, Offset: 7, Attempt: 1, Outcome: "delivered"}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.WriteAttempts(t.Context(), []storage.Attempt{row})
	}))
	require.Contains(t, previewed(`{"record":"`+logged+`"}`), recordID(2), "where the delivery log says it stands")
	require.Contains(t, previewed(`{"message":{"type":"contact.created","data":{"a":1}}}`), `"data":{"a":1}`)

	s.request(http.MethodPost, at, `{"record":"lifecycle-1-8"}`, http.StatusNotFound)
	s.request(http.MethodPost, at, `{"record":"nonsense"}`, http.StatusNotFound)
	s.request(http.MethodPost, at, `{"record":"`+uuid.NewString()+`"}`, http.StatusNotFound)
	require.Equal(t, []string{"message"}, paths(t, s.request(http.MethodPost, at, `{"record":"lifecycle-1-7","message":{}}`, http.StatusBadRequest)))
	require.Empty(t, s.audit(), "a preview changes nothing")

	tested := s.request(http.MethodPost, "/webhooks/"+id+"/test", `{"record":"events-0-7"}`, http.StatusAccepted)
	require.Equal(t, true, tested["enqueued"])
	require.Contains(t, tested["request"].(map[string]any)["body"], `"type":"event.tracked"`)
	require.EqualValues(t, 1, s.arrived.Load())
	require.Len(t, s.audit(), 1)
}

func TestTheOutcomeOfATestIsLookedUpByItsMessage(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	message := uuid.NewString()
	id := s.request(http.MethodPost, "/webhooks", `{"name":"crm","url":"`+s.receiver+`","eventTypes":["*"]}`, http.StatusCreated)["id"].(string)
	row := storage.Attempt{At: time.Now(), DestinationID: id, RecordID: message, RecordType: "webhook.test", Partition: -1, Offset: -1, Attempt: 1, Outcome: "delivered", Status: 200}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.WriteAttempts(t.Context(), []storage.Attempt{row})
	}))
	found := s.request(http.MethodGet, "/webhooks/"+id+"/deliveries/msg_"+message, "", http.StatusOK)["deliveries"].([]any)
	require.Len(t, found, 1)
	require.Equal(t, "msg_"+message, found[0].(map[string]any)["deliveryId"])
}

package console_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
)

func TestWhatAFailedDeliveryTellsOfTheNetworkIsForAdminsAlone(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id, at := s.destination("crm"), time.Now().UTC().Truncate(time.Millisecond)
	attempt := func(offset int64, status int, failure string) storage.Attempt {
		return storage.Attempt{
			At: at, DestinationID: id, RecordID: uuid.NewString(), RecordType: "contact.created", RecordKey: "c", Topic: "lifecycle",
			Offset: offset, Attempt: 1, Outcome: "retry", Status: status, Error: failure,
		}
	}
	s.log.appended = at
	require.NoError(t, s.db.PrepareAttempts(t.Context(), at, 1))
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
		return tx.WriteAttempts(t.Context(), []storage.Attempt{
			attempt(7, 0, "tls: failed to verify certificate: x509: valid for crm.internal"), attempt(2, 0, "dns: lookup crm.internal on 10.0.0.2:53: no such host"),
			attempt(3, 0, "dial tcp 10.0.0.9:443: connect: no route to host"), attempt(4, 422, "HTTP 422: no such field"),
		})
	}))
	s.log.failure = "connection refused: dial tcp 10.0.0.9:443: connect: connection refused"
	seen := func() string {
		var all []any
		for _, path := range []string{"/webhooks/" + id + "/deliveries", "/webhooks/" + id + "/deliveries/lifecycle-0-7", "/dlq", "/dlq/0-3"} {
			all = append(all, s.request(http.MethodGet, path, "", http.StatusOK))
		}
		text, err := json.Marshal(all)
		require.NoError(t, err)
		return string(text)
	}
	admin := seen()
	for _, detail := range []string{"x509", "crm.internal", "10.0.0.2", "10.0.0.9:443: connect: connection refused"} {
		require.Contains(t, admin, detail)
	}
	s.unseeing = true
	others := seen()
	for _, detail := range []string{"x509", "crm.internal", "10.0.0"} {
		require.NotContains(t, others, detail)
	}
	for _, class := range []string{`"error":"tls"`, `"error":"dns"`, `"error":"failed"`, `"error":"connection refused"`, "HTTP 422: no such field"} {
		require.Contains(t, others, class)
	}
}

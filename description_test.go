package hogstream_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Both rooms describe their routes in one document; a type that both call the
// same kept the whole instance from starting.
func TestTheDescriptionHoldsTheRoutesOfBothRooms(t *testing.T) {
	db := storagetest.New(t)
	api, err := ingest.New(ingest.Config{}, ingest.Deps{Appender: streamtest.New(t).Log(), DB: db, Admin: console.Routes(console.Deps{DB: db})})
	require.NoError(t, err)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	require.Equal(t, http.StatusOK, w.Code)
	for _, path := range []string{"/v1/events", "/v1/admin/webhooks"} {
		require.Contains(t, w.Body.String(), `"`+path+`"`)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody *struct{ Required bool }
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &doc))
	const webhook = "/v1/admin/webhooks/{id}"
	require.True(t, doc.Paths["/v1/admin/webhooks"]["post"].RequestBody.Required)
	require.True(t, doc.Paths[webhook]["patch"].RequestBody.Required)
	require.True(t, doc.Paths[webhook+"/rewind"]["post"].RequestBody.Required)
	for _, route := range []string{"/pause", "/resume", "/rotate-secret", "/test", "/preview", "/replays"} {
		require.False(t, doc.Paths[webhook+route]["post"].RequestBody.Required, "%s has nothing that must be said", route)
	}
}

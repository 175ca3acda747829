package console_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// destination makes one at the receiver.
func (s *server) destination(name string) string {
	s.t.Helper()
	made, err := s.ops.Create(s.t.Context(), destinations.Settings{Name: name, URL: s.receiver, EventTypes: []string{"*"}})
	require.NoError(s.t, err)
	return made.ID
}

// park parks records of keys as an owner does; the first of each has failed.
func (s *server) park(destination string, records int, keys ...string) {
	s.t.Helper()
	track := storage.ParkedTrack{DestinationID: destination, ReplayID: storage.LiveReplay}
	failed := time.Now().Add(-time.Minute)
	var rows []storage.ParkedRecord
	var states []storage.ParkedKey
	for i, key := range keys {
		for n := range records {
			rows = append(rows, storage.ParkedRecord{
				ParkedTrack: track, Key: key, Topic: "lifecycle", Offset: int64(i*records + n), AppendTime: failed,
				RecordID: fmt.Sprint(key, "-", n), RecordType: "contact.updated", Value: []byte("1234"), Epoch: 1,
			})
		}
		states = append(states, storage.ParkedKey{
			ParkedTrack: track, Key: key, Reason: storage.ParkedFailing, Attempts: 5, Failing: 12 * time.Second,
			FirstFailedAt: &failed, NextAttemptAt: time.Now().Add(time.Hour), Status: 503, Error: "HTTP 503: no Disk space",
		})
	}
	require.NoError(s.t, s.db.InTx(s.t.Context(), func(tx *storage.Tx) error {
		if err := tx.ParkRecords(s.t.Context(), rows); err != nil {
			return err
		}
		return tx.SaveParkedKeys(s.t.Context(), states)
	}))
}

func TestParkedKeysAreListedInPagesAndInspected(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	s.park(id, 3, "a", "b", "c")
	at := "/webhooks/" + id + "/parked"

	page := s.request(http.MethodGet, at+"?limit=2&total=true", "", http.StatusOK)
	require.Equal(t, map[string]any{"keys": 3., "records": 9.}, page["total"])
	first := page["keys"].([]any)[0].(map[string]any)
	require.Len(t, page["keys"], 2)
	require.Equal(t, "a", first["key"])
	require.Equal(t, "failing", first["reason"])
	require.InDelta(t, 3, first["records"], 0)
	require.InDelta(t, 12, first["bytes"], 0)
	require.InDelta(t, 503, first["status"], 0)
	require.InDelta(t, 5, first["attempts"], 0)
	require.NotNil(t, first["since"])
	require.NotNil(t, first["nextAttemptAt"])
	require.Equal(t, "lifecycle-0-0", first["oldest"].(map[string]any)["deliveryId"])
	page = s.request(http.MethodGet, at+"?limit=2&cursor="+page["nextCursor"].(string), "", http.StatusOK)
	require.Len(t, page["keys"], 1)
	require.Nil(t, page["nextCursor"])
	require.Nil(t, page["total"], "counted when it is asked for")
	require.Len(t, s.request(http.MethodGet, at+"?status=503&error=disk&reason=failing&partition=0", "", http.StatusOK)["keys"], 3)
	require.Empty(t, s.request(http.MethodGet, at+"?reason=spilled", "", http.StatusOK)["keys"])
	s.request(http.MethodGet, at+"?cursor=nonsense", "", http.StatusBadRequest)
	s.request(http.MethodGet, "/webhooks/"+uuid.NewString()+"/parked", "", http.StatusNotFound)

	key := s.request(http.MethodGet, at+"/b?limit=2", "", http.StatusOK)
	records := key["records"].([]any)
	require.Len(t, records, 2, "the first of them")
	require.Equal(t, "b-0", records[0].(map[string]any)["recordId"])
	require.Equal(t, "b-1", records[1].(map[string]any)["recordId"])
	require.Equal(t, "HTTP 503", key["keys"].([]any)[0].(map[string]any)["error"])
	s.request(http.MethodGet, at+"/z", "", http.StatusNotFound)

	totals := s.request(http.MethodGet, "/parked", "", http.StatusOK)["destinations"].([]any)
	require.Len(t, totals, 1)
	require.Equal(t, "crm", totals[0].(map[string]any)["name"])
	require.InDelta(t, 9, totals[0].(map[string]any)["records"], 0)
}

func TestParkedKeysAreRetriedAndSkippedByNameByFilterAndAllOfThem(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	s.park(id, 2, "a", "b", "c")
	at := "/webhooks/" + id + "/parked"
	due := func() (n int) {
		require.NoError(t, storagetest.SQL(s.db).QueryRow(t.Context(), `SELECT count(*) FROM parked_keys WHERE next_attempt_at <= now()`).Scan(&n))
		return n
	}
	told := make(chan string, 10)
	go func() { _ = s.db.Listen(t.Context(), storage.ChannelParked, func(id string) { told <- id }) }()
	require.Empty(t, <-told, "it listens")

	require.Equal(t, []string{"all"}, paths(t, s.request(http.MethodPost, at+"/retry", "", http.StatusBadRequest)), "nothing says which")
	require.Equal(t, []string{"all"}, paths(t, s.request(http.MethodPost, at+"/skip", `{"status":0}`, http.StatusBadRequest)))
	require.Zero(t, due())
	require.InDelta(t, 1, s.request(http.MethodPost, at+"/retry", `{"keys":["b","unknown"]}`, http.StatusOK)["keys"], 0)
	require.Equal(t, 1, due())
	require.Equal(t, id, <-told, "the owner hears of it at once")
	now := s.request(http.MethodGet, at+"/b", "", http.StatusOK)["keys"].([]any)[0].(map[string]any)
	require.Contains(t, now, "nextAttemptAt")
	require.Nil(t, now["nextAttemptAt"], "it waits for no time")
	require.InDelta(t, 0, s.request(http.MethodPost, at+"/retry", `{"status":500}`, http.StatusOK)["keys"], 0)
	require.InDelta(t, 3, s.request(http.MethodPost, at+"/retry", `{"all":true}`, http.StatusOK)["keys"], 0)
	require.Equal(t, 3, due())
	require.Equal(t, id, <-told)
	require.InDelta(t, 3, s.request(http.MethodPost, at+"/skip", `{"error":"DISK","all":true}`, http.StatusOK)["keys"], 0)
	require.Equal(t, id, <-told)
	first := s.request(http.MethodGet, at, "", http.StatusOK)["keys"].([]any)[0].(map[string]any)
	require.Equal(t, true, first["skipping"])
	s.request(http.MethodPost, "/webhooks/"+uuid.NewString()+"/parked/retry", `{"all":true}`, http.StatusNotFound)
	entries := s.audit()
	require.Len(t, entries, 4)
	require.Contains(t, string(entries[0].Detail), "parked-skip")
}

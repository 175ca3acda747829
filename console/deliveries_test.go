package console_test

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/replay"
)

// log is a Records with a record at offset 7 of each partition, and a DeadLetters with one
// that was given up once.
type log struct {
	failure string
	pending bool
	gone    bool // the destination of the letter was deleted

	destination string
	filter      replay.LetterFilter
	appended    time.Time
}

func (l *log) ReadRecord(_ context.Context, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error) {
	if offset != 7 {
		return nil, nil
	}
	var m schemas.Message = factWithID(recordID(partition))
	if topic == schemas.TopicEvents {
		e := sinktest.Event()
		e.ID = recordID(partition)
		m = e
	}
	r := sinktest.Record(m, offset)
	r.Partition, r.AppendTime = partition, l.appended
	return r, nil
}

// recordID is the id of the record at offset 7.
func recordID(partition int32) string {
	return fmt.Sprintf("0192f000-0000-7000-8000-00000000007%d", partition)
}

func factWithID(id string) *schemas.Fact {
	f := sinktest.Fact(schemas.FactContactCreated)
	f.ID = id
	return f
}

func (l *log) FindRecord(_ context.Context, id string) (*stream.Record, error) {
	if id != lately {
		return nil, nil
	}
	return sinktest.Record(factWithID(id), 1), nil
}

// lately is the id of a record that only the log knows.
const lately = "0192f000-0000-7000-8000-000000000009"

func (l *log) letter() *replay.Letter {
	status := "retried"
	if l.pending {
		status = storage.LetterPending
	}
	destination := cmp.Or(l.destination, lately)
	return &replay.Letter{Place: "0-3", Status: status, DeadLetter: &schemas.DeadLetter{
		Source: "destination:crm", Reason: "rejected", RecordValue: []byte("x"), DestinationID: &destination, Error: l.failure,
	}}
}

func (l *log) List(_ context.Context, f replay.LetterFilter, _ string, _ int) (*replay.LetterPage, error) {
	l.filter = f
	return &replay.LetterPage{Letters: []*replay.Letter{l.letter()}, Scanned: 1}, nil
}

func (l *log) Get(_ context.Context, place string) (*replay.Letter, error) {
	if place != "0-3" {
		return nil, replay.ErrNoLetter
	}
	return l.letter(), nil
}

func (l *log) Redrive(ctx context.Context, place string) (*replay.Letter, error) {
	if !l.pending {
		return nil, replay.ErrLetterDone
	}
	if l.gone {
		return l.letter(), destinations.ErrNotFound
	}
	l.pending = false
	return l.Get(ctx, place)
}

func (l *log) RedriveAll(context.Context, replay.LetterFilter, string, int) (*replay.Redriven, error) {
	return &replay.Redriven{Retried: 1, Errors: []string{}}, nil
}

func (l *log) Discard(ctx context.Context, place string) error {
	_, err := l.Get(ctx, place)
	return err
}

func TestTheDeliveryLogIsSearchedAndARecordRedelivered(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	var rows []storage.Attempt
	for i := range int64(5) {
		rows = append(rows, storage.Attempt{At: time.Now(), DestinationID: id, RecordID: "r", RecordType: "contact.created", RecordKey: "c",
			Topic: "lifecycle", Partition: 1, Offset: i, Attempt: 1, Outcome: "delivered", Status: 200})
	}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.WriteAttempts(t.Context(), rows) }))
	at := "/webhooks/" + id + "/deliveries"
	page := s.request(http.MethodGet, at+"?limit=3&key=c", "", http.StatusOK)
	require.Len(t, page["deliveries"], 3)
	page = s.request(http.MethodGet, at+"?limit=3&key=c&cursor="+page["nextCursor"].(string), "", http.StatusOK)
	require.Len(t, page["deliveries"], 2)
	require.Nil(t, page["nextCursor"])
	require.Empty(t, s.request(http.MethodGet, at+"?status=500", "", http.StatusOK)["deliveries"])
	require.Len(t, s.request(http.MethodGet, at+"/lifecycle-1-4", "", http.StatusOK)["deliveries"], 1)
	s.request(http.MethodGet, at+"/lifecycle-1-99", "", http.StatusNotFound)
	s.log.appended = time.Now().Add(3 * time.Hour) // so far in the future that no attempt was made since
	rows[0].Offset = 7
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.WriteAttempts(t.Context(), rows[:1]) }))
	s.request(http.MethodGet, at+"/lifecycle-1-7", "", http.StatusNotFound)
	s.log.appended = time.Now()
	require.Len(t, s.request(http.MethodGet, at+"/lifecycle-1-7", "", http.StatusOK)["deliveries"], 1, "only what was attempted since it was appended is searched")
	s.request(http.MethodGet, at+"?cursor=nonsense", "", http.StatusBadRequest)
	s.request(http.MethodGet, at+"?from=yesterday", "", http.StatusBadRequest)
	require.Len(t, s.request(http.MethodGet, at+"?from=2026-01-31T12:00Z", "", http.StatusOK)["deliveries"], 6)
	for _, name := range []string{"recordId", "key", "type", "eventType", "outcome", "replayId"} {
		for _, text := range []string{"%00", "%ff"} { // Postgres compares with neither
			require.Equal(t, []string{name}, paths(t, s.request(http.MethodGet, at+"?"+name+"="+text, "", http.StatusBadRequest)))
		}
	}
	missing := s.request(http.MethodGet, "/webhooks/"+uuid.NewString()+"/deliveries", "", http.StatusNotFound)
	require.Equal(t, "Webhook endpoint not found", missing["error"])

	out := s.request(http.MethodPost, at+"/lifecycle-1-7/redeliver", "", http.StatusOK)
	require.Equal(t, true, out["delivered"])
	require.EqualValues(t, 1, s.arrived.Load())
	s.request(http.MethodPost, at+"/lifecycle-1-8/redeliver", "", http.StatusNotFound)
	s.request(http.MethodPost, at+"/ingest-1-7/redeliver", "", http.StatusNotFound)
	missing = s.request(http.MethodPost, "/webhooks/"+uuid.NewString()+"/deliveries/lifecycle-1-7/redeliver", "", http.StatusNotFound)
	require.Equal(t, "Webhook endpoint not found", missing["error"])
}

func TestASearchOfTheDeliveryLogGoesBackADayUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id := s.destination("crm")
	now := time.Now()
	row := func(at time.Time, typ string) storage.Attempt {
		return storage.Attempt{At: at, DestinationID: id, RecordID: "r", RecordType: typ, RecordKey: "c", Topic: "events", Attempt: 1, Outcome: "delivered", Status: 200}
	}
	rows := []storage.Attempt{row(now, "event.tracked:order.paid"), row(now.Add(-time.Hour), "contact.created"), row(now.Add(-72*time.Hour), "contact.created")}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.WriteAttempts(t.Context(), rows) }))
	at := "/webhooks/" + id + "/deliveries"
	found := func(query string) int {
		list, _ := s.request(http.MethodGet, at+query, "", http.StatusOK)["deliveries"].([]any)
		return len(list)
	}
	require.Equal(t, 2, found(""))
	from, err := time.Parse(time.RFC3339, s.request(http.MethodGet, at, "", http.StatusOK)["from"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, now.Add(-24*time.Hour), from, time.Minute, "and the answer says so")
	require.Equal(t, 3, found("?from="+now.Add(-96*time.Hour).UTC().Format(time.RFC3339)))
	require.Equal(t, 1, found("?to="+now.Add(-71*time.Hour).UTC().Format(time.RFC3339)), "a day before its end")
	require.Equal(t, 1, found("?type=event.tracked"))
	require.Equal(t, 1, found("?eventType=contact.*"))
	require.Equal(t, 0, found("?type=contact.updated"))
}

// JSON implements console.Values.
func (l *log) JSON(_ schemas.Topic, value []byte) ([]byte, error) {
	return []byte(`{"decoded":"` + string(value) + `"}`), nil
}

func TestADeadLetterShowsItsValueDecodedAndWhereItWasToGo(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.log.pending = true
	require.Nil(t, s.request(http.MethodGet, "/dlq/0-3", "", http.StatusOK)["destination"], "it was deleted")
	s.log.gone = true
	refused := s.request(http.MethodPost, "/dlq/0-3/retry", "", http.StatusNotFound)
	require.Equal(t, "The destination of this entry was deleted", refused["error"])
	require.Equal(t, "discard the entry", refused["fix"])
	s.log.gone = false

	made := s.request(http.MethodPost, "/webhooks", `{"name":"crm","url":"`+s.receiver+`/in?token=hidden","eventTypes":["*"]}`, http.StatusCreated)
	id := made["id"].(string)
	s.log.destination = id
	shown := s.request(http.MethodGet, "/dlq/0-3", "", http.StatusOK)
	require.Equal(t, map[string]any{"decoded": "x"}, shown["value"])
	at := shown["destination"].(map[string]any)
	require.Equal(t, []any{"crm", "webhook"}, []any{at["name"], at["kind"]})
	require.Contains(t, at["url"], "/in")
	require.NotContains(t, at["url"], "hidden")
	entry := s.request(http.MethodGet, "/dlq", "", http.StatusOK)["entries"].([]any)[0].(map[string]any)
	require.Equal(t, at, entry["destination"])
	require.NotContains(t, entry, "value")

	for _, filter := range []string{"destination=crm", "destination=" + id, "destinationId=" + id} {
		s.request(http.MethodGet, "/dlq?"+filter, "", http.StatusOK)
		require.Equal(t, id, s.log.filter.DestinationID, filter)
	}
	s.request(http.MethodGet, "/dlq?destination="+lately, "", http.StatusOK)
	require.Equal(t, lately, s.log.filter.DestinationID, "of one that was deleted, by its id")
	require.Equal(t, []string{"destination"}, paths(t, s.request(http.MethodGet, "/dlq?destination=crmm", "", http.StatusBadRequest)))
	s.request(http.MethodGet, "/dlq?contact=c1&from=7d", "", http.StatusOK)
	require.Equal(t, "c1", s.log.filter.Key)
	require.WithinDuration(t, time.Now().Add(-7*24*time.Hour), s.log.filter.From, time.Minute)

	s.request(http.MethodGet, "/webhooks/"+id+"/deliveries?contact=c1", "", http.StatusOK)
	s.request(http.MethodDelete, "/webhooks/"+id, "", http.StatusOK)
	s.request(http.MethodGet, "/webhooks/"+id+"/deliveries", "", http.StatusNotFound)
	s.request(http.MethodGet, "/webhooks/"+id+"/deliveries/lifecycle-0-7", "", http.StatusNotFound)
}

func TestDeadLettersAreListedShownRetriedOnceAndDiscarded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.log.pending = true
	page := s.request(http.MethodGet, "/dlq?source=destination:crm", "", http.StatusOK)
	entry := page["entries"].([]any)[0].(map[string]any)
	require.Equal(t, "0-3", entry["id"])
	require.Nil(t, entry["payload"], "bytes are shown with one letter only")
	require.Equal(t, "eA==", s.request(http.MethodGet, "/dlq/0-3", "", http.StatusOK)["payload"])
	require.Equal(t, true, s.request(http.MethodPost, "/dlq/0-3/retry", "", http.StatusOK)["retried"])
	s.request(http.MethodPost, "/dlq/0-3/retry", "", http.StatusConflict)
	require.EqualValues(t, 1, s.request(http.MethodPost, "/dlq/retry?reason=rejected", "", http.StatusOK)["retried"])
	require.NotContains(t, string(s.audit()[0].Detail), "0001-01-01", "no times were named")
	require.Equal(t, true, s.request(http.MethodDelete, "/dlq/0-3", "", http.StatusOK)["discarded"])
	s.request(http.MethodDelete, "/dlq/0-4", "", http.StatusNotFound)

	s.request(http.MethodGet, "/dlq?from=2026-01-02T00:00:00Z&to=2026-01-03T00:00:00Z&type=contact.*", "", http.StatusOK)
	require.Equal(t, replay.LetterFilter{Type: "contact.*", From: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC), To: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC)}, s.log.filter)
	s.request(http.MethodGet, "/dlq?recordId=msg_7", "", http.StatusOK)
	require.Equal(t, "7", s.log.filter.RecordID, "as receivers know it")
	require.Equal(t, []string{"from"}, paths(t, s.request(http.MethodGet, "/dlq?from=yesterday", "", http.StatusBadRequest)))
	require.Equal(t, []string{"to"}, paths(t, s.request(http.MethodPost, "/dlq/retry?to=1", "", http.StatusBadRequest)))
}

package console_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

// ends are those of a log to which nothing was appended: one partition a topic.
type ends struct{}

func (ends) EndOffsets(_ context.Context, topics ...schemas.Topic) (starts []storage.CursorStart, _ error) {
	for _, t := range topics {
		starts = append(starts, storage.CursorStart{Topic: string(t)})
	}
	return starts, nil
}

type server struct {
	t        *testing.T
	handler  http.Handler
	table    *web.Table
	db       *storage.DB
	ops      *destinations.Operations
	receiver string       // the URL of one that takes everything
	arrived  atomic.Int64 // there

	positions *positions
	backfills *backfills
	log       *log
	told      *told
	missing   map[string]error // versions of journeys, by id@version
	unseeing  bool             // the key may not see what failures tell of the network
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, db: storagetest.New(t), positions: &positions{}, backfills: &backfills{}, log: &log{}, told: &told{}}
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { s.arrived.Add(1) }))
	t.Cleanup(receiver.Close)
	s.receiver = receiver.URL
	deliverer, err := sinks.New(sinks.Config{AllowLoopback: true}, schemas.NewCodec(), zap.NewNop(), nil)
	require.NoError(t, err)
	t.Cleanup(deliverer.Close)
	box, err := storage.NewBox(bytes.Repeat([]byte{1}, storage.KeySize))
	require.NoError(t, err)
	s.ops = destinations.New(s.db, storage.NewDestinations(s.db, box), ends{}, deliverer, zap.NewNop())
	routes := console.Routes(console.Deps{
		DB: s.db, Destinations: s.ops,
		Rewinds: s.positions, Replays: s.backfills, Records: s.log, DeadLetters: s.log, Values: s.log, Log: s.told, Explain: explain.New(s.db, nil, schemas.NewCodec(), predicate.DefaultLimits(), nil), Logger: zap.NewNop(),
		Checked: definitionOptions, Foresee: s.foresee,
		Missing: func([]storage.JourneyVersion) map[string]error { return s.missing },
	})
	s.table, err = web.Compile(web.About{}, routes)
	require.NoError(t, err)
	mux := chi.NewRouter()
	mux.Use(web.NewEdge(web.Config{}, zap.NewNop()).Exchanges)
	for _, route := range s.table.Routes {
		mux.Method(route.Method, route.Path, web.Handle(func(x *web.Exchange, r *http.Request) {
			x.Caller = &web.Caller{ID: web.BootstrapID, Name: "ada", Scopes: []string{storage.ScopeFullAdmin}}
			if s.unseeing {
				x.Caller.Scopes = []string{storage.ScopeRead}
			}
			route.Serve(x, r)
		}))
	}
	unknown := web.Handle(func(x *web.Exchange, _ *http.Request) { x.Fail(http.StatusNotFound, "Not Found", "") })
	mux.NotFound(unknown)
	mux.MethodNotAllowed(unknown)
	s.handler = mux
	return s
}

func (s *server) request(method, path, body string, status int, headers ...string) map[string]any {
	s.t.Helper()
	w := s.send(method, path, body, headers...)
	require.Equal(s.t, status, w.Code, "%s", w.Body)
	var out map[string]any
	require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), &out), "%s", w.Body)
	if status >= 400 {
		require.Equal(s.t, "req-1", out["requestId"])
	}
	return out
}

func (s *server) send(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, "/v1/admin"+path, strings.NewReader(body))
	r.RemoteAddr = "192.0.2.7:1234"
	r.Header.Set("X-Request-Id", "req-1")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// paths are the fields at fault.
func paths(t *testing.T, body map[string]any) []string {
	t.Helper()
	envelope, ok := body["error"].(map[string]any)
	require.True(t, ok, "%v", body)
	require.Equal(t, "ZodError", envelope["name"])
	var issues []struct {
		Path []any
		Fix  string
	}
	text, _ := envelope["message"].(string)
	require.NoError(t, json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&issues))
	var out []string
	for _, i := range issues {
		require.NotEmpty(t, i.Fix)
		name, _ := i.Path[0].(string)
		out = append(out, name)
	}
	return out
}

// fullPaths are the paths of the issues, as JSON.
func fullPaths(t *testing.T, body map[string]any) (out []string) {
	t.Helper()
	envelope, ok := body["error"].(map[string]any)
	require.True(t, ok, "%v", body)
	var issues []struct{ Path json.RawMessage }
	text, _ := envelope["message"].(string)
	require.NoError(t, json.Unmarshal([]byte(text), &issues))
	for _, i := range issues {
		var path bytes.Buffer
		require.NoError(t, json.Compact(&path, i.Path))
		out = append(out, path.String())
	}
	return out
}

func (s *server) audit() []*storage.AuditEntry {
	s.t.Helper()
	entries, _, err := s.db.ListAudit(s.t.Context(), storage.AuditFilter{Limit: 100})
	require.NoError(s.t, err)
	return entries
}

func TestAKeyIsShownOnceListedAndRevoked(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	made := s.request(http.MethodPost, "/api-keys", `{"name":"shop","scopes":["ingest"],"expiresAt":"2199-01-01T00:00Z"}`, http.StatusCreated)
	key, _ := made["key"].(string)
	id, _ := made["id"].(string)
	require.Regexp(t, `^hsk_[A-Za-z0-9_-]{43}$`, key)
	require.Equal(t, key[:8], made["keyPrefix"])
	require.Equal(t, "2199-01-01T00:00:00.000Z", made["expiresAt"])
	row, err := s.db.FindAPIKey(t.Context(), storage.HashAPIKey(key))
	require.NoError(t, err)
	require.Equal(t, id, row.ID)

	list := s.request(http.MethodGet, "/api-keys", "", http.StatusOK)
	require.InDelta(t, 1, list["total"], 0)
	require.InDelta(t, 50, list["limit"], 0)
	require.NotContains(t, list["keys"], "key")
	first, _ := list["keys"].([]any)[0].(map[string]any)
	require.Equal(t, "ada", first["createdBy"])
	require.NotContains(t, first, "key")

	require.Equal(t, true, s.request(http.MethodDelete, "/api-keys/"+id, "", http.StatusOK)["revoked"])
	s.request(http.MethodDelete, "/api-keys/"+id, "", http.StatusNotFound)
	require.InDelta(t, 0, s.request(http.MethodGet, "/api-keys", "", http.StatusOK)["total"], 0)
	require.InDelta(t, 1, s.request(http.MethodGet, "/api-keys?includeRevoked=true", "", http.StatusOK)["total"], 0)

	entries := s.audit()
	require.Len(t, entries, 2)
	require.Equal(t, "api-keys.delete", entries[0].Action)
	require.Equal(t, "api-keys.post", entries[1].Action)
	require.Equal(t, "ada", entries[1].Actor)
	require.Equal(t, id, *entries[1].ResourceID)
	require.Equal(t, "192.0.2.7", *entries[1].IPAddress)
	require.NotContains(t, string(entries[1].Detail), key)
	require.Contains(t, string(entries[1].Detail), "ingest")
	at := entries[0].CreatedAt.UTC()
	for span, want := range map[string]int{ // from and to were ignored
		"from=" + at.Format(time.RFC3339Nano):                                                        1,
		"from=" + at.Add(-time.Hour).Format(time.RFC3339Nano) + "&to=" + at.Format(time.RFC3339Nano): len(entries),
		"from=" + at.Add(time.Hour).Format(time.RFC3339Nano):                                         0,
		"to=" + at.Add(-time.Hour).Format(time.RFC3339Nano):                                          0,
	} {
		page := s.request(http.MethodGet, "/audit-logs?"+span, "", http.StatusOK)
		require.Len(t, page["logs"], want, span)
		require.EqualValues(t, want, page["total"], span)
	}
	require.Equal(t, []string{"from"}, paths(t, s.request(http.MethodGet, "/audit-logs?from=yesterday", "", http.StatusBadRequest)))
	logs := s.request(http.MethodGet, "/audit-logs?action=api-keys.post", "", http.StatusOK)
	require.InDelta(t, 1, logs["total"], 0)
}

func TestAKeyThatIsNotUnderstoodIsNotMade(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	require.Equal(t, []string{"scopes", "name"}, paths(t, s.request(http.MethodPost, "/api-keys", `{"scopes":[]}`, http.StatusBadRequest)))
	require.Equal(t, []string{"name", "scopes"}, paths(t, s.request(http.MethodPost, "/api-keys", `{"name":" ","scopes":["root"]}`, http.StatusBadRequest)))
	require.Equal(t, []string{"expiresAt"}, paths(t, s.request(http.MethodPost, "/api-keys", `{"name":"n","expiresAt":"2001-01-01T00:00:00Z"}`, http.StatusBadRequest)))
	require.Equal(t, []string{"expiresAt"}, paths(t, s.request(http.MethodPost, "/api-keys", `{"name":"n","expiresAt":null}`, http.StatusBadRequest)))
	s.request(http.MethodPost, "/api-keys", `{"name":"n"}`, http.StatusUnsupportedMediaType, "Content-Type", "text/plain")
	s.request(http.MethodPost, "/api-keys", `{"name":`, http.StatusBadRequest)
	s.request(http.MethodPost, "/api-keys", `[]`, http.StatusBadRequest)
	s.request(http.MethodPost, "/api-keys", `{"name":"`+strings.Repeat("n", 2<<20)+`"}`, http.StatusRequestEntityTooLarge)
	for _, query := range []string{"limit=0", "limit=101", "limit=", "limit=1.5", "offset=-1", "includeRevoked=yes"} {
		s.request(http.MethodGet, "/api-keys?"+query, "", http.StatusBadRequest)
	}
	require.Equal(t, []string{"id"}, paths(t, s.request(http.MethodDelete, "/api-keys/7", "", http.StatusBadRequest)))
	s.request(http.MethodDelete, "/api-keys/00000000-0000-0000-0000-000000000000", "", http.StatusNotFound)
	s.request(http.MethodGet, "/nothing", "", http.StatusNotFound)
	s.request(http.MethodPut, "/api-keys", `{}`, http.StatusNotFound)
	require.Empty(t, s.audit())
}

func TestAFilterIsSentAsTextOfJQOrAsACondition(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	id, _ := s.request(http.MethodPost, "/webhooks", `{"url":"`+s.receiver+`","eventTypes":["contact.*"]}`, http.StatusCreated)["id"].(string)
	for _, filter := range []any{".type", map[string]any{"event": "contact.*"}, []any{map[string]any{"event": "a"}, map[string]any{"event": "b"}}, ""} {
		sent, err := json.Marshal(map[string]any{"filter": filter})
		require.NoError(t, err)
		require.Equal(t, filter, s.request(http.MethodPatch, "/webhooks/"+id, string(sent), http.StatusOK)["filter"])
	}
	wrong := s.request(http.MethodPatch, "/webhooks/"+id, `{"filter":{"evnt":"a"}}`, http.StatusBadRequest)
	require.Contains(t, fmt.Sprint(wrong), `did you mean \"event\"?`)
}

func TestADestinationIsMadeChangedTestedAndDeleted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	made := s.request(http.MethodPost, "/webhooks", `{"name":"crm","url":"`+s.receiver+`","description":"d","eventTypes":["contact.*"],"config":{"headers":{"X-A":"1"}},"retryHorizonSeconds":60,"rateLimit":2.5}`, http.StatusCreated)
	require.Regexp(t, "^whsec_", made["secret"])
	id, _ := made["id"].(string)
	for field, want := range map[string]any{
		"name": "crm", "url": s.receiver, "description": "d", "eventTypes": []any{"contact.*"}, "retryHorizonSeconds": 60.0, "rateLimit": 2.5,
		"config": map[string]any{"headers": map[string]any{"X-A": "***"}}, "status": "enabled",
	} {
		require.Equal(t, want, made[field], field)
	}

	s.request(http.MethodPost, "/webhooks", `{"url":"https://example.com/off","eventTypes":["*"],"disabled":true}`, http.StatusCreated)
	require.InDelta(t, 2, s.request(http.MethodGet, "/webhooks", "", http.StatusOK)["total"], 0)
	require.InDelta(t, 1, s.request(http.MethodGet, "/webhooks?includeDisabled=false", "", http.StatusOK)["total"], 0)
	second := s.request(http.MethodGet, "/webhooks?limit=1&offset=1", "", http.StatusOK)
	require.Len(t, second["endpoints"], 1)
	one := s.request(http.MethodGet, "/webhooks/"+id, "", http.StatusOK)
	require.NotContains(t, one, "secret")
	require.InDelta(t, 0, one["lag"], 0)
	require.Contains(t, one, "lastError")

	changed := s.request(http.MethodPatch, "/webhooks/"+id, `{"description":null,"config":null,"disabled":true}`, http.StatusOK)
	require.Nil(t, changed["config"])
	require.Nil(t, changed["description"])
	require.Equal(t, "disabled", changed["status"])
	require.Equal(t, s.receiver, changed["url"])
	require.InDelta(t, 2.5, changed["rateLimit"], 0)

	rotate := "/webhooks/" + id + "/rotate-secret"
	rotated := s.request(http.MethodPost, rotate, `{"overlapSeconds":60}`, http.StatusOK)
	require.NotEqual(t, made["secret"], rotated["secret"])
	require.NotNil(t, rotated["previousSecretUntil"])
	refused := s.request(http.MethodPost, rotate, "", http.StatusConflict)
	require.Contains(t, refused["error"], "a rotation is under way")
	require.Contains(t, refused["fix"], "force")
	require.Nil(t, s.request(http.MethodPost, rotate, `{"force":true,"overlapSeconds":0}`, http.StatusOK)["previousSecretUntil"])
	const mine = "whsec_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
	require.Equal(t, mine, s.request(http.MethodPost, rotate, `{"secret":"`+mine+`"}`, http.StatusOK)["secret"])
	require.Equal(t, []string{"signingKey"}, paths(t, s.request(http.MethodPost, rotate, `{"signingKey":"whsk_mine","force":true}`, http.StatusBadRequest)))

	tested := s.request(http.MethodPost, "/webhooks/"+id+"/test", "", http.StatusAccepted)
	require.Equal(t, true, tested["enqueued"])
	require.Equal(t, true, tested["delivered"])
	require.Regexp(t, "^msg_", tested["deliveryId"])
	require.EqualValues(t, 1, s.arrived.Load())

	require.Equal(t, map[string]any{"deleted": true}, s.request(http.MethodDelete, "/webhooks/"+id, "", http.StatusOK))
	require.Equal(t, "Webhook endpoint not found", s.request(http.MethodDelete, "/webhooks/"+id, "", http.StatusNotFound)["error"])
	var actions []string
	for _, e := range s.audit() {
		actions = append(actions, e.Action)
		require.NotContains(t, string(e.Detail), "whsec")
		require.NotContains(t, string(e.Detail), "whsk")
	}
	require.Equal(t, []string{"webhooks.delete", "webhooks.post", "webhooks.post", "webhooks.post", "webhooks.post", "webhooks.patch", "webhooks.post", "webhooks.post"}, actions)
}

func TestAWrongSettingOfADestinationIsNamed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	require.Equal(t, []string{"eventTypes"}, paths(t, s.request(http.MethodPost, "/webhooks", `{"url":"https://example.com"}`, http.StatusBadRequest)))
	require.Equal(t, []string{"url", "eventTypes", "disabled", "config", "concurrency"}, // in the order of the body
		paths(t, s.request(http.MethodPost, "/webhooks", `{"url":1,"eventTypes":[null],"disabled":"no","config":[],"concurrency":1.5}`, http.StatusBadRequest)))
	for body, path := range map[string]string{
		`{"url":"https://10.0.0.1","eventTypes":["*"]}`:                                              `["url"]`,
		`{"url":"https://x.example","eventTypes":["*","no such type"]}`:                              `["eventTypes",1]`,
		`{"kind":"posthog","eventTypes":["*"],"config":{}}`:                                          `["config","apiKey"]`,
		`{"url":"https://x.example","eventTypes":["*"],"config":{"headers":{"X-A.B":"two\nlines"}}}`: `["config","headers","X-A.B"]`,
		`{"url":"https://x.example","eventTypes":["*"],"retryHorizonSeconds":-1}`:                    `["retryHorizonSeconds"]`,
	} {
		require.Equal(t, []string{path}, fullPaths(t, s.request(http.MethodPost, "/webhooks", body, http.StatusBadRequest)), body)
	}
	require.Equal(t, []string{`["overlapSeconds"]`},
		fullPaths(t, s.request(http.MethodPost, "/webhooks/"+s.destination("crm")+"/rotate-secret", `{"overlapSeconds":-1}`, http.StatusBadRequest)))
	require.Equal(t, []string{`["eventTypes",1]`, `["eventTypes",2]`},
		fullPaths(t, s.request(http.MethodPost, "/webhooks", `{"eventTypes":["*",7,"\u0000"]}`, http.StatusBadRequest)))
	require.Empty(t, s.audit())
}

func TestABodyMayBeCompressed(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	gzipped := func(text string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write([]byte(text))
		require.NoError(t, err)
		require.NoError(t, w.Close())
		return b.String()
	}
	for _, name := range []string{"gzip", "GZIP", "x-gzip"} {
		s.request(http.MethodPost, "/api-keys", gzipped(`{"name":"n"}`), http.StatusCreated, "Content-Encoding", name)
	}
	s.request(http.MethodPost, "/api-keys", gzipped(`{"name":"`+strings.Repeat("n", 2<<20)+`"}`), http.StatusRequestEntityTooLarge, "Content-Encoding", "gzip")
	s.request(http.MethodPost, "/api-keys", gzipped(`{"name":"n"}`)[:20], http.StatusBadRequest, "Content-Encoding", "gzip")
	s.request(http.MethodPost, "/api-keys", `{"name":"n"}`, http.StatusBadRequest, "Content-Encoding", "gzip")
	s.request(http.MethodPost, "/api-keys", `{"name":"n"}`, http.StatusUnsupportedMediaType, "Content-Encoding", "br")
	require.Len(t, s.audit(), 3)
}

func TestTimesOfADestinationAreUTCWithMilliseconds(t *testing.T) {
	t.Parallel()
	at := schemas.ISOTime{Time: time.Date(2026, 1, 31, 10, 0, 0, 120_000_000, time.FixedZone("", -2*60*60))}
	v := destinations.View{CreatedAt: at, UpdatedAt: at, LastDeliveryAt: &at, PreviousSecretUntil: &at}
	v.LastErrorAt = &at
	text, err := json.Marshal(v)
	require.NoError(t, err)
	require.Equal(t, 5, strings.Count(string(text), `At":"2026-01-31T12:00:00.120Z"`)+strings.Count(string(text), `Until":"2026-01-31T12:00:00.120Z"`), "%s", text)
	text, err = json.Marshal(replay.Backfilled{Preview: replay.Preview{First: &at, Last: &at}, Replay: &replay.Backfill{CreatedAt: at, EndedAt: &at}})
	require.NoError(t, err)
	require.Equal(t, 4, strings.Count(string(text), `"2026-01-31T12:00:00.120Z"`), "%s", text)
}

func TestAContactsEventsAreListedNewestFirstWithThoseOfWhomItTookIn(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ada, before := uuid.NewString(), uuid.NewString()
	_, err := storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO contacts (id, external_id, properties, merged, version, first_seen_at, last_seen_at, created_at, updated_at)
		VALUES ($1::text::uuid, 'u_1', '{}', ARRAY[$2::text::uuid], 1, now(), now(), now(), now())`, ada, before)
	require.NoError(t, err)
	_, err = storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO identifiers (kind, value, contact_id) VALUES ('external', 'u_1', $1::text::uuid)`, ada)
	require.NoError(t, err)
	at := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	var events []storage.StoredEvent
	for i, name := range []string{"a", "b", "a", "c", "elsewhere"} {
		owner := []string{ada, before}[i%2]
		if name == "elsewhere" {
			owner = uuid.NewString()
		}
		events = append(events, storage.StoredEvent{ID: uuid.NewString(), ContactID: owner, Name: name, Properties: `{"n":1.0}`, OccurredAt: at.Add(time.Duration(i) * time.Hour), ReceivedAt: at, Source: "api", Seq: int64(i)})
	}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.StoreEvents(t.Context(), events) }))
	listed := func(query string) (names []any, next any) {
		page := s.request(http.MethodGet, "/contacts/"+query, "", http.StatusOK)
		list, _ := page["events"].([]any)
		for _, e := range list {
			event, _ := e.(map[string]any)
			names = append(names, event["event"])
		}
		return names, page["nextCursor"]
	}
	names, next := listed(ada + "/events")
	require.Equal(t, []any{"c", "a", "b", "a"}, names)
	require.Nil(t, next)
	names, next = listed("u_1/events?limit=3")
	require.Equal(t, []any{"c", "a", "b"}, names)
	names, next = listed(fmt.Sprintf("u_1/events?limit=3&cursor=%s", next))
	require.Equal(t, []any{"a"}, names)
	require.Nil(t, next)
	names, _ = listed("u_1/events?event=a&from=2026-01-02T01:00:00Z")
	require.Equal(t, []any{"a"}, names)
	names, _ = listed("u_1/events?to=2026-01-02T01:00:00Z")
	require.Equal(t, []any{"a"}, names)
	s.request(http.MethodGet, "/contacts/u_1/events?cursor=x", "", http.StatusBadRequest)
	s.request(http.MethodGet, "/contacts/nobody/events", "", http.StatusNotFound)
}

func TestContactsAreListedSearchedAndShown(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ada, bob := uuid.NewString(), uuid.NewString()
	_, err := storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO contacts (id, external_id, email, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
		VALUES ($1::text::uuid, 'u_1', 'ada@example.com', '{"plan":"pro"}', 1, now(), now(), now(), now()),
		       ($2::text::uuid, NULL, 'Bob%@example.com', '{}', 1, now(), now() - INTERVAL '1 hour', now(), now())`, ada, bob)
	require.NoError(t, err)
	_, err = storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO identifiers (kind, value, contact_id) VALUES ('external', 'u_1', $1::text::uuid), ('external', 'before', $1::text::uuid)`, ada)
	require.NoError(t, err)
	ids := func(path string) (out []any) {
		list, _ := s.request(http.MethodGet, path, "", http.StatusOK)["contacts"].([]any)
		for _, c := range list {
			contact, _ := c.(map[string]any)
			out = append(out, contact["id"])
		}
		return out
	}
	require.Equal(t, []any{ada, bob}, ids("/contacts"))
	require.Equal(t, []any{bob}, ids("/contacts?offset=1"))
	require.Equal(t, []any{ada}, ids("/contacts?search=ADA"))
	require.Equal(t, []any{bob}, ids("/contacts?search=%25")) // no wildcard
	for _, name := range []string{ada, "u_1", "before"} {
		got, _ := s.request(http.MethodGet, "/contacts/"+name, "", http.StatusOK)["contact"].(map[string]any)
		require.Equal(t, ada, got["id"])
	}
	_, err = storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO identifiers (kind, value, contact_id) VALUES ('external', 'org/ü@x:1 %2F', $1::text::uuid)`, ada)
	require.NoError(t, err)
	for _, path := range []string{"org%2F%C3%BC%40x%3A1%20%252F", "urn:uuid:" + ada} {
		got, _ := s.request(http.MethodGet, "/contacts/"+path, "", http.StatusOK)["contact"].(map[string]any)
		require.Equal(t, ada, got["id"], path)
	}
	s.request(http.MethodGet, "/contacts/"+uuid.NewString(), "", http.StatusNotFound)
	s.request(http.MethodGet, "/contacts/nobody", "", http.StatusNotFound)
}

func TestAllContactsAreReadPageByPageWithACursor(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_, err := storagetest.SQL(s.db).Exec(t.Context(), `INSERT INTO contacts (id, email, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
		SELECT gen_random_uuid(), 'c' || i || '@example.com', '{}', 1, now(), now(), now(), now() FROM generate_series(1, 7) AS i`)
	require.NoError(t, err)
	seen := map[any]bool{}
	sizes := []int{}
	for cursor := ""; ; {
		page := s.request(http.MethodGet, "/contacts?limit=3&cursor="+cursor, "", http.StatusOK)
		contacts := page["contacts"].([]any)
		sizes = append(sizes, len(contacts))
		for _, c := range contacts {
			seen[c.(map[string]any)["id"]] = true
		}
		// Whoever is seen meanwhile neither moves nor is missed.
		_, err := storagetest.SQL(s.db).Exec(t.Context(), `UPDATE contacts SET last_seen_at = now() + INTERVAL '1 hour' WHERE random() < 0.5`)
		require.NoError(t, err)
		require.NotContains(t, page, "total")
		next, more := page["nextCursor"].(string)
		if !more {
			break
		}
		cursor = next
	}
	require.Equal(t, []int{3, 3, 1}, sizes)
	require.Len(t, seen, 7)
	found := s.request(http.MethodGet, "/contacts?search=C4@&cursor=", "", http.StatusOK)
	require.Len(t, found["contacts"], 1)
	require.Equal(t, []string{"cursor"}, paths(t, s.request(http.MethodGet, "/contacts?cursor=mine", "", http.StatusBadRequest)))
}

func TestTheAdminAPIIsDescribed(t *testing.T) {
	t.Parallel()
	doc := describedBy(t, newServer(t).table)
	require.GreaterOrEqual(t, len(doc.Paths), 13)
	for path, statuses := range map[string][]string{
		"/v1/admin/webhooks/{id}/rotate-secret": {"200", "400", "404", "409", "415"}, "/v1/admin/webhooks/{id}/replays": {"200", "201", "400"},
		"/v1/admin/dlq/{entry}/retry": {"200", "404", "409", "502"},
	} {
		for _, status := range statuses {
			require.Contains(t, doc.Paths[path]["post"].Responses, status, path)
		}
		require.Len(t, doc.Paths[path]["post"].Responses["400"].Content["application/json"].Schema.AnyOf, 2, "%s: two envelopes", path)
	}
	for name, schema := range doc.Components.Schemas { // times were described as objects
		for field, s := range schema.Properties {
			if strings.HasSuffix(field, "At") || strings.HasSuffix(field, "Until") || strings.HasSuffix(name, "Preview") && (field == "first" || field == "last") {
				require.Contains(t, []any{"string", []any{"string", "null"}}, s.Type, "%s.%s", name, field)
				require.Equal(t, "date-time", s.Format, "%s.%s", name, field)
			}
		}
	}
}

func TestEveryRouteTakesItsExample(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, route := range s.table.Routes {
		target, body, _ := strings.Cut(strings.TrimPrefix(route.Example, "/v1/admin"), " ")
		w := s.send(route.Method, target, body)
		require.NotContains(t, []int{400, 413, 415}, w.Code, "%s %s: %s", route.Method, route.Example, w.Body)
		require.Less(t, w.Code, 500, "%s %s: %s", route.Method, route.Example, w.Body)
		if w.Code == http.StatusNotFound { // what it names, not the route
			require.NotContains(t, w.Body.String(), `"Not Found"`, route.Path)
		}
	}
}

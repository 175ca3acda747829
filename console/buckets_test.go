package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// told is a log to which commands are appended.
type told struct {
	signals  []*schemas.Signal
	busy     error
	appended func() // then, unless nil
}

func (l *told) Append(_ context.Context, msgs ...schemas.Message) error {
	if l.busy != nil {
		return l.busy
	}
	for _, m := range msgs {
		l.signals = append(l.signals, m.(*schemas.Signal))
	}
	if l.appended != nil {
		l.appended()
	}
	return nil
}

var definitionOptions = definition.Options{Limits: predicate.DefaultLimits()}

// buckets have criteria, unless their id says that they are manual.
func buckets(ids ...string) (all []definition.Bucket) {
	for _, id := range ids {
		b := definition.Bucket{ID: id, Name: "The " + id, Enabled: true}
		if strings.HasPrefix(id, "manual") {
			b.Kind = definition.KindManual
		} else {
			b.Criteria = predicate.Event("seen").Exists()
		}
		all = append(all, b)
	}
	return all
}

func (s *server) define(all ...definition.Bucket) *definition.Set {
	s.t.Helper()
	files, err := definition.Built(all, definitionOptions)
	require.NoError(s.t, err)
	out, err := definition.Apply(s.t.Context(), s.db, files, definitionOptions, "test")
	require.NoError(s.t, err)
	return out.Set
}

func (s *server) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := storagetest.SQL(s.db).Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

// filling has the processor be so far with a version, of 200 contacts.
func (s *server) filling(version int64, passed int, done bool) {
	s.t.Helper()
	s.exec(`DELETE FROM processor_progress; DELETE FROM derived_fills`)
	s.exec(`INSERT INTO processor_progress (processor, partition, ranges, published) VALUES ('buckets', 0, '{}', true)`)
	s.exec(`INSERT INTO derived_fills (processor, partition, version, after, passed, total, behind, done_at, filled)
		VALUES ('buckets', 0, $1::bigint, $2, $3, 200, 0, CASE WHEN $4 THEN now() END, CASE WHEN $4 THEN $1::bigint ELSE 0 END)`, version, uuid.NewString(), passed, done)
	s.exec(`INSERT INTO derived_contacts (processor, contact_id, partition, seq, era, written, epoch, took, heard, last_seq, last_era)
		VALUES ('buckets', '00000000-0000-0000-0000-000000000001', 0, 1, 0, 0, 0, '{}', '{}', 0, 0) ON CONFLICT DO NOTHING`)
}

// person is a contact that the processor of buckets knows.
func (s *server) person(external, anonymous, email string) string {
	s.t.Helper()
	id := uuid.NewString()
	s.exec(`INSERT INTO contacts (id, external_id, anonymous_id, email, properties, version, first_seen_at, last_seen_at, created_at, updated_at)
		VALUES ($1::text::uuid, nullif($2, ''), nullif($3, ''), nullif($4, ''), '{}', 1, now(), now(), now(), now())`, id, external, anonymous, email)
	s.exec(`INSERT INTO identifiers (kind, value, contact_id) SELECT * FROM (VALUES ('external', $2), ('anonymous', $3)) AS v (kind, value), LATERAL (SELECT $1::text::uuid) AS c WHERE value <> ''`, id, external, anonymous)
	s.exec(`INSERT INTO derived_contacts (processor, contact_id, partition, seq, era, written, epoch, took, heard, last_seq, last_era)
		VALUES ('buckets', $1::text::uuid, 0, 1, 0, 0, 0, '{}', '{}', 0, 0)`, id)
	return id
}

var entered = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

// joins are those of contacts to a bucket, an hour after the other.
func (s *server) joins(bucket string, contacts ...string) {
	s.t.Helper()
	var all []storage.BucketTransition
	for i, contact := range contacts {
		all = append(all, storage.BucketTransition{ContactID: contact, BucketID: bucket, Epoch: 1, Entered: true, At: entered.Add(time.Duration(i) * time.Hour), Source: "event"})
	}
	s.transitions(all...)
}

func (s *server) transitions(all ...storage.BucketTransition) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), func(tx *storage.Tx) error { return tx.SaveBucketTransitions(s.t.Context(), all, nil) }))
}

// at is what stands in a document under names and places.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, ok := v.(map[string]any)
			require.True(t, ok, "%v is no object with %s", v, step)
			v = object[step]
		case int:
			list, ok := v.([]any)
			require.True(t, ok && step < len(list), "%v is no list with %d", v, step)
			v = list[step]
		}
	}
	return v
}

func TestABucketSaysWhetherItIsFillingLiveFailingOrDisabled(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	require.Equal(t, []any{}, s.request(http.MethodGet, "/buckets", "", http.StatusOK)["buckets"])
	state := func(id string) map[string]any {
		return at(t, s.request(http.MethodGet, "/buckets/"+id, "", http.StatusOK), "bucket", "state").(map[string]any)
	}
	set := s.define(buckets("buyers", "manual-beta")...)
	require.Equal(t, "filling", state("buyers")["is"], "nothing has begun")
	s.filling(set.Version, 50, false)
	require.Equal(t, map[string]any{"is": "filling", "filling": map[string]any{"percent": 25.0, "passed": 50.0, "total": 200.0}}, state("buyers"))
	require.Equal(t, map[string]any{"is": "live"}, state("manual-beta"), "there is nothing to fill")
	require.Equal(t, "filling", at(t, s.request(http.MethodGet, "/buckets/buyers/members", "", http.StatusOK), "state", "is"))
	s.filling(set.Version, 200, false)
	require.InDelta(t, 99, at(t, state("buyers"), "filling", "percent"), 0, "not all there")
	s.filling(set.Version, 200, true)
	require.Equal(t, map[string]any{"is": "live"}, state("buyers"))

	s.exec(`INSERT INTO definition_faults (file, ids, faults, since) VALUES ('buckets/buyers.yaml', '{buyers,never}', 'line 3: no', now() - interval '1 day')`)
	require.Equal(t, "failing", state("buyers")["is"])
	require.Equal(t, "line 3: no", state("buyers")["error"])
	require.NotEmpty(t, state("buyers")["since"])
	never := s.request(http.MethodGet, "/buckets/never", "", http.StatusNotFound)
	require.Contains(t, never["fix"], "line 3: no")
	list := s.request(http.MethodGet, "/buckets", "", http.StatusOK)
	require.Equal(t, []any{"buyers", "never"}, at(t, list, "failing", 0, "ids"))
	s.exec(`DELETE FROM definition_faults`)

	off := s.request(http.MethodPatch, "/buckets/buyers", `{"enabled":false}`, http.StatusOK)
	require.Equal(t, "The buyers", at(t, off, "bucket", "name"))
	require.Equal(t, false, at(t, off, "bucket", "enabled"))
	require.Equal(t, "disabled", state("buyers")["is"])
	require.Equal(t, "manual-beta", at(t, s.request(http.MethodGet, "/buckets?enabled=true", "", http.StatusOK), "buckets", 0, "id"))
	require.InDelta(t, 1, s.request(http.MethodGet, "/buckets?enabled=false", "", http.StatusOK)["total"], 0)
	page := s.request(http.MethodGet, "/buckets?limit=1&offset=1", "", http.StatusOK)
	require.InDelta(t, 2, page["total"], 0)
	require.Equal(t, "manual-beta", at(t, page, "buckets", 0, "id"))
	require.Equal(t, "buckets.patch", s.audit()[0].Action)
	s.request(http.MethodPatch, "/buckets/nothing", `{"enabled":false}`, http.StatusNotFound)
	require.Equal(t, []string{"enabled"}, paths(t, s.request(http.MethodPatch, "/buckets/buyers", `{}`, http.StatusBadRequest)))
}

func TestABucketThatWasLiveStaysLiveWhileAnotherOneIsFilling(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	first := s.define(buckets("buyers")...)
	s.filling(first.Version, 200, true)
	second := s.define(buckets("buyers", "keen")...)
	is := func(id string) any {
		return at(t, s.request(http.MethodGet, "/buckets/"+id, "", http.StatusOK), "bucket", "state", "is")
	}
	require.Equal(t, []any{"live", "filling"}, []any{is("buyers"), is("keen")})
	s.exec(`UPDATE derived_fills SET version = $1, filled = $2, passed = 0, done_at = NULL`, second.Version, first.Version)
	require.Equal(t, []any{"live", "filling"}, []any{is("buyers"), is("keen")})
	s.filling(second.Version, 200, true)
	require.Equal(t, []any{"live", "live"}, []any{is("buyers"), is("keen")})
}

func TestABucketIsShownWithAllThatItIsDefinedAs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	b := buckets("buyers")[0]
	b.Description, b.MinDwell, b.MaxDwell = "They pay", 90*time.Minute, 30*24*time.Hour
	b.EntryLimit, b.EntryPeriod = definition.EntryOncePerPeriod, 36*time.Hour+1500*time.Millisecond
	b.Dwell = []definition.Dwell{{After: time.Hour}, {Every: 24 * time.Hour}}
	s.define(b)
	ada := s.person("u-1", "", "ada@example.com")
	s.joins("buyers", ada)
	shown := s.request(http.MethodGet, "/buckets/buyers", "", http.StatusOK)["bucket"].(map[string]any)
	for field, want := range map[string]any{
		"id": "buyers", "name": "The buyers", "description": "They pay", "enabled": true, "kind": "dynamic", "timeBased": false, "entryLimit": "once_per_period",
		"entryPeriod": map[string]any{"hours": 36.0, "seconds": 1.5}, "minDwell": map[string]any{"hours": 1.0, "minutes": 30.0}, "maxDwell": map[string]any{"hours": 720.0},
		"counts": map[string]any{"active": 1.0, "left": 0.0}, "dwell": []any{"after-3600000", "every-86400000"}, "feedsJourneys": []any{}, "syncToPostHog": false, "fastExpiry": false,
	} {
		require.Equal(t, want, shown[field], field)
	}
	require.NotNil(t, shown["criteria"])
	require.Equal(t, "u-1", at(t, shown["recentMembers"], 0, "userId"))
}

func TestMembersAreListedByPageAndAskedForByAnyIDOfTheContact(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers")...)
	ada, bob, unnamed := s.person("u/1", "", "ada@example.com"), s.person("", "anon-2", ""), s.person("", "", "")
	s.joins("buyers", ada, bob, unnamed)
	s.transitions(
		storage.BucketTransition{ContactID: ada, BucketID: "buyers", Epoch: 1, At: entered.Add(10 * time.Hour), Reason: "criteria"},
		storage.BucketTransition{ContactID: ada, BucketID: "buyers", Epoch: 2, Entered: true, At: entered.Add(11 * time.Hour), Source: "reconcile", MaxDwellAt: entered.Add(99 * time.Hour)},
	)
	page := s.request(http.MethodGet, "/buckets/buyers/members", "", http.StatusOK)
	require.InDelta(t, 3, page["total"], 0)
	require.Equal(t, []any{"u/1", unnamed, "anon-2"}, []any{at(t, page, "members", 0, "userId"), at(t, page, "members", 1, "userId"), at(t, page, "members", 2, "userId")})
	first := at(t, page, "members", 0).(map[string]any)
	for field, want := range map[string]any{
		"userEmail": "ada@example.com", "bucketId": "buyers", "status": "active", "enteredAt": "2026-03-10T23:00:00.000Z", "leftAt": nil, "expiresAt": nil,
		"maxDwellAt": "2026-03-14T15:00:00.000Z", "lastEvaluatedAt": nil, "entryCount": 2.0, "source": "reconcile", "context": map[string]any{}, "contactId": ada,
		"createdAt": "2026-03-10T23:00:00.000Z", "updatedAt": "2026-03-10T23:00:00.000Z",
	} {
		require.Equal(t, want, first[field], field)
	}
	left := s.request(http.MethodGet, "/buckets/buyers/members?status=left", "", http.StatusOK)
	require.InDelta(t, 1, left["total"], 0)
	require.Equal(t, "criteria", at(t, left, "members", 0, "reason"))
	require.NotEqual(t, first["id"], at(t, left, "members", 0, "id"))

	for id, want := range map[string]int{"u%2F1": 1, "anon-2": 1, unnamed: 1, ada: 1, "nobody": 0} {
		has := s.request(http.MethodGet, "/buckets/buyers/members?userId="+id, "", http.StatusOK)
		require.Len(t, has["members"], want, id)
		require.InDelta(t, want, has["total"], 0, id)
	}
	var seen []any
	for cursor := ""; ; {
		page := s.request(http.MethodGet, "/buckets/buyers/members?limit=2&cursor="+cursor, "", http.StatusOK)
		for _, m := range page["members"].([]any) {
			seen = append(seen, at(t, m, "contactId"))
		}
		next, more := page["nextCursor"].(string)
		if !more {
			break
		}
		cursor = next
	}
	require.Equal(t, []any{ada, unnamed, bob}, seen)
	require.Equal(t, []string{"cursor"}, paths(t, s.request(http.MethodGet, "/buckets/buyers/members?cursor=x", "", http.StatusBadRequest)))
	s.request(http.MethodGet, "/buckets/nothing/members", "", http.StatusNotFound)

	contact := s.request(http.MethodGet, "/contacts/"+ada, "", http.StatusOK)
	require.Equal(t, []any{"active", "left"}, []any{at(t, contact, "memberships", 0, "status"), at(t, contact, "memberships", 1, "status")})
}

func TestAContactIsPutIntoAManualBucketAndTakenOutByACommandInItsOrder(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	off := buckets("manual-off")[0]
	off.Enabled = false
	s.define(append(buckets("buyers", "manual-beta"), off)...)
	ada := s.person("u-1", "", "")
	out := s.request(http.MethodPost, "/buckets/manual-beta/members", `{"userId":"u-1","expiresAt":"2199-01-01T00:00:00Z"}`, http.StatusAccepted)
	require.Equal(t, []any{ada, true, "2199-01-01T00:00:00.000Z"}, []any{out["contactId"], out["member"], out["expiresAt"]})
	s.request(http.MethodDelete, "/buckets/manual-beta/members/"+ada, "", http.StatusAccepted)
	require.Len(t, s.told.signals, 2)
	for i, want := range []string{`{"bucket":"manual-beta","member":true,"until":"2199-01-01T00:00:00Z"}`, `{"bucket":"manual-beta","member":false}`} {
		signal := s.told.signals[i]
		require.Equal(t, []string{"command", "buckets", "member", ada}, []string{signal.Type, signal.For, signal.What, signal.Key()})
		require.JSONEq(t, want, *signal.State)
	}
	require.Equal(t, out["id"], s.told.signals[0].ID)
	require.Len(t, s.audit(), 2)

	for body, field := range map[string]string{
		`{"userId":"u-1","expiresAt":"2001-01-01T00:00:00Z"}`: "expiresAt", `{"userId":"u-1","expiresAt":"tomorrow"}`: "expiresAt",
		`{"expiresAt":"2199-01-01T00:00:00Z"}`: "userId", `{"userId":" "}`: "userId",
	} {
		require.Equal(t, []string{field}, paths(t, s.request(http.MethodPost, "/buckets/manual-beta/members", body, http.StatusBadRequest)), body)
	}
	dynamic := s.request(http.MethodPost, "/buckets/buyers/members", `{"userId":"u-1"}`, http.StatusConflict)
	require.Contains(t, dynamic["error"], "its criteria say")
	require.Contains(t, s.request(http.MethodDelete, "/buckets/buyers/members/u-1", "", http.StatusConflict)["error"], "dynamic")
	require.Contains(t, s.request(http.MethodPost, "/buckets/manual-off/members", `{"userId":"u-1"}`, http.StatusConflict)["error"], "disabled")
	require.Equal(t, "Contact not found", s.request(http.MethodPost, "/buckets/manual-beta/members", `{"userId":"nobody"}`, http.StatusNotFound)["error"])
	s.request(http.MethodPost, "/buckets/nothing/members", `{"userId":"u-1"}`, http.StatusNotFound)
	s.exec(`DELETE FROM derived_contacts`)
	require.Contains(t, s.request(http.MethodPost, "/buckets/manual-beta/members", `{"userId":"u-1"}`, http.StatusServiceUnavailable)["fix"], "again")
	require.Len(t, s.told.signals, 2)
	require.Len(t, s.audit(), 2)
}

func TestAllMembersAreExportedAsLinesOfJSONOrAsCSV(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers")...)
	ada, bob := s.person("u,\"1\"", "", "ada@example.com"), s.person("", "", "")
	s.joins("buyers", ada, bob)
	lines := s.send(http.MethodGet, "/buckets/buyers/members/export", "")
	require.Equal(t, "application/x-ndjson", lines.Header().Get("Content-Type"))
	require.Equal(t, "filling", lines.Header().Get("Bucket-State"))
	require.Equal(t, fmt.Sprintf(`{"userId":"%s","email":null,"contactId":"%s","enteredAt":"2026-03-10T13:00:00.000Z","expiresAt":null,"maxDwellAt":null,"entryCount":1,"source":"event"}
{"userId":"u,\"1\"","email":"ada@example.com","contactId":"%s","enteredAt":"2026-03-10T12:00:00.000Z","expiresAt":null,"maxDwellAt":null,"entryCount":1,"source":"event"}
`, bob, bob, ada), lines.Body.String())
	table := s.send(http.MethodGet, "/buckets/buyers/members/export?format=csv", "")
	require.Equal(t, "text/csv; charset=utf-8; header=present", table.Header().Get("Content-Type"))
	require.Equal(t, fmt.Sprintf("userId,email,contactId,enteredAt,expiresAt,maxDwellAt,entryCount,source\n%s,,%s,2026-03-10T13:00:00.000Z,,,1,event\n\"u,\"\"1\"\"\",ada@example.com,%s,2026-03-10T12:00:00.000Z,,,1,event\n", bob, bob, ada), table.Body.String())
	s.request(http.MethodGet, "/buckets/nothing/members/export", "", http.StatusNotFound)
	require.Equal(t, []string{"format"}, paths(t, s.request(http.MethodGet, "/buckets/buyers/members/export?format=xml", "", http.StatusBadRequest)))
	s.define()
	s.request(http.MethodGet, "/buckets/buyers/members/export", "", http.StatusNotFound)
}

func TestAnExportEndsWhenItsClientHangsUpAndBreaksOffWhenPostgresGoesAway(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers")...)
	const members = 20_000
	s.exec(`INSERT INTO bucket_members (bucket_id, contact_id, epoch, partition, entered_at, source) SELECT 'buyers', gen_random_uuid(), 1, 0, now(), 'event' FROM generate_series(1, $1::int)`, members)
	ended := make(chan struct{}, 1)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- struct{}{} }()
		s.handler.ServeHTTP(w, r)
	}))
	t.Cleanup(api.Close)
	get := func(ctx context.Context, then func(*http.Response)) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, api.URL+"/v1/admin/buckets/buyers/members/export", nil)
		require.NoError(t, err)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		then(resp)
	}
	begun := func(resp *http.Response) {
		_, err := resp.Body.Read(make([]byte, 100))
		require.NoError(t, err)
	}
	get(t.Context(), func(resp *http.Response) {
		whole, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.Equal(t, members, strings.Count(string(whole), "\n"))
	})
	<-ended

	ctx, hangUp := context.WithCancel(t.Context())
	get(ctx, func(resp *http.Response) {
		begun(resp)
		hangUp()
	})
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the export goes on")
	}

	get(t.Context(), func(resp *http.Response) {
		begun(resp)
		s.exec(`ALTER TABLE bucket_members RENAME TO elsewhere`)
		part, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "a part is not taken for the whole")
		require.Less(t, strings.Count(string(part), "\n"), members)
	})
	<-ended
	get(t.Context(), func(resp *http.Response) {
		require.Equal(t, http.StatusInternalServerError, resp.StatusCode, "nothing was sent yet")
	})
}

func TestFiguresOfBucketsAreReadByDayWeekAndMonth(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers", "empty")...)
	ada, bob := s.person("u-1", "", ""), s.person("u-2", "", "")
	s.joins("buyers", ada, bob)
	s.transitions(storage.BucketTransition{ContactID: ada, BucketID: "buyers", Epoch: 1, At: entered.Add(24 * time.Hour)})
	all := s.request(http.MethodGet, "/metrics/buckets", "", http.StatusOK)["buckets"]
	require.Equal(t, []any{"buyers", 1.0, 2.0, 1.0}, []any{at(t, all, 0, "bucketId"), at(t, all, 0, "size"), at(t, all, 0, "entered"), at(t, all, 0, "left")})
	dwell, _ := at(t, all, 0, "avgDwellSecs").(float64)
	require.InDelta(t, (24*time.Hour+time.Since(entered.Add(time.Hour))).Seconds()/2, dwell, 60)
	require.Nil(t, at(t, all, 1, "avgDwellSecs"))

	for query, want := range map[string]string{
		"from=2026-03-01&to=2026-04-01":              `[{"date":"2026-03-10","entered":2,"left":0},{"date":"2026-03-11","entered":0,"left":1}]`,
		"from=2026-03-01&to=2026-03-10":              `[{"date":"2026-03-10","entered":2,"left":0}]`,
		"period=week&from=2026-03-01&to=2026-04-01":  `[{"date":"2026-03-09","entered":2,"left":1}]`,
		"period=month&from=2026-03-01&to=2026-04-01": `[{"date":"2026-03-01","entered":2,"left":1}]`,
		"to=2026-05-01":                              `[]`,
	} {
		series := s.request(http.MethodGet, "/metrics/buckets/buyers?"+query, "", http.StatusOK)
		text, err := json.Marshal(series["points"])
		require.NoError(t, err)
		require.JSONEq(t, want, string(text), query)
		require.InDelta(t, 1, series["size"], 0)
	}
	s.request(http.MethodGet, "/metrics/buckets/nothing", "", http.StatusNotFound)
}

func TestTheMembersOfABucketAreForgottenOnlyWhenItIsDefinedNoMore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers", "keen")...)
	ada, bob := s.person("u-1", "", ""), s.person("u-2", "", "")
	s.joins("buyers", ada, bob)
	require.Contains(t, s.request(http.MethodPost, "/buckets/buyers/purge", "", http.StatusConflict)["fix"], "remove its definition")
	s.define(buckets("keen")...)
	require.Contains(t, s.request(http.MethodGet, "/buckets/buyers", "", http.StatusNotFound)["fix"], "purged")
	require.Equal(t, "buyers", at(t, s.request(http.MethodGet, "/buckets", "", http.StatusOK), "removed", 0, "id"))

	s.told.busy = errors.New("no broker")
	s.request(http.MethodPost, "/buckets/buyers/purge", "", http.StatusInternalServerError)
	s.told.busy = nil
	require.Equal(t, map[string]any{"removed": 2.0, "done": true}, s.request(http.MethodPost, "/buckets/buyers/purge", "", http.StatusOK), "what was not told was not removed")
	var told []string
	for _, signal := range s.told.signals {
		require.Equal(t, "forget", signal.What)
		require.JSONEq(t, `{"bucket":"buyers"}`, *signal.State)
		told = append(told, signal.ContactID)
	}
	require.ElementsMatch(t, []string{ada, bob}, told)
	s.request(http.MethodPost, "/buckets/buyers/purge", "", http.StatusNotFound)
	require.Equal(t, []any{}, s.request(http.MethodGet, "/buckets", "", http.StatusOK)["removed"])
	require.Len(t, s.audit(), 1)
}

// Acceptance case 39: a bucket names its own reactions, then journeys written by themselves
// that begin with its facts, or at a time for its members.
func TestABucketNamesTheJourneysThatItBegins(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	journey := func(id, trigger string) definition.Text {
		return definition.Text{Name: "journeys/" + id + ".yaml", Text: "id: " + id + "\nname: The " + id + "\nenabled: true\ntrigger: " + trigger + "\nentryLimit: unlimited\nsteps: [{wait: 1d}]\n"}
	}
	files, err := definition.Read([]definition.Text{
		{Name: "buckets/keen.yaml", Text: `
id: keen
name: Keen
enabled: true
criteria: {type: event, eventName: seen, check: exists}
dwell: [{after: 7d}]
on:
  - leave: [{wait: 1h}]
    reason: [criteria]
  - {dwell: {after: 7d}, do: [{wait: 1h}]}
`},
		{Name: "buckets/other.yaml", Text: "id: other\nname: Other\nenabled: true\nkind: manual\non: [{enter: [{wait: 1h}]}]\n"},
		journey("any", `[{event: signed.up}, {event: "bucket.left"}]`),
		journey("entered", `{event: "bucket:entered:keen"}`),
		journey("monday", `{repeat: {days: monday, at: "09:00"}, bucket: keen}`),
		journey("nothing", `[{event: signed.up}, {event: "journey.completed:keen"}]`),
		journey("stays", `{event: "bucket.dwell:keen:after-604800000"}`),
	}, definitionOptions)
	require.NoError(t, err)
	require.Empty(t, files.Faulty)
	_, err = definition.Apply(t.Context(), s.db, files, definitionOptions, "test")
	require.NoError(t, err)

	fed := func(id, name, trigger string, source any, owned bool) map[string]any {
		return map[string]any{"id": id, "name": name, "trigger": trigger, "sourceBucketId": source, "owned": owned}
	}
	left := fed("any", "The any", "bucket.left", nil, false)
	begins := func(bucket string) any {
		return at(t, s.request(http.MethodGet, "/buckets/"+bucket, "", http.StatusOK), "bucket", "feedsJourneys")
	}
	require.Equal(t, []any{
		fed("bucket-keen-on-dwell-after-604800000", "Keen — on dwell", "bucket.dwell:keen:after-604800000", "keen", true),
		fed("bucket-keen-on-leave", "Keen — on leave", "bucket.left:keen", "keen", true),
		left,
		fed("entered", "The entered", "bucket:entered:keen", nil, false),
		fed("monday", "The monday", "", nil, false),
		fed("stays", "The stays", "bucket.dwell:keen:after-604800000", nil, false),
	}, begins("keen"))
	require.Equal(t, []any{fed("bucket-other-on-enter", "Other — on enter", "bucket.entered:other", "other", true), left}, begins("other"))

	var listed []any
	for _, j := range s.request(http.MethodGet, "/journeys", "", http.StatusOK)["journeys"].([]any) {
		listed = append(listed, at(t, j, "id"))
	}
	require.Equal(t, []any{
		"any", "bucket-keen-on-dwell-after-604800000", "bucket-keen-on-leave", "bucket-other-on-enter", "entered", "monday", "nothing", "stays",
	}, listed)
	dwelling := at(t, s.request(http.MethodGet, "/journeys/bucket-keen-on-dwell-after-604800000", "", http.StatusOK), "journey").(map[string]any)
	require.Equal(t, []any{"keen", "dwell", map[string]any{"label": "after-604800000", "after": 604800000.0}},
		[]any{dwelling["sourceBucketId"], dwelling["reactionKind"], dwelling["dwellSchedule"]})
	require.NotContains(t, at(t, s.request(http.MethodGet, "/journeys/monday", "", http.StatusOK), "journey"), "sourceBucketId")
	require.Len(t, s.request(http.MethodGet, "/metrics/journeys", "", http.StatusOK)["journeys"], 8)

	refused := s.request(http.MethodPatch, "/journeys/bucket-keen-on-leave", `{"paused":true}`, http.StatusConflict)
	require.Equal(t, "Journey bucket-keen-on-leave stands with bucket keen", refused["error"])
	s.request(http.MethodPatch, "/buckets/keen", `{"enabled":false}`, http.StatusOK)
	require.Equal(t, false, at(t, s.request(http.MethodGet, "/journeys/bucket-keen-on-leave", "", http.StatusOK), "journey", "enabled"))
}

package ingest_test

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/web"
)

const event = `{"name":"n","userId":"u"}`

// 25. Given no key or an unknown key, when POST /v1/events, then 401.
func TestWithoutAKeyNothingIsTaken(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, authorization := range []string{"-", "Bearer ", "Bearer", "Bearer" + adminKey, "Basic " + adminKey, "Bearer hsk_unknown", adminKey} {
		got := s.request(http.MethodPost, "/v1/events", event, "Authorization", authorization).is(http.StatusUnauthorized)
		require.Equal(t, "Unauthorized", got.object()["error"])
		require.Contains(t, got.header.Get("WWW-Authenticate"), "Bearer")
	}
	for _, authorization := range []string{"bearer " + adminKey, "BEARER   " + adminKey, " Bearer " + adminKey + "  "} { // RFC 9110, 11.4
		s.request(http.MethodPost, "/v1/events", event, "Authorization", authorization).is(http.StatusAccepted)
	}
	require.Len(t, s.log.all(), 3)
	for _, path := range []string{"/v1/events/unknown", "/v1/contacts/unknown", "/v1/lists", "/v1/emails/x", "/v1/campaigns", "/v1/admin/anything"} {
		s.request(http.MethodGet, path, "", "Authorization", "-").is(http.StatusUnauthorized)
		s.request(http.MethodGet, path, "").is(http.StatusNotFound)
	}
	require.Len(t, s.log.all(), 3)
}

// 26, 27, and the weakness that any valid key could do anything.
// adminRoute is one that tells its caller's name.
func adminRoute(at string) web.Route {
	method, path, _ := strings.Cut(at, " ")
	scope := storage.ScopeFullAdmin
	if method == http.MethodGet {
		scope = storage.ScopeRead
	}
	return web.Route{
		Method: method, Path: path, Scopes: []string{scope}, Tag: "Tests", Summary: "Tell the caller's name", Answers: map[int]any{200: web.Media("application/json")},
		Example: strings.ReplaceAll(path, "{id}", "1"),
		Serve:   func(x *web.Exchange, _ *http.Request) { x.Encode(http.StatusOK, map[string]any{"name": x.Caller.Name}) },
	}
}

func TestEveryRouteAsksForItsScope(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) {
		for _, at := range []string{"GET /v1/admin/webhooks", "POST /v1/admin/api-keys", "PATCH /v1/admin/webhooks/{id}", "DELETE /v1/admin/api-keys/{id}"} {
			deps.Admin = append(deps.Admin, adminRoute(at))
		}
	})
	routes := []struct {
		method, path, body string
		ok                 int
		scopes             string
	}{
		{http.MethodPost, "/v1/events", event, 202, "ingest write full-admin"},
		{http.MethodPost, "/v1/events/batch", "[" + event + "]", 202, "ingest write full-admin"},
		{http.MethodPut, "/v1/contacts", `{"userId":"u"}`, 503, "ingest write full-admin"}, // nobody answers here
		{http.MethodDelete, "/v1/contacts", `{"userId":"u"}`, 503, "ingest full-admin"},
		{http.MethodGet, "/v1/contacts/find?userId=u", "", 200, "ingest read journey-admin full-admin"},
		{http.MethodGet, "/v1/admin/webhooks", "", 200, "read journey-admin full-admin"},
		{http.MethodPost, "/v1/admin/api-keys", `{}`, 200, "full-admin"},
		{http.MethodPatch, "/v1/admin/webhooks/1", `{}`, 200, "full-admin"},
		{http.MethodDelete, "/v1/admin/api-keys/1", "", 200, "full-admin"},
	}
	for _, scope := range []string{storage.ScopeRead, storage.ScopeJourneyAdmin, storage.ScopeFullAdmin, storage.ScopeIngest, storage.ScopeWrite, "nothing"} {
		_, key := s.key(scope)
		for _, r := range routes {
			got := s.request(r.method, r.path, r.body, "Authorization", "Bearer "+key)
			if strings.Contains(" "+r.scopes+" ", " "+scope+" ") {
				require.Equal(t, r.ok, got.status, "%s %s with %s: %s", r.method, r.path, scope, got.body)
				continue
			}
			require.Equal(t, http.StatusForbidden, got.status, "%s %s with %s", r.method, r.path, scope)
			require.Contains(t, got.object()["error"], "scope")
		}
	}
	require.Equal(t, "bootstrap", s.request(http.MethodGet, "/v1/admin/webhooks", "").is(http.StatusOK).object()["name"])
}

func TestARevokedKeyStopsWithinASecondOnAllInstances(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	other, err := ingest.New(ingest.Config{}, ingest.Deps{Appender: s.log, DB: s.db})
	require.NoError(t, err)
	instances := []*server{s, {t: t, api: other, log: s.log, db: s.db}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, i := range instances {
		running.Go(func() { _ = i.api.Run(ctx) })
	}
	t.Cleanup(func() { stop(); running.Wait() })

	key, text := s.key(storage.ScopeIngest)
	for _, i := range instances {
		i.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+text).is(http.StatusAccepted)
	}
	require.NoError(t, s.db.InTx(t.Context(), func(tx *storage.Tx) error {
		_, err := tx.RevokeAPIKey(t.Context(), key.ID, time.Now())
		return err
	}))
	for _, i := range instances {
		require.Eventually(t, func() bool {
			return i.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+text).status == http.StatusUnauthorized
		}, time.Second, 5*time.Millisecond)
	}
	stop()
	running.Wait()
	row, err := s.db.FindAPIKey(t.Context(), storage.HashAPIKey(text))
	require.NoError(t, err)
	require.NotNil(t, row.RevokedAt)
}

func TestTheLastUseOfAKeyIsNoted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_, text := s.key(storage.ScopeIngest)
	// Before Run: while Run begins to listen, a key that is read is not kept.
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+text).is(http.StatusAccepted)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.api.Run(ctx) }()
	stop()
	require.NoError(t, <-done)
	row, err := s.db.FindAPIKey(t.Context(), storage.HashAPIKey(text))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), *row.LastUsedAt, time.Minute)
}

func TestAKeyExpires(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Now = func() time.Time { return now } })
	expires := now.Add(time.Second)
	_, text, err := s.db.CreateAPIKey(t.Context(), storage.NewAPIKey{Name: "short", Scopes: []string{storage.ScopeIngest}, ExpiresAt: &expires}, now)
	require.NoError(t, err)
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+text).is(http.StatusAccepted)
	now = expires
	require.Equal(t, "API key expired", s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+text).is(http.StatusUnauthorized).object()["error"])
}

func TestWithoutPostgresKnownKeysWorkForFiveMinutesAndOthersAre503(t *testing.T) {
	t.Parallel()
	pg := storagetest.NewServer(t)
	now := time.Now()
	s := &server{t: t, log: &memoryLog{}, db: pg.DB()}
	api, err := ingest.New(ingest.Config{AdminKey: adminKey}, ingest.Deps{Appender: s.log, DB: s.db, Now: func() time.Time { return now }})
	require.NoError(t, err)
	s.api = api
	_, known := s.key(storage.ScopeIngest)
	_, unseen := s.key(storage.ScopeIngest)
	send := func(key string) *response {
		return s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+key)
	}
	send(known).is(http.StatusAccepted)
	pg.Stop()
	for range 4 {
		now = now.Add(time.Minute)
		send(known).is(http.StatusAccepted)
	}
	got := send(unseen).is(http.StatusServiceUnavailable)
	require.NotEmpty(t, got.header.Get("Retry-After"))
	s.request(http.MethodPost, "/v1/events", event).is(http.StatusAccepted) // the bootstrap key
	now = now.Add(2 * time.Minute)
	send(known).is(http.StatusServiceUnavailable)
	pg.Start()
	send(known).is(http.StatusAccepted)
	send(unseen).is(http.StatusAccepted)
}

func TestALimitCountsWhatWasAllowedAndSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	s := newServer(t, func(cfg *ingest.Config, deps *ingest.Deps) {
		cfg.RateLimit, cfg.PublicRateLimit, cfg.AdminRateLimit = 3, 2, 1
		deps.Now = func() time.Time { return now }
	})
	for left := 2; left >= 0; left-- {
		got := s.request(http.MethodPost, "/v1/events", event).is(http.StatusAccepted)
		for _, name := range []string{"X-RateLimit-Remaining", "RateLimit-Remaining"} {
			require.Equal(t, fmt.Sprint(left), got.header.Get(name))
		}
		require.Equal(t, "3", got.header.Get("X-RateLimit-Limit"))
		require.Equal(t, "3", got.header.Get("RateLimit-Limit"))
		require.Equal(t, fmt.Sprint(20*(3-left)), got.header.Get("RateLimit-Reset"))
		require.Equal(t, fmt.Sprint(now.Unix()+int64(20*(3-left))), got.header.Get("X-RateLimit-Reset"))
	}
	for range 5 {
		got := s.request(http.MethodPost, "/v1/events", event).is(http.StatusTooManyRequests)
		require.Equal(t, "Rate limit exceeded", got.object()["error"])
		require.Equal(t, "20", got.header.Get("Retry-After"))
	}
	now = now.Add(20 * time.Second) // what was rejected did not count
	s.request(http.MethodPost, "/v1/events", event).is(http.StatusAccepted)
	s.request(http.MethodPost, "/v1/events", event).is(http.StatusTooManyRequests)

	_, key := s.key(storage.ScopeIngest)
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+key).is(http.StatusAccepted)
	s.request(http.MethodGet, "/v1/admin/x", "").is(http.StatusNotFound)
	s.request(http.MethodGet, "/v1/admin/x", "").is(http.StatusTooManyRequests)
	// Guessing keys costs the guesser's address, which that first use of a key did too.
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer guess").is(http.StatusUnauthorized)
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer guess2").is(http.StatusTooManyRequests)
	s.request(http.MethodGet, "/openapi.json", "").is(http.StatusTooManyRequests)
	s.request(http.MethodGet, "/v1/health/ready", "").is(http.StatusOK) // a balancer's probes come from one address
	s.request(http.MethodPost, "/v1/events", event, "Authorization", "Bearer "+key).is(http.StatusAccepted)
	s.request(http.MethodGet, "/v1/health/live", "").is(http.StatusOK)
}

// 32. Given any request, then x-request-id is present, a supplied valid id is
// echoed, the security headers are there; unknown paths answer JSON 404;
// preflight answers 204 with origin *.
func TestEveryResponseHasTheCommonHeaders(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	got := s.request(http.MethodGet, "/nowhere", "", "X-Request-Id", "abc_-=9").is(http.StatusNotFound)
	require.JSONEq(t, `{"error":"Not Found","requestId":"abc_-=9"}`, string(got.body))
	require.Equal(t, "application/json", got.header.Get("Content-Type"))
	for name, value := range map[string]string{
		"X-Request-Id": "abc_-=9", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Access-Control-Allow-Origin": "*",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Origin-Agent-Cluster": "?1", "Referrer-Policy": "no-referrer",
		"Strict-Transport-Security": "max-age=15552000; includeSubDomains", "X-DNS-Prefetch-Control": "off", "X-Download-Options": "noopen",
		"X-Permitted-Cross-Domain-Policies": "none", "X-XSS-Protection": "0",
	} {
		require.Equal(t, value, got.header.Get(name), name)
	}
	for _, bad := range []string{"with space", strings.Repeat("a", 256), "ü"} {
		id := s.request(http.MethodGet, "/v1/health/live", "", "X-Request-Id", bad).header.Get("X-Request-Id")
		require.NoError(t, uuid.Validate(id))
	}
	require.Empty(t, got.header.Get("Access-Control-Expose-Headers"))
	got = s.request(http.MethodGet, "/nowhere", "", "Origin", "https://a.example").is(http.StatusNotFound)
	require.Contains(t, got.header.Get("Access-Control-Expose-Headers"), "X-Request-Id")

	preflight := s.request(http.MethodOptions, "/v1/events", "", "Origin", "https://a.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,x-a").is(http.StatusNoContent)
	require.Equal(t, "*", preflight.header.Get("Access-Control-Allow-Origin"))
	require.Equal(t, "GET,HEAD,PUT,POST,DELETE,PATCH", preflight.header.Get("Access-Control-Allow-Methods"))
	require.Equal(t, "authorization,x-a", preflight.header.Get("Access-Control-Allow-Headers"))
	require.Empty(t, preflight.header.Get("X-Request-Id"))
}

func TestAWrongMethodIsToldFromAWrongPathWithTheMethodsThereAre(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) {
		deps.Admin = []web.Route{adminRoute("GET /v1/admin/things"), adminRoute("GET /v1/admin/things/{id}")}
		deps.Admin[1].Example = "/v1/admin/things/1"
	})
	for target, allow := range map[string]string{
		"PATCH /v1/events": "POST", "GET /v1/events/": "", "DELETE /v1/events/batch": "POST", "POST /v1/contacts": "DELETE, PUT",
		"POST /v1/health/live": "GET, HEAD", "PUT /v1/admin/things": "GET, HEAD", "PUT /v1/admin/things/a%2Fb": "GET, HEAD",
		"OPTIONS /v1/events": "POST", "PUT /v1/admin/nothing": "", "PUT /nowhere": "", "PUT /v1/admin/things/": "",
	} {
		method, path, _ := strings.Cut(target, " ")
		if allow == "" {
			s.request(method, path, "").is(http.StatusNotFound)
			continue
		}
		got := s.request(method, path, "").is(http.StatusMethodNotAllowed)
		require.Equal(t, allow, got.header.Get("Allow"), target)
		require.Equal(t, "Method Not Allowed", got.object()["error"], target)
	}
	s.request(http.MethodGet, "/v1/events", "", "Authorization", "-").is(http.StatusUnauthorized) // a key first
}

func TestHeadIsAnsweredWhereThereIsAGet(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) {
		deps.Admin = []web.Route{adminRoute("GET /v1/admin/things")}
	})
	for _, path := range []string{"/v1/health/live", "/v1/health/ready", "/docs", "/v1/contacts/find?userId=u", "/v1/admin/things"} {
		s.request(http.MethodHead, path, "").is(http.StatusOK)
	}
	s.request(http.MethodHead, "/v1/contacts/find?userId=u", "", "Authorization", "-").is(http.StatusUnauthorized)
	s.request(http.MethodHead, "/v1/events", "").is(http.StatusMethodNotAllowed)

	listening := httptest.NewServer(s.api)
	t.Cleanup(listening.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodHead, listening.URL+"/v1/health/live", nil)
	require.NoError(t, err)
	resp, err := listening.Client().Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Empty(t, body)
	require.EqualValues(t, len(`{"status":"live"}`), resp.ContentLength)
}

func TestLargeResponsesAreCompressedForWhoTakesIt(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	plain := s.request(http.MethodGet, "/openapi.json", "", "Accept-Encoding", "gzip;q=0").is(http.StatusOK)
	require.Empty(t, plain.header.Get("Content-Encoding"))
	small := s.request(http.MethodGet, "/openapi.json", "", "Accept-Encoding", "br, gzip").is(http.StatusOK)
	require.Equal(t, "gzip", small.header.Get("Content-Encoding"))
	reader, err := gzip.NewReader(strings.NewReader(string(small.body)))
	require.NoError(t, err)
	body, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Equal(t, plain.body, body)
	require.Less(t, len(small.body), len(plain.body)/2)
}

func TestTheAPIIsDescribedAndReadable(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Metrics = http.NotFoundHandler() })
	doc := s.request(http.MethodGet, "/openapi.json", "", "Authorization", "-").is(http.StatusOK).object()
	require.Equal(t, "3.1.0", doc["openapi"])
	for _, path := range []string{"/v1/events", "/v1/events/batch", "/v1/contacts", "/v1/contacts/find", "/v1/health", "/v1/health/live", "/v1/health/ready", "/metrics"} {
		require.Contains(t, doc["paths"], path)
	}
	var described struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema struct{ AnyOf []any } }
			}
		}
	}
	s.request(http.MethodGet, "/openapi.json", "", "Authorization", "-").into(&described)
	require.Len(t, described.Paths["/v1/events"]["post"].Responses["400"].Content["application/json"].Schema.AnyOf, 2, "two envelopes")
	for _, status := range []string{"200", "202", "404", "409"} {
		require.Contains(t, described.Paths["/v1/contacts"]["delete"].Responses, status)
	}
	page := s.request(http.MethodGet, "/docs", "", "Authorization", "-").is(http.StatusOK)
	require.Contains(t, string(page.body), "/v1/events/batch")
	require.NotContains(t, string(page.body), "<script")
	require.NotContains(t, string(page.body), "src=")

	hidden := newServer(t, func(cfg *ingest.Config, _ *ingest.Deps) { cfg.HideDocs = true })
	hidden.request(http.MethodGet, "/openapi.json", "").is(http.StatusNotFound)
	hidden.request(http.MethodGet, "/docs", "").is(http.StatusNotFound)
}

// 31. Given GET /v1/health, then 200 with status, version, uptime, timestamp,
// components and a schema block.
func TestHealthTellsProbesWhatIsWrong(t *testing.T) {
	t.Parallel()
	pg := storagetest.NewServer(t)
	now := time.Now()
	var kafka error
	log := &memoryLog{}
	api, err := ingest.New(ingest.Config{Version: "1.2.3"}, ingest.Deps{
		Workers:  func() []string { return []string{"identity"} },
		Appender: log, DB: pg.DB(), Now: func() time.Time { return now },
		Probes: []ingest.Probe{{Name: "kafka", Needed: true, Check: func(context.Context) error { return kafka }}},
		Lag: func(context.Context) ([]stream.GroupLag, error) {
			return []stream.GroupLag{{Group: "identity", State: "Stable", Lag: 7}, {Group: "sinks.dest.acme-crm", State: "Empty", Lag: 3}}, nil
		},
	})
	require.NoError(t, err)
	s := &server{t: t, api: api, log: log}

	got := s.request(http.MethodGet, "/v1/health", "").is(http.StatusOK).object()
	require.Equal(t, "healthy", got["status"])
	require.Equal(t, "1.2.3", got["version"])
	require.NotEmpty(t, got["timestamp"])
	require.Contains(t, got, "uptime")
	require.NotContains(t, fmt.Sprint(got), "acme", "the name of a destination, which may be gone")
	var report struct {
		Schema map[string]struct {
			Applied, Required *string
			InSync            bool
			Pending           []string
		}
		Components map[string]struct{ Status string }
		Lag        map[string]struct {
			Lag   int
			State string
		}
	}
	s.request(http.MethodGet, "/v1/health", "").into(&report)
	require.True(t, report.Schema["engine"].InSync)
	require.Equal(t, report.Schema["engine"].Required, report.Schema["engine"].Applied)
	require.True(t, report.Schema["client"].InSync)
	require.Equal(t, "up", report.Components["database"].Status)
	require.Equal(t, "up", report.Components["kafka"].Status)
	require.Equal(t, "up", report.Components["worker"].Status)
	require.Equal(t, 7, report.Lag["identity"].Lag)
	s.request(http.MethodGet, "/v1/health/ready", "").is(http.StatusOK)

	kafka = errors.New("away")
	s.request(http.MethodGet, "/v1/health/ready", "").is(http.StatusOK) // probed less than a second ago
	now = now.Add(2 * time.Second)
	s.request(http.MethodGet, "/v1/health/ready", "").is(http.StatusServiceUnavailable)
	require.Equal(t, "degraded", s.request(http.MethodGet, "/v1/health", "").is(http.StatusServiceUnavailable).object()["status"])

	kafka = nil
	pg.Stop()
	now = now.Add(2 * time.Second)
	s.request(http.MethodGet, "/v1/health/ready", "").is(http.StatusOK) // known keys go on
	s.request(http.MethodGet, "/v1/health", "").is(http.StatusServiceUnavailable)
	s.request(http.MethodGet, "/v1/health/live", "").is(http.StatusOK)
}

// A process without processors, and a partition that waits for an operator, were
// told of nowhere.
func TestHealthIsDegradedWhileNothingBecomesOfAnEvent(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var lag []stream.GroupLag
	var lagErr, processor error
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) {
		deps.Now = func() time.Time { now = now.Add(time.Minute); return now }
		deps.Workers = func() []string { return []string{"identity", "contacts"} }
		deps.Lag = func(context.Context) ([]stream.GroupLag, error) { return lag, lagErr }
		deps.Probes = []ingest.Probe{{Name: "processor identity", Check: func(context.Context) error { return processor }}}
	})
	type component struct{ Status, Detail string }
	health := func(status int, overall string) map[string]component {
		t.Helper()
		var report struct {
			Status     string
			Components map[string]component
		}
		s.request(http.MethodGet, "/v1/health", "").is(status).into(&report)
		require.Equal(t, overall, report.Status)
		return report.Components
	}
	sinks := stream.GroupLag{Group: "sinks", State: "Stable"}
	identity := stream.GroupLag{Group: "identity", State: "PreparingRebalance", Lag: 9}

	lag = []stream.GroupLag{sinks, identity, {Group: "contacts", State: "Stable", Lag: 9}}
	require.Equal(t, "up", health(200, "healthy")["worker"].Status, "who is behind and works is well")
	lag = []stream.GroupLag{sinks, identity, {Group: "contacts", State: "Empty"}}
	require.Equal(t, component{"down", "no process runs processor contacts"}, health(200, "healthy")["worker"], "nothing waits")
	lag[2].Lag = 1
	require.Equal(t, "down", health(503, "degraded")["worker"].Status, "a record waits and nobody works")
	lag = []stream.GroupLag{sinks}
	require.Equal(t, "down", health(503, "degraded")["worker"].Status, "members of group sinks are no processors")
	lagErr = errors.New("secret")
	require.Equal(t, component{"down", "the lag of the consumer groups cannot be looked up"}, health(503, "degraded")["worker"])

	lag, lagErr = []stream.GroupLag{identity, {Group: "contacts", State: "Stable"}}, nil
	processor = errors.New("secret")
	require.Equal(t, component{"down", ""}, health(503, "degraded")["processor identity"])
	processor = fmt.Errorf("wrapped: %w", ingest.NoticeError("2 partitions wait for an operator"))
	require.Equal(t, component{"down", "2 partitions wait for an operator"}, health(503, "degraded")["processor identity"])
	processor = nil
	health(200, "healthy")
}

func TestMetricsAskForAKeyAndArePagesOfNoOtherOrigin(t *testing.T) {
	t.Parallel()
	for _, healthOnly := range []bool{false, true} {
		s := newServer(t, func(cfg *ingest.Config, deps *ingest.Deps) {
			cfg.HealthOnly = healthOnly
			deps.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "figures") })
		})
		get := func(method, peer string, headers ...string) *response {
			r := httptest.NewRequestWithContext(t.Context(), method, "/metrics", nil)
			r.RemoteAddr = peer
			for i := 0; i < len(headers); i += 2 {
				r.Header.Set(headers[i], headers[i+1])
			}
			return s.do(r)
		}
		for _, peer := range []string{"127.0.0.1:4000", "[::1]:4000", "192.0.2.1:4000"} {
			get(http.MethodGet, peer).is(http.StatusUnauthorized)
		}
		_, ingestKey := s.key(storage.ScopeIngest)
		get(http.MethodGet, "127.0.0.1:4000", "Authorization", "Bearer "+ingestKey).is(http.StatusForbidden)
		_, readKey := s.key(storage.ScopeRead)
		got := get(http.MethodGet, "192.0.2.1:4000", "Authorization", "Bearer "+readKey, "Origin", "https://elsewhere.example").is(http.StatusOK)
		require.Equal(t, "figures", string(got.body))
		for name := range got.header {
			require.NotContains(t, name, "Access-Control")
		}
		get(http.MethodGet, "192.0.2.1:4000", "Authorization", "Bearer "+adminKey).is(http.StatusOK)
		preflight := get(http.MethodOptions, "127.0.0.1:4000", "Origin", "https://elsewhere.example", "Access-Control-Request-Method", "GET").is(http.StatusMethodNotAllowed)
		require.Empty(t, preflight.header.Get("Access-Control-Allow-Methods"))
	}
}

// tracing keeps the trace context that appends are given.
type tracing struct{ seen []stream.Trace }

func (l *tracing) Append(ctx context.Context, _ ...schemas.Message) error {
	l.seen = append(l.seen, stream.TraceFrom(ctx))
	return nil
}

func TestTheTraceOfARequestGoesOnInTheRecords(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	db := storagetest.New(t)
	for _, provider := range []*sdktrace.TracerProvider{nil, sdktrace.NewTracerProvider(sdktrace.WithSyncer(tracetest.NewInMemoryExporter()))} {
		log := &tracing{}
		deps := ingest.Deps{Appender: log, DB: db}
		if provider != nil {
			deps.TracerProvider = provider
		}
		api, err := ingest.New(ingest.Config{AdminKey: adminKey}, deps)
		require.NoError(t, err)
		s := &server{t: t, api: api}
		s.request(http.MethodPost, "/v1/events", event, "Traceparent", parent).is(http.StatusAccepted)
		require.Len(t, log.seen, 1)
		require.Equal(t, parent[:35], log.seen[0].Parent[:35]) // the same trace
		require.Equal(t, provider == nil, log.seen[0].Parent == parent)
	}
}

func TestAPanicIsA500ThatTellsNothing(t *testing.T) {
	t.Parallel()
	core, lines := observer.New(zap.DebugLevel)
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Logger = zap.New(core) })
	s.log.fail = func([]schemas.Message) error { panic("ada@example.com") }
	got := s.request(http.MethodPost, "/v1/events", event).is(http.StatusInternalServerError)
	require.NotContains(t, string(got.body), "ada@")
	require.NotEmpty(t, got.object()["requestId"])
	require.Equal(t, 1, lines.FilterMessage("http.panic").Len())
	require.NotContains(t, fmt.Sprint(lines.All()), "ada@", "what a program panics with may be a value of a record")
}

func TestMadeUpMethodsStandNowhere(t *testing.T) {
	t.Parallel()
	core, lines := observer.New(zap.DebugLevel)
	spans, registry := tracetest.NewInMemoryExporter(), prometheus.NewRegistry()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) {
		deps.Logger, deps.Registerer = zap.New(core), registry
		deps.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	})
	s.request("MADEUP", "/v1/events", "").is(http.StatusMethodNotAllowed)
	families, err := registry.Gather()
	require.NoError(t, err)
	told := fmt.Sprint(families, lines.All(), spanNames(spans))
	require.NotContains(t, told, "MADEUP")
	require.Regexp(t, `name:"method"\s+value:"other"`, told) // the text of a message has one space or two, by the build
}

func spanNames(spans *tracetest.InMemoryExporter) (names []string) {
	for _, s := range spans.GetSpans() {
		names = append(names, s.Name)
	}
	return names
}

// Whoever watches 503 and the log's business is not woken by clients that hang up.
func TestAClientThatLeftIsNoOutageInTheFigures(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	s := newServer(t, func(_ *ingest.Config, deps *ingest.Deps) { deps.Registerer = registry })
	ctx, leave := context.WithCancel(t.Context())
	s.log.fail = func([]schemas.Message) error {
		leave()
		return fmt.Errorf("%w: %w", stream.ErrBusy, context.Canceled)
	}
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/events", strings.NewReader(event))
	r.Header.Set("Authorization", "Bearer "+adminKey)
	r.Header.Set("Content-Type", "application/json")
	s.do(r)
	families, err := registry.Gather()
	require.NoError(t, err)
	told := fmt.Sprint(families)
	require.Contains(t, told, `value:"499"`)
	require.NotContains(t, told, `value:"503"`)
}

func TestBehindTrustedProxiesTheClientsAddressCounts(t *testing.T) {
	t.Parallel()
	s := newServer(t, func(cfg *ingest.Config, _ *ingest.Deps) {
		cfg.PublicRateLimit = 1
		cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} // httptest's client
	})
	get := func(forwarded string) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/docs", nil)
		r.Header.Set("X-Forwarded-For", forwarded)
		return s.do(r).status
	}
	require.Equal(t, http.StatusOK, get("203.0.113.1"))
	require.Equal(t, http.StatusTooManyRequests, get("203.0.113.1"))
	require.Equal(t, http.StatusTooManyRequests, get("9.9.9.9, 203.0.113.1")) // what the client made up does not count
	require.Equal(t, http.StatusOK, get("203.0.113.2, 192.0.2.77"))
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	err := ingest.Config{RateLimit: -1, AccessLog: "some", AdminKey: "short", AnswerTimeout: -1}.Validate()
	for _, field := range []string{"RateLimit", "AccessLog", "AdminKey", "AnswerTimeout"} {
		require.ErrorContains(t, err, field)
	}
	require.NoError(t, ingest.Config{}.Validate())
	_, err = ingest.New(ingest.Config{}, ingest.Deps{})
	require.Error(t, err)
}

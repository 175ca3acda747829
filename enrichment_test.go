package hogstream_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// knowing is a service that knows something of contacts, and a developer's instance that asks
// it.
type knowing struct {
	*erasing
	db  *storage.DB
	dir string

	mu     sync.Mutex
	calls  map[string]int // by what was asked: enrichment and user
	ids    map[string]int // by the id of the call
	answer func(enrichment, user string, n int) (status int, body string)
}

// ServeHTTP answers a call.
func (k *knowing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	var asked struct {
		Enrichment, UserID string
	}
	if err != nil || json.Unmarshal(text, &asked) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	k.ids[r.Header.Get("webhook-id")]++
	k.calls[asked.Enrichment+"/"+asked.UserID]++
	status, body := k.answer(asked.Enrichment, asked.UserID, k.calls[asked.Enrichment+"/"+asked.UserID])
	k.mu.Unlock()
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// asked is how often an enrichment asked about a user.
func (k *knowing) asked(what string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[what]
}

// whileKnowing runs f with an instance whose definitions are in a directory that it watches.
func whileKnowing(t *testing.T, answer func(enrichment, user string, n int) (int, string), f func(*knowing)) {
	k := &knowing{calls: map[string]int{}, ids: map[string]int{}, answer: answer}
	server := httptest.NewServer(k)
	defer server.Close()
	cfg := devConfig(t)
	k.dir = t.TempDir()
	cfg.Definitions.Dir = k.dir
	require.NoError(t, os.Mkdir(filepath.Join(k.dir, "enrich"), 0o755))
	inDev(t, cfg, func(r *hogstream.Running) {
		var err error
		k.db, err = storage.Open(t.Context(), storage.Config{URL: r.Database})
		require.NoError(t, err)
		defer k.db.Close()
		k.erasing = &erasing{t: t, run: r}
		k.send("POST", "/v1/admin/webhooks", `{"name":"companies","url":"`+server.URL+`","eventTypes":["outbox"]}`)
		f(k)
	})
}

// define writes a file of an enrichment and waits until it is in use.
func (k *knowing) define(id, text string) {
	k.t.Helper()
	require.NoError(k.t, os.WriteFile(filepath.Join(k.dir, "enrich", id+".yaml"), []byte(text), 0o600))
	k.eventually(func() bool {
		set, err := definition.Current(k.t.Context(), k.db)
		return err == nil && len(set.Enrichments) > 0 && set.Enrichments[len(set.Enrichments)-1].ID >= id
	}, func() string { return "the definition is not in use" })
}

// property is what a user has, as JSON; "" for nothing.
func (k *knowing) property(user, name string) string {
	c, err := k.db.ContactNamed(k.t.Context(), user, schemas.KindExternal)
	require.NoError(k.t, err)
	if c == nil {
		return ""
	}
	var properties map[string]json.RawMessage
	require.NoError(k.t, json.Unmarshal([]byte(c.Properties), &properties))
	return string(properties[name])
}

const companyFile = `id: company
name: Company behind an address
enabled: true
when: {type: property, property: domain, operator: exists}
destination: companies
send: [domain]
map: '{company: .name, staff: .employees}'
backfill: 2s
`

func TestAnEnrichmentAsksAndPatchesInARunningInstance(t *testing.T) {
	answer := func(_, user string, n int) (int, string) {
		switch {
		case user == "slow" && n < 3:
			return http.StatusServiceUnavailable, "try later"
		case user == "unknown":
			return http.StatusUnprocessableEntity, "who?"
		case user == "garbage":
			return http.StatusOK, "<html>"
		}
		return http.StatusOK, fmt.Sprintf(`{"name":"Of %s","employees":%d}`, user, n)
	}
	whileKnowing(t, answer, func(k *knowing) {
		health := func() string { return string(k.send("GET", "/v1/health", "")) }
		k.eventually(func() bool { return strings.Contains(health(), `"status":"healthy"`) }, health)
		require.NotContains(t, health(), `"enrich":`, "nobody needs it yet")
		k.send("PUT", "/v1/contacts", `{"userId":"early","properties":{"domain":"early.test"}}`)
		k.send("PUT", "/v1/contacts", `{"userId":"without","properties":{"plan":"pro"}}`)
		k.define("company", companyFile)

		k.eventually(func() bool { return k.property("early", "company") == `"Of early"` }, func() string { return "who was there before is asked for" })
		k.eventually(func() bool {
			parts, err := k.db.FillParts(t.Context(), "enrich", 1)
			return err == nil && len(parts) > 0
		}, func() string { return "the processor has begun" })

		for _, user := range []string{"ada", "slow", "unknown", "garbage"} {
			k.send("POST", "/v1/events", `{"name":"joined","userId":"`+user+`","contactProperties":{"domain":"`+user+`.test"}}`)
		}
		for _, user := range []string{"ada", "slow"} {
			k.eventually(func() bool { return k.property(user, "company") == `"Of `+user+`"` }, func() string { return user + " is patched" })
		}
		require.Equal(t, "1", k.property("ada", "staff"))
		require.Equal(t, "3", k.property("slow", "staff"))
		k.eventually(func() bool { return k.asked("company/unknown") > 0 && k.asked("company/garbage") > 0 }, func() string { return "all are asked for" })
		metrics := func() string { return string(k.send("GET", "/metrics", "")) }
		k.eventually(func() bool {
			m := metrics()
			return strings.Contains(m, `hogstream_enrich_outcomes_total{enrichment="company",outcome="refused"} 1`) &&
				strings.Contains(m, `hogstream_enrich_outcomes_total{enrichment="company",outcome="mapping"} 1`)
		}, metrics)
		require.Contains(t, metrics(), `hogstream_enrich_outcomes_total{enrichment="company",outcome="patched"} 3`)
		require.Equal(t, []int{1, 1, 0}, []int{k.asked("company/early"), k.asked("company/ada"), k.asked("company/without")})
		require.Empty(t, k.property("garbage", "company"))

		k.eventually(func() bool {
			return strings.Contains(health(), `"enrich":`) && strings.Contains(health(), `"status":"healthy"`)
		}, health)
		seen, err := k.db.ContactNamed(t.Context(), "ada", schemas.KindExternal)
		require.NoError(t, err)
		require.True(t, seen.LastSeenAt.Before(seen.UpdatedAt), "a patch does not mean that somebody was there")

		// Nobody who was asked for is asked again because something else is defined.
		k.define("other", strings.NewReplacer("id: company", "id: other", "backfill: 2s", "", "{company: .name, staff: .employees}", "{other: .name}").Replace(companyFile))
		k.send("POST", "/v1/events", `{"name":"joined","userId":"bob","contactProperties":{"domain":"bob.test"}}`)
		k.eventually(func() bool { return k.property("bob", "other") != "" && k.property("bob", "company") != "" }, func() string { return "both are asked" })
		require.Equal(t, []int{1, 0}, []int{k.asked("company/ada"), k.asked("other/ada")})
	})
}

// Two that answer each other go round until their hops are counted out.
func TestEnrichmentsThatLeadToEachOtherEndByTheirHops(t *testing.T) {
	answer := func(enrichment, _ string, _ int) (int, string) { return http.StatusOK, `{"from":"` + enrichment + `"}` }
	whileKnowing(t, answer, func(k *knowing) {
		const file = `id: %s
name: Ping and pong
enabled: true
when: {type: property, property: side, operator: eq, value: %s}
destination: companies
map: '{side: .from}'
`
		k.define("ping", fmt.Sprintf(file, "ping", "pong"))
		k.define("pong", fmt.Sprintf(file, "pong", "ping"))
		k.send("POST", "/v1/events", `{"name":"served","userId":"ball","contactProperties":{"side":"pong"}}`)
		loops := func() (found []string) {
			var page struct {
				Entries []struct{ Source, Reason string }
			}
			require.NoError(t, json.Unmarshal(k.send("GET", "/v1/admin/dlq?limit=100", ""), &page))
			for _, e := range page.Entries {
				found = append(found, e.Source+" "+e.Reason)
			}
			return found
		}
		k.eventually(func() bool { return len(loops()) > 0 }, func() string { return fmt.Sprint(k.calls) })
		require.Equal(t, []string{"processor:enrich loop"}, loops())
		require.Equal(t, 8, k.asked("ping/ball")+k.asked("pong/ball"), "a call and its patch are two hops of 16")
		for id, n := range k.ids {
			require.Equal(t, 1, n, id)
		}
	})
}

// An instance that goes away loses nothing of what it asked, and asks nothing twice.
func TestAnEnrichmentGoesOnAfterARestart(t *testing.T) {
	k := &knowing{calls: map[string]int{}, ids: map[string]int{}}
	held := make(chan struct{})
	k.answer = func(string, string, int) (int, string) { return http.StatusOK, `{"name":"Acme"}` }
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
			k.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	}))
	server.Start()
	defer server.Close()
	cfg := devConfig(t)
	cfg.Definitions.Dir = t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(cfg.Definitions.Dir, "enrich"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(cfg.Definitions.Dir, "enrich", "company.yaml"), []byte(companyFile), 0o600))
	open := func(r *hogstream.Running) func() {
		k.erasing = &erasing{t: t, run: r}
		var err error
		k.db, err = storage.Open(t.Context(), storage.Config{URL: r.Database})
		require.NoError(t, err)
		return k.db.Close
	}
	users := []string{"ada", "bob", "cleo"}
	inDev(t, cfg, func(r *hogstream.Running) {
		defer open(r)()
		k.send("POST", "/v1/admin/webhooks", `{"name":"companies","url":"`+server.URL+`","eventTypes":["outbox"]}`)
		for _, user := range users {
			k.send("POST", "/v1/events", `{"name":"joined","userId":"`+user+`","contactProperties":{"domain":"`+user+`.test"}}`)
		}
		k.eventually(func() bool {
			return strings.Contains(string(k.send("GET", "/metrics", "")), `hogstream_enrich_asked_total{enrichment="company",why="condition"} 3`)
		}, func() string { return "all are asked for" })
	})
	close(held)
	inDev(t, cfg, func(r *hogstream.Running) {
		defer open(r)()
		for _, user := range users {
			k.eventually(func() bool { return k.property(user, "company") == `"Acme"` }, func() string { return user + " is patched" })
		}
		k.eventually(func() bool {
			return strings.Contains(string(k.send("GET", "/metrics", "")), `hogstream_enrich_outcomes_total{enrichment="company",outcome="patched"} 3`)
		}, func() string { return "each once" })
		require.Len(t, k.ids, len(users), "repeats have the id of the call")
	})
}

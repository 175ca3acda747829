package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
)

const enrichCompany = `
id: company
name: Company behind a domain
enabled: true
when: {type: property, property: domain, operator: exists}
destination: companies
send: [domain]
map: '{company: .name}'
`

// companies is a service that knows companies by their domains. Now and then it is busy.
type companies struct {
	mu    sync.Mutex
	busy  func() bool
	calls map[string]map[string]int // by user, by the id of the call
}

// ServeHTTP answers a call.
func (c *companies) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	var asked struct {
		UserID     string
		Properties struct{ Domain string }
	}
	if err != nil || json.Unmarshal(text, &asked) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if c.calls[asked.UserID] == nil {
		c.calls[asked.UserID] = map[string]int{}
	}
	c.calls[asked.UserID][r.Header.Get("webhook-id")]++
	fmt.Fprintf(w, `{"name":"Of %s"}`, asked.Properties.Domain)
}

// Two processes share the work; either is killed now and then. Whoever gets a domain is asked
// about under one id, and patched once.
func TestFaultEveryTriggerOfAnEnrichmentIsOnePatchWhoeverIsKilled(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, shortLease())
		service := &companies{calls: map[string]map[string]int{}, busy: func() bool { return rand.IntN(8) == 0 }}
		server := httptest.NewServer(service)
		defer server.Close()
		one := w.serve("one")
		_, err := w.ops.Create(w.ctx(), destinations.Settings{Name: "companies", URL: server.URL, EventTypes: []string{schemas.SubscribeOutbox}})
		require.NoError(t, err)
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "enrich"), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "enrich", "company.yaml"), []byte(enrichCompany), 0o600))
		w.cli(nil, "apply", dir, "--yes")
		w.waitTakenOver("enrich")
		two := w.serve("two")

		const rounds, each = 5, 60
		c := w.client()
		for round := range rounds {
			var batch []event
			for n := range each {
				user := fmt.Sprint("u", round*each+n)
				batch = append(batch, event{Name: "joined", UserID: user, ContactProperties: map[string]any{"domain": user + ".test"}})
			}
			require.NoError(t, c.sendBatch(w.ctx(), batch))
			w.waitPhase(rng)
			victim := one
			if rng.IntN(2) == 0 {
				victim = two
			}
			victim.kill()
			victim.start()
			victim.waitReady()
		}
		w.waitEnriched(rounds * each)
		one.stop()
		two.stop()
		w.verifyEnriched(service, rounds*each)
	})
}

// waitEnriched waits until so many contacts have been patched.
func (w *world) waitEnriched(n int) {
	w.t.Helper()
	w.eventually("everybody to be patched", func(context.Context) error {
		if got := len(w.patched()); got < n {
			return fmt.Errorf("%d of %d are", got, n)
		}
		return nil
	})
}

// patched are how often facts say that a contact has a company now, by user.
func (w *world) patched() map[string]int {
	w.t.Helper()
	out := map[string]int{}
	for _, r := range w.read(schemas.TopicLifecycle) {
		if r.Type != schemas.FactContactUpdated {
			continue
		}
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(w.t, err)
		require.Equal(w.t, []string{"company"}, f.Contact.Changed)
		out[*f.UserID]++
	}
	return out
}

// verifyEnriched compares what was asked, answered and patched.
func (w *world) verifyEnriched(service *companies, n int) {
	t := w.t
	t.Helper()
	asked, answered := map[string]int{}, map[string]int{}
	for _, r := range w.read(schemas.TopicOutbox) {
		asked[r.ID]++
	}
	for _, r := range w.read(schemas.TopicIngest) {
		in, err := w.codec.DecodeInput(r.Value)
		require.NoError(t, err)
		if in.Source == "enrich:company" {
			require.Equal(t, 2, in.Hops, "a call and its patch")
			answered[*in.IdempotencyKey]++
		}
	}
	require.Len(t, asked, n)
	require.Equal(t, asked, answered, "each is answered once")
	patched := w.patched()
	require.Len(t, patched, n)
	for user, times := range patched {
		require.Equal(t, 1, times, user)
		require.Len(t, service.calls[user], 1, "%s is asked about under one id", user)
	}
}

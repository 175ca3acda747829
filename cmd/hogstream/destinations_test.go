package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// destinationsAPI answers every request with one destination, and keeps what it was sent.
type destinationsAPI struct {
	t    *testing.T
	url  string
	path string
	body map[string]any
}

func newDestinationsAPI(t *testing.T) *destinationsAPI {
	a := &destinationsAPI{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, `{"endpoints":[{"id":"7","name":"crm"}]}`)
			return
		}
		a.path, a.body = r.URL.Path, nil
		if err := json.NewDecoder(r.Body).Decode(&a.body); err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		_, _ = io.WriteString(w, `{"id":"7","name":"crm"}`)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

// destinations runs a command with this as standard input, and returns its exit code.
func (a *destinationsAPI) destinations(stdin string, args ...string) int {
	a.t.Helper()
	input, err := os.Open(a.file(stdin))
	require.NoError(a.t, err)
	defer input.Close()
	before := os.Stdin
	os.Stdin = input
	defer func() { os.Stdin = before }()
	a.path, a.body = "", nil
	return run(a.t.Context(), append([]string{"destinations", args[0], "--url", a.url, "--key", "k", "--data-dir", a.t.TempDir()}, args[1:]...))
}

func (a *destinationsAPI) file(text string) string {
	a.t.Helper()
	path := filepath.Join(a.t.TempDir(), "file")
	require.NoError(a.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestSettingsAndKeysAreReadFromFilesSoThatTheyStandInNoHistory(t *testing.T) {
	a := newDestinationsAPI(t)
	config, secret, key := a.file("{\"apiKey\": \"phc_1\"}\n"), a.file("whsec_1\n"), a.file("whsk_1\n")

	require.Zero(t, a.destinations("", "add", "--kind", "posthog", "--config-file", config, "--secret-file", secret, "--signing-key-file", key))
	require.Equal(t, "/v1/admin/webhooks", a.path)
	require.Equal(t, map[string]any{"apiKey": "phc_1"}, a.body["config"])
	require.Equal(t, []any{"whsec_1", "whsk_1"}, []any{a.body["secret"], a.body["signingKey"]})

	require.Zero(t, a.destinations(`{"apiKey":"phc_2"}`, "set", "crm", "--config-file", "-"))
	require.Equal(t, "/v1/admin/webhooks/7", a.path)
	require.Equal(t, map[string]any{"config": map[string]any{"apiKey": "phc_2"}}, a.body)

	require.Zero(t, a.destinations("whsec_3", "rotate", "crm", "--secret-file", "-", "--signing-key-file", key))
	require.Equal(t, "/v1/admin/webhooks/7/rotate-secret", a.path)
	require.Equal(t, map[string]any{"secret": "whsec_3", "signingKey": "whsk_1"}, a.body)

	require.Zero(t, a.destinations("", "add", "https://example.com", "--config", `{"ed25519":true}`))
	require.Equal(t, map[string]any{"ed25519": true}, a.body["config"])
	require.NotContains(t, a.body, "secret", "one is made")
}

func TestAFileOfSettingsOrKeysThatCannotBeUsedIsRefusedBeforeAnythingIsSent(t *testing.T) {
	a := newDestinationsAPI(t)
	config, none := a.file(`{"apiKey":"k"}`), filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"add", "--kind", "posthog", "--config-file", none},
		{"add", "--kind", "posthog", "--config-file", a.file("phc_1")},
		{"add", "--kind", "posthog", "--config-file", a.file(`["phc_1"]`)},
		{"add", "--kind", "posthog", "--config-file", a.file("")},
		{"add", "--kind", "posthog", "--config-file", config, "--config", "{}"},
		{"add", "https://example.com", "--config-file", "-", "--secret-file", "-"},
		{"add", "https://example.com", "--secret-file", none},
		{"add", "https://example.com", "--secret-file", a.file("\n")},
		{"rotate", "crm", "--secret-file", "-", "--signing-key-file", "-"},
		{"rotate", "crm", "--signing-key-file", none},
	} {
		require.Equal(t, 1, a.destinations("{}", args...), args)
		require.Empty(t, a.path, args)
	}
}

func TestASecondRotationIsForced(t *testing.T) {
	a := newDestinationsAPI(t)
	require.Zero(t, a.destinations("", "rotate", "crm", "--force"))
	require.Equal(t, map[string]any{"force": true}, a.body)
}

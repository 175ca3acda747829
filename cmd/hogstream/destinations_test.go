package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
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
		_, _ = io.WriteString(w, `{"id":"7","name":"crm","secret":"whsec_made"}`)
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

func TestASecretThatWasGivenIsNotShownAsNews(t *testing.T) {
	a := newDestinationsAPI(t)
	flags := []string{"destinations", "add", "https://crm.example.com/", "--url", a.url, "--key", "k"}
	text, err := said(t, flags...)
	require.NoError(t, err)
	require.Contains(t, text, "secret whsec_made\nKeep it now")
	text, err = said(t, append(flags, "--secret-file", a.file("whsec_given"))...)
	require.NoError(t, err)
	require.NotContains(t, text, "Keep it now")
	require.Contains(t, text, "crm")
}

func TestTheListOfDestinationsShowsWhatWentWrongLast(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"endpoints":[{"id":"7","name":"crm","lastErrorAt":"2026-01-31T12:00:00.000Z","lastError":"HTTP 503"}]}`)
	}))
	t.Cleanup(server.Close)
	text, err := said(t, "destinations", "ls", "--url", server.URL, "--key", "k")
	require.NoError(t, err)
	require.Contains(t, text, "2026-01-31T12:00:00.000Z HTTP 503")
}

func TestDeliveriesAreFollowedOldestFirstAndEachAttemptIsShownOnce(t *testing.T) {
	attempts := []string{
		`{"deliveryId":"events-0-2","attemptedAt":"2026-01-31T12:00:02.000Z","attempt":1,"outcome":"delivered"}`,
		`{"deliveryId":"events-0-1","attemptedAt":"2026-01-31T12:00:01.000Z","attempt":1,"outcome":"retry","error":"HTTP 503"}`,
	}
	var asked []string
	ctx, stop := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/deliveries") {
			_, _ = io.WriteString(w, `{"endpoints":[{"id":"7","name":"crm"}]}`)
			return
		}
		asked = append(asked, r.URL.Query().Get("from"))
		if len(asked) == 3 {
			stop()
		}
		_, _ = io.WriteString(w, `{"nextCursor":null,"deliveries":[`+strings.Join(attempts, ",")+`]}`)
		if len(asked) == 1 { // a moment later, and from a process whose clock is behind
			attempts = append([]string{
				attempts[0],
				`{"deliveryId":"events-1-9","attemptedAt":"2026-01-31T12:00:01.500Z","attempt":1,"outcome":"delivered"}`,
			}, attempts[1:]...)
		}
	}))
	t.Cleanup(server.Close)
	var printed bytes.Buffer
	c := destinationsDeliveriesCmd{Follow: true, Limit: 50}
	c.apiFlags, c.ID = apiFlags{URL: server.URL, Key: "k"}, "crm"
	require.NoError(t, c.Run(ctx, &output{W: &printed}))
	lines := strings.Split(strings.TrimSpace(printed.String()), "\n")
	require.Len(t, lines, 3)
	for i, part := range []string{"events-0-1", "events-0-2", "events-1-9"} {
		require.Contains(t, lines[i], part)
	}
	require.Equal(t, "2026-01-31T12:00:01.000Z  events-0-1      1  retry    0 ms  HTTP 503", lines[0])
	require.Equal(t, []string{"", "2026-01-31T11:59:47Z", "2026-01-31T11:59:47Z"}, asked)
}

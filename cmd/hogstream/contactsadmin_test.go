package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asked is what a command sent: method, path and query, body.
type asked struct {
	calls []string
	body  map[string]any
}

func answering(t *testing.T, a *asked, answer func(r *http.Request) string) []string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.calls = append(a.calls, r.Method+" "+r.URL.RequestURI())
		a.body = nil
		_ = json.NewDecoder(r.Body).Decode(&a.body)
		_, _ = io.WriteString(w, answer(r))
	}))
	t.Cleanup(server.Close)
	return []string{"--url", server.URL, "--key", "k", "--data-dir", t.TempDir()}
}

func TestContactsAreCreatedChangedAndErasedFromTheTerminal(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(r *http.Request) string {
		if r.Method == http.MethodPut {
			return `{"id":"c1","created":true,"inputId":"i"}`
		}
		return `{"deleted":true}`
	})
	text, err := said(t, append([]string{"contacts", "upsert", "ada@example.com", "--user-id", "u1", "--prop", "age=36", "--prop", "plan=pro", "--list", "news=true"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "created c1\n", text)
	require.Equal(t, []string{"PUT /v1/contacts"}, a.calls)
	require.Equal(t, map[string]any{
		"email": "ada@example.com", "userId": "u1", "properties": map[string]any{"age": 36.0, "plan": "pro"}, "lists": map[string]any{"news": true},
	}, a.body)

	text, err = said(t, append([]string{"contacts", "delete", "u1", "--yes"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "erased\n", text)
	require.Equal(t, map[string]any{"userId": "u1"}, a.body)

	_, err = said(t, append([]string{"contacts", "upsert"}, flags...)...)
	require.ErrorContains(t, err, "name the contact")
}

func TestContactsAndChangesAreListedOverPages(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(r *http.Request) string {
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		if strings.Contains(r.URL.Path, "audit") {
			return `{"logs":[{"actor":"ops","action":"webhooks.post","createdAt":"2026-01-31T12:00:00.000Z","detail":{"name":"crm"}}]}`
		}
		contact := `{"id":"c","externalId":"u1","email":null,"lastSeenAt":"2026-01-31T12:00:00.000Z","properties":{"plan":"pro"}}`
		return `{"contacts":[` + strings.Join(strings.Split(strings.Repeat(contact+"|", limit-1)+contact, "|"), ",") + `]}`
	})
	text, err := said(t, append([]string{"contacts", "ls", "--search", "u", "--limit", "130"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, 131, strings.Count(text, "\n"))
	require.Equal(t, []string{"GET /v1/admin/contacts?limit=100&offset=0&search=u", "GET /v1/admin/contacts?limit=30&offset=100&search=u"}, a.calls)
	require.Contains(t, text, `{"plan":"pro"}`)

	text, err = said(t, append([]string{"audit", "ls", "--from", "7d", "--actor", "ops"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, "webhooks.post")
	require.Equal(t, "GET /v1/admin/audit-logs?actor=ops&from=7d&limit=50&offset=0", a.calls[2])
}

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAFileOfContactsToEnrolHasAnIDOrAnObjectALine(t *testing.T) {
	users, err := readUsers(strings.NewReader("u1\n\n  a b@c  \n{\"userId\":\"u2\",\"properties\":{\"cartId\":12345678901234567890}}\n"))
	require.NoError(t, err)
	require.Equal(t, []enrolUser{{UserID: "u1"}, {UserID: "a b@c"}, {UserID: "u2", Properties: []byte(`{"cartId":12345678901234567890}`)}}, users)
	for _, bad := range []string{`{"userId":""}`, `{"userid":"u1","x":1}`, `{`} {
		_, err := readUsers(strings.NewReader("u1\n" + bad))
		require.ErrorContains(t, err, "line 2", bad)
	}
}

func TestARunIsNamedByItsIDAloneOrBehindItsJourney(t *testing.T) {
	const id = "d103f675-20c7-5035-ac10-8aa69753be0d"
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/v1/admin"))
		fmt.Fprintf(w, `{"state":{"id":%q,"journeyId":"cart"}}`, id)
	}))
	t.Cleanup(server.Close)
	call := func(args ...string) []string {
		asked = nil
		require.Zero(t, run(t.Context(), append(append([]string{"journeys"}, args...), "--url", server.URL, "--key", "k")))
		return asked
	}
	for what, want := range map[string]string{"run": "GET /journeys/cart/states/" + id, "cancel": "DELETE /journeys/cart/states/" + id, "skip": "POST /journeys/cart/states/" + id + "/skip", "retry": "POST /journeys/cart/states/" + id + "/retry"} {
		require.Equal(t, []string{"GET /journey-logs/" + id, want}, call(what, id))
		require.Equal(t, []string{want}, call(what, "cart", id))
	}
	asked = nil
	require.Equal(t, 1, run(t.Context(), []string{"journeys", "run", "cart", "--url", server.URL, "--key", "k"}))
	require.Empty(t, asked, "what is no id is not asked for")
}

func TestAllJourneysArePausedButThoseOfBuckets(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(*http.Request) string {
		return `{"journeys":[{"id":"bucket-keen-on-enter","sourceBucketId":"keen"},{"id":"cart"},{"id":"still","paused":true}],"journey":{}}`
	})
	text, err := said(t, append([]string{"journeys", "pause", "--all"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "cart is paused\n", text)
	require.Equal(t, []string{"GET /v1/admin/journeys?limit=100&offset=0", "PATCH /v1/admin/journeys/cart"}, a.calls)
}

func TestARunIsShownWithTheFunctionThatItWaitsFor(t *testing.T) {
	var a asked
	job := `{"step":"charge","attempts":2,"running":true,"error":null,"due":"2026-03-10T12:00:15.000Z"}`
	flags := answering(t, &a, func(*http.Request) string {
		return `{"state":{"id":"d103f675-20c7-5035-ac10-8aa69753be0d","journeyId":"cart","status":"waiting"},"logs":[],"job":` + job + `}`
	})
	command := append([]string{"journeys", "run", "cart", "d103f675-20c7-5035-ac10-8aa69753be0d"}, flags...)
	text, err := said(t, command...)
	require.NoError(t, err)
	require.Contains(t, text, "\n  function charge: attempt 2 runs, kept for its process until 2026-03-10T12:00:15.000Z\n")
	job = `{"step":"charge","attempts":2,"running":false,"error":"HTTP 503","due":"2026-03-10T12:00:15.000Z"}`
	text, err = said(t, command...)
	require.NoError(t, err)
	require.Contains(t, text, "\n  function charge: attempt 3 begins at 2026-03-10T12:00:15.000Z; the one before: HTTP 503\n")
}

func TestEachVersionOfAJourneyIsDrawnWithItsOwnSteps(t *testing.T) {
	var a asked
	definition := func(step string) string {
		return `{"id":"cart","name":"Cart","enabled":true,"trigger":{"event":"cart"},"steps":[{"id":"mail","email":{"template":"a"}},` + step + `]}`
	}
	flags := answering(t, &a, func(*http.Request) string {
		return `{"journey":{"id":"cart","name":"Cart","counters":[{"version":"1","step":"mail","what":"came","count":3},{"version":"1","step":"mail","what":"step","detail":"next","count":3}],"versions":[
			{"version":"2","inUse":true,"live":0,"definition":` + definition(`{"wait":"1d"}`) + `},
			{"version":"1","inUse":false,"live":3,"definition":` + definition(`{"id":"later","waitFor":{"any":[{"event":"paid"}],"timeout":"2d"}}`) + `},
			{"version":"code","inUse":false,"live":1}]}}`
	})
	text, err := said(t, append([]string{"journeys", "show", "cart"}, flags...)...)
	require.NoError(t, err)
	require.Regexp(t, `Version 2 \(in use\)(?s:.+)mail +0 (?-s:.+)next 0 → wait-1\n(?s:.+)Version 1 \(runs that began before\), 3 runs live:\n(?s:.+)mail +3 (?-s:.+)next 3 → later\nlater (?-s:.+)paid 0 → end, timeout 0 → end\n`, text)
}

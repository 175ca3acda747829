package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
)

// A time below 0 made a key that never expires.
func TestAKeyThatWouldHaveExpiredIsNotMade(t *testing.T) {
	a := newDestinationsAPI(t)
	create := func(expires ...string) int {
		a.path, a.body = "", nil
		return run(t.Context(), append([]string{"keys", "create", "x", "--url", a.url, "--key", "k", "--data-dir", t.TempDir()}, expires...))
	}
	for _, expires := range []string{"--expires=-1h", "--expires=0s"} {
		require.Equal(t, 1, create(expires), expires)
		require.Empty(t, a.path, expires)
	}
	require.Zero(t, create())
	require.NotContains(t, a.body, "expiresAt")
	require.Zero(t, create("--expires=1h"))
	require.Contains(t, a.body, "expiresAt")
}

func TestADestinationThatIsNotThereIsNamed(t *testing.T) {
	a := newDestinationsAPI(t)
	api := &client{base: a.url, key: "k", http: http.DefaultClient}
	_, err := destinationID(t.Context(), api, "crmm")
	require.ErrorContains(t, err, `"crmm"`)
	require.ErrorContains(t, err, "hogstream destinations ls")

	id, err := destinationID(t.Context(), api, "crm")
	require.NoError(t, err)
	require.Equal(t, "7", id)
	const removed = "01a205b2-6d34-7837-ad96-5bbbb37d32fa"
	id, err = destinationID(t.Context(), api, removed)
	require.NoError(t, err)
	require.Equal(t, removed, id, "its dead letters are there still")
}

func TestWhatTheAPIRefusesIsToldByTheFlagsThatMendIt(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"Forbidden","fix":"use a key with scope read","requestId":"r"}`: "Forbidden: use a key with scope read (request r)",
		`{"error":"Forbidden","requestId":"r"}`:                                   "Forbidden (request r)",
		`{"success":false,"requestId":"r","error":{"name":"ZodError","message":"[{\"code\":\"c\",\"path\":[\"scopes\",0],\"message\":\"Invalid\",\"fix\":\"use read\"},{\"path\":[],\"message\":\"m\",\"fix\":\"m\"}]"}}`: "--scope.0: Invalid: use read\nm (request r)",
		`{"error":"3 records are open","fix":"to make dead letters of them, send \"skipUndelivered\": true","requestId":"r"}`:                                                                                             "3 records are open: to make dead letters of them, say --skip-undelivered (request r)",
		`{"error":{"message":"not a list"}}`: "what answers there is no Hogstream (is --url, HOGSTREAM_URL, right?): 403 not a list",
		`<html>`:                             "what answers there is no Hogstream (is --url, HOGSTREAM_URL, right?): 403 <html>",
	} {
		err := answerError(&http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}}, []byte(body))
		require.EqualError(t, err, want)
	}
	err := answerError(&http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}}, []byte(`{"error":"Unauthorized","fix":"send Authorization: Bearer","requestId":"r"}`))
	require.ErrorContains(t, err, "set HOGSTREAM_API_KEY")
	require.NotContains(t, err.Error(), "Bearer")
}

func TestACommandThatIsInterruptedDoesNotSucceed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done() // an answer would race with the interruption
	}))
	t.Cleanup(server.Close)
	require.Equal(t, interrupted, run(ctx, []string{"destinations", "ls", "--url", server.URL, "--key", "k"}))

	require.NoError(t, untilStopped(ctx, context.Canceled), "dev and serve run until they are stopped")
	require.Error(t, untilStopped(ctx, errors.New("disk full")))
	require.Error(t, untilStopped(t.Context(), context.Canceled))
}

func TestAQuestionEndsWithCtrlC(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	nobodyTypes, typing := io.Pipe()
	t.Cleanup(func() { _ = typing.Close() })
	require.ErrorIs(t, confirmed(ctx, nobodyTypes), context.Canceled)

	require.NoError(t, confirmed(t.Context(), strings.NewReader("Y\n")))
	require.EqualError(t, confirmed(t.Context(), strings.NewReader("\n")), "nothing was done")
	require.ErrorIs(t, confirmed(t.Context(), strings.NewReader("")), errNobodyToAsk)
}

// A processor that is none, or a topic it does not read, was said to go on.
func TestOffsetsAreAcceptedForProcessorsAndTheirTopicsOnly(t *testing.T) {
	require.Equal(t, 2, run(t.Context(), []string{"processors", "accept", "nope", "--partition", "1", "--offset", "resolved=1"}))
	c := processorsAcceptCmd{Processor: "contacts", Partition: 1, Offset: map[string]int64{"events": 0}}
	require.EqualError(t, c.Run(t.Context(), &output{W: io.Discard}), `--offset events=0: contacts does not read topic "events": use one of [resolved]`)
}

func TestWhatCannotBeFoundIsNotSearchedFor(t *testing.T) {
	require.Equal(t, 2, run(t.Context(), []string{"destinations", "deliveries", "crm", "--outcome", "lost"}))
	require.Equal(t, 2, run(t.Context(), []string{"deadletters", "ls", "--status", "lost"}))
	require.Equal(t, 2, run(t.Context(), []string{"processors", "ls", "nope"}))
}

func TestTheDoctorTellsInShortWhatAnswersInThePlaceOfARegistry(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<html>\n<body>\n"+strings.Repeat("<p>nothing here</p>\n", 1000))
	}))
	defer site.Close()
	cfg := hogstream.Config{}
	cfg.Registry.URL = site.URL
	found := registryFinding(t.Context(), cfg)
	require.False(t, found.OK)
	require.Contains(t, found.Note, "<html> <body>")
	require.Less(t, len(found.Note), 400)
	require.NotContains(t, found.Note, "\n")
}

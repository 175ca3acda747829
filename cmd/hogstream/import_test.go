package main

import (
	"context"
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
)

// events is an API that takes batches as long as answer lets it.
type events struct {
	t      *testing.T
	url    string
	answer func(request int, batch []json.RawMessage) (status int, body string) // may be nil

	mu       sync.Mutex
	requests int
	taken    []string
}

func newEvents(t *testing.T) *events {
	a := &events{t: t}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *events) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) > 5<<20 {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	var request struct{ Events []json.RawMessage }
	if err := json.Unmarshal(body, &request); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.requests++
	status, answer := http.StatusAccepted, ""
	if a.answer != nil {
		status, answer = a.answer(a.requests, request.Events)
	}
	if status == http.StatusAccepted && answer == "" {
		answer = fmt.Sprintf(`{"accepted":%d,"rejected":[]}`, len(request.Events))
		for _, e := range request.Events {
			a.taken = append(a.taken, string(e))
		}
	}
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

// importing imports a file as the command does.
func (a *events) importing(name, content string, change ...func(*eventsImportCmd)) (importSummary, error) {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), name)
	require.NoError(a.t, os.WriteFile(file, []byte(content), 0o600))
	c := eventsImportCmd{
		apiFlags: apiFlags{URL: a.url, Key: "key"}, File: file, Connections: 1, BatchSize: 500, FromLine: 1, Keys: true,
		TimeZone: "UTC",
	}
	for _, f := range change {
		f(&c)
	}
	var text strings.Builder
	err := c.Run(a.t.Context(), &output{JSON: true, W: &text})
	var sum importSummary
	if text.Len() > 0 {
		require.NoError(a.t, json.Unmarshal([]byte(text.String()), &sum))
	}
	return sum, err
}

func withoutKeys(c *eventsImportCmd) { c.Keys = false }

func TestAnImportSendsLinesAsTheyAre(t *testing.T) {
	a := newEvents(t)
	first := `{"userId":"u","name":"n","lists":{"news":true},"eventProperties":{"z":1.0,"a":12345678901234567890,"t":"<&>"},"later":1}`
	own := `{"name":"n","userId":"u","idempotencyKey":"mine"}`
	content := first + "\n\n" + own + "\n[1]\n" + strings.Repeat("x", 2<<20) + "\n" + `{"name":"last"}`
	sum, err := a.importing("e.ndjson", content, withoutKeys)
	require.ErrorContains(t, err, "2 of 5 events were refused")
	require.Equal(t, []string{first, own, `{"name":"last"}`}, a.taken)
	require.Equal(t, []string{"line 4: the element is not a JSON object", "line 5: the line is larger than 1 MiB"}, sum.FirstRejections)
	require.EqualValues(t, 5, sum.Events)
	require.EqualValues(t, 3, sum.Accepted)
	require.EqualValues(t, 2, sum.Rejected)

	a.taken = nil
	_, err = a.importing("e.csv", "name,z:number,userId,a,timestamp\nn,1,u,x,2026-01-02 03:04:05\n", withoutKeys)
	require.NoError(t, err)
	require.Equal(t, []string{`{"name":"n","userId":"u","timestamp":"2026-01-02T03:04:05Z","eventProperties":{"z":1,"a":"x"}}`}, a.taken)
}

func TestASecondImportOfAFileSendsTheSameIdempotencyKeys(t *testing.T) {
	a := newEvents(t)
	content := `{"name":"n","userId":"u"}` + "\n" + `{"name":"n","userId":"u"}` + "\n" + `{"name":"n","idempotencyKey":"mine"}` + "\n{}"
	for range 2 {
		_, err := a.importing("e.ndjson", content)
		require.NoError(t, err)
	}
	require.Equal(t, a.taken[:4], a.taken[4:])
	keys := map[string]bool{}
	for _, text := range a.taken[:4] {
		var e struct{ IdempotencyKey string }
		require.NoError(t, json.Unmarshal([]byte(text), &e), text)
		keys[e.IdempotencyKey] = true
	}
	require.Len(t, keys, 4, "lines that are the same are two events")
	require.True(t, keys["mine"])
	_, err := a.importing("other.ndjson", `{"name":"n","userId":"u"}`)
	require.NoError(t, err)
	require.NotContains(t, a.taken[:8], a.taken[8])
}

func TestAnImportOfLargeEventsKeepsItsRequestsBelowTheLimit(t *testing.T) {
	a := newEvents(t)
	line := `{"name":"n","userId":"u","eventProperties":{"text":"` + strings.Repeat("x", 11<<10) + `"}}` + "\n"
	sum, err := a.importing("e.ndjson", strings.Repeat(line, 1200))
	require.NoError(t, err)
	require.EqualValues(t, 1200, sum.Accepted)
}

func TestAnImportGoesOnAfterAnOutage(t *testing.T) {
	a := newEvents(t)
	open := false
	a.answer = func(request int, batch []json.RawMessage) (int, string) {
		if request == 1 {
			return http.StatusServiceUnavailable, `{"error":"away"}`
		}
		accepted, rejected := 0, []string{}
		for i, e := range batch {
			switch {
			case strings.Contains(string(e), `"name":""`):
				rejected = append(rejected, fmt.Sprintf(`{"index":%d,"code":"too_small","path":["name"],"message":"empty"}`, i))
			case strings.Contains(string(e), `"name":"b"`) && !open:
				open = true
				rejected = append(rejected, fmt.Sprintf(`{"index":%d,"code":"unavailable","path":[],"message":"?"}`, i))
			default:
				a.taken = append(a.taken, string(e))
				accepted++
			}
		}
		return http.StatusAccepted, fmt.Sprintf(`{"accepted":%d,"rejected":[%s]}`, accepted, strings.Join(rejected, ","))
	}
	sum, err := a.importing("e.ndjson", `{"name":"","userId":"u"}`+"\n"+`{"name":"b","userId":"u"}`+"\n"+`{"name":"c","userId":"u"}`)
	require.ErrorContains(t, err, "1 of 3 events were refused")
	require.EqualValues(t, 2, sum.Accepted)
	require.Equal(t, []string{"line 1: [name]: empty"}, sum.FirstRejections)
	require.Len(t, a.taken, 2)

	// All refused is an answer, too.
	a.answer = func(int, []json.RawMessage) (int, string) {
		return http.StatusBadRequest, `{"accepted":0,"rejected":[{"index":0,"code":"custom","path":[],"message":"nobody"}],"error":"None of the events was accepted"}`
	}
	sum, err = a.importing("e.ndjson", `{"name":"a"}`)
	require.ErrorContains(t, err, "1 of 1 events were refused")
	require.EqualValues(t, 1, sum.Rejected)
}

// Only the first five were told, so nobody knew the lines of the others.
func TestEachLineThatIsRefusedIsTold(t *testing.T) {
	a := newEvents(t)
	sum, err := a.importing("e.ndjson", strings.Repeat("wrong\n", 40), withoutKeys)
	require.ErrorContains(t, err, "40 of 40 events were refused")
	require.Len(t, sum.FirstRejections, 40)
	sum, err = a.importing("e.ndjson", strings.Repeat("wrong\n", 2000), withoutKeys)
	require.Error(t, err)
	require.Equal(t, int64(2000), sum.Rejected)
	require.Len(t, sum.FirstRejections, rejectionsTold, "it stays readable")
}

func TestAnImportThatIsInterruptedSaysWhereToGoOn(t *testing.T) {
	a := newEvents(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.answer = func(request int, _ []json.RawMessage) (int, string) {
		if request == 3 {
			cancel()
		}
		return http.StatusAccepted, ""
	}
	file := filepath.Join(t.TempDir(), "e.ndjson")
	require.NoError(t, os.WriteFile(file, []byte(strings.Repeat(`{"name":"n","userId":"u"}`+"\n", 1000)), 0o600))
	c := eventsImportCmd{apiFlags: apiFlags{URL: a.url, Key: "key"}, File: file, Connections: 1, BatchSize: 1, FromLine: 1, Keys: true}
	err := c.Run(ctx, &output{JSON: true, W: io.Discard})
	require.ErrorContains(t, err, "interrupted")
	require.ErrorContains(t, err, "go on with --from-line")
	require.False(t, isInterrupted(ctx, err), "it would be told to nobody")
}

func TestAnImportReadsWhatSpreadsheetsWrite(t *testing.T) {
	a := newEvents(t)
	sum, err := a.importing("e.csv", "\ufeffuserId,name\r\nu1,a\r\n", withoutKeys)
	require.NoError(t, err)
	require.Equal(t, int64(1), sum.Accepted)
	sum, err = a.importing("e.ndjson", "\ufeff"+`{"name":"b","userId":"u1"}`, withoutKeys)
	require.NoError(t, err)
	require.Equal(t, int64(1), sum.Accepted)
	require.Equal(t, []string{`{"userId":"u1","name":"a"}`, `{"name":"b","userId":"u1"}`}, a.taken)
}

func TestARowOfAnotherLengthIsToldWithItsLineAndTheRestGoesOn(t *testing.T) {
	a := newEvents(t)
	sum, err := a.importing("e.csv", "userId,name\nu1,a\nu2\nu3,c,more\nu4,d\n\"u2,b\n", withoutKeys)
	require.ErrorContains(t, err, "3 of 5 events were refused")
	require.Equal(t, []int64{2, 3}, []int64{sum.Accepted, sum.Rejected})
	require.Equal(t, []string{"line 3: the row has 1 columns, the header 2", "line 4: the row has 3 columns, the header 2"}, sum.FirstRejections[:2])
	require.Contains(t, sum.FirstRejections[2], "line 6: a quote")
}

func TestRefusedLinesAreWrittenToAFileThatCanBeImportedAgain(t *testing.T) {
	a := newEvents(t)
	a.answer = func(_ int, batch []json.RawMessage) (int, string) {
		if !strings.Contains(string(batch[0]), "u3") {
			return http.StatusAccepted, ""
		}
		return http.StatusBadRequest, `{"accepted":0,"rejected":[{"index":0,"code":"custom","path":["userId"],"message":"no"}]}`
	}
	one := func(c *eventsImportCmd) { c.BatchSize, c.Connections = 1, 4 }
	sum, err := a.importing("e.csv", "userId,name\nu1,a\nu2\nu3,c\nu4,d\n", one)
	require.ErrorContains(t, err, "2 of 4 events were refused")
	require.Equal(t, []string{"line 3: the row has 1 columns, the header 2", "line 4: [userId]: no"}, sum.FirstRejections, "in order")
	text, err := os.ReadFile(sum.RefusedFile)
	require.NoError(t, err)
	require.Equal(t, "userId,name\nu2\nu3,c\n", string(text))

	a.answer = nil
	sum, err = a.importing(filepath.Base(sum.RefusedFile), strings.Replace(string(text), "u2", "u2,b", 1))
	require.NoError(t, err)
	require.Equal(t, []int64{2, 2, 0}, []int64{sum.Events, sum.Accepted, sum.Rejected})
}

func TestAnImportOfNothingFails(t *testing.T) {
	a := newEvents(t)
	_, err := a.importing("e.csv", "userId,name\n")
	require.ErrorContains(t, err, "there is no event in the file")
	_, err = a.importing("e.csv", "")
	require.ErrorContains(t, err, "the file is empty")
	_, err = a.importing("e.csv", "userId,name\nu,n", func(c *eventsImportCmd) { c.TimeZone = "Mars/Base" })
	require.ErrorContains(t, err, "--time-zone")
	_, err = a.importing("e.csv", "userId,name\nu,n", func(c *eventsImportCmd) { c.Types = []string{"name=money"} })
	require.ErrorContains(t, err, `--types name=money: type "money" is not known`)
}

func TestAnImportThatStopsSaysWhereToGoOn(t *testing.T) {
	a := newEvents(t)
	var content strings.Builder
	for i := range 25 {
		fmt.Fprintf(&content, `{"name":"n","userId":"u","eventProperties":{"i":%d}}`+"\n", i+1)
	}
	a.answer = func(int, []json.RawMessage) (int, string) {
		if len(a.taken) >= 10 {
			return http.StatusServiceUnavailable, `{"error":"away"}`
		}
		return http.StatusAccepted, ""
	}
	one := func(c *eventsImportCmd) { c.BatchSize = 1 }
	_, err := a.importing("e.ndjson", content.String(), withoutKeys, one)
	require.ErrorContains(t, err, "stopped after 10 accepted events")
	require.ErrorContains(t, err, "--from-line 11")
	require.ErrorContains(t, err, "are stored again", "without keys nobody knows")

	a.answer = nil
	_, err = a.importing("e.ndjson", content.String(), withoutKeys, one, func(c *eventsImportCmd) { c.FromLine = 11 })
	require.NoError(t, err)
	require.Len(t, a.taken, 25)
	require.Contains(t, a.taken[24], `"i":25`)
}

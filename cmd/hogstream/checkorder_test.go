package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/order"
)

func TestWhereACheckOfOrderBeginsIsATimeForOffsetsMeanNothingOverTwoTopics(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for from, want := range map[string]time.Time{
		"": {}, "start": {}, "1h": now.Add(-time.Hour), "2026-05-01T10:00:00Z": now.Add(-2 * time.Hour),
		"earliest": {}, "7d": now.AddDate(0, 0, -7), "2026-05-01": now.Add(-12 * time.Hour), "now": now,
	} {
		opts, err := (&topicsCheckOrderCmd{From: from}).options(now)
		require.NoError(t, err)
		require.True(t, want.Equal(opts.From), from)
	}
	for _, from := range []string{"17", "-5", "end", "yesterday"} {
		_, err := (&topicsCheckOrderCmd{From: from}).options(now)
		require.ErrorContains(t, err, fmt.Sprintf("--from %q: use start, a time", from))
	}
	_, err := (&topicsCheckOrderCmd{Contact: "ada"}).options(now)
	require.ErrorContains(t, err, "--contact \"ada\": is not a contact's id: `hogstream contacts get` shows it")
}

func TestAReportOfOrderForPeopleSaysWhatWasSeenAndWhatIsWrong(t *testing.T) {
	printed := func(r order.Report) string {
		var b strings.Builder
		printOrder(&b, &r)
		return b.String()
	}
	text := printed(order.Report{Records: 12, Numbers: 8, Contacts: 3, Partitions: 2, Derived: 4})
	require.Equal(t, "12 records on 2 partitions: 8 numbers of 3 contacts\n4 derived facts, which have no number\nevery number stands there once and in order\n", text)

	at := order.Place{Topic: schemas.TopicEvents, Partition: 1, Offset: 7}
	began := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	text = printed(order.Report{Records: 2, Numbers: 2, Contacts: 1, Partitions: 2, Missing: 1, Unproven: 3, Cut: 1, From: &began, Findings: []order.Finding{{Kind: order.KindHole, Contact: "c", Seq: 2, Before: &at}}})
	require.Contains(t, text, "3 numbers missing in the first minute")
	require.Contains(t, text, "1 partitions not from their beginning, the last of them from 2026-05-01T12:00:00Z")
	require.Contains(t, text, "1 numbers missing, 0 repeated")
	require.Contains(t, text, "hole        contact c: 2 is missing, before events/1@7")
	require.NotContains(t, text, "every number")
}

// What docs/order.md shows, in this program and in Python, on what an instance has written:
// all is well, until a line is lost.
func TestWhoeverReadsBothTopicsProvesThatNothingIsMissing(t *testing.T) {
	cfg := devSettings(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	require.NoError(t, hogstream.RunDev(ctx, cfg, func(r *hogstream.Running) {
		defer stop()
		var seen order.Report
		lines := sendAndTail(ctx, t, cfg, r)
		var out bytes.Buffer
		check := topicsCheckOrderCmd{infraFlags: infraFlags{cfg}}
		require.NoError(t, check.Run(ctx, &output{JSON: true, W: &out}))
		require.NoError(t, json.Unmarshal(out.Bytes(), &seen))
		require.EqualValues(t, len(lines), seen.Numbers)
		require.EqualValues(t, 3, seen.Contacts)

		printed, err := python(t, lines)
		require.NoError(t, err, printed)
		require.Empty(t, printed)
		for _, line := range []int{0, len(lines) / 2} { // never a contact's last
			printed, err = python(t, append(append([]string{}, lines[:line]...), lines[line+1:]...))
			require.Error(t, err, "without %s", lines[line])
			require.Contains(t, printed, "missing")
		}
		printed, err = python(t, append(lines, lines[len(lines)/2]))
		require.Error(t, err)
		require.Contains(t, printed, "again or out of order")
	}))
}

// devSettings are those of a developer's instance whose Postgres may run as another user.
func devSettings(t *testing.T) hogstream.Config {
	t.Helper()
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.DataDir, err = os.MkdirTemp("", "hogstream-test-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(cfg.DataDir, 0o711))
	t.Cleanup(func() { _ = os.RemoveAll(cfg.DataDir) })
	cfg.HTTP.Addr, cfg.HTTP.Port, cfg.Log.Level = "", 0, "warn"
	return cfg
}

// sendAndTail sends events that change three contacts, and returns what then stands on both
// topics, as the command prints it.
func sendAndTail(ctx context.Context, t *testing.T, cfg hogstream.Config, r *hogstream.Running) []string {
	t.Helper()
	const contacts, each = 3, 5
	for n := range contacts * each {
		body := fmt.Sprintf(`{"name":"seen","userId":"u%d","contactProperties":{"n":%d}}`, n%contacts, n)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.URL+"/v1/events", strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+r.APIKey)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		_, _ = io.Copy(io.Discard, resp.Body)
		require.NoError(t, resp.Body.Close())
		require.Less(t, resp.StatusCode, 300)
	}
	tail := topicsTailCmd{infraFlags: infraFlags{cfg}, Topic: []string{"lifecycle", "events"}}
	for {
		var out bytes.Buffer
		require.NoError(t, tail.Run(ctx, &output{JSON: true, W: &out}))
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) == 2*contacts*each { // a fact and an event of each
			return lines
		}
	}
}

// python runs the program of docs/order.md.
func python(t *testing.T, lines []string) (string, error) {
	t.Helper()
	text, err := os.ReadFile("../../docs/order.md")
	require.NoError(t, err)
	program := regexp.MustCompile("(?s)```python\n(.*?)```").FindSubmatch(text)
	require.NotNil(t, program, "docs/order.md shows a program")
	python3, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("SKIPPED, nothing is known of the Python in docs/order.md: there is no python3")
	}
	cmd := exec.CommandContext(t.Context(), python3, "-c", string(program[1]))
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

package journeys_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// What docs/journeys.md shows can be read.
func TestWhatTheDocumentsShowCanBeRead(t *testing.T) {
	text, err := os.ReadFile("../docs/journeys.md")
	require.NoError(t, err)
	blocks := yamlBlock.FindAllStringSubmatch(string(text), -1)
	require.Len(t, blocks, 4)
	for _, block := range blocks {
		written := block[1]
		switch {
		case strings.HasPrefix(written, "on:"):
			_, err := reactions(t, strings.TrimPrefix(written, "on:"))
			require.NoError(t, err)
			continue
		case strings.HasPrefix(written, "- "):
			written = steps("steps:\n" + written)
		case strings.HasPrefix(written, "exitOn:"):
			written = steps(written + "steps: [{wait: 1d}]")
		}
		_, err := journeys.ParseYAML("journeys.md", []byte(written))
		require.NoError(t, err)
	}
	inTable := regexp.MustCompile("(?m)^\\| `((?:wait|waitUntil|split|set|bucket|email|exit): [^`…]*)`")
	rows := inTable.FindAllStringSubmatch(string(text), -1)
	require.GreaterOrEqual(t, len(rows), 6)
	for _, row := range rows {
		share := strings.Replace(row[1], "do: […]", "do: [{exit: x}]", 1)
		_, err := journeys.ParseYAML("journeys.md", []byte(steps("steps:\n  - "+share)))
		require.NoError(t, err, row[1])
	}
}

// The table "Who begins again" of docs/journeys.md is what happens, cell by cell.
func TestWhoBeginsAgainIsAsTheDocumentsSay(t *testing.T) {
	t.Parallel()
	became := map[string]func(s *stage){
		"there is none": func(*stage) {},
		"runs":          func(s *stage) { s.event("start", "{}") },
		"completed":     func(s *stage) { s.event("start", "{}"); s.event("done", "{}") },
		"exited":        func(s *stage) { s.event("start", "{}"); s.event("paid", "{}") },
		"failed": func(s *stage) {
			s.event("start", "{}")
			s.event("asked", "{}")
			s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptRefused, "")
		},
		"is that of a contact merged into this one, and runs": func(s *stage) {
			other := s.another()
			other.event("start", "{}")
			s.merge(other)
		},
		"is that of a contact merged into this one, and completed": func(s *stage) {
			other := s.another()
			other.event("start", "{}")
			other.event("done", "{}")
			s.merge(other)
		},
		"was one of two, of which the other exited `merged`": func(s *stage) {
			other := s.another()
			other.event("start", "{}")
			s.event("start", "{}")
			s.merge(other)
			require.Contains(t, s.story(), "exited waitFor-0 merged")
		},
	}
	text, err := os.ReadFile("../docs/journeys.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(text), "### Who begins again")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n## ")
	cells := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z].*?) \| (.*?) \| (.*?) \| (.*?) \|$`).FindAllStringSubmatch(table, -1) {
		if row[1] == "the run before" {
			continue
		}
		what, later := row[1], time.Hour
		for _, long := range []string{" for two days", " two days ago"} {
			if strings.HasSuffix(what, long) {
				what, later = strings.TrimSuffix(what, long), 2*day
			}
		}
		require.Contains(t, became, what)
		for i, limit := range []string{journeys.EntryOnce, journeys.EntryOncePerPeriod, journeys.EntryUnlimited} {
			s := newStage(t, strings.Replace(steps("exitOn: [{event: paid}]\nsteps: [{waitFor: {any: [{event: done}, {event: asked}], timeout: 30d}, then: {asked: [{call: {destination: crm}}]}}]\n"),
				"entryLimit: unlimited", "entryLimit: "+limit, 1))
			became[what](s)
			s.pass(later)
			s.effects = nil
			s.event("start", "{}")
			want := "skipped " + strings.Trim(row[2+i], "`")
			if row[2+i] == "begins" {
				want = "started"
			}
			require.Equal(t, want, s.story(), "%s, %s", row[1], limit)
			cells++
		}
	}
	require.Equal(t, 36, cells)
}

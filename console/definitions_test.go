package console_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
)

// foresee has one contact enter each bucket that changes.
func (s *server) foresee(_ context.Context, p *definition.Plan, sample int, until time.Time) (*definition.Forecast, error) {
	require.WithinDuration(s.t, time.Now().Add(15*time.Second), until, 5*time.Second)
	f := &definition.Forecast{Contacts: 1, Total: 2, Effects: p.Effects()}
	for i := range f.Effects {
		f.Effects[i].Enter = int64(sample)
	}
	return f, nil
}

// planned is a body with files, each a bucket that looks at an event of its name.
func planned(more string, ids ...string) string {
	files := make([]string, len(ids))
	for i, id := range ids {
		files[i] = fmt.Sprintf(`{"name":"buckets/%s.yaml","text":"id: %s\nname: %s\nenabled: true\ncriteria: {type: event, eventName: seen, check: exists}\n"}`, id, id, id)
	}
	return `{"files":[` + strings.Join(files, ",") + `]` + more + `}`
}

func hashOf(t *testing.T, plan map[string]any) string {
	t.Helper()
	return fmt.Sprintf(`,"hash":%q`, at(t, plan, "hash"))
}

func TestDefinitionsArePlannedAndAppliedByTheirHash(t *testing.T) {
	s := newServer(t)
	plan := s.request(http.MethodPost, "/definitions/plan", planned("", "a", "b"), http.StatusOK)
	require.Equal(t, true, plan["changed"])
	require.Equal(t, []any{map[string]any{"kind": "bucket", "id": "a", "what": "added"}, map[string]any{"kind": "bucket", "id": "b", "what": "added"}}, plan["changes"])
	require.InDelta(t, 10, at(t, plan, "members", "effects", 0, "enter"), 0)
	require.Equal(t, false, at(t, plan, "members", "whole"))
	quick := s.request(http.MethodPost, "/definitions/plan", planned(`,"members":false`, "a", "b"), http.StatusOK)
	require.NotContains(t, quick, "members")
	require.Equal(t, plan["hash"], quick["hash"])

	other := s.request(http.MethodPost, "/definitions/apply", planned(hashOf(t, plan), "a"), http.StatusConflict)
	require.Contains(t, other["error"], "the definitions are not those of the plan")
	done := s.request(http.MethodPost, "/definitions/apply", planned(hashOf(t, plan), "a", "b"), http.StatusOK)
	require.InDelta(t, 1, done["version"], 0)
	require.Equal(t, true, done["changed"])
	again := s.request(http.MethodPost, "/definitions/apply", planned(hashOf(t, plan), "a", "b"), http.StatusConflict)
	require.Contains(t, again["error"], "version 1 is in use, and it was 0; ada applied it at ")
	require.Equal(t, "make a new plan", again["fix"])
	require.Equal(t, []string{"hash"}, paths(t, s.request(http.MethodPost, "/definitions/apply", planned(`,"hash":"x"`, "a"), http.StatusBadRequest)))

	log := s.request(http.MethodGet, "/audit-logs?resource=definitions", "", http.StatusOK)
	require.Equal(t, "apply", at(t, log, "logs", 0, "detail", "operation"))
	require.Equal(t, "1", at(t, log, "logs", 0, "resourceId"))
}

func TestFaultsOfFilesAreSaidWithTheirPlaceInTheRequest(t *testing.T) {
	s := newServer(t)
	body := `{"files":[{"name":"buckets/a.yaml","text":"id: a\nname: A\nenabled: true\nkind: manual\n"},{"name":"buckets/b.yaml","text":"id: b\nname: B\nenabled: true\nkind: dynamc\n"},{"name":"../c.yaml","text":""}]}`
	answer := s.request(http.MethodPost, "/definitions/plan", body, http.StatusBadRequest)
	require.Equal(t, []string{"files", "files", "files"}, paths(t, answer))
	message := fmt.Sprint(at(t, answer, "error", "message"))
	require.Contains(t, message, `buckets/b.yaml:4:7: kind: `)
	require.Regexp(t, `"path": ?\[\s*"files",\s*1\s*\]`, message)
	require.Regexp(t, `"path": ?\[\s*"files",\s*2\s*\]`, message)
	require.Equal(t, []string{"files"}, paths(t, s.request(http.MethodPost, "/definitions/plan", `{}`, http.StatusBadRequest)))
	require.Equal(t, []string{"files"}, paths(t, s.request(http.MethodPost, "/definitions/plan", `{"files":[],"version":1}`, http.StatusBadRequest)))
}

func TestVersionsOfDefinitionsAreListedComparedAndPutInUseAgain(t *testing.T) {
	s := newServer(t)
	s.define(buckets("a", "b")...)
	s.define(buckets("a", "c")...)
	s.define(buckets("a", "c", "manual")...)
	page := s.request(http.MethodGet, "/definitions/history?limit=2", "", http.StatusOK)
	require.InDelta(t, 3, at(t, page, "versions", 0, "version"), 0)
	require.Equal(t, "1 added, 0 changed, 1 removed", at(t, page, "versions", 1, "summary"))
	require.Equal(t, "test", at(t, page, "versions", 1, "appliedBy"))
	require.InDelta(t, 2, page["next"], 0)
	last := s.request(http.MethodGet, "/definitions/history?below=2", "", http.StatusOK)
	require.Len(t, last["versions"], 1)
	require.Nil(t, last["next"])

	diff := s.request(http.MethodGet, "/definitions/history/1/diff/3", "", http.StatusOK)
	require.Len(t, diff["differences"], 3)
	require.Equal(t, "removed", at(t, diff, "differences", 0, "what"))
	require.Contains(t, at(t, diff, "differences", 0, "diff"), "\n-id: b\n")
	s.request(http.MethodGet, "/definitions/history/1/diff/9", "", http.StatusNotFound)
	s.request(http.MethodGet, "/definitions/history/1/diff/x", "", http.StatusNotFound)

	s.request(http.MethodPost, "/definitions/plan", `{"version":9}`, http.StatusNotFound)
	plan := s.request(http.MethodPost, "/definitions/plan", `{"version":1,"sample":3}`, http.StatusOK)
	require.Len(t, plan["changes"], 3)
	require.InDelta(t, 3, at(t, plan, "members", "effects", 0, "enter"), 0)
	done := s.request(http.MethodPost, "/definitions/rollback", `{"version":1`+hashOf(t, plan)+`}`, http.StatusOK)
	require.InDelta(t, 4, done["version"], 0)
	set, err := definition.Current(t.Context(), s.db)
	require.NoError(t, err)
	require.Len(t, set.Buckets, 2)
	require.Equal(t, "ada", set.AppliedBy)
	s.request(http.MethodPost, "/definitions/rollback", `{"version":1`+hashOf(t, plan)+`}`, http.StatusConflict)
	s.request(http.MethodPost, "/definitions/rollback", `{"version":9`+hashOf(t, plan)+`}`, http.StatusNotFound)
}

package console_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWhyAsksForAContactAndABucketThatAreThere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers", "manual-beta")...)
	s.person("u1", "a1", "ada@example.com")
	require.Equal(t, "Contact not found", s.request(http.MethodGet, "/buckets/buyers/members/nobody/why", "", http.StatusNotFound)["error"])
	require.Equal(t, "Bucket not found", s.request(http.MethodGet, "/buckets/nothing/members/u1/why", "", http.StatusNotFound)["error"])
	for _, id := range []string{"u1", "a1"} {
		answer := s.request(http.MethodGet, "/buckets/buyers/members/"+id+"/why", "", http.StatusOK)
		require.Equal(t, false, answer["member"])
		require.Equal(t, "u1", answer["userId"])
		require.Equal(t, "unseen", at(t, answer, "reasons", 0, "code"))
		require.NotContains(t, answer, "criteria")
	}
	s.exec(`INSERT INTO definition_faults (file, ids, faults, since) VALUES ('buckets/never.yaml', '{never}', 'line 3: no', now())`)
	require.Contains(t, s.request(http.MethodGet, "/buckets/never/members/u1/why", "", http.StatusNotFound)["fix"], "line 3: no")
}

func TestWhyTellsOfABucketThatIsDefinedNoMore(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers")...)
	s.joins("gone", s.person("u1", "", ""))
	answer := s.request(http.MethodGet, "/buckets/gone/members/u1/why", "", http.StatusOK)
	require.Equal(t, "undefined", at(t, answer, "reasons", 0, "code"))
	require.InDelta(t, 1, at(t, answer, "membership", "entryCount"), 0)
	require.Equal(t, "1", at(t, answer, "transitions", 0, "name"))
	fact := at(t, answer, "transitions", 0, "fact").(string)
	for _, name := range []string{"1", fact} {
		then := s.request(http.MethodGet, "/buckets/gone/members/u1/why?at="+name, "", http.StatusOK)
		require.Equal(t, "entered", at(t, then, "transition", "is"))
		require.NotContains(t, then, "criteria", "a release before kept nothing of it")
	}
	require.Equal(t, "Transition not found", s.request(http.MethodGet, "/buckets/gone/members/u1/why?at=1/left", "", http.StatusNotFound)["error"])
}

func TestWhatTimeWillDoAsksForATimeToComeAndABucketThatIsThere(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.define(buckets("buyers")...)
	answer := s.request(http.MethodGet, "/upcoming?within=12h&bucket=buyers", "", http.StatusOK)
	require.Equal(t, true, answer["whole"])
	require.Equal(t, []any{}, answer["buckets"])
	require.Equal(t, "Bucket not found", s.request(http.MethodGet, "/upcoming?bucket=nothing", "", http.StatusNotFound)["error"])
	for _, within := range []string{"soon", "0h", "400d"} {
		s.request(http.MethodGet, "/upcoming?within="+within, "", http.StatusBadRequest)
	}
	s.request(http.MethodGet, "/trace/lifecycle-0-1", "", http.StatusNotFound)
}

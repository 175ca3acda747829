package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const adaInBeta = `{"userId":"u1","userEmail":"ada@example.com","contactId":"c1","bucketId":"beta","status":"active","enteredAt":"2026-03-10T12:00:00.000Z","entryCount":2,"source":"event"}`

func TestBucketsAreListedWithHowTheyAreAndWhatFails(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(*http.Request) string {
		return `{"buckets":[
			{"id":"buyers","name":"Buyers","kind":"dynamic","counts":{"active":7,"left":2},"state":{"is":"filling","filling":{"percent":40}}},
			{"id":"keen","name":"Keen","kind":"dynamic","counts":{"active":1,"left":0},"state":{"is":"failing","error":"line 3","since":"2026-03-10T12:00:00.000Z"}}],
			"failing":[{"file":"buckets/keen.yaml","ids":["keen"],"error":"line 3: no","since":"2026-03-10T12:00:00.000Z"}],
			"removed":[{"id":"gone","counts":{"active":3,"left":4}}]}`
	})
	text, err := said(t, append([]string{"buckets", "ls"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, []string{"GET /v1/admin/buckets?limit=100&offset=0"}, a.calls)
	require.Regexp(t, `buyers +Buyers +dynamic +filling \(40 %\) +7 +2\n`, text)
	for _, part := range []string{"buckets/keen.yaml fails since", "line 3: no", "gone is defined no more; 3 members and 4 that left are kept"} {
		require.Contains(t, text, part)
	}
	text, err = said(t, append([]string{"buckets", "ls", "--json"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, `"removed"`)
}

func TestAListOfMembersSaysWhenItIsNotComplete(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(r *http.Request) string {
		if r.URL.Path == "/v1/admin/buckets/beta" {
			return `{"bucket":{"id":"beta","name":"Beta","kind":"dynamic","counts":{"active":1,"left":0},"criteria":{"type":"event"},"state":{"is":"filling","filling":{"percent":12}},"recentMembers":[` + adaInBeta + `]}}`
		}
		if r.URL.Query().Get("userId") == "nobody" {
			return `{"members":[],"state":{"is":"live"}}`
		}
		return `{"members":[` + adaInBeta + `],"state":{"is":"filling","filling":{"percent":12}}}`
	})
	for _, command := range []string{"show", "members"} {
		text, err := said(t, append([]string{"buckets", command, "beta"}, flags...)...)
		require.NoError(t, err)
		require.Contains(t, text, "filling (12 %): members are missing", command)
		require.Regexp(t, `u1 +ada@example.com`, text, command)
	}
	text, err := said(t, append([]string{"buckets", "members", "beta", "--json"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, `"is": "filling"`)
	text, err = said(t, append([]string{"buckets", "members", "beta", "--user-id", "nobody"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "nobody is no member of beta\n", text)
	_, err = said(t, append([]string{"buckets", "members", "beta", "--left"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, a.calls[len(a.calls)-1], "status=left")
}

func TestAContactIsPutIntoABucketAndThatIsSaidWhenItIsSo(t *testing.T) {
	var a asked
	var tries, looks int
	flags := answering(t, &a, func(r *http.Request) string {
		if r.Method == http.MethodDelete && r.ContentLength != 0 {
			t.Error("the route takes no body")
		}
		if r.Method == http.MethodGet {
			if looks++; looks < 3 {
				return `{"members":[]}`
			}
			return `{"members":[` + adaInBeta + `]}`
		}
		tries++
		return fmt.Sprintf(`{"contactId":"c1","member":%t}`, r.Method == http.MethodPost)
	})
	text, err := said(t, append([]string{"buckets", "add", "beta", "u1"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "u1 is a member of beta\n", text)
	require.Equal(t, []int{1, 3}, []int{tries, looks})
	require.Contains(t, a.calls, "POST /v1/admin/buckets/beta/members")

	text, err = said(t, append([]string{"buckets", "remove", "beta", "u1", "--wait", "250ms"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, "accepted, and not applied within 250ms")
	require.Contains(t, a.calls, "DELETE /v1/admin/buckets/beta/members/u1")
	text, err = said(t, append([]string{"buckets", "remove", "beta", "u1", "--wait", "0s"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "accepted\n", text)

	looks = 0
	_, err = said(t, append([]string{"buckets", "add", "beta", "u1", "--wait", "0s", "--expires-in", "720h"}, flags...)...)
	require.NoError(t, err)
	require.Zero(t, looks)
	require.Regexp(t, `^20.*Z$`, a.body["expiresAt"])
	_, err = said(t, append([]string{"buckets", "add", "beta", "u1", "--expires-in=-1h"}, flags...)...)
	require.ErrorContains(t, err, "--expires-in")
}

func TestAnAdditionIsAskedForAgainUntilTheContactIsKnown(t *testing.T) {
	tries := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `{"members":[`+adaInBeta+`]}`)
		case tries < 2:
			tries++
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `{"error":"not seen yet","requestId":"r"}`)
		default:
			fmt.Fprint(w, `{"contactId":"c1","member":true}`)
		}
	}))
	t.Cleanup(server.Close)
	call := []string{"buckets", "add", "beta", "u1", "--url", server.URL, "--key", "k", "--data-dir", t.TempDir()}
	text, err := said(t, call...)
	require.NoError(t, err)
	require.Equal(t, "u1 is a member of beta\n", text)
	tries = -1000
	_, err = said(t, append(call, "--wait", "200ms")...)
	require.ErrorContains(t, err, "not seen yet")
}

func TestAnExportThatBreaksOffIsAnError(t *testing.T) {
	whole := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, r.URL.Query().Get("format"))
		if !whole {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "members.csv")
	call := []string{"buckets", "export", "beta", "--format", "csv", "--url", server.URL, "--key", "k", "--data-dir", t.TempDir()}
	text, err := said(t, call...)
	require.NoError(t, err)
	require.Equal(t, "csv\n", text)
	_, err = said(t, append(call, "--to", file)...)
	require.NoError(t, err)
	written, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "csv\n", string(written))
	whole = false
	_, err = said(t, call...)
	require.ErrorContains(t, err, "broke off")
}

func TestABucketIsPurgedPartByPart(t *testing.T) {
	var a asked
	parts := 0
	flags := answering(t, &a, func(*http.Request) string {
		parts++
		return fmt.Sprintf(`{"removed":10,"done":%t}`, parts == 3)
	})
	text, err := said(t, append([]string{"buckets", "purge", "gone", "--yes"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "30 memberships are forgotten\n", text)
}

func TestAContactIsShownWithItsMemberships(t *testing.T) {
	var b strings.Builder
	printMemberships(&b, []bucketMember{{BucketID: "beta", Status: "active"}, {BucketID: "buyers", Status: "active"}, {BucketID: "keen", Status: "left"}})
	require.Equal(t, "  member of   beta, buyers\n  left        keen\n", b.String())
	b.Reset()
	printMemberships(&b, nil)
	require.Empty(t, b.String())
}

func TestABucketIsShownWithTheJourneysThatItBegins(t *testing.T) {
	var a asked
	flags := answering(t, &a, func(*http.Request) string {
		return `{"bucket":{"id":"keen","name":"Keen","kind":"dynamic","counts":{"active":1,"left":0},"state":{"is":"live"},"feedsJourneys":[
			{"id":"bucket-keen-on-leave","name":"Keen — on leave","trigger":"bucket.left:keen","sourceBucketId":"keen","owned":true},
			{"id":"bucket-b-on-enter","name":"B","trigger":"bucket.entered","sourceBucketId":"b","owned":false},
			{"id":"monday","name":"Monday","trigger":"","sourceBucketId":null,"owned":false}]}}`
	})
	text, err := said(t, append([]string{"buckets", "show", "keen"}, flags...)...)
	require.NoError(t, err)
	require.Regexp(t, `Journeys that it begins:\n(?s:.+)bucket-keen-on-leave +Keen — on leave +bucket.left:keen +with this bucket\n`, text)
	require.Regexp(t, `bucket-b-on-enter +B +bucket.entered +with bucket b\n`, text)
	require.Regexp(t, `monday +Monday +a schedule +by itself\n`, text)
	text, err = said(t, append([]string{"buckets", "show", "keen", "--json"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, `"feedsJourneys"`)
}

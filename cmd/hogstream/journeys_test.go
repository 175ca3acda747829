package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// At each step: came = went on + exited + failed + those that stand there.
func TestWhatBecameOfRunsAtEachStepAddsUp(t *testing.T) {
	counters := []journeyCounter{
		{Version: "2", Step: "mail", What: "came", Count: 5}, {Version: "2", Step: "mail", What: "step", Detail: "next", Count: 4},
		{Version: "2", Step: "mail", What: "exited", Detail: "paid", Count: 1}, {Version: "1", Step: "mail", What: "came", Count: 100},
		{Version: "2", Step: "wait", What: "came", Count: 4}, {Version: "2", Step: "wait", What: "step", Detail: "timeout", Count: 1},
		{Version: "2", Step: "wait", What: "step", Detail: "paid", Count: 1}, {Version: "2", Step: "wait", What: "failed", Count: 1},
		{Version: "2", What: "started", Count: 5},
	}
	require.Equal(t, []*stepCounts{
		{step: "mail", came: 5, on: 4, exited: 1, outcomes: "next 4  "},
		{step: "wait", came: 4, on: 2, failed: 1, standing: 1, outcomes: "timeout 1  paid 1  "},
	}, stepsOf(counters, "2"))
}

func TestAFileOfContactsToEnrolHasAnIDOrAnObjectALine(t *testing.T) {
	users, err := readUsers(strings.NewReader("u1\n\n  a b@c  \n{\"userId\":\"u2\",\"properties\":{\"cartId\":12345678901234567890}}\n"))
	require.NoError(t, err)
	require.Equal(t, []enrolUser{{UserID: "u1"}, {UserID: "a b@c"}, {UserID: "u2", Properties: []byte(`{"cartId":12345678901234567890}`)}}, users)
	for _, bad := range []string{`{"userId":""}`, `{"userid":"u1","x":1}`, `{`} {
		_, err := readUsers(strings.NewReader("u1\n" + bad))
		require.ErrorContains(t, err, "line 2", bad)
	}
}

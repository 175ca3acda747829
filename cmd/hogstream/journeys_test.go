package main

import (
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

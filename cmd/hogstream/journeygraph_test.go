package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	machine "github.com/hogstream/hogstream/journeys"
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
		{step: "mail", came: 5, on: 4, exited: 1, outcomes: map[string]int64{"next": 4}},
		{step: "wait", came: 4, on: 2, failed: 1, standing: 1, outcomes: map[string]int64{"timeout": 1, "paid": 1}},
	}, stepsOf(counters, "2", nil))
}

func TestAJourneyIsDrawnWithItsCountsAndWhereStepsLead(t *testing.T) {
	j, err := machine.ParseYAML("cart.yaml", []byte(`
id: cart
name: Cart
enabled: true
trigger: {event: cart}
steps:
  - id: answer
    waitFor: {any: [{event: yes}, {event: no}], timeout: 1d}
    then: {yes: [{exit: said-yes}], timeout: [{id: ask, email: {template: ask}}]}
  - id: bye
    email: {template: bye}
`))
	require.NoError(t, err)
	counters := []journeyCounter{
		{"v", "answer", "came", "", "", 6}, {"v", "answer", "came", "", "treatment", 4}, {"v", "answer", "exited", "paid", "", 1},
		{"v", "answer", "step", "timeout", "", 2}, {"v", "answer", "step", "timeout", "treatment", 3}, {"v", "answer", "step", "skipped", "", 1},
		{"v", "ask", "came", "", "", 6}, {"v", "ask", "step", "next", "", 5}, {"v", "ask", "failed", "", "", 1},
		{"v", "gone", "came", "", "", 1}, {"other", "answer", "came", "", "", 9}, {"v", "", "started", "", "", 10},
	}
	v := j.Identity()
	for i := range counters {
		counters[i].Version = strings.Replace(counters[i].Version, "v", v, 1)
	}
	var out strings.Builder
	printSteps(&out, counters, v, graphOf(json.RawMessage(j.Canonical())))
	require.Equal(t, `
STEP               CAME  STAND THERE  EXITED  FAILED  WENT ON  WHERE TO
answer             10    3            1       0       6        yes 0 → answer.yes.exit-0, no 0 → bye, timeout 5 → ask, skipped 1
answer.yes.exit-0  0     0            0       0       0        
ask                6     0            0       1       5        next 5 → bye
bye                0     0            0       0       0        next 0 → end
gone               1     1            0       0       0        
`, "\n"+out.String())

	out.Reset()
	printSteps(&out, counters, "other", graphOf(nil))
	require.Equal(t, "STEP    CAME  STAND THERE  EXITED  FAILED  WENT ON  WHERE TO\nanswer  9     9            0       0       0        \n", out.String())
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	machine "github.com/hogstream/hogstream/journeys"
)

type journeyCounter struct {
	Version string `json:"version"`
	Step    string `json:"step"`
	What    string `json:"what"`
	Detail  string `json:"detail"`
	Arm     string `json:"arm"`
	Count   int64  `json:"count"`
}

// stepCounts is what became of runs at a step: came = on + exited + failed + standing.
type stepCounts struct {
	step                               string
	came, on, exited, failed, standing int64
	outcomes                           map[string]int64 // of those who went on
}

// graphOf are the steps of a definition, in their order; none when it is code.
func graphOf(definition json.RawMessage) []machine.Node {
	var j machine.Journey
	if json.Unmarshal(definition, &j) != nil || j.Coded {
		return nil
	}
	p, err := machine.Compile(j, machine.Options{})
	if err != nil {
		return nil
	}
	return p.Nodes()
}

// stepsOf are the steps of a version: those of its graph, as far as that is known, and
// then others that were counted.
func stepsOf(counters []journeyCounter, version string, graph []machine.Node) []*stepCounts {
	var out []*stepCounts
	byStep := map[string]*stepCounts{}
	at := func(step string) *stepCounts {
		if byStep[step] == nil {
			byStep[step] = &stepCounts{step: step, outcomes: map[string]int64{}}
			out = append(out, byStep[step])
		}
		return byStep[step]
	}
	for i := range graph {
		at(graph[i].ID)
	}
	for _, n := range counters {
		if n.Version == version && n.Step != "" {
			at(n.Step).count(n)
		}
	}
	return out
}

func (s *stepCounts) count(n journeyCounter) {
	switch n.What {
	case "came":
		s.came, s.standing = s.came+n.Count, s.standing+n.Count
	case "step":
		s.on, s.standing = s.on+n.Count, s.standing-n.Count
		s.outcomes[n.Detail] += n.Count
	case "exited":
		s.exited, s.standing = s.exited+n.Count, s.standing-n.Count
	case "failed":
		s.failed, s.standing = s.failed+n.Count, s.standing-n.Count
	}
}

// leads says how many went on with each outcome, and where to.
func (s *stepCounts) leads(graph []machine.Node) string {
	var out []string
	rest := maps.Clone(s.outcomes)
	if i := slices.IndexFunc(graph, func(n machine.Node) bool { return n.ID == s.step }); i >= 0 {
		for _, edge := range graph[i].Next {
			to := "end"
			if edge.To >= 0 {
				to = graph[edge.To].ID
			}
			out = append(out, fmt.Sprintf("%s %d → %s", edge.Outcome, s.outcomes[edge.Outcome], to))
			delete(rest, edge.Outcome)
		}
	}
	for _, outcome := range slices.Sorted(maps.Keys(rest)) {
		out = append(out, fmt.Sprintf("%s %d", outcome, rest[outcome]))
	}
	return strings.Join(out, ", ")
}

// printSteps draws the graph of a version, with what became of runs at each step.
func printSteps(w io.Writer, counters []journeyCounter, version string, graph []machine.Node) {
	rows := [][]string{}
	for _, s := range stepsOf(counters, version, graph) {
		row := []string{s.step}
		for _, n := range []int64{s.came, s.standing, s.exited, s.failed, s.on} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, append(row, s.leads(graph)))
	}
	table(w, []string{"step", "came", "stand there", "exited", "failed", "went on", "where to"}, rows)
}

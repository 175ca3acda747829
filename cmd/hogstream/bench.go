package main

import (
	"context"
	"os"
	"strings"

	"github.com/hogstream/hogstream/bench"
)

type benchCmd struct {
	Names   []string `arg:"" optional:"" help:"ingest, processors, buckets, crowd, plan, evaluation, lanes, order, unordered, batches, programs, isolation, limits, fanout, backfill, latency, joins, timers, filling; all when none is named."`
	Out     string   `help:"Markdown file to write; empty for none." default:"docs/BENCHMARKS.md"`
	Rounds  int      `help:"Rounds of each comparison; 0 for each bench's own number."`
	Scale   float64  `help:"Multiplies the work of a round." default:"1"`
	Profile string   `help:"Directory for CPU profiles of our side." type:"path"`
	Part    string   `help:"Be a part of a bench; benches start these themselves." hidden:""`
}

// Run measures the figures, or plays a part for another process that does.
func (c *benchCmd) Run(ctx context.Context) error {
	if c.Part == "dev" {
		setGCPercent(devGCPercent, usualGCPercent)
	}
	if c.Part != "" {
		return bench.RunPart(c.Part, c.Names, os.Stdin, os.Stdout)
	}
	return bench.Run(ctx, bench.Config{
		Names: c.Names, Rounds: c.Rounds, Scale: c.Scale, Out: c.Out, Profile: c.Profile, Progress: os.Stdout,
		Command: "hogstream " + strings.Join(os.Args[1:], " "),
	})
}

// Package bench measures the figures that Hogstream is built for, as ratios to
// plain code within one run, and writes them to docs/BENCHMARKS.md.
//
// What it promises:
//   - Every ratio compares two things that ran on the same machine within the
//     same seconds: short rounds alternate (ours, plain, ours, plain), and the
//     median of the rounds' ratios counts. An absolute figure stands beside it
//     and is as good as the machine was idle.
//   - Ours is the code that is shipped, with everything that production has
//     switched on; what is switched off is named in the report.
//   - Broker and receiver run in processes of their own, so that what is counted
//     (CPU, memory) is the process under test.
//   - A figure below its target is reported as such.
//
// It is the one package beside stream and storage that talks to Kafka and Postgres
// directly: the plain side of a comparison must not go through ours.
package bench

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"go.uber.org/zap"
)

// Config says what to measure and where to write it.
type Config struct {
	// Names are the benches to run; none means all.
	Names []string
	// Rounds is how often each side of a comparison runs; 0 means the bench's own
	// number.
	Rounds int
	// Scale multiplies how much work a round is; 0 means 1.
	Scale float64
	// Out is the markdown file, of which the sections measured are replaced;
	// empty writes none.
	Out string
	// Profile is a directory for CPU profiles of our side; empty means none.
	Profile string
	// Command is what was typed, for the report.
	Command string
	// Progress is told what happens, in a line each. Nil means silence.
	Progress io.Writer
	Logger   *zap.Logger
}

func (c Config) withDefaults() Config {
	if c.Scale == 0 {
		c.Scale = 1
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return c
}

// scaled is n of what a round does, at least 1.
func (c Config) scaled(n int) int { return max(1, int(float64(n)*c.Scale)) }

func (c Config) rounds(n int) int {
	if c.Rounds > 0 {
		return c.Rounds
	}
	return n
}

func (c Config) say(format string, args ...any) { _, _ = fmt.Fprintf(c.Progress, format+"\n", args...) }

// one is a bench: a section of the report.
type one struct {
	name string
	run  func(ctx context.Context, cfg Config) (*section, error)
}

var all = []one{
	{"ingest", ingestBench},
	{"processors", processorsBench},
	{"buckets", bucketsBench},
	{"crowd", crowdBench},
	{"plan", planBench},
	{"evaluation", evaluationBench},
	{"lanes", lanesBench},
	{"outbox", outboxBench},
	{"order", orderBench},
	{"unordered", unorderedBench},
	{"batches", batchesBench},
	{"programs", programsBench},
	{"isolation", isolationBench},
	{"limits", limitsBench},
	{"fanout", fanoutBench},
	{"backfill", backfillBench},
	{"latency", latencyBench},
	{"joins", joinsBench},
	{"timers", timersBench},
	{"filling", fillingBench},
	{"definitions", definitionsBench},
	{"journeys", journeysBench},
	{"steps", stepsBench},
	{"waits", waitsBench},
	{"sleeping", sleepingBench},
}

// Names lists the benches, in the order of the report.
func Names() []string {
	names := make([]string, len(all))
	for i, b := range all {
		names[i] = b.name
	}
	return names
}

// Run measures and writes the report. It returns an error when a bench could
// not be run; a figure below its target is in the report and is no error.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	chosen, err := choose(cfg.Names)
	if err != nil {
		return err
	}
	for _, b := range chosen {
		begun := time.Now()
		cfg.say("bench %s", b.name)
		s, err := b.run(ctx, cfg)
		if err != nil {
			return fmt.Errorf("bench %s: %w", b.name, err)
		}
		s.name, s.command, s.begun, s.took = b.name, cfg.Command, begun, time.Since(begun)
		s.printTo(cfg.Progress)
		if cfg.Out == "" {
			continue
		}
		if err := s.writeTo(filepath.Clean(cfg.Out)); err != nil {
			return fmt.Errorf("bench %s: %w", b.name, err)
		}
	}
	return nil
}

func choose(names []string) ([]one, error) {
	if len(names) == 0 || len(names) == 1 && names[0] == "all" {
		return all, nil
	}
	var chosen []one
	for _, name := range names {
		found := false
		for _, b := range all {
			if b.name == name {
				chosen, found = append(chosen, b), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no bench %q; there are %v", name, Names())
		}
	}
	return chosen, nil
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
)

type devCmd struct {
	hogstream.Config `embed:""`
	ShowLog          bool `name:"log" help:"Show log lines here, instead of writing them to hogstream.log in the data directory."`
}

// Run runs everything until Ctrl-C.
func (c *devCmd) Run(ctx context.Context, out *output) error {
	setGCPercent(devGCPercent, usualGCPercent)
	if !c.ShowLog && c.Log.File == "" {
		if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
			return err
		}
		c.Log.File = filepath.Join(c.DataDir, "hogstream.log")
		if err := startLog(c.Log.File); err != nil {
			return err
		}
	}
	c.Definitions.Dir = cmp.Or(c.Definitions.Dir, defaultDefinitions)
	if err := makeDefinitions(c.Definitions.Dir); err != nil {
		return fmt.Errorf("make definitions to begin with: %w", err)
	}
	told := tellSteps(stderr, stepEvery)
	defer told.done()
	mails := func() {}
	defer func() { mails() }()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	return untilStopped(ctx, hogstream.RunDev(ctx, c.Config, func(r *hogstream.Running) {
		told.done()
		_ = out.value(r, func(w io.Writer) { printReady(w, r, c) })
		if !out.JSON { // which is where the instance is, and nothing else
			mails = mailsShown(ctx, out.W, c.Config, r)
		}
	}, hogstream.WithProgress(told.step), hogstream.WithDefinitionsApplied(func(applied *definition.Outcome, err error) {
		c.tellApplied(out, applied, err)
	})))
}

// tellApplied says what came of a save in the directory of definitions.
func (c *devCmd) tellApplied(out *output, applied *definition.Outcome, err error) {
	if err != nil {
		fmt.Fprintf(stderr, "definitions are not applied: %v\n", err)
		return
	}
	to := out.W
	if out.JSON { // which is where the instance is, and nothing else
		to = stderr
	}
	printApplied(to, c.Definitions.Dir, applied)
	if err := c.tellTested(to); err != nil {
		fmt.Fprintf(stderr, "tests of definitions are not run: %v\n", err)
	}
}

// tellTested runs the tests beside the definitions, and says which fail. They say nothing of
// definitions that have faults, which are told already.
func (c *devCmd) tellTested(to io.Writer) error {
	files, err := load(c.Definitions.Dir, &c.Config)
	if err != nil || len(files.Faulty) > 0 {
		return err
	}
	tests, err := definition.LoadTests(files.Dir, files)
	if err != nil {
		return err
	}
	for _, f := range tests.Faults {
		fmt.Fprintf(to, "  FAULT    %s\n", f)
	}
	results, err := runTests(files, tests, &c.Config, nil)
	if err != nil {
		return err
	}
	for _, r := range results {
		if len(r.Failures) > 0 {
			printFailed(to, r)
		}
	}
	if len(results) > 0 {
		fmt.Fprintf(to, "  tests    %d passed, %d failed\n", len(results)-failures(results), failures(results))
	}
	return nil
}

// maxLog bounds what dev mode's log holds of runs before.
const maxLog = 16 << 20

// startLog puts a log aside that has become large.
func startLog(path string) error {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		return os.Rename(path, path+".1")
	}
	return nil
}

// stepEvery is how often a start that takes long says that it is still at it.
const stepEvery = 3 * time.Second

// steps tells a person what a start is doing, and that it still is.
type steps struct {
	to   io.Writer
	stop func()

	mu      sync.Mutex
	began   time.Time
	current string
}

// tellSteps tells the steps that it is given, and the last one again at each interval.
func tellSteps(to io.Writer, interval time.Duration) *steps {
	ctx, stop := context.WithCancel(context.Background())
	s := &steps{to: to, stop: stop, began: time.Now()}
	go func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				s.again()
			}
		}
	}()
	return s
}

func (s *steps) step(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = what
	fmt.Fprintf(s.to, "%s …\n", what)
}

func (s *steps) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != "" {
		fmt.Fprintf(s.to, "%s … (%.0f s)\n", s.current, time.Since(s.began).Seconds())
	}
}

// done says nothing from now on.
func (s *steps) done() {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = ""
}

// printReady says where everything is and what to do next.
func printReady(w io.Writer, r *hogstream.Running, c *devCmd) {
	logs := c.Log.File
	if logs == "" {
		logs = "here"
	}
	fmt.Fprintf(w, `
Hogstream is ready.

  API       %s   (docs %s/docs, metrics %s/metrics)
  Kafka     %s
  Registry  %s
  Postgres  %s
  Data      %s
  Buckets   %s   (applied at each save)
  Logs      %s
  API key   %s

Next, in another terminal, a receiver for what comes out:

  %s listen%s

Ctrl-C stops it; what it knows stays in %s.
`, r.URL, r.URL, r.URL, strings.Join(r.Brokers, ","), r.Registry, r.Database, c.DataDir, filepath.Join(c.Definitions.Dir, "buckets"), logs, r.APIKey, programName(), dataDirFlag(c.DataDir), c.DataDir)
}

package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/definitiontest"
)

type testCmd struct {
	Dir string         `arg:"" optional:"" help:"Directory of definitions; DEFINITIONS_DIR, or ./definitions, when not given."`
	Sel *regexp.Regexp `name:"run" placeholder:"REGEX" help:"Only cases whose file and name, as FILE: NAME, match."`
	infraFlags
}

// Run runs the tests of definitions and asks no server.
func (c *testCmd) Run(out *output) error {
	files, err := load(c.Dir, &c.Config)
	if err != nil {
		return err
	}
	tests, err := definition.LoadTests(files.Dir, files)
	if err != nil {
		return err
	}
	if faults := append(files.Faults(), tests.Faults...); len(faults) > 0 {
		return fmt.Errorf("%w\n%w: nothing was run", faults, faulty(len(faults)))
	}
	results, err := runTests(files, tests, &c.Config, c.Sel)
	if err != nil {
		return err
	}
	if c.Sel != nil && len(results) == 0 {
		return fmt.Errorf("--run: no case of %d matches %q", len(tests.Cases), c.Sel)
	}
	failed := failures(results)
	err = out.value(testedOf(files.Dir, results), func(w io.Writer) { printTested(w, files.Dir, results) })
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%s of %d failed", counted(failed, "case"), len(results)))
	}
	return err
}

// runTests runs the cases that match; nil matches all.
func runTests(files *definition.Files, tests *definition.Tests, cfg *hogstream.Config, match *regexp.Regexp) ([]definitiontest.Result, error) {
	zone, err := cfg.Zone()
	if err != nil {
		return nil, err
	}
	logic := definitiontest.Compile(files, cfg.DefinitionOptions(), zone)
	var results []definitiontest.Result
	for _, c := range tests.Cases {
		if match == nil || match.MatchString(c.File+": "+c.Name) {
			results = append(results, definitiontest.Run(logic, c))
		}
	}
	return results, nil
}

func failures(results []definitiontest.Result) (failed int) {
	for _, r := range results {
		if len(r.Failures) > 0 {
			failed++
		}
	}
	return failed
}

// tested is what came of tests as --json has it.
type tested struct {
	Dir    string       `json:"dir"`
	Passed int          `json:"passed"`
	Failed int          `json:"failed"`
	Cases  []testedCase `json:"cases"`
}

type testedCase struct {
	File     string          `json:"file"`
	Line     int             `json:"line"`
	Name     string          `json:"name"`
	OK       bool            `json:"ok"`
	Failures []testedFailure `json:"failures,omitempty"`
}

type testedFailure struct {
	File    string                 `json:"file"`
	Line    int                    `json:"line"`
	Column  int                    `json:"column"`
	At      time.Time              `json:"at"`
	Contact string                 `json:"contact,omitempty"`
	Bucket  string                 `json:"bucket,omitempty"`
	Message string                 `json:"message"`
	Why     *predicate.Explanation `json:"why,omitempty"`
}

func testedOf(dir string, results []definitiontest.Result) tested {
	out := tested{Dir: dir, Failed: failures(results), Cases: make([]testedCase, len(results))}
	out.Passed = len(results) - out.Failed
	for i, r := range results {
		c := testedCase{File: r.Case.File, Line: r.Case.Line, Name: r.Case.Name, OK: len(r.Failures) == 0}
		for _, f := range r.Failures {
			c.Failures = append(c.Failures, testedFailure{f.File, f.Line, f.Column, f.At, f.Contact, f.Bucket, f.Message, f.Why})
		}
		out.Cases[i] = c
	}
	return out
}

// printTested prints a line for each case, and what failed of it.
func printTested(w io.Writer, dir string, results []definitiontest.Result) {
	if len(results) == 0 {
		fmt.Fprintf(w, "%s: no tests; they are files *_test.yaml beside the definitions\n", dir)
		return
	}
	for _, r := range results {
		if len(r.Failures) == 0 {
			fmt.Fprintf(w, "ok    %s: %s (%s)\n", r.Case.File, r.Case.Name, r.Took.Round(10*time.Microsecond))
			continue
		}
		printFailed(w, r)
	}
	fmt.Fprintf(w, "%d passed, %d failed\n", len(results)-failures(results), failures(results))
}

func printFailed(w io.Writer, r definitiontest.Result) {
	fmt.Fprintf(w, "FAIL  %s: %s\n", r.Case.File, r.Case.Name)
	for _, f := range r.Failures {
		fmt.Fprintln(w, "      "+strings.ReplaceAll(f.String(), "\n", "\n      "))
	}
}

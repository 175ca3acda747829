package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/definitiontest"
)

// benchDefinitions is how many definitions there are, a file each.
const benchDefinitions = 1000

// definitionsBench measures the time for which somebody waits who checks and tests
// definitions: from the start of a process to its answer.
func definitionsBench(ctx context.Context, cfg Config) (_ *section, err error) {
	dir, err := os.MkdirTemp("", "hogstream-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	n := cfg.scaled(benchDefinitions)
	if err := writeDefinitions(dir, n); err != nil {
		return nil, err
	}
	b := &definitionsRun{dir: dir, n: n, took: map[string][]float64{}, used: map[string][]float64{}}
	const check, beside, run = "check", "check, with a test beside each", "run the tests"
	for range cfg.rounds(5) {
		if err := b.measure(ctx, check, "check", 0); err != nil {
			return nil, err
		}
	}
	if err := writeTests(dir, n); err != nil {
		return nil, err
	}
	for range cfg.rounds(5) {
		if err := errors.Join(b.measure(ctx, beside, "check", n), b.measure(ctx, run, "test", n)); err != nil {
			return nil, err
		}
	}
	s := &section{
		title: "Checking and testing definitions",
		about: fmt.Sprintf("%s buckets, a file each: counts, properties, sequences, members of other buckets, by hand; then a file with a test of one case "+
			"beside each. Measured is a process from its start to its answer, as with `hogstream check` and `hogstream test`.", thousands(float64(n))),
		figures: []figure{costFigure(check, "ms", b.took[check], 1000)},
	}
	for _, what := range []string{beside, run} {
		s.figures = append(s.figures, costFigure(what, "ms", b.took[what], 0))
	}
	for _, what := range []string{check, beside, run} {
		s.figures = append(s.figures, costFigure("CPU: "+what, "ms", b.used[what], 0))
	}
	return s, nil
}

// definitionsRun are the milliseconds that processes took, by what they did.
type definitionsRun struct {
	dir        string
	n          int
	took, used map[string][]float64
}

// measure has a process do something with the definitions, beside which there are so many
// cases.
func (b *definitionsRun) measure(ctx context.Context, what, part string, cases int) error {
	begun := time.Now()
	p, err := startPart(ctx, part, fmt.Sprintf("%q", b.dir))
	if err != nil {
		return err
	}
	took := time.Since(begun)
	p.close()
	if want := fmt.Sprintf("%d buckets, %d cases", b.n, cases); p.addr != want {
		return fmt.Errorf("%s said %q, not %q", part, p.addr, want)
	}
	cpu := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	b.took[what] = append(b.took[what], float64(took.Milliseconds()))
	b.used[what] = append(b.used[what], float64(cpu.Milliseconds()))
	return nil
}

// benchCriteria are those of every fifth bucket; the last kind has none. %[1]d is the
// number of the bucket, %[2]d that of an event, %[3]d that of the bucket before.
var benchCriteria = []string{
	`criteria: {type: event, eventName: event-%[2]d, check: count, operator: gte, value: 10, within: 7d}`,
	`criteria:
  type: composite
  operator: and
  conditions:
    - {type: property, property: plan, operator: eq, value: pro-%[1]d}
    - {type: event, eventName: event-%[2]d, check: exists, within: 30d}`,
	`criteria:
  type: composite
  operator: and
  conditions:
    - {type: event, eventName: cart-%[2]d, check: exists, within: 1d}
    - type: not
      condition:
        type: sequence
        first: {eventName: cart-%[2]d}
        then: {eventName: paid, where: {amount: {gt: %[1]d}}}
        occurrence: last
        lookback: 1d`,
	`maxDwell: 14d
criteria:
  type: composite
  operator: and
  conditions:
    - {type: bucket, bucketId: bucket-%[3]d}
    - {type: property, property: seats, operator: gt, value: %[1]d}`,
	`kind: manual
maxDwell: 30d`,
}

const benchCase = `buckets: [bucket-%[1]d]
cases:
  - name: the case of bucket %[1]d
    steps:
      - {event: event-%[2]d, times: 3, every: 1h, properties: {amount: 12.5}}
      - {properties: {plan: free, seats: 0}, after: 1h}
      - expect: {not: [bucket-%[1]d], facts: []}
      - advance: 40d
      - expect: {not: [bucket-%[1]d]}
`

func writeDefinitions(dir string, n int) error {
	if err := os.Mkdir(filepath.Join(dir, "buckets"), 0o755); err != nil {
		return err
	}
	for i := range n {
		criteria := fmt.Sprintf(benchCriteria[i%len(benchCriteria)]+"%[4]s", i, i%50, i-1, "\n")
		bucket := fmt.Sprintf("id: bucket-%[1]d\nname: Bucket %[1]d\ndescription: Of the bench.\nenabled: true\n%[2]s", i, criteria)
		if err := os.WriteFile(filepath.Join(dir, "buckets", fmt.Sprintf("bucket-%d.yaml", i)), []byte(bucket), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func writeTests(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, "buckets", fmt.Sprintf("bucket-%d_test.yaml", i)), fmt.Appendf(nil, benchCase, i, i%50), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// checkPart reads the definitions of a directory and their tests, as `hogstream check` does,
// and says how many there are.
func checkPart(args []string, stop <-chan struct{}, say func(string)) error {
	files, tests, _, err := loadDefinitions(args)
	if err != nil {
		return err
	}
	say(fmt.Sprintf("%d buckets, %d cases", len(files.Buckets), len(tests.Cases)))
	<-stop
	return nil
}

// testPart is checkPart, and runs the tests, as `hogstream test` does.
func testPart(args []string, stop <-chan struct{}, say func(string)) error {
	files, tests, opts, err := loadDefinitions(args)
	if err != nil {
		return err
	}
	logic := definitiontest.Compile(files, opts, nil)
	for _, c := range tests.Cases {
		if failed := definitiontest.Run(logic, c).Failures; len(failed) > 0 {
			return errors.New(failed[0].String())
		}
	}
	say(fmt.Sprintf("%d buckets, %d cases", len(files.Buckets), len(tests.Cases)))
	<-stop
	return nil
}

// loadDefinitions is of the directory that the part was given; a fault is an error.
func loadDefinitions(args []string) (*definition.Files, *definition.Tests, definition.Options, error) {
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	var dir string
	if err := decodeArgs(args, &dir); err != nil {
		return nil, nil, opts, err
	}
	files, err := definition.Load(dir, opts)
	if err != nil {
		return nil, nil, opts, err
	}
	tests, err := definition.LoadTests(dir, files)
	if err != nil {
		return nil, nil, opts, err
	}
	if faults := append(files.Faults(), tests.Faults...); len(faults) > 0 {
		return nil, nil, opts, faults
	}
	return files, tests, opts, nil
}

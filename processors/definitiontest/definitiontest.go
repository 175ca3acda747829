// Package definitiontest runs tests of definitions, which stand in files beside them.
//
// What it promises:
//
//   - Who is a member, and what is told, is what processor buckets says: its very logic runs,
//     in virtual time, and each timer at the instant at which it is due.
//   - It asks no server and no clock: the same files give the same result.
//   - Cases know nothing of each other.
//
// What processors identity and contacts do before, a test says itself: whose an event is,
// and who is merged into whom.
package definitiontest

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
)

// Result is what came of a case.
type Result struct {
	Case     definition.TestCase
	Failures []Failure // in the order of the steps; none when it passed
	Took     time.Duration
}

// Failure is an expectation that was not met, or a step that could not be done.
type Failure struct {
	File         string // as in faults
	Line, Column int
	At           time.Time     // of the step
	Since        time.Duration // since the case began
	Contact      string
	Bucket       string // whose membership was expected to be another; empty for the rest
	Message      string // what was expected, and what was; lines
	// Why is what the criteria of the bucket come to; nil without, or when it has none.
	Why *predicate.Explanation
}

// String is file:line:column: contact and time: message, and the tree of the criteria.
func (f Failure) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s:%d:%d: ", f.File, f.Line, f.Column)
	if f.Contact != "" {
		fmt.Fprintf(&out, "%s ", f.Contact)
	}
	fmt.Fprintf(&out, "at %s (%s after the case began): %s", f.At.Format(time.RFC3339Nano), sinceText(f.Since), f.Message)
	if f.Why != nil {
		for line := range strings.Lines(f.Why.String()) {
			out.WriteString("\n    " + strings.TrimRight(line, "\n"))
		}
	}
	return out.String()
}

// sinceText is a duration as a test writes it.
func sinceText(d time.Duration) string {
	days := d / (24 * time.Hour)
	rest := strings.TrimSuffix(strings.TrimSuffix((d%(24*time.Hour)).String(), "0s"), "0m")
	switch {
	case days == 0 && rest == "":
		return "0s"
	case days == 0:
		return rest
	}
	return fmt.Sprintf("%dd%s", days, rest)
}

// Run runs a case against the definitions of logic, all of which are in use from the
// beginning.
func Run(logic *buckets.Logic, c definition.TestCase) Result {
	began := time.Now()
	s := newStage(logic, c)
	for i := range c.Steps {
		if err := s.do(&c.Steps[i]); err != nil {
			s.fail(&c.Steps[i], "", "this step failed: "+err.Error())
			break
		}
	}
	return Result{Case: c, Failures: s.failures, Took: time.Since(began)}
}

// Compile makes the logic that Run needs of definitions without faults. zone is the
// deployment's; nil is UTC.
func Compile(files *definition.Files, opts definition.Options, zone *time.Location) *buckets.Logic {
	set := definition.Next(&definition.Set{}, files, opts)
	return buckets.Compile(set, buckets.Options{Limits: opts.Limits, Zone: zone})
}

// T is what Verify needs of a test: *testing.T is one.
type T[Self any] interface {
	Helper()
	Fatal(args ...any)
	Error(args ...any)
	Run(name string, f func(Self)) bool
}

// Verify runs all tests of a directory of definitions as subtests, with definitions that
// were built in Go beside those of its files, in UTC. Faults of any file fail t.
func Verify[Self T[Self]](t Self, from fs.FS, built ...definition.Bucket) {
	t.Helper()
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	files, err := definition.LoadFS(from, ".", opts)
	if err == nil && len(built) > 0 {
		files, err = files.With(definition.All(built), opts)
	}
	if err != nil {
		t.Fatal(err)
	}
	tests, err := definition.LoadTestsFS(from, ".", files)
	if err != nil {
		t.Fatal(err)
	}
	if faults := append(files.Faults(), tests.Faults...); len(faults) > 0 {
		t.Fatal(faults)
	}
	logic := Compile(files, opts, nil)
	for _, c := range tests.Cases {
		t.Run(c.File+": "+c.Name, func(t Self) {
			for _, f := range Run(logic, c).Failures {
				t.Error(f)
			}
		})
	}
}

package program_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/program"
)

func newWorkers(t *testing.T) *program.Workers {
	t.Helper()
	w, err := program.New(nil, nil)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// metric is the value of a metric of one series.
func metric(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			require.Len(t, f.GetMetric(), 1)
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

// run runs programs for one document.
func run(t *testing.T, src program.Source, document string) program.Result {
	t.Helper()
	p := newWorkers(t).Open("test", src)
	defer p.Close()
	results, err := p.Run(t.Context(), [][]byte{[]byte(document)})
	require.NoError(t, err)
	require.Len(t, results, 1)
	return results[0]
}

const document = `{"id":"msg_1","type":"event.tracked","data":{"event":"order.completed","properties":{"z":1,"big":9007199254740993,"secret":"sesame"}}}`

func TestAFilterDecidesByItsFirstOutput(t *testing.T) {
	for filter, keep := range map[string]bool{
		"true": true, "0": true, `.data.event == "order.completed"`: true, "true, false": true, `if true then . else halt end`: true,
		"false": false, "null": false, "empty": false, `.data.event == "x"`: false, "false, true": false,
	} {
		require.Equal(t, program.Result{Keep: keep}, run(t, program.Source{Filter: filter}, document), filter)
	}
}

func TestATransformMakesTheEnvelopeAndKeepsLargeNumbers(t *testing.T) {
	r := run(t, program.Source{Transform: `{type: "Order", data: {id: .data.properties.big, properties: {z: 2}}}`}, document)
	require.NoError(t, r.Err)
	require.Equal(t, &program.Shaped{
		Envelope: []byte(`{"data":{"id":9007199254740993,"properties":{"z":2}},"type":"Order"}`),
		Data:     []byte(`{"id":9007199254740993,"properties":{"z":2}}`), Properties: []byte(`{"z":2}`), Type: "Order",
	}, r.Shaped)
	for _, transform := range []string{"null", "empty"} {
		require.Equal(t, program.Result{}, run(t, program.Source{Transform: transform}, document))
	}
	require.Equal(t, program.Result{}, run(t, program.Source{Filter: "false", Transform: "error"}, document), "what the filter drops is not transformed")
}

func TestErrorsNameTheProgramAndQuoteNoValueOfTheRecord(t *testing.T) {
	for transform, want := range map[string]string{
		`error("no plan")`:                        "transform: it ended with error: no plan",
		`error(.data.properties.secret)`:          "transform: it ended with error",
		`.data.properties.secret + 1`:             "transform: cannot add: string",
		`.data.properties.secret | tonumber`:      "transform: tonumber cannot be applied to",
		`.data.properties.secret | fromjson`:      "transform: fromjson cannot be applied to",
		`.data.properties.secret | format(.)`:     "transform: format not defined",
		`.data.properties[.data.properties.big]`:  "transform: expected an array but got: object",
		`.[.data.properties.z]`:                   "transform: expected an array but got: object",
		`[1] | .[.[0] - 300000000] = 1`:           "transform: setpath failed",
		`halt`:                                    "transform: it ended with halt: use empty to leave a record out",
		`.data.properties | halt_error`:           "transform: it ended with halt: use empty to leave a record out",
		`[1]`:                                     "transform: its output is of type array: it must be an object",
		`{x: ("y" * 2000000)}`:                    "transform: its output has 2000008 bytes: at most 1048576 are allowed",
		`{x: reduce range(20000) as $i (0; [.])}`: "transform: its output is nested too deeply",
	} {
		r := run(t, program.Source{Transform: transform}, document)
		require.Error(t, r.Err, transform)
		require.NotErrorIs(t, r.Err, program.ErrSlow, transform)
		require.NotContains(t, r.Err.Error(), "sesame", transform)
		require.NotContains(t, r.Err.Error(), "9007199254740993", transform)
		require.Contains(t, r.Err.Error(), want, transform)
	}
	require.EqualError(t, run(t, program.Source{Filter: "."}, "{").Err, "payload is not JSON")
}

func TestAProgramThatCannotBeUsedIsRefusedWithItsFieldAndReason(t *testing.T) {
	w := newWorkers(t)
	require.NoError(t, w.Check(t.Context(), program.Source{}))
	require.NoError(t, w.Check(t.Context(), program.Source{Filter: ".x", Transform: "{}"}))
	for source, want := range map[string]string{
		".[":                              "is not jq: ",
		`import "a" as a; .`:              "is not jq: ",
		`include "a"; .`:                  "is not jq: ",
		"input":                           "is not jq: input(s)/0 is not allowed",
		"inputs":                          "is not jq: ",
		"debug":                           "is not jq: function not defined: debug/0",
		"stderr":                          "is not jq: function not defined: stderr/0",
		"input_filename":                  "is not jq: function not defined: input_filename/0",
		"$nobody":                         "is not jq: variable not defined: $nobody",
		strings.Repeat(" ", 16<<10) + ".": "has 16385 bytes: at most 16384 are allowed",
	} {
		for _, src := range []program.Source{{Filter: source}, {Filter: ".", Transform: source}} {
			field := "filter"
			if src.Transform != "" {
				field = "transform"
			}
			err := w.Check(t.Context(), src)
			var wrong *program.SourceError
			require.ErrorAs(t, err, &wrong, source)
			require.Equal(t, field, wrong.Field, source)
			require.Contains(t, wrong.Reason, want, source)
			_, err = w.Open("test", src).Run(t.Context(), [][]byte{[]byte(document)})
			require.ErrorAs(t, err, &wrong, source)
		}
	}
}

func TestAProgramSeesNothingOfTheProcessThatRunsIt(t *testing.T) {
	t.Setenv("HOG_SECRET", "sesame")
	t.Setenv("TZ", "Asia/Tokyo")
	r := run(t, program.Source{Transform: `{env: env, ENV: $ENV, zone: (0 | localtime | .[3])}`}, document)
	require.NoError(t, r.Err)
	require.JSONEq(t, `{"env":{},"ENV":{},"zone":0}`, string(r.Shaped.Envelope))
}

// hostile are programs that would stop a process, or keep it busy for ever, were they run
// within it. What is said of them is "" where it depends on the machine which limit comes
// first.
var hostile = map[string]string{
	`{x: ("x" * 1e9)}`:                                                  "",
	`.n as $n | {x: ("ab" * $n)}`:                                       "",
	`{x: [range(1e9)]}`:                                                 "",
	`null | setpath([range(2000000) | "a"]; 1)`:                         "",
	`null | setpath([range(300000) | "a"]; 1)`:                          "",
	`[range(300000) | "a"] as $p | null | setpath($p; 1) | getpath($p)`: "",
	`reduce range(60) as $i (1; [., .]) | {x: (. == (reduce range(60) as $i (1; [., .])))}`: "",
	`{x: reduce range(60) as $i ("x"; [., .])}`:                                             "",
	`{x: (.long | test("(((((a?){10}){10}){10})*)*b"))}`:                                    "",
	`{x: (.long | gsub("a"; "bb") | gsub("b"; "cc") | gsub("c"; "dd"))}`:                    "",
	`last(range(1e18))`:              "",
	`def f: f; f`:                    "",
	`def f: 1 + f; f`:                "",
	`{x: [limit(1e9; repeat("x"))]}`: "",
	`{a: []} | .a[500000000] = 1`:    "",
	`[range(60000)] as $l | {x: ($l - [range(60000; 120000)])}`:      "",
	`{x: (reduce range(200000) as $i (0; [.]) | tojson | fromjson)}`: "",
	`{x: ([range(20000) | [range(20000)]] | transpose)}`:             "",
	`[limit(100000; repeat(getpath(["long"])))] | add`:               "",
}

func TestAHostileProgramIsTheFaultOfItsRecordAndOfNothingElse(t *testing.T) {
	evil := []byte(`{"evil": true, "n": 300000000, "long": "` + strings.Repeat("a", 60_000) + `"}`)
	w := newWorkers(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for source, want := range hostile {
		t.Run(source, func(t *testing.T) {
			p := w.Open("test", program.Source{Transform: `if .evil then ` + source + ` else {id} end`})
			defer p.Close()
			var documents [][]byte
			for i := range 20 {
				documents = append(documents, fmt.Appendf(nil, `{"id":%d}`, i))
			}
			documents[7] = evil
			results, err := p.Run(t.Context(), documents)
			require.NoError(t, err)
			for i, r := range results {
				if i == 7 {
					require.ErrorContains(t, r.Err, "transform: ")
					require.ErrorContains(t, r.Err, want)
					continue
				}
				require.NoError(t, r.Err)
				require.Equal(t, fmt.Sprintf(`{"id":%d}`, i), string(r.Shaped.Envelope))
			}
		})
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20), "what they ask for is not taken here")
}

func TestEveryHostileRecordOfAMessageIsFound(t *testing.T) {
	reg := prometheus.NewRegistry()
	w, err := program.New(nil, reg)
	require.NoError(t, err)
	defer w.Close()
	p := w.Open("test", program.Source{Filter: `if .n % 10 == 3 then "x" * 1e9 else .n % 2 == 0 end`})
	var documents [][]byte
	for i := range 40 {
		documents = append(documents, fmt.Appendf(nil, `{"n":%d}`, i))
	}
	results, err := p.Run(t.Context(), documents)
	require.NoError(t, err)
	for i, r := range results {
		if i%10 == 3 {
			require.ErrorContains(t, r.Err, "filter: it", i) // Go under the race detector has other words for it
			require.NotErrorIs(t, r.Err, program.ErrSlow, i)
		} else {
			require.Equal(t, program.Result{Keep: i%2 == 0}, r, i)
		}
	}
	// Once in the message, and once more for each alone.
	require.InDelta(t, 5, metric(t, reg, "hogstream_program_worker_failures_total"), 0)
}

func TestAProgramThatIsNotDoneKeepsNobodyElseWaiting(t *testing.T) {
	w := newWorkers(t)
	busy := w.Open("busy", program.Source{Filter: "last(range(1e18))"})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = busy.Run(ctx, [][]byte{[]byte(`{}`)})
			}
		})
	}
	p := w.Open("other", program.Source{Filter: "true"})
	for range 100 {
		results, err := p.Run(t.Context(), [][]byte{[]byte(`{}`)})
		require.NoError(t, err)
		require.True(t, results[0].Keep)
	}
}

func TestACallEndsWithItsContext(t *testing.T) {
	p := newWorkers(t).Open("test", program.Source{Filter: "last(range(1e18))"})
	late, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Run(late, [][]byte{[]byte(`{}`), []byte(`{}`)})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	gone := errors.New("gone")
	ended, end := context.WithCancelCause(t.Context())
	end(gone)
	_, err = p.Run(ended, [][]byte{[]byte(`{}`)})
	require.ErrorIs(t, err, gone)
}

func TestCallersThatLeaveAtEveryMomentHarmNobody(t *testing.T) {
	p := newWorkers(t).Open("test", program.Source{Filter: ".keep", Transform: "{n}"})
	var wg sync.WaitGroup
	for caller := range 8 {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(uint64(caller), 1))
			memory := make([]byte, 0, 4096)
			for call := range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				if caller%2 == 0 {
					time.AfterFunc(time.Duration(dice.IntN(300))*time.Microsecond, cancel)
				}
				memory = memory[:0]
				var documents [][]byte
				for i := range 1 + dice.IntN(5) {
					begun := len(memory)
					memory = fmt.Appendf(memory, `{"n":"%d-%d-%d","keep":%t}`, caller, call, i, i%2 == 0)
					documents = append(documents, memory[begun:])
				}
				results, err := p.Run(ctx, documents)
				clear(memory[:cap(memory)]) // it is the caller's again
				cancel()
				if err != nil {
					if caller%2 != 0 || !errors.Is(err, context.Canceled) {
						t.Errorf("caller %d: %v", caller, err)
					}
					continue
				}
				for i, r := range results {
					want := fmt.Sprintf(`{"n":"%d-%d-%d"}`, caller, call, i)
					if r.Err != nil || r.Keep != (i%2 == 0) || r.Keep && string(r.Shaped.Envelope) != want {
						t.Errorf("caller %d: %+v instead of %s", caller, r, want)
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestClosedProgramsFinishWhatWaitsAndClosedWorkersDoNot(t *testing.T) {
	reg := prometheus.NewRegistry()
	w, err := program.New(nil, reg)
	require.NoError(t, err)
	p := w.Open("test", program.Source{Filter: "true"})
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			_, err := p.Run(context.Background(), [][]byte{[]byte(`{}`)})
			done <- err
		}()
	}
	p.Close()
	for range cap(done) {
		require.NoError(t, <-done)
	}
	require.Eventually(t, func() bool { return metric(t, reg, "hogstream_program_workers") == 0 }, 20*time.Second, time.Millisecond, "a worker that nobody needs ends")

	busy := w.Open("busy", program.Source{Filter: "last(range(1e18))"})
	go func() {
		for {
			if _, err := busy.Run(context.Background(), [][]byte{[]byte(`{}`), []byte(`{}`), []byte(`{}`)}); err != nil {
				done <- err
				return
			}
		}
	}()
	w.Close()
	require.ErrorContains(t, <-done, "have stopped")
	_, err = p.Run(t.Context(), [][]byte{[]byte(`{}`)})
	require.ErrorContains(t, err, "have stopped")
}

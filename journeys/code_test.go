package journeys_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
)

// coded is a journey of code that begins with start.
func coded(version string, code func(*journeys.Run) error) journeys.Journey {
	j := journeys.Define("j", version, code)
	j.Trigger.Records = []journeys.Match{{Event: "start"}}
	j.EntryLimit = journeys.EntryUnlimited
	return j
}

func codeStage(t testing.TB, list ...journeys.Journey) *stage {
	t.Helper()
	s := &stage{t: t, contact: someone, now: monday}
	s.code(list[len(list)-1], list[:len(list)-1]...)
	return s
}

// code puts a journey of code in use, as it comes from where definitions are stored.
func (s *stage) code(current journeys.Journey, older ...journeys.Journey) {
	s.t.Helper()
	compiled := func(j journeys.Journey) *journeys.Program {
		require.NoError(s.t, j.Check())
		var stored journeys.Journey
		require.NoError(s.t, json.Unmarshal([]byte(j.Canonical()), &stored))
		_, err := journeys.Compile(stored, journeys.Options{})
		require.ErrorContains(s.t, err, "is not in this program")
		p, err := journeys.Compile(stored, journeys.Options{Coded: append(older, current)})
		require.NoError(s.t, err)
		return p
	}
	var old []*journeys.Program
	for _, j := range older {
		old = append(old, compiled(j))
	}
	s.use([]journeys.InUse{{Program: compiled(current)}}, old)
}

const trial = `
id: j
name: J
enabled: true
trigger: {event: start}
entryLimit: unlimited
key: k
exitOn: [{event: gone, where: {k: {run: key}}}]
steps:
  - {id: hello, email: {template: hello, props: {plan: {trigger: plan}}}}
  - {id: night, wait: {after: 1h, window: 09:00-17:00}}
  - id: first
    waitFor: {any: [{event: paid, where: {k: {run: key}}}, {condition: {type: property, property: plan, operator: eq, value: pro}}], timeout: 2d}
    then: {timeout: [{id: late, set: {late: true}}], paid: [{id: thanks, trigger: {event: thanked, properties: {amount: {last: amount}}}}]}
  - {id: ends, waitUntil: {property: date, shift: -1d}}
  - {id: ask, call: {destination: crm, timeout: 1m, failed: continue}}
  - {id: half, split: [{percent: 50, as: a}, {percent: 50, as: b}]}
  - {id: in, bucket: {add: vip}}
`

func trialCode(r *journeys.Run) error {
	var trigger struct{ Plan any }
	if err := json.Unmarshal([]byte(r.Trigger), &trigger); err != nil {
		return err
	}
	r.Email("hello", journeys.Email{Template: "hello", Props: new(journeys.Literal(map[string]any{"plan": trigger.Plan}))})
	r.Wait("night", schedule.Until{After: time.Hour, Window: schedule.Window{From: schedule.Clock(9, 0), To: schedule.Clock(17, 0)}})
	came, with := r.WaitFor("first", journeys.WaitFor{
		Any: []journeys.Alternative{
			{Match: journeys.Match{Event: "paid", Same: []journeys.Same{{Property: "k", Value: journeys.RunKey()}}}},
			{Condition: predicate.Prop("plan").Eq("pro")},
		},
		Timeout: 48 * time.Hour,
	})
	switch came {
	case "timeout":
		r.Set("late", map[string]any{"late": true})
	case "paid":
		var paid struct{ Amount any }
		if err := json.Unmarshal([]byte(with), &paid); err != nil {
			return err
		}
		r.Send("thanks", journeys.Event{Name: "thanked", Properties: new(journeys.Literal(map[string]any{"amount": paid.Amount}))})
	}
	r.WaitUntil("ends", journeys.WaitUntil{Property: predicate.Path{"date"}, Shift: -24 * time.Hour})
	r.Call("ask", journeys.Call{Destination: "crm", Timeout: time.Minute})
	r.Split("half", journeys.Share{As: "a", Percent: 50}, journeys.Share{As: "b", Percent: 50})
	r.Bucket("in", journeys.Membership{Add: "vip"})
	return nil
}

// The same journey in YAML and in Go gives the same story and does the same, whatever
// happens; each step of the machine begins with bytes, so all of the code is replayed.
func TestAJourneyInGoIsThatInYAML(t *testing.T) {
	code := journeys.Define("j", "1", trialCode)
	code.Name, code.EntryLimit, code.Key = "J", journeys.EntryUnlimited, predicate.Path{"k"}
	code.Trigger.Records = []journeys.Match{{Event: "start"}}
	code.ExitOn = []journeys.Exit{{Match: journeys.Match{Event: "gone", Same: []journeys.Same{{Property: "k", Value: journeys.RunKey()}}}}}
	code.Reads = []predicate.Path{{"date"}}
	code.Conditions = map[string]predicate.Condition{"pro": predicate.Prop("plan").Eq("pro")}
	for name, play := range map[string]func(s *stage){
		"paid": func(s *stage) {
			s.pass(30 * time.Hour)
			s.event("paid", `{"k":2,"amount":7}`)
			s.event("paid", `{"k":1,"amount":5}`)
		},
		"late": func(s *stage) {},
		"gone": func(s *stage) { s.pass(time.Hour); s.event("gone", `{"k":1}`) },
		"pro":  func(s *stage) { s.pass(25 * time.Hour); s.properties(`{"plan":"pro","date":"2026-03-20"}`) },
		"answered": func(s *stage) {
			s.properties(`{"plan":"pro","date":"2026-03-01"}`)
			s.pass(2 * day)
			s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptAccepted, `{"a":1}`)
		},
		"skipped": func(s *stage) { s.command(journeys.Command{What: journeys.CommandSkip, Run: s.s.Runs()[0].ID}) },
		"another": func(s *stage) { s.event("start", `{"k":2,"plan":"free"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			yaml, golang := newStage(t, trial), codeStage(t, code)
			for _, s := range []*stage{yaml, golang} {
				s.event("start", `{"k":1,"plan":"trial"}`)
				play(s)
				s.pass(5 * day)
				s.properties(`{"date":"2026-04-01T12:00:00Z"}`)
				s.pass(90 * day)
			}
			require.Equal(t, yaml.story(), golang.story())
			require.Len(t, golang.effects, len(yaml.effects))
			for i := range yaml.effects {
				a, b := yaml.effects[i], golang.effects[i]
				if f, is := a.(*schemas.Fact); is {
					f.Journey.Version, b.(*schemas.Fact).Journey.Version = nil, nil
				}
				require.Equal(t, a, b)
			}
			require.Equal(t, yaml.cancels, golang.cancels)
		})
	}
}

// Code asks conditions, and ends its run with a reason or with an error.
func TestCodeEndsItsRun(t *testing.T) {
	j := coded("1", func(r *journeys.Run) error {
		if r.Holds("is pro", "pro") {
			return r.Exit("is pro")
		}
		if answer, accepted := r.Call("ask", journeys.Call{Destination: "crm"}); !accepted {
			return fmt.Errorf("crm said %s", answer)
		}
		r.Set("done", map[string]any{"done": r.Entry})
		return nil
	})
	j.Conditions = map[string]predicate.Condition{"pro": predicate.Prop("plan").Eq("pro")}
	s := codeStage(t, j)
	s.event("start", `{}`)
	s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptRefused, `no`)
	s.tells("started", "step is pro else", "step ask failed", `failed crm said {"body":"no","result":"refused","status":200}`)
	run := s.s.Runs()[0]
	require.True(t, run.Failed)
	s.effects = nil
	s.command(journeys.Command{What: journeys.CommandRetry, Run: run.ID, FromStart: true})
	s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptAccepted, `{}`)
	s.tells("step is pro retried", "step is pro else", "step ask accepted", "step done next", "completed")
	require.JSONEq(t, `{"done":1}`, *sent[*schemas.Input](s)[0].ContactProperties)
	s.effects = nil
	s.properties(`{"plan":"pro"}`)
	s.event("start", `{}`)
	s.tells("started", "step is pro pro", "exited is pro")
}

// Code that asks for another step than before stops its run, which says both; other runs go
// on, and the run goes on when the code is mended.
func TestChangedCodeStopsTheRunThatItDoesNotFit(t *testing.T) {
	good := func(r *journeys.Run) error {
		r.Wait("a day", schedule.Until{After: day})
		r.Email("hello", journeys.Email{Template: "hello"})
		r.Wait("another", schedule.Until{After: day})
		return nil
	}
	for name, c := range map[string]struct {
		code func(*journeys.Run) error
		want string
	}{
		"another step": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Email("hi", journeys.Email{Template: "hello"})
			return nil
		}, `the code is not as it was: the journal has email "hello" {"template":"hello"}, and the code asks for email "hi" {"template":"hello"}`},
		"another input": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Email("hello", journeys.Email{Template: "hi"})
			return nil
		}, `the journal has email "hello" {"template":"hello"}, and the code asks for email "hello" {"template":"hi"}`},
		"another wait": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Email("hello", journeys.Email{Template: "hello"})
			r.Email("another", journeys.Email{Template: "another"})
			return nil
		}, `the run is at wait "another" {"after":"24h0m0s"}, and the code asks for email "another" {"template":"another"}`},
		"no wait": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Email("hello", journeys.Email{Template: "hello"})
			return nil
		}, `the run is at wait "another" {"after":"24h0m0s"}, and the code returns`},
		"less": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			return nil
		}, `, and the code returns`},
		"a panic": {func(r *journeys.Run) error { panic("at the disco") }, "the code panics: at the disco"},
		"twice": {func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Wait("a day", schedule.Until{After: day})
			return nil
		}, `two steps are called "a day"`},
		"no name": {func(r *journeys.Run) error {
			r.Wait("", schedule.Until{After: day})
			return nil
		}, `a step wait has no name`},
	} {
		t.Run(name, func(t *testing.T) {
			s := codeStage(t, coded("1", good))
			s.event("start", `{}`)
			s.pass(36 * time.Hour)
			s.tells("started", "step a day next", "step hello next")
			require.Equal(t, "another", s.s.Runs()[0].Step)
			s.code(coded("1", c.code))
			s.pass(2 * day)
			require.Contains(t, s.story(), "failed another")
			require.Contains(t, s.story(), c.want)
			s.code(coded("1", good))
			s.effects = nil
			s.command(journeys.Command{What: journeys.CommandRetry, Run: s.s.Runs()[0].ID})
			s.pass(2 * day)
			s.tells("step another retried", "step another next", "completed")
		})
	}
}

// A run belongs to the version of its code, and goes on with it as long as it is there.
func TestARunGoesOnWithTheCodeThatItBegan(t *testing.T) {
	wait := func(template string) func(*journeys.Run) error {
		return func(r *journeys.Run) error {
			r.Wait("a day", schedule.Until{After: day})
			r.Email("mail", journeys.Email{Template: template})
			return nil
		}
	}
	one, two := coded("1", wait("one")), coded("2", wait("two"))
	s := codeStage(t, one)
	s.event("start", `{}`)
	s.code(two, one)
	s.refill(`{}`)
	s.event("start", `{}`)
	s.pass(2 * day)
	s.event("start", `{}`)
	s.pass(2 * day)
	mails := sent[*schemas.EmailRequest](s)
	require.Equal(t, "one", mails[0].Template)
	require.Equal(t, "two", mails[1].Template)
}

// What code asks for that cannot be is an error of its run.
func TestCodeAsksForWhatCanBe(t *testing.T) {
	for want, step := range map[string]func(*journeys.Run){
		"is not among the journey's Conditions": func(r *journeys.Run) { r.Holds("h", "unknown") },
		"is not among the journey's Reads":      func(r *journeys.Run) { r.WaitUntil("w", journeys.WaitUntil{Property: predicate.Path{"date"}}) },
		`a lookback of 1h0m0s at "a" is not among the journey's Lookbacks`: func(r *journeys.Run) {
			r.WaitFor("w", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "a"}}}, Timeout: time.Hour, Lookback: time.Hour})
		},
		"condition\" is not among the journey's": func(r *journeys.Run) {
			r.WaitFor("w", journeys.WaitFor{Any: []journeys.Alternative{{Condition: predicate.HasEmail()}}, Timeout: time.Hour})
		},
		"timeout: is missing": func(r *journeys.Run) {
			r.WaitFor("w", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "a"}}}})
		},
		"template: is missing": func(r *journeys.Run) { r.Email("e", journeys.Email{}) },
		"journal_full": func(r *journeys.Run) {
			for i := range 4000 {
				r.Set(fmt.Sprintf("step number %d of a great many", i), map[string]any{"i": i})
			}
		},
	} {
		s := codeStage(t, coded("1", func(r *journeys.Run) error { step(r); return errors.New("not here") }))
		s.event("start", `{}`)
		failed := s.story()[strings.LastIndex(s.story(), "\n")+1:]
		require.Contains(t, failed, "failed", want)
		require.Contains(t, failed, want)
	}
	j := coded("", func(*journeys.Run) error { return nil })
	j.Steps = []journeys.Step{{Exit: "x"}}
	require.ErrorContains(t, j.Check(), "steps: are code: leave them out")
	j.Steps = nil
	require.ErrorContains(t, j.Check(), "version: is missing: write one that changes with the code")
	_, err := journeys.ParseYAML("j.yaml", []byte(coded("1", nil).Canonical()))
	require.ErrorContains(t, err, "coded: is for journeys that are built in Go")
}

// Also a record, an answer or a hand that ends the wait finds that the code asks for another.
func TestCodeThatWasChangedIsFoundOutByWhateverEndsTheWait(t *testing.T) {
	wait := func(r *journeys.Run) error {
		r.WaitFor("paid", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "paid"}}}, Timeout: day})
		return nil
	}
	call := func(r *journeys.Run) error {
		r.Call("ask", journeys.Call{Destination: "crm"})
		return nil
	}
	for name, c := range map[string]struct {
		begun func(*journeys.Run) error
		end   func(s *stage)
		at    string
	}{
		"record": {wait, func(s *stage) { s.event("paid", `{}`) }, `waitFor "paid"`},
		"hand":   {wait, func(s *stage) { s.command(journeys.Command{What: journeys.CommandSkip, Run: s.s.Runs()[0].ID}) }, `waitFor "paid"`},
		"answer": {call, func(s *stage) { s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptAccepted, `{}`) }, `call "ask"`},
	} {
		t.Run(name, func(t *testing.T) {
			s := codeStage(t, coded("1", c.begun))
			s.event("start", `{}`)
			s.code(coded("1", func(r *journeys.Run) error { r.Email("hello", journeys.Email{Template: "hello"}); return nil }))
			c.end(s)
			require.Contains(t, s.story(), "the code is not as it was: the run is at "+c.at)
			require.Contains(t, s.story(), `and the code asks for email "hello" {"template":"hello"}`)
			require.Empty(t, sent[*schemas.EmailRequest](s))
		})
	}
}

// Code looks back as a journey in a file does: at what came before the wait, but not at what
// began the run, and as far as the wait says.
func TestCodeLooksBackAsAFileDoes(t *testing.T) {
	waits := `
key: k
steps:
  - {id: a while, wait: 30m}
  - {id: paid, waitFor: {any: [{event: paid, where: {k: {run: key}}}], timeout: 1d, lookback: 1h}}
  - {id: again, waitFor: {any: [{event: paid}, {event: start}], timeout: 1d, lookback: 10m}}
`
	code := coded("1", func(r *journeys.Run) error {
		r.Wait("a while", schedule.Until{After: 30 * time.Minute})
		_, with := r.WaitFor("paid", journeys.WaitFor{
			Any:     []journeys.Alternative{{Match: journeys.Match{Event: "paid", Same: []journeys.Same{{Property: "k", Value: journeys.RunKey()}}}}},
			Timeout: day, Lookback: time.Hour,
		})
		require.JSONEq(t, `{"k":1}`, with)
		r.WaitFor("again", journeys.WaitFor{
			Any:     []journeys.Alternative{{Match: journeys.Match{Event: "paid"}}, {Match: journeys.Match{Event: "start"}}},
			Timeout: day, Lookback: 10 * time.Minute,
		})
		return nil
	})
	code.Key = predicate.Path{"k"}
	code.Lookbacks = []journeys.Lookback{
		{Match: journeys.Match{Event: "paid"}, For: time.Hour, Keep: []predicate.Path{{"k"}}},
		{Match: journeys.Match{Event: "start"}, For: time.Hour},
	}
	for name, s := range map[string]*stage{"file": newStage(t, steps(waits)), "code": codeStage(t, code)} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.event("paid", `{"k":1,"amount":5}`)
			s.pass(20 * time.Minute)
			s.event("start", `{"k":1}`)
			s.pass(22 * time.Minute)
			s.event("paid", `{"k":2}`)
			s.pass(time.Hour)
			s.tells("started 1", "step 1 a while next", "step 1 paid paid", "step 1 again paid", "completed 1")
		})
	}
	code.Lookbacks[0].Keep = nil
	s := codeStage(t, code)
	s.event("start", `{"k":1}`)
	s.pass(time.Hour)
	require.Contains(t, s.story(), `the property k of "paid" is compared and looked back at: add it to Keep of its Lookback`)
	code.Lookbacks[0].For = 31 * day
	code.Lookbacks[1].Match.Same = []journeys.Same{{Property: "k", Value: journeys.RunKey()}}
	require.ErrorContains(t, code.Check(), "lookbacks[0].for: is 744h0m0s: write up to 30d, for which events are kept")
	require.ErrorContains(t, code.Check(), "lookbacks[1]: compares with values of a run")
}

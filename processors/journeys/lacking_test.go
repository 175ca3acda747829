package journeys_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// deployed puts a journey of code in use that asks how often somebody looked, and is what two
// processes make of it, of which one has the code.
func deployed(s *stage) (here, away *journeys.Logic) {
	s.t.Helper()
	condition, err := predicate.ParseYAML("test.yaml", []byte("{type: event, eventName: looked, check: count, operator: gte, value: 2}"))
	require.NoError(s.t, err)
	code := machine.Define("code", "1", func(r *machine.Run) error {
		if r.Holds("often", "often") {
			r.Email("mail", machine.Email{Template: "hello"})
		}
		return nil
	})
	code.Trigger.Records = []machine.Match{{Event: "go"}}
	code.Conditions = map[string]predicate.Condition{"often": condition}
	var stored machine.Journey
	require.NoError(s.t, json.Unmarshal([]byte(code.Canonical()), &stored))
	s.set.Version++
	s.set.Journeys = append(s.set.Journeys, definition.JourneyInUse{
		Journey: definition.Journey{Journey: stored}, InUse: definition.InUse{Revision: s.set.Version, Declared: true},
	})
	here = journeys.Compile(&s.set, s.kept, journeys.Options{Limits: predicate.DefaultLimits(), Coded: []machine.Journey{code}})
	require.Empty(s.t, here.Failing())
	return here, journeys.Compile(&s.set, s.kept, journeys.Options{Limits: predicate.DefaultLimits()})
}

// What code asks of a contact is not kept up where it is not: whoever was stepped there is
// filled again, with what came meanwhile.
func TestWhoWasSteppedWithoutTheCodeIsFilledWhereItIs(t *testing.T) {
	s := newStage(t)
	here, away := deployed(s)
	s.logic = here
	s.refill()
	s.event("looked")
	require.GreaterOrEqual(t, here.VersionOf(s.state), here.Version())
	s.logic = away
	require.GreaterOrEqual(t, away.VersionOf(s.state), away.Version(), "nobody is filled with what is not here")
	s.event("looked")
	s.logic = here
	require.Less(t, here.VersionOf(s.state), here.Version())
	s.event("go")
	s.says("started code")
	s.refill()
	s.says("step code often often", "step code mail next", "completed code")
}

// A record waits for as long as a deploy may take, and is looked at ever more seldom.
func TestARecordWaitsForAsLongAsADeployMayTake(t *testing.T) {
	s := newStage(t)
	_, away := deployed(s)
	l := journeys.Lacking(away, start)
	lacks := func(after time.Duration, name string) time.Duration {
		again := l.Lacks(s.state, &derive.Record[journeys.State]{Event: &schemas.Event{Name: name}}, start.Add(after))
		if again.IsZero() {
			return 0
		}
		return again.Sub(start.Add(after))
	}
	require.Equal(t, 30*time.Second, lacks(0, "go"))
	require.Equal(t, 5*time.Minute, lacks(10*time.Minute, "go"))
	require.Zero(t, lacks(0, "looked"))
	require.Zero(t, lacks(time.Hour, "go"))
	s.logic = away
	s.event("go")
	s.says("skipped code code_missing")
	garbage := &derive.Record[journeys.State]{Command: &derive.Command{What: machine.CommandEnroll, JSON: "{"}}
	require.Zero(t, l.Lacks(s.state, garbage, start), "the step says what is wrong with it")
}

// A journey whose conditions this process cannot compile is left out, as if it was removed: it
// is no code that is elsewhere.
func TestAJourneyThatFailsOtherwiseIsLeftOut(t *testing.T) {
	s := newStage(t)
	def, err := machine.ParseYAML("test.yaml", []byte(written("long", "trigger: {event: go}\nsteps: [{branch: [{when: {type: event, eventName: looked, check: exists, within: 900d}, do: [{wait: 1d}]}]}]")))
	require.NoError(t, err)
	s.set.Version++
	s.set.Journeys = append(s.set.Journeys, definition.JourneyInUse{
		Journey: definition.Journey{Journey: def}, InUse: definition.InUse{Revision: s.set.Version, Declared: true},
	})
	limits := predicate.DefaultLimits()
	limits.Retention = 24 * time.Hour
	s.logic = journeys.Compile(&s.set, nil, journeys.Options{Limits: limits})
	require.Contains(t, s.logic.Failing(), "long")
	s.event("go")
	s.says()
}

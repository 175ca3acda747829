package journeys_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/processors/journeys"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

const day = 24 * time.Hour

func written(id, rest string) string {
	return "id: " + id + "\nname: " + id + "\nenabled: true\nentryLimit: unlimited\n" + rest
}

const branching = `
trigger: {event: start}
steps:
  - branch:
      - {as: member, when: {type: bucket, bucketId: vip}, do: [{email: {template: vip}}]}
      - {as: active, when: {type: event, eventName: looked, check: count, operator: gte, value: 2, within: 1d}, do: [{email: {template: active}}]}
      - {as: pro, when: {type: property, property: plan, operator: eq, value: pro}, do: [{email: {template: pro}}]}
  - wait: 1h
`

func TestStepsKnowEventsPropertiesAndMembershipsOfTheContact(t *testing.T) {
	s := newStage(t, written("b", branching))
	s.event("looked")
	s.event("start")
	s.says("started b", "step b branch-0 else")
	s.after(time.Hour)
	s.says("step b wait-1 next", "completed b")
	s.event("looked")
	s.event("start")
	s.says("started b", "step b branch-0 active", "step b branch-0.active.email-0 next")
	s.after(2 * day)
	s.updated(`{"plan":"pro"}`)
	s.told = nil
	s.event("start")
	s.says("started b", "step b branch-0 pro", "step b branch-0.pro.email-0 next")
	s.after(day)
	s.transition("", "vip", "entered", 1)
	s.told = nil
	s.event("start")
	s.says("started b", "step b branch-0 member", "step b branch-0.member.email-0 next")
	s.after(day)
	s.transition("", "vip", "left", 1)
	s.transition("", "vip", "entered", 1) // read again after it had been written
	s.told = nil
	require.Len(t, s.effects, 3)
	require.Equal(t, "vip", s.effects[2].(*schemas.EmailRequest).Template)
}

func TestNothingIsWrittenOfARecordThatNobodyLooksAt(t *testing.T) {
	s := newStage(t, written("b", branching))
	for _, name := range []string{"other", "another"} {
		r := &derive.Record[journeys.State]{ID: s.identifier(), ContactID: s.id, Event: &schemas.Event{ID: s.identifier(), ContactID: s.id, Name: name, Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}}
		result, err := s.logic.Step(s.state, r, s.now)
		require.NoError(t, err)
		require.True(t, result.Same)
	}
	require.False(t, s.logic.Wants(schemas.FactJourneyCompleted), "it is our own")
	require.False(t, s.logic.Wants(schemas.FactEmailOpened))
	require.True(t, s.logic.Wants(schemas.FactBucketEntered))
	require.False(t, newStage(t).logic.Wants(schemas.FactBucketEntered), "there is no journey")
}

// The sender of an event who waits is answered, whoever looks at it; another is not.
func TestASenderWhoWaitsIsAnsweredWhatAnEventDidToRuns(t *testing.T) {
	s := newStage(t, written("b", "trigger: {event: start}\nexitOn: [{event: paid}]\nsteps: [{wait: 1d}]\n"))
	answer := func(name string, wait bool) *storage.Answer {
		t.Helper()
		e := &schemas.Event{ID: s.identifier(), ContactID: s.id, Name: name, Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now, Wait: wait}
		result, err := s.logic.Step(s.state, &derive.Record[journeys.State]{ID: e.ID, ContactID: s.id, Event: e}, s.now)
		s.accept(result, err)
		if result.Answer != nil {
			require.Equal(t, schemas.ExitsID(e.ID), result.Answer.InputID)
		}
		return result.Answer
	}
	says := func(a *storage.Answer, exits string) {
		t.Helper()
		require.NotNil(t, a)
		require.JSONEq(t, `{"id":"`+s.id+`","exits":`+exits+`}`, string(a.JSON))
	}
	says(answer("start", true), `[]`)
	run := s.state.Runs()[0].ID
	says(answer("other", true), `[{"journeyId":"b","stateId":"`+run+`","exited":false}]`)
	require.Nil(t, answer("other", false))
	says(answer("paid", true), `[{"journeyId":"b","stateId":"`+run+`","exited":true}]`)
	says(answer("paid", true), `[]`)
}

// A contact to whom a new definition has not come yet begins the journey, and stands at the
// first step until all is known that its conditions ask for.
func TestWhoIsNotFilledYetBeginsAndGoesOnWhenFilled(t *testing.T) {
	s := newStage(t)
	s.event("looked")
	s.event("looked")
	s.row.Properties = `{"plan":"pro"}` // nobody looked at it
	s.use(written("b", branching))
	s.event("start")
	s.says("started b")
	s.after(time.Minute)
	s.refill()
	s.after(0)
	s.says("step b branch-0 active", "step b branch-0.active.email-0 next")
	s.after(2 * time.Hour)
	s.says("step b wait-1 next", "completed b")
}

func TestMembershipsFromBeforeAreTakenOver(t *testing.T) {
	s := newStageOf(t, "ann", written("b", branching))
	s.beside = &storage.Beside{Buckets: map[string]int64{"vip": 3}, Unsubscribed: true}
	s.state, s.timers = s.logic.TakeOver(journeys.State{}, &derive.Known{Contact: &s.row, Beside: s.beside}, s.now)
	s.event("start")
	s.says("skipped b user_unsubscribed")
	s.use(written("b", "subscribed: false"+branching))
	s.refill()
	s.event("start")
	s.says("started b", "step b branch-0 member", "step b branch-0.member.email-0 next")
}

const waiting = "trigger: {event: start}\nexitOn: [{leftBucket: keen}]\nsteps: [{wait: 1d}, {email: {template: one}}]\n"

// J5: what becomes of live runs when the journey is changed or removed, the journey says.
func TestARunBelongsToItsVersionOrExitsWithIt(t *testing.T) {
	changed := "trigger: {event: start}\nsteps: [{wait: 2d}, {email: {template: two}}]\n"
	t.Run("finish", func(t *testing.T) {
		s := newStage(t, written("b", waiting))
		s.event("start")
		s.use(written("b", changed))
		s.refill()
		s.event("start")
		s.after(day)
		s.says("started b", "skipped b already_active", "step b wait-0 next", "step b email-1 next", "completed b")
		require.Equal(t, "one", s.effects[0].(*schemas.EmailRequest).Template)
		s.event("start")
		s.after(2 * day)
		require.Equal(t, "two", s.effects[1].(*schemas.EmailRequest).Template)
	})
	t.Run("exit", func(t *testing.T) {
		s := newStage(t, written("b", waiting))
		s.event("start")
		s.use(written("b", "onChange: exit\n"+changed))
		s.refill()
		s.says("started b", "exited b wait-0 definition_changed")
	})
	t.Run("removed", func(t *testing.T) {
		s := newStage(t, written("b", "onChange: exit\n"+waiting), written("c", waiting))
		s.event("start")
		s.use()
		s.refill()
		s.says("started b", "started c", "exited b wait-0 definition_changed")
		s.after(day)
		s.says("step c wait-0 next", "step c email-1 next", "completed c")
	})
	t.Run("only the name", func(t *testing.T) {
		s := newStage(t, written("b", "onChange: exit\n"+waiting))
		s.event("start")
		s.use(written("b", "description: new\nonChange: exit\n"+waiting))
		s.refill()
		s.says("started b")
	})
}

func TestAPausedJourneyEnrolsNobodyAndItsRunsGoOnWhenItIsResumed(t *testing.T) {
	s := newStage(t, written("b", waiting))
	s.event("start")
	s.useWith(func(j *definition.JourneyInUse) { j.Paused = true }, written("b", waiting))
	s.refill()
	s.event("start")
	s.after(3 * day)
	s.says("started b", "skipped b journey_paused")
	s.use(written("b", waiting))
	s.refill()
	s.after(0)
	s.says("step b wait-0 next", "step b email-1 next", "completed b")
}

func TestAJourneyThatIsSwitchedOffSaysByWhom(t *testing.T) {
	s := newStage(t)
	off := false
	s.useWith(func(j *definition.JourneyInUse) { j.Enabled, j.Switched = false, &off }, written("b", waiting))
	s.refill()
	s.event("start")
	s.says("skipped b journey_disabled_by_admin")
	s.useWith(func(j *definition.JourneyInUse) { j.Enabled, j.Declared = false, false }, written("b", waiting))
	s.refill()
	s.event("start")
	s.says("skipped b journey_disabled")
}

// Of two runs of one journey and key one goes on; and what is said of the buckets of a
// contact that is no more ends none of the survivor's runs.
func TestASurvivorGoesOnWithTheRunsOfBoth(t *testing.T) {
	texts := []string{written("b", waiting), written("c", "trigger: {event: other}\nkey: cart\n"+waiting[len("trigger: {event: start}\n"):])}
	ann, bob := newStageOf(t, "ann", texts...), newStageOf(t, "bob", texts...)
	ann.updated(`{}`)
	bob.updated(`{}`)
	bob.event("start")
	bob.now, ann.now = bob.now.Add(time.Minute), ann.now.Add(time.Minute)
	ann.event("start")
	ann.event("other", `{"cart":"a"}`)
	bob.event("other", `{"cart":"b"}`)
	bob.transition("", "keen", "entered", 1)
	ann.told = nil
	ann.merge(bob)
	ann.says("exited b wait-0 merged")
	ann.transition(bob.id, "keen", "left", 1)
	ann.says()
	require.Len(t, ann.state.Runs(), 3)
	ann.after(day)
	require.Len(t, ann.effects, 3)
	require.Empty(t, ann.state.Runs())
}

// A contact that was merged away before the processor began is handed over with what waits may
// look back at.
func TestAWaitLooksBackAtWhatAContactDidThatWasMergedAwayBefore(t *testing.T) {
	const text = "trigger: {event: go}\nsteps: [{waitFor: {any: [{event: paid}], lookback: 2h, timeout: 1h}}]"
	ann, bob := newStageOf(t, "ann", written("b", text)), newStageOf(t, "bob", written("b", text))
	ann.updated(`{}`)
	paid := storage.StoredEvent{ID: uuid.NewString(), ContactID: bob.id, Name: "paid", Properties: "{}", OccurredAt: start, ReceivedAt: start}
	bob.state, _ = bob.logic.TakeOver(journeys.State{}, &derive.Known{Events: []storage.StoredEvent{paid}}, start)
	ann.merge(bob)
	ann.event("go")
	ann.says("started b", "step b waitFor-0 paid", "completed b")
}

func TestRunsAndEntriesAreCarriedOnWhenAContactIsTakenOverAnew(t *testing.T) {
	s := newStage(t, written("b", waiting))
	s.event("start")
	s.told = nil
	s.after(time.Hour)
	before := s.state
	s.takeOverAnew()
	require.Empty(t, s.state.Changes())
	require.Equal(t, before.Runs(), s.state.Runs())
	require.Equal(t, before.Entries(), s.state.Entries())
	s.refill()
	s.after(day)
	s.says("step b wait-0 next", "step b email-1 next", "completed b")
}

// A take-over tells nothing, so what was due meanwhile, or ends with its definition, is left
// to a filling.
func TestNothingIsLostOfRunsThatAreTakenOverAnew(t *testing.T) {
	s := newStage(t, written("b", waiting))
	s.event("start")
	s.told = nil
	s.now = s.now.Add(2 * day)
	s.takeOverAnew()
	require.Equal(t, s.now, s.timers[0].Due, "it is filled at once")
	s.refill()
	s.says("step b wait-0 next", "step b email-1 next", "completed b")
	require.Len(t, s.effects, 1)

	s = newStage(t, written("b", "onChange: exit\n"+waiting))
	s.event("start")
	s.told = nil
	s.use(written("b", "onChange: exit\ntrigger: {event: start}\nsteps: [{wait: 3d}]\n"))
	s.takeOverAnew()
	s.refill()
	s.says("exited b wait-0 definition_changed")

	s = newStage(t, written("b", "trigger: {repeat: {at: \"09:00\"}, bucket: vip}\nsteps: [{email: {template: again}}]\n"))
	s.transition("", "vip", "entered", 1)
	s.now = s.now.Add(23 * time.Hour)
	s.beside = &storage.Beside{Buckets: map[string]int64{"vip": 1}}
	s.takeOverAnew()
	s.refill()
	s.says("started b", "step b email-0 next", "completed b")
}

// A change of definitions that comes while a wait is overdue makes it no later.
func TestWhatWasDueBeforeAFillingIsAsInTime(t *testing.T) {
	s := newStage(t, written("b", waiting), written("c", "trigger: {event: start}\nsteps: [{wait: 2d}, {wait: 6h}, {wait: 10d}]\n"))
	s.event("start")
	s.told = nil
	s.use(written("b", waiting), written("c", "trigger: {event: start}\nsteps: [{wait: 3d}]\n"), written("d", branching))
	s.now = s.now.Add(2*day + 7*time.Hour)
	s.refill()
	s.says("step b wait-0 next", "step b email-1 next", "completed b", "step c wait-0 next", "step c wait-1 next")
	var at []time.Duration
	for _, c := range s.changes[2:] {
		at = append(at, c.At.Sub(start))
	}
	require.Equal(t, []time.Duration{day, day, day, 2 * day, 2*day + 6*time.Hour}, at)
}

// Facts of journeys that follow from one another in a circle leave the contact as it is, until
// the definitions are mended.
func TestACircleOfWhatIsTakenOverAnewLeavesTheRunsStanding(t *testing.T) {
	circle := func(a, b string) []string {
		return []string{
			written("a", "onChange: exit\ntrigger: [{event: start}, {event: \"journey.exited:b\"}]\nsteps: "+a),
			written("b", "trigger: {event: \"journey.exited:a\"}\nsteps: "+b),
		}
	}
	s := newStage(t, circle("[{wait: 1d}]", "[{exit: y}]")...)
	s.event("start")
	s.told = nil
	s.use(circle("[{exit: x}]", "[{exit: y}]")...)
	before := s.state.Runs()
	s.takeOverAnew()
	require.Equal(t, before, s.state.Runs())
	_, err := s.logic.Refill(s.state, &derive.Known{Contact: &s.row}, s.now)
	require.ErrorContains(t, err, "circle")
	require.Equal(t, before, s.state.Runs())
	s.use(circle("[{wait: 2d}]", "[{exit: y}]")...)
	s.refill()
	s.says("exited a wait-0 definition_changed", "started b", "exited b exit-0 y", "started a")
}

// A chain that goes on after an hour or more begins, also where the one timer of the contact
// was armed again meanwhile, for another wait.
func TestWhatFollowsFromALongWaitFollowsFromNothingElse(t *testing.T) {
	anew := func(waits, between string, then func(s *stage)) bool {
		s := newStage(t, written("a", "trigger: {event: start}\nsteps: [{wait: "+waits+"}, {trigger: {event: again}}]\n"),
			written("b", "trigger: {event: between}\nsteps: [{wait: "+between+"}]\n"),
			written("c", "trigger: {event: \"journey.completed:a\"}\nsteps: [{email: {template: c}}]\n"))
		s.hops = 3
		s.event("start")
		then(s)
		return s.led == 0
	}
	alone := func(s *stage) { s.after(2 * time.Hour) }
	require.True(t, anew("1h", "1h", alone))
	require.False(t, anew("59m", "1h", alone))
	require.True(t, anew("2h", "1m", func(s *stage) {
		s.after(115 * time.Minute)
		s.event("between")
		s.after(time.Minute)
		require.Equal(t, 3, s.led)
		s.after(time.Hour)
	}), "its timer was armed four minutes before")
	require.False(t, anew("2h", "1m", func(s *stage) {
		s.now = s.now.Add(3 * time.Hour)
		s.event("start")
	}), "the record leads to something too")
	require.True(t, anew("2h", "1m", func(s *stage) {
		s.now = s.now.Add(3 * time.Hour)
		s.event("nobody looks at it")
	}))

	s := newStage(t, written("b", "trigger: {event: start}\nexitOn: [{leftBucket: keen, settle: 2h}]\nsteps: [{wait: 30d}]\n"))
	s.hops = 3
	s.transition("", "keen", "entered", 1)
	s.event("start")
	s.transition("", "keen", "left", 1)
	s.after(2 * time.Hour)
	require.Zero(t, s.led)

	s = newStage(t, written("b", "trigger: {repeat: {at: \"09:00\"}, bucket: vip}\nsteps: [{email: {template: again}}]\n"))
	s.hops = 3
	s.transition("", "vip", "entered", 1)
	require.Equal(t, start.Add(21*time.Hour), s.state.Next("b"))
	require.Zero(t, s.state.Next("c"))
	s.after(day)
	require.Zero(t, s.led)
	require.Equal(t, start.Add(45*time.Hour), s.state.Next("b"))
	s.transition("", "vip", "left", 1)
	require.Zero(t, s.state.Next("b"))
}

// The steps of a run are no chain of causes, however many they are, nor is what other runs of
// the contact do between them: a run that begins another is.
func TestOnlyRunsThatBeginOneAnotherAreAChain(t *testing.T) {
	const rounds = 40
	asks, wakes := "steps:\n", "steps:\n"
	for n := range rounds {
		asks += fmt.Sprintf("  - trigger: {event: asked, properties: {n: %d}}\n  - waitFor: {any: [{event: answered, where: {n: %d}}], timeout: 1d}\n", n, n)
		wakes += fmt.Sprintf("  - wait: 2m\n  - trigger: {event: woken, properties: {n: %d}}\n", n)
	}
	s := newStage(t,
		written("asks", "trigger: {event: start}\n"+asks),
		written("answers", "trigger: {event: asked}\nsteps: [{trigger: {event: answered, properties: {n: {trigger: n}}}}]\n"),
		written("wakes", "trigger: {event: start}\n"+wakes),
		written("waits", "trigger: {event: woken}\nsteps: [{wait: 1m}, {trigger: {event: told}}]\n"),
		written("circle", "trigger: {event: round}\nsteps: [{trigger: {event: round}}]\n"),
	)
	most := map[string]int{}
	s.event("start")
	for range 10 * rounds {
		if len(s.effects) == 0 {
			s.after(time.Minute)
			continue
		}
		in := s.effects[0].(*schemas.Input)
		s.effects = s.effects[1:]
		s.hops = s.ledTo[in.ID] + 1
		most[*in.Event] = max(most[*in.Event], s.hops)
		if *in.Event != "told" { // nobody looks at that
			s.event(*in.Event, *in.EventProperties)
		}
		s.hops = 0
	}
	require.Equal(t, map[string]int{"asked": 1, "answered": 2, "woken": 1, "told": 2}, most)
	for _, run := range s.state.Runs() {
		t.Error(run.Journey, "has not come to its end")
	}

	s.event("round")
	for n := range 5 {
		require.Equal(t, n, s.led)
		s.hops, s.effects = s.led+1, nil
		s.event("round")
	}
}

// A time that is changed counts at once, and runs that the former one began go on.
func TestAScheduleThatIsChangedCountsAtOnce(t *testing.T) {
	daily := func(at, steps string) string {
		return written("b", "trigger: {repeat: {at: \""+at+"\"}, bucket: vip}\nsteps: "+steps+"\n")
	}
	s := newStage(t, daily("13:00", "[{wait: 2h}, {exit: first}]"))
	s.transition("", "vip", "entered", 1)
	s.after(time.Hour)
	s.says("started b")
	s.use(daily("14:00", "[{wait: 5m}, {exit: second}]"))
	s.refill()
	require.Equal(t, start.Add(2*time.Hour), s.state.Next("b"))
	s.until(start.Add(2*time.Hour + 5*time.Minute))
	s.says("skipped b already_active")
	s.until(start.Add(3 * time.Hour))
	s.says("step b wait-0 next", "exited b exit-1 first")
	s.until(start.Add(27 * time.Hour))
	s.says("started b", "step b wait-0 next", "exited b exit-1 second")

	s.now = s.now.Add(23*time.Hour + 30*time.Minute) // an outage: 14:00 was missed
	s.use(daily("14:00", "[{exit: third}]"))
	s.refill()
	s.says("started b", "exited b exit-0 third")
}

// A trigger that waits for a run to end keeps its own chain.
func TestAQueuedTriggerKeepsItsChain(t *testing.T) {
	s := newStage(t, written("a", "trigger: {event: start}\nlive: queue\nsteps: [{wait: 1m}]\n"))
	s.hops = 2
	s.event("start")
	s.hops = 5
	s.event("start")
	s.hops = 0
	s.after(time.Minute)
	require.Equal(t, 5, s.led)
	s.after(time.Minute)
	require.Equal(t, 5, s.led)
	require.Empty(t, s.state.Runs())
}

func TestCommandsReachTheMachine(t *testing.T) {
	s := newStage(t, written("b", waiting))
	s.command(machine.CommandEnroll, machine.Command{Journey: "b", Properties: `{"x":1}`})
	run := s.state.Runs()[0].ID
	s.command(machine.CommandSkip, machine.Command{Run: run})
	s.says("started b", "step b wait-0 skipped", "step b email-1 next", "completed b")
	s.command(machine.CommandEnroll, machine.Command{Journey: "b"})
	s.command(machine.CommandCancel, machine.Command{Run: s.state.Runs()[0].ID})
	s.says("started b", "exited b wait-0 cancelled")
	_, err := s.logic.Step(s.state, &derive.Record[journeys.State]{ContactID: s.id, Command: &derive.Command{What: "dance", JSON: `{"run":"` + s.identifier() + `"}`}}, s.now)
	require.ErrorContains(t, err, "unknown")
	_, err = s.logic.Step(s.state, &derive.Record[journeys.State]{ContactID: s.id, Command: &derive.Command{What: "skip", JSON: `{"rnu":""}`}}, s.now)
	require.ErrorContains(t, err, "rnu")
}

// What the state says after a step that failed is what it said before.
func TestACircleFailsTheRecordAndLeavesTheStateAlone(t *testing.T) {
	s := newStage(t,
		"id: a\nname: a\nenabled: true\nentryLimit: unlimited\ntrigger: [{event: start}, {event: \"journey.exited:b\"}]\nsteps: [{exit: x}]\n",
		"id: b\nname: b\nenabled: true\nentryLimit: unlimited\ntrigger: {event: \"journey.exited:a\"}\nsteps: [{branch: [{when: {type: event, eventName: start, check: exists}, do: [{exit: y}]}]}]\n")
	before := encoded(t, s.state)
	e := &schemas.Event{ID: s.identifier(), ContactID: s.id, Name: "start", Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}
	_, err := s.logic.Step(s.state, &derive.Record[journeys.State]{ID: e.ID, ContactID: s.id, OccurredAt: s.now, Event: e}, s.now)
	require.ErrorContains(t, err, "circle")
	require.Equal(t, before, encoded(t, s.state))
}

func TestACallGoesToTheDestinationOfItsName(t *testing.T) {
	text := written("b", "trigger: {event: start}\nsteps: [{call: {destination: crm}}]\n")
	id := "0192f000-0000-7000-8000-00000000000c"
	s := newStage(t, text)
	s.logic = journeys.Asking(s.logic, []storage.CallTarget{{ID: id, Name: "crm", EventTypes: []string{"outbox"}}})
	s.event("start")
	require.Equal(t, id, s.effects[0].(*schemas.Outbox).Destination)

	s = newStage(t, text)
	s.logic = journeys.Asking(s.logic, []storage.CallTarget{{ID: id, Name: "crm", EventTypes: []string{"contact.*"}}})
	s.event("start")
	to, addressed := schemas.AddressOf(s.effects[0].Meta().Type)
	require.True(t, addressed, "what nobody takes is refused, and the run is told")
	require.NotEqual(t, id, to)
}

// What was due before a record is judged without it, whatever it tells meanwhile.
func TestWhatIsDueBeforeARecordDoesNotKnowIt(t *testing.T) {
	s := newStage(t,
		written("a", "trigger: {event: start}\nsteps: [{wait: 1h}]\n"),
		written("b", "trigger: {event: start}\nsteps: [{wait: 2h}, {branch: [{when: {type: bucket, bucketId: keen}, do: [{exit: keen}]}, {else: [{exit: not keen}]}]}]\n"))
	s.event("start")
	s.now = s.now.Add(3 * time.Hour)
	s.transition(s.id, "keen", "entered", 1)
	require.Contains(t, strings.Join(s.told, "\n"), "not keen")
}

// Journeys that stand with a bucket, and those whose steps are code, run like any other.
func TestReactionsAndCodeRunLikeAnyOther(t *testing.T) {
	s := newStage(t)
	code := machine.Define("code", "1", func(r *machine.Run) error {
		r.Wait("an hour", schedule.Until{After: time.Hour})
		r.Email("hello", machine.Email{Template: "hello"})
		return nil
	})
	code.Trigger.Records = []machine.Match{{Event: "start"}}
	var stored machine.Journey
	require.NoError(t, json.Unmarshal([]byte(code.Canonical()), &stored))
	s.set.Version++
	s.set.Buckets[0].On = machine.Reactions{{On: machine.OnEnter, Steps: []machine.Step{{Email: &machine.Email{Template: "welcome"}}}}}
	s.set.Journeys = []definition.JourneyInUse{{Journey: definition.Journey{Journey: stored}, InUse: definition.InUse{Revision: 1, Declared: true}}}
	s.logic = journeys.Compile(&s.set, nil, journeys.Options{Limits: predicate.DefaultLimits(), Coded: []machine.Journey{code}})
	require.Empty(t, s.logic.Failing())
	s.refill()
	s.transition(s.id, "keen", "entered", 1)
	s.event("start")
	s.after(2 * time.Hour)
	var mails []string
	for _, e := range s.effects {
		if m, is := e.(*schemas.EmailRequest); is {
			mails = append(mails, m.Template)
		}
	}
	require.Equal(t, []string{"welcome", "hello"}, mails)

	without := journeys.Compile(&s.set, nil, journeys.Options{Limits: predicate.DefaultLimits()})
	require.ErrorContains(t, without.Failing()["code"], "is not in this program")
}

// Acceptance case 34: which journeys there are, or are switched off, is nothing to the reactions
// of a bucket; those of a bucket that is switched off enrol nobody.
func TestReactionsAreSwitchedWithTheirBucketAlone(t *testing.T) {
	s := newStage(t)
	off := strings.Replace(written("other", waiting), "enabled: true", "enabled: false", 1)
	with := func(enabled bool) {
		s.use(off)
		s.set.Buckets[0].On = machine.Reactions{{On: machine.OnEnter, Steps: []machine.Step{{Email: &machine.Email{Template: "welcome"}}}}}
		s.set.Buckets[0].Enabled, s.set.Buckets[0].Revision = enabled, s.set.Version
		set := s.set
		s.logic = journeys.Compile(&set, s.kept, journeys.Options{Limits: predicate.DefaultLimits()})
		require.Empty(t, s.logic.Failing())
		s.refill()
	}
	with(true)
	s.transition("", "keen", "entered", 1)
	s.says("started bucket-keen-on-enter", "step bucket-keen-on-enter email-0 next", "completed bucket-keen-on-enter")
	with(false)
	s.transition("", "keen", "entered", 2)
	s.says("skipped bucket-keen-on-enter journey_disabled")
	require.Len(t, s.effects, 1)
}

package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schedule"
	"github.com/hogstream/hogstream/schemas"
)

// J5: live runs of a journey that is changed finish with the version that they began, or
// exit, as the new definition chooses.
func TestALiveRunFinishesItsVersionOrExits(t *testing.T) {
	before := "steps: [{wait: 1d}, {email: {template: old}}]"
	for onChange, want := range map[string][]string{
		"finish": {"started", "step wait-0 next", "step email-1 next", "completed"},
		"exit":   {"started", "exited wait-0 definition_changed"},
	} {
		s := newStage(t, steps(before))
		old := s.m.Current()[0].Program
		s.event("start", `{}`)
		next := compile(t, steps("onChange: "+onChange+"\nsteps: [{email: {template: new}}]"))
		require.NotEqual(t, old.Version(), next.Version())
		s.use([]journeys.InUse{{Program: next}}, []*journeys.Program{old})
		s.refill(`{}`)
		s.pass(2 * day)
		s.tells(want...)
		s.effects = nil
		s.event("start", `{}`)
		s.tells("started", "step email-0 next", "completed")
	}
}

// What is no part of the version is that of the journey in use, also for live runs.
func TestANewNameLeavesRunsAlone(t *testing.T) {
	s := newStage(t, steps("onChange: exit\nsteps: [{wait: 1d}]"))
	s.event("start", `{}`)
	s.use([]journeys.InUse{{Program: compile(t, steps("onChange: exit\ndescription: another\nsteps: [{wait: 1d}]"))}}, nil)
	s.refill(`{}`)
	s.pass(2 * day)
	s.tells("started", "step wait-0 next", "completed")
}

// J12: a run whose version is not known here stands still, other runs go on; a machine that
// knows the version goes on with it.
func TestARunOfAnUnknownVersionWaitsForWhoKnowsIt(t *testing.T) {
	one := steps("steps: [{wait: 1d}, {email: {template: a}}]")
	other := "id: k\nname: K\nenabled: true\ntrigger: {event: start}\nsteps: [{wait: 2d}]"
	s := newStage(t, one, other)
	known := s.m.Current()
	s.event("start", `{}`)
	s.use(known[1:], nil)
	s.pass(day + time.Second)
	require.Equal(t, monday.Add(day+time.Minute), s.due, "it is looked for")
	s.pass(2 * day)
	s.tells("started", "started", "step wait-0 next", "completed")
	require.True(t, s.due.After(s.now))
	require.LessOrEqual(t, s.due.Sub(s.now), time.Hour, "ever more seldom, but never given up")
	require.Len(t, s.s.Runs(), 1)
	require.Nil(t, s.m.Program("j", s.s.Runs()[0].Version))
	s.use(known, nil)
	s.pass(time.Hour)
	s.tells("started", "started", "step wait-0 next", "completed", "step wait-0 next", "step email-1 next", "completed")
}

// A journey that is removed ends its runs as its last version says.
func TestARemovedJourneyEndsItsRunsAsItSaid(t *testing.T) {
	for onChange, want := range map[string][]string{
		"finish": {"started", "step wait-0 next", "completed"},
		"exit":   {"started", "exited wait-0 definition_changed"},
	} {
		s := newStage(t, steps("onChange: "+onChange+"\nsteps: [{wait: 1d}]"))
		old := s.m.Current()[0].Program
		s.event("start", `{}`)
		s.use(nil, []*journeys.Program{old})
		s.refill(`{}`)
		s.event("start", `{}`)
		s.pass(2 * day)
		s.tells(want...)
	}
}

// A wait that is new looks back at what is stored.
func TestANewWaitLooksBackAtWhatIsStored(t *testing.T) {
	s := newStage(t, steps("steps: [{waitFor: {any: [{event: seen, where: {k: {trigger: k}}}], timeout: 1d, lookback: 1h}}]"))
	require.Equal(t, []string{"seen"}, s.m.LooksBack())
	stored := func(ago time.Duration, k string) *schemas.Event {
		return &schemas.Event{ID: s.id(), Name: "seen", Properties: `{"k":"` + k + `"}`, OccurredAt: s.now.Add(-ago), ReceivedAt: s.now}
	}
	r, err := s.m.Refill(s.s, &journeys.Known{ContactID: someone, Properties: `{}`, Events: []*schemas.Event{stored(2*time.Hour, "a"), stored(time.Minute, "b")}}, s.facts, s.now)
	require.NoError(t, err)
	s.take(&r)
	s.event("start", `{"k":"a"}`)
	s.event("start", `{"k":"b"}`)
	s.tells("started", "skipped already_active")
	s.command(journeys.Command{What: journeys.CommandCancel, Run: s.s.Runs()[0].ID})
	s.effects = nil
	s.event("start", `{"k":"b"}`)
	s.tells("started", "step waitFor-0 seen", "completed")
}

// What needs a version that the machine does not have is known before it is stepped: by runs
// that live, and by what may begin one.
func TestWhatNeedsCodeThatIsElsewhereIsKnown(t *testing.T) {
	code := journeys.Define("coded", "1", func(r *journeys.Run) error {
		r.WaitFor("paid", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "paid"}}}, Timeout: day})
		return nil
	})
	code.Trigger.Records = []journeys.Match{{Event: "go"}}
	here, err := journeys.Compile(code, journeys.Options{})
	require.NoError(t, err)
	code.Code = nil
	_, err = journeys.Compile(code, journeys.Options{})
	require.ErrorContains(t, err, `the code of version "1" is not in this program`)
	away, err := journeys.Compile(code, journeys.Options{WithoutCode: true})
	require.NoError(t, err)
	require.True(t, away.Lacks())

	s := newStage(t)
	s.use([]journeys.InUse{{Program: away}, {Program: compile(t, steps("steps: [{wait: 1d}]"))}}, nil)
	lacks := func(in journeys.Input) bool { return s.m.Lacks(&s.s, &in) }
	require.True(t, lacks(journeys.Input{Event: &schemas.Event{Name: "go"}}))
	require.True(t, lacks(journeys.Input{Command: &journeys.Command{What: journeys.CommandEnroll, Journey: "coded"}}))
	require.False(t, lacks(journeys.Input{Event: &schemas.Event{Name: "start"}}))
	require.False(t, lacks(journeys.Input{Command: &journeys.Command{What: journeys.CommandEnroll, Journey: "j"}}))
	require.False(t, lacks(journeys.Input{}), "time alone begins nothing of it")
	s.event("go", `{}`)
	s.tells("skipped code_missing")

	s.use([]journeys.InUse{{Program: here}}, nil)
	s.effects = nil
	s.event("go", `{}`)
	s.tells("started")
	require.False(t, lacks(journeys.Input{Event: &schemas.Event{Name: "ping"}}))
	s.use([]journeys.InUse{{Program: away}}, nil)
	require.True(t, lacks(journeys.Input{Event: &schemas.Event{Name: "ping"}}), "it may be what a run waits for")
	require.True(t, lacks(journeys.Input{}), "or its time has come")
	s.event("paid", `{}`)
	s.pass(2 * day)
	s.tells("started")
	s.use([]journeys.InUse{{Program: here}}, nil)
	s.pass(time.Hour)
	s.tells("started", "step paid timeout", "completed")
}

// A journey that comes again at a time, or that follows from what other journeys tell, may
// begin with more than records of its name.
func TestWhatMayBeginAJourneyWhoseCodeIsElsewhere(t *testing.T) {
	away := func(trigger func(*journeys.Trigger)) *journeys.Machine {
		code := journeys.Define("coded", "1", func(*journeys.Run) error { return nil })
		trigger(&code.Trigger)
		code.Code, code.EntryLimit = nil, journeys.EntryUnlimited
		p, err := journeys.Compile(code, journeys.Options{WithoutCode: true})
		require.NoError(t, err)
		return journeys.New([]journeys.InUse{{Program: p}}, nil, journeys.Options{})
	}
	var nobody journeys.State
	follows := away(func(tr *journeys.Trigger) { tr.Records = []journeys.Match{{Event: "journey.completed:j"}} })
	require.True(t, follows.Lacks(&nobody, &journeys.Input{}), "any step may end a run")
	daily := away(func(tr *journeys.Trigger) {
		tr.Repeat, tr.Bucket = &schedule.Repeat{At: schedule.Clock(9, 0)}, "vip"
	})
	require.False(t, daily.Lacks(&nobody, &journeys.Input{}))
	require.True(t, daily.Lacks(&nobody, &journeys.Input{Fact: &schemas.Fact{Type: schemas.FactBucketEntered}}))
	require.False(t, daily.Lacks(&nobody, &journeys.Input{Fact: &schemas.Fact{Type: schemas.FactContactUpdated}}))
}

package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
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

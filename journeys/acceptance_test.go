package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// Acceptance case 36.
func TestAWaitForAnEventIsThirtyDaysAtMost(t *testing.T) {
	_, err := journeys.ParseYAML("j.yaml", []byte(steps("steps:\n  - waitFor: {any: [{event: a}], timeout: 31d}")))
	require.EqualError(t, err, "j.yaml:7:43: steps[0].waitFor.timeout: is longer than 30d, for which events are kept")

	text := steps("steps: [{waitFor: {any: [{event: a}], timeout: 30d}}]")
	s := newStage(t, text)
	s.event("start", `{}`)
	require.Equal(t, s.now.Add(720*time.Hour), s.due)
	s.pass(720*time.Hour - time.Second)
	s.event("a", `{}`)
	s.tells("started", "step waitFor-0 a", "completed")

	s = newStage(t, text)
	s.event("start", `{}`)
	s.pass(720 * time.Hour)
	s.event("a", `{}`)
	s.tells("started", "step waitFor-0 timeout", "completed")

	s = newStage(t, text)
	s.event("start", `{}`)
	s.command(journeys.Command{What: journeys.CommandCancel, Run: s.s.Runs()[0].ID})
	s.event("a", `{}`)
	s.pass(40 * day)
	s.tells("started", "exited waitFor-0 cancelled")
}

// Acceptance case 37.
func TestADateThatIsPastIsNotWaitedFor(t *testing.T) {
	text := steps("steps: [{waitUntil: {property: date, missing: exit}}]")
	for value, want := range map[string]string{
		`"2026-03-01T00:00:00Z"`:      "step waitUntil-0 past",
		`"2026-03-02T13:00:00+01:00"`: "step waitUntil-0 past", // now
		`"2026-03-02"`:                "step waitUntil-0 past", // its midnight
		`"tomorrow"`:                  "exited waitUntil-0 no_date",
		`17`:                          "exited waitUntil-0 no_date",
	} {
		s := newStage(t, text)
		s.properties(`{"date":` + value + `}`)
		s.event("start", `{}`)
		assert.Contains(t, s.story(), want, value)
	}
	for _, value := range []string{`"2026-03-03T12:00:00Z"`, `"2026-03-03T14:00:00+02:00"`} {
		s := newStage(t, text)
		s.properties(`{"date":` + value + `}`)
		s.event("start", `{}`)
		require.Equal(t, monday.Add(day), s.due, value)
	}
}

// Acceptance case 39, of the machine.
func TestSomebodyIsEnrolledByHand(t *testing.T) {
	s := newStage(t, "id: j\nname: J\nenabled: true\ntrigger: {event: start, where: {plan: pro}}\nkey: k\nsteps: [{set: {plan: {trigger: plan}}}]")
	s.command(journeys.Command{What: journeys.CommandEnroll, Journey: "j", Properties: `{"k":1,"plan":"free"}`})
	s.command(journeys.Command{What: journeys.CommandEnroll, Journey: "j", Properties: `{"k":1}`})
	s.command(journeys.Command{What: journeys.CommandEnroll, Journey: "j"})
	s.tells("started 1", "step 1 set-0 next", "completed 1", "skipped 1 already_entered_once", "skipped no_key")
	require.JSONEq(t, `{"plan":"free"}`, *sent[*schemas.Input](s)[0].ContactProperties)
	for _, c := range []journeys.Command{{What: journeys.CommandEnroll, Journey: "k"}, {What: "enrol"}, {What: journeys.CommandCancel, Run: "7"}} {
		_, err := s.m.Step(s.s, &journeys.Input{ID: s.id(), ContactID: someone, Command: &c}, s.facts, s.now)
		require.Error(t, err, c.What)
	}
}

// Acceptance case 32, of what a bucket's journeys look at.
func TestAJourneyLooksAtHowABucketWasEntered(t *testing.T) {
	s := newStage(t,
		"id: a\nname: A\nenabled: true\ntrigger: {event: \"bucket.entered:vip\", where: {entryCount: 1}}\nentryLimit: unlimited\nsteps: [{email: {template: a}}]",
		"id: b\nname: B\nenabled: true\ntrigger: {event: \"bucket:left:vip\", where: {reason: [criteria, maxDwell]}}\nentryLimit: unlimited\nsteps: [{email: {template: b}}]")
	s.enters("vip", 2)
	s.enters("cart", 1)
	s.enters("vip", 1)
	s.leaves("vip", "manual")
	s.leaves("vip", "criteria")
	s.tells("skipped trigger_conditions_not_met", "started", "step email-0 next", "completed",
		"skipped trigger_conditions_not_met", "started", "step email-0 next", "completed")
}

// J19: guards are looked at in their order, and each says its name.
func TestEachGuardSaysWhyNobodyEnters(t *testing.T) {
	text := "id: j\nname: J\nenabled: true\ntrigger: {event: start, where: {n: {gt: 1}}}\nsteps: [{wait: 1d}]"
	off := compile(t, "id: j\nname: J\nenabled: false\ntrigger: {event: start, where: {n: {gt: 1}}}\nsteps: [{wait: 1d}]")
	s := newStage(t, text)
	on := s.m.Current()[0].Program
	for _, use := range []journeys.InUse{{Program: off, ByAdmin: true, Paused: true}, {Program: on, ByAdmin: true, Paused: true}, {Program: on, Paused: true}} {
		s.use([]journeys.InUse{use}, nil)
		s.event("start", `{"n":2}`)
		s.event("start", `{"n":1}`)
	}
	s.use([]journeys.InUse{{Program: on}}, nil)
	s.event("start", `{"n":1}`)
	s.fact(&schemas.Fact{Type: schemas.FactContactUnsubscribed, Unsubscribed: &schemas.Unsubscribed{Scope: "all"}})
	s.event("start", `{"n":2}`)
	s.facts.unsubscribed = false
	id := s.event("start", `{"n":2}`)
	s.event("start", `{"n":2}`)
	s.tells(
		"skipped journey_disabled", "skipped journey_disabled", "skipped journey_disabled_by_admin", "skipped journey_disabled_by_admin",
		"skipped journey_paused", "skipped journey_paused", "skipped trigger_conditions_not_met", "skipped user_unsubscribed",
		"started", "skipped already_entered_once")
	started := sent[*schemas.Fact](s)[8]
	require.Equal(t, id, *started.Journey.Trigger)
	require.EqualValues(t, 1, *started.Journey.Entry)
	require.Equal(t, "already_entered_once", s.s.Entries()[0].Skip)
}

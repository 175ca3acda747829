package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// J15: a wait until a time of day over a change of clocks. In the gap it is moved forward by
// its length, in the overlap it is the first of the two.
func TestAWaitOverAChangeOfClocks(t *testing.T) {
	for _, c := range []struct{ zone, begins, at, want string }{
		{"Europe/Berlin", "2026-03-28T12:00:00+01:00", "02:30", "2026-03-29T03:30:00+02:00"},
		{"Europe/Berlin", "2026-10-24T12:00:00+02:00", "02:30", "2026-10-25T02:30:00+02:00"},
		{"America/New_York", "2026-03-07T12:00:00-05:00", "02:30", "2026-03-08T03:30:00-04:00"},
		{"America/New_York", "2026-10-31T12:00:00-04:00", "01:30", "2026-11-01T01:30:00-04:00"},
		{"Australia/Lord_Howe", "2026-10-03T12:00:00+10:30", "02:15", "2026-10-04T02:45:00+11:00"},
		{"Australia/Lord_Howe", "2026-04-04T12:00:00+11:00", "01:45", "2026-04-05T01:45:00+11:00"},
		{"America/Sao_Paulo", "2018-11-03T12:00:00-03:00", "00:00", "2018-11-04T01:00:00-02:00"},
		{"Africa/Casablanca", "2026-02-14T12:00:00+01:00", "02:30", "2026-02-15T02:30:00+01:00"},
		{"Africa/Casablanca", "2026-03-21T12:00:00+00:00", "02:30", "2026-03-22T03:30:00+01:00"},
		{"Pacific/Apia", "2011-12-28T23:00:00-10:00", "09:00", "2011-12-29T09:00:00-10:00"},
		{"Pacific/Apia", "2011-12-29T12:00:00-10:00", "09:00", "2011-12-31T09:00:00+14:00"}, // the 30th never was
		{"Asia/Kolkata", "2026-03-28T12:00:00+05:30", "02:30", "2026-03-29T02:30:00+05:30"},
	} {
		s := newStage(t, steps("steps: [{wait: {day: tomorrow, at: \""+c.at+"\"}}, {waitUntil: {property: date, at: \""+c.at+"\"}}]"))
		begins, err := time.Parse(time.RFC3339, c.begins)
		require.NoError(t, err)
		want, err := time.Parse(time.RFC3339, c.want)
		require.NoError(t, err)
		s.now = begins
		zone, err := time.LoadLocation(c.zone)
		require.NoError(t, err)
		s.properties(`{"$timezone":"` + c.zone + `","date":"` + begins.In(zone).AddDate(0, 0, 1).Format(time.DateOnly) + `"}`)
		s.event("start", `{}`)
		require.True(t, s.due.Equal(want), "%s: %s", c.zone, s.due.In(zone))
		s.pass(3 * day)
		s.tells("started", "step wait-0 next", "step waitUntil-1 past", "completed")
	}
}

// The zone of a run is that of its beginning, when the contact travels.
func TestARunKeepsItsZone(t *testing.T) {
	s := newStage(t, steps("steps: [{wait: 1h}, {wait: {at: \"09:00\", day: tomorrow}}]"))
	s.properties(`{"timezone":"Asia/Tokyo"}`)
	s.event("start", `{}`)
	s.properties(`{"timezone":"Europe/Berlin"}`)
	s.pass(2 * time.Hour)
	require.Equal(t, time.Date(2026, 3, 3, 0, 0, 0, 0, time.UTC), s.due)
}

// J14: a time-out is of a step, never of sleep: after 30 days asleep a step has all of its
// time.
func TestSleepIsNoTimeOfAStep(t *testing.T) {
	s := newStage(t, steps("steps: [{wait: 40d}, {call: {destination: crm, timeout: 1m}}]"))
	s.event("start", `{}`)
	s.pass(40 * day)
	asked := sent[*schemas.Outbox](s)
	require.Len(t, asked, 1)
	require.Equal(t, s.now.Add(time.Minute), asked[0].NotAfter)
	s.pass(30 * time.Second)
	s.receipt(asked[0].ID, schemas.ReceiptAccepted, `{}`)
	s.tells("started", "step wait-0 next", "step call-1 accepted", "completed")
}

// J20: time that is told when nothing is due, or of a contact of whom nothing is known, is
// nothing.
func TestAWakeUpForNothingIsNothing(t *testing.T) {
	s := newStage(t, steps("steps: [{wait: 1d}]"))
	s.step(&journeys.Input{})
	require.False(t, s.s.Known())
	s.event("start", `{}`)
	s.step(&journeys.Input{})
	s.tells("started")
	s.pass(2 * day)
	s.step(&journeys.Input{})
	s.tells("started", "step wait-0 next", "completed")
}

// What was due while nobody looked comes to the same as in time, step after step.
func TestWhatIsLateIsAsInTime(t *testing.T) {
	text := steps("steps: [{wait: 1h}, {wait: 1h}, {waitFor: {any: [{event: seen}], timeout: 1h}}, {wait: 1h}]")
	s := newStage(t, text)
	s.event("start", `{}`)
	s.sleep(2*time.Hour + 30*time.Minute)
	s.event("seen", `{}`)
	s.sleep(9 * day)
	s.step(&journeys.Input{})
	s.tells("started", "step wait-0 next", "step wait-1 next", "step waitFor-2 seen", "step wait-3 next", "completed")
	require.Equal(t, monday.Add(2*time.Hour), s.when("wait-1"))
	require.Equal(t, monday.Add(3*time.Hour+30*time.Minute), s.when("wait-3"))
}

// A wait that names a time of day ends within the journey's window.
func TestTheWindowOfAJourneyIsThatOfItsWaits(t *testing.T) {
	s := newStage(t, steps("zone: UTC\nwindow: 10:00-12:00\nsteps: [{wait: {at: \"08:00\", day: tomorrow}}, {wait: {at: \"08:00\", day: tomorrow, window: \"07:00-09:00\"}}, {wait: 1h}]"))
	s.event("start", `{}`)
	s.pass(9 * day)
	require.Equal(t, time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC), s.when("wait-0"))
	require.Equal(t, time.Date(2026, 3, 4, 8, 0, 0, 0, time.UTC), s.when("wait-1"))
	require.Equal(t, time.Date(2026, 3, 4, 9, 0, 0, 0, time.UTC), s.when("wait-2"))
}

const weekly = "id: j\nname: J\nenabled: true\ntrigger: {repeat: {days: [monday, thursday], at: \"09:00\"}, bucket: vip}\nentryLimit: unlimited\nsteps: [{email: {template: week}}]"

// What comes again comes for the members of a bucket, in their zone.
func TestAJourneyComesAgainForTheMembersOfABucket(t *testing.T) {
	s := newStage(t, weekly)
	s.properties(`{"timezone":"America/New_York"}`)
	s.pass(9 * day)
	require.Empty(t, s.changes)
	s.enters("vip", 1) // Wednesday
	s.pass(6 * day)
	s.leaves("vip", "criteria")
	s.pass(30 * day)
	var at []time.Time
	for _, c := range s.changes {
		if c.Kind == journeys.Started {
			at = append(at, c.At)
		}
	}
	require.Equal(t, []time.Time{time.Date(2026, 3, 12, 13, 0, 0, 0, time.UTC), time.Date(2026, 3, 16, 13, 0, 0, 0, time.UTC)}, at)
}

// One that was missed comes once, the last; one that is too late is skipped, and says so.
func TestAMissedTimeComesOnceUnlessItIsTooLate(t *testing.T) {
	s := newStage(t, weekly)
	s.enters("vip", 1)
	s.sleep(14*day - 2*time.Hour) // Monday 10:00
	s.step(&journeys.Input{})
	s.tells("started", "step email-0 next", "completed")
	require.Equal(t, time.Date(2026, 3, 16, 9, 0, 0, 0, time.UTC), s.changes[0].At)
	s.effects = nil
	s.sleep(3*day + 2*time.Hour)
	s.step(&journeys.Input{})
	s.tells("skipped late")
}

// A paused journey enrols nobody, and its runs stay where they are until it is resumed.
func TestAPausedJourneyStandsStill(t *testing.T) {
	s := newStage(t, steps("steps: [{waitFor: {any: [{event: seen}], timeout: 5d}}, {wait: 1d}, {email: {template: late}}]"))
	p := s.m.Current()[0].Program
	s.event("start", `{}`)
	s.use([]journeys.InUse{{Program: p, Paused: true}}, nil)
	s.event("seen", `{}`)
	s.event("start", `{}`)
	require.True(t, s.due.IsZero())
	s.pass(3 * day)
	s.tells("started", "step waitFor-0 seen", "skipped journey_paused")
	s.use([]journeys.InUse{{Program: p}}, nil)
	s.refill(`{}`)
	s.pass(2 * day)
	s.tells("started", "step waitFor-0 seen", "skipped journey_paused", "step wait-1 next", "step email-2 next", "completed")
	require.Equal(t, monday.Add(4*day), s.when("wait-1"))
}

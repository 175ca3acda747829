package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// Acceptance case 40: two contacts that both completed a journey are one that did.
func TestOfTwoWhoCompletedThereIsOne(t *testing.T) {
	s := newStage(t, "id: j\nname: J\nenabled: true\ntrigger: {event: start}\nsteps: [{wait: 1h}]")
	loser := s.another()
	for _, one := range []*stage{s, loser} {
		one.event("start", `{}`)
		one.pass(2 * time.Hour)
		one.tells("started", "step wait-0 next", "completed")
	}
	s.effects = nil
	s.merge(loser)
	require.Empty(t, s.story())
	require.Len(t, s.s.Entries(), 1)
	require.EqualValues(t, 2, s.s.Entries()[0].Count)
	s.event("start", `{}`)
	s.tells("skipped already_entered_once")
}

// Of two runs of one journey and key the older goes on; the other exits, in the name of the
// contact that stays.
func TestOfTwoRunsTheOlderGoesOn(t *testing.T) {
	text := "id: j\nname: J\nenabled: true\ntrigger: {event: start}\nkey: k\nentryLimit: unlimited\ngoal: {event: paid, within: 1d}\nsteps: [{waitFor: {any: [{event: paid}], timeout: 3d}}]"
	s := newStage(t, text)
	loser := s.another()
	loser.event("start", `{"k":1}`)
	s.now = s.now.Add(time.Hour)
	s.event("start", `{"k":1}`)
	s.event("start", `{"k":2}`)
	loser.now = s.now
	loser.event("start", `{"k":3}`)
	older := loser.s.Runs()[0].ID
	s.effects, s.changes = nil, nil
	s.merge(loser)
	s.tells("exited 1 waitFor-0 merged")
	require.Equal(t, someone, s.effects[0].(*schemas.Fact).ContactID)
	require.Len(t, s.s.Runs(), 3)
	require.Equal(t, older, s.s.Runs()[0].ID)
	s.event("start", `{"k":1}`)
	s.event("paid", `{}`)
	s.pass(9 * day)
	reached, completed := 0, 0
	for _, c := range s.changes {
		reached += map[string]int{journeys.Converted: 1}[c.Kind]
		completed += map[string]int{journeys.Completed: 1}[c.Kind]
	}
	require.Equal(t, 3, reached, "a goal counts once for each key")
	require.Equal(t, 3, completed)
	require.Empty(t, s.s.Runs())
}

// What was asked for in the name of the contact that is no more is answered to the one that
// stays, and what both saw counts once.
func TestAMergedRunIsAnswered(t *testing.T) {
	s := newStage(t, steps("steps: [{call: {destination: crm}}, {waitFor: {any: [{event: seen}], timeout: 1d, lookback: 1h}}]"))
	loser := s.another()
	loser.event("start", `{}`)
	loser.event("seen", `{}`)
	s.merge(loser)
	s.receipt(sent[*schemas.Outbox](loser)[0].ID, schemas.ReceiptAccepted, `{}`)
	s.tells("step call-0 accepted", "step waitFor-1 seen", "completed")
}

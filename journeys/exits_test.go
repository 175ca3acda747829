package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

// An event whose sender waits says of each run that lived when it came, and whose journey
// declares exitOn, whether it ended it.
func TestWhoWaitsIsToldWhichRunsAnEventEnded(t *testing.T) {
	const named = "name: J\nenabled: true\nentryLimit: unlimited\n"
	s := newStage(t,
		"id: cart\n"+named+"trigger: {event: start}\nkey: k\nexitOn: [{event: paid, where: {k: {run: key}}}]\nsteps: [{wait: 1d}]",
		"id: done\n"+named+"trigger: {event: start}\nexitOn: [{event: gone}]\nsteps: [{waitFor: {any: [{event: paid}], timeout: 1d}}]",
		"id: fails\n"+named+"trigger: {event: start}\nexitOn: [{event: paid}]\nsteps: [{call: {destination: crm}}]",
		"id: follows\n"+named+"trigger: {event: start}\nexitOn: [{event: \"journey.exited:cart\"}]\nsteps: [{wait: 1d}]",
		"id: free\n"+named+"trigger: {event: start}\nsteps: [{wait: 1d}]",
		"id: left\n"+named+"trigger: {event: start}\nexitOn: [{leftBucket: vip, settle: 1h}]\nsteps: [{wait: 1d}]",
		"id: new\n"+named+"trigger: {event: paid}\nexitOn: [{event: paid}]\nsteps: [{wait: 1d}]",
		"id: over\n"+named+"trigger: {event: start}\nexitOn: [{event: paid}]\nsteps: [{wait: 1h}]",
		"id: again\n"+named+"trigger: {event: paid}\nlive: restart\nexitOn: [{event: gone}]\nsteps: [{wait: 1d}]",
	)
	told := func(lines ...string) {
		t.Helper()
		require.Equal(t, lines, s.tried)
		s.tried = nil
	}
	s.asks = true
	s.event("start", `{"k":"a"}`)
	told() // what it begins did not live before
	s.event("start", `{"k":"b"}`)
	told("cart a stays", "done stays", "fails stays", "follows stays", "left stays", "over stays")
	for _, call := range sent[*schemas.Outbox](s) {
		s.receipt(call.ID, schemas.ReceiptRefused, ``)
	}
	s.event("nobody.looks", `{}`)
	told("cart a stays", "cart b stays", "done stays", "follows stays", "left stays", "over stays")
	s.leaves("vip", "criteria")
	s.sleep(59 * time.Minute)
	s.event("paid", `{"k":"b"}`)
	told("cart a stays", "cart b exited", "done stays", "follows stays", "left stays", "over exited")
	require.Len(t, s.s.Runs(), 6, "a run that its wait ended, and one that a fact ended, stay in what is told: the event did not")
	s.event("paid", `{"k":"b"}`)
	told("again stays", "cart a stays", "left stays", "new exited")
	s.sleep(2 * time.Minute)
	s.event("paid", `{"k":"b"}`)
	told("again stays", "cart a stays", "new exited")
	s.asks = false
	s.event("paid", `{"k":"a"}`)
	told()
}

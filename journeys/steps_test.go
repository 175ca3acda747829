package journeys_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

const day = 24 * time.Hour

// J21: two carts are two runs that know nothing of each other.
func TestTwoKeysAreTwoRuns(t *testing.T) {
	s := newStage(t, `
id: cart
name: Cart
enabled: true
trigger: {event: cart.added}
key: cartId
exitOn: [{event: order.paid, where: {cartId: {run: key}}}]
steps:
  - wait: 4h
  - email: {template: reminder, props: {cart: {run: key}, total: {trigger: total}}}
`)
	s.event("cart.added", `{"cartId":"a","total":20}`)
	s.pass(time.Hour)
	s.event("cart.added", `{"cartId":7,"total":30}`)
	s.event("cart.added", `{"cartId":"a","total":40}`)
	s.event("order.paid", `{"cartId":"a"}`)
	s.event("order.paid", `{"cartId":"7"}`)
	s.event("order.paid", `{}`)
	s.event("cart.added", `{"total":50}`)
	s.pass(day)
	s.tells(
		"started a",
		"started 7",
		"skipped a already_entered_once",
		"exited a wait-0 order.paid",
		"skipped no_key",
		"step 7 wait-0 next",
		"step 7 email-1 next",
		"completed 7",
	)
	mails := sent[*schemas.EmailRequest](s)
	require.Len(t, mails, 1)
	require.JSONEq(t, `{"cart":7,"total":30}`, mails[0].Props)
	require.Equal(t, "journey", *mails[0].Category)
	require.Equal(t, "cart", *mails[0].JourneyID)
}

// A mail names its own journey, also when its run ends with it while another goes on.
func TestAMailNamesTheJourneyThatAsksForIt(t *testing.T) {
	s := newStage(t, `
id: short
name: Short
enabled: true
trigger: {event: start}
steps: [{wait: 1h}, {email: {template: hello}}]
`, `
id: long
name: Long
enabled: true
trigger: {event: go}
steps: [{wait: 2d}, {email: {template: later}}]
`)
	s.event("start", `{}`)
	s.pass(time.Minute)
	s.event("go", `{}`)
	s.pass(3 * day)
	var asked []string
	for _, m := range sent[*schemas.EmailRequest](s) {
		asked = append(asked, *m.JourneyID+" "+m.Template)
	}
	require.Equal(t, []string{"short hello", "long later"}, asked)
}

// J1: the first wait opens in the step that creates the run, so what comes right behind the
// trigger is never missed; and with a lookback, nor is what came right before it.
func TestWhatComesRightBehindTheTriggerEndsTheWait(t *testing.T) {
	s := newStage(t, steps("steps: [{waitFor: {any: [{event: paid}], timeout: 1d, lookback: 10m}}, {email: {template: thanks}}]"))
	for range 1000 {
		s.effects = nil
		s.event("start", `{}`)
		s.event("paid", `{}`)
		s.tells("started", "step waitFor-0 paid", "step email-1 next", "completed")
		s.pass(time.Hour)
	}
	s.effects = nil
	s.event("paid", `{}`)
	s.pass(9 * time.Minute)
	s.event("start", `{}`)
	s.tells("started", "step waitFor-0 paid", "step email-1 next", "completed")
	s.pass(time.Hour)
	s.effects = nil
	s.event("start", `{}`)
	s.tells("started")
}

// J2: a wait takes a list and says which came; the others end with it.
func TestTheFirstOfSeveralEndsTheWait(t *testing.T) {
	text := steps(`
steps:
  - id: first
    waitFor: {any: [{event: paid}, {event: left, as: gone}, {condition: {type: property, property: plan, operator: eq, value: pro}}], timeout: 2d}
    then: {gone: [{exit: has left}], timeout: [{email: {template: late}}], condition: [{email: {template: pro}}]}
  - set: {seen: true}
`)
	for name, c := range map[string]struct {
		do   func(*stage)
		want []string
	}{
		"event":     {func(s *stage) { s.event("paid", `{}`) }, []string{"started", "step first paid", "step set-1 next", "completed"}},
		"other":     {func(s *stage) { s.event("left", `{}`) }, []string{"started", "step first gone", "exited first.gone.exit-0 has left"}},
		"condition": {func(s *stage) { s.properties(`{"plan":"pro"}`) }, []string{"started", "step first condition", "step first.condition.email-0 next", "step set-1 next", "completed"}},
		"time-out":  {func(s *stage) { s.pass(2 * day) }, []string{"started", "step first timeout", "step first.timeout.email-0 next", "step set-1 next", "completed"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, text)
			s.event("start", `{}`)
			c.do(s)
			s.event("paid", `{}`)
			s.event("left", `{}`)
			s.pass(3 * day)
			s.tells(c.want...)
		})
	}
}

// J6: a wait follows the date in a property, both ways, and knows what to do when it is past.
func TestAWaitFollowsTheDateInAProperty(t *testing.T) {
	text := steps(`
zone: Europe/Berlin
steps:
  - id: trial
    waitUntil: {property: trialEndsAt, shift: -1d, at: "09:00"}
    then: {past: [{exit: too late}]}
  - email: {template: ends}
`)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)

	t.Run("closer", func(t *testing.T) {
		s := newStage(t, text)
		s.properties(`{"trialEndsAt":"2026-04-20"}`)
		s.event("start", `{}`)
		require.Equal(t, time.Date(2026, 4, 19, 9, 0, 0, 0, berlin), s.due.In(berlin))
		s.pass(day)
		s.properties(`{"trialEndsAt":"2026-03-10"}`)
		s.pass(60 * day)
		require.Equal(t, time.Date(2026, 3, 9, 9, 0, 0, 0, berlin), s.when("trial").In(berlin))
		s.tells("started", "step trial reached", "step email-1 next", "completed")
	})
	t.Run("farther", func(t *testing.T) {
		s := newStage(t, text)
		s.properties(`{"trialEndsAt":"2026-03-10T23:30:00Z"}`) // the 11th in Berlin
		s.event("start", `{}`)
		s.pass(day)
		s.properties(`{"trialEndsAt":"2026-03-30"}`) // clocks change on the 29th
		s.pass(60 * day)
		require.Equal(t, time.Date(2026, 3, 29, 9, 0, 0, 0, berlin), s.when("trial").In(berlin))
	})
	t.Run("into the past", func(t *testing.T) {
		s := newStage(t, text)
		s.properties(`{"trialEndsAt":"2026-03-10"}`)
		s.event("start", `{}`)
		s.properties(`{"trialEndsAt":"2026-03-01"}`)
		s.tells("started", "step trial past", "exited trial.past.exit-0 too late")
	})
	t.Run("away and back", func(t *testing.T) {
		s := newStage(t, text)
		s.properties(`{"trialEndsAt":"2026-03-10"}`)
		s.event("start", `{}`)
		s.properties(`{"trialEndsAt":"soon"}`)
		s.pass(30 * day)
		s.tells("started")
		s.properties(`{"trialEndsAt":"2026-05-10"}`)
		s.pass(60 * day)
		s.tells("started", "step trial reached", "step email-1 next", "completed")
	})
}

// J1: trigger and awaited event of many contacts come back to back, and no wait is missed.
func TestNoneOfManyWaitsMissesWhatComesRightBehindItsTrigger(t *testing.T) {
	s := newStage(t, steps("steps: [{waitFor: {any: [{event: paid}], timeout: 1h}}]"))
	const pairs = 10_000
	for n := range pairs {
		contact := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)).String()
		state := journeys.State{}
		var told []string
		for i, name := range []string{"start", "paid"} {
			e := &schemas.Event{ID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n, name)).String(), ContactID: contact, Name: name, Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}
			r, err := s.m.Step(state, &journeys.Input{ID: e.ID, ContactID: contact, OccurredAt: s.now, Event: e}, s.facts, s.now)
			require.NoError(t, err)
			require.Equal(t, i == 0, !r.Due.IsZero(), "the wait is open between the two")
			state = r.State
			for _, c := range state.Changes() {
				told = append(told, c.Kind+c.Outcome)
			}
		}
		require.Equal(t, []string{"started", "steppaid", "completed"}, told)
	}
}

package journeys_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// J9: who leaves a bucket for a moment stays in the journey.
func TestAnExitSettles(t *testing.T) {
	text := steps("exitOn: [{leftBucket: vip, settle: 10m}]\nsteps: [{wait: 1d}]")
	s := newStage(t, text)
	s.enters("vip", 1)
	s.event("start", `{}`)
	s.leaves("vip", "criteria")
	s.leaves("cart", "criteria")
	require.Equal(t, s.now.Add(10*time.Minute), s.due)
	s.pass(9 * time.Minute)
	s.enters("cart", 1)
	s.enters("vip", 2)
	s.pass(2 * day)
	s.tells("started", "step wait-0 next", "completed")

	s = newStage(t, text)
	s.enters("vip", 1)
	s.event("start", `{}`)
	s.leaves("vip", "criteria")
	s.pass(2 * day)
	s.tells("started", "exited wait-0 bucket.left:vip")
	require.Equal(t, monday.Add(10*time.Minute), s.changes[1].At)
}

// J10: there is one live run of a contact, journey and key; what comes of another trigger is
// ignore, restart or queue.
func TestATriggerWhileARunLives(t *testing.T) {
	play := func(policy string) *stage {
		s := newStage(t, steps(policy+"\nsteps: [{wait: 1d}, {trigger: {event: done, properties: {n: {trigger: n}}}}]"))
		s.event("start", `{"n":1}`)
		s.pass(time.Hour)
		s.event("start", `{"n":2}`)
		s.event("start", `{"n":3}`)
		s.pass(9 * day)
		return s
	}
	play("").tells("started", "skipped already_active", "skipped already_active", "step wait-0 next", "step trigger-1 next", "completed")
	s := play("live: restart")
	s.tells("started", "exited wait-0 restarted", "started", "exited wait-0 restarted", "started", "step wait-0 next", "step trigger-1 next", "completed")
	require.JSONEq(t, `{"n":3}`, *sent[*schemas.Input](s)[0].EventProperties)
	s = play("live: queue")
	s.tells("started", "skipped already_queued", "step wait-0 next", "step trigger-1 next", "completed",
		"started", "step wait-0 next", "step trigger-1 next", "completed")
	inputs := sent[*schemas.Input](s)
	require.JSONEq(t, `{"n":2}`, *inputs[1].EventProperties)
	require.Equal(t, monday.Add(2*day), inputs[1].OccurredAt)
	require.Equal(t, "c:"+someone, inputs[1].Key(), "never by a name that could be another's")
}

// A call waits for its answer, and has what it says be used.
func TestACallIsAnswered(t *testing.T) {
	text := steps(`
steps:
  - id: ask
    call: {destination: crm, body: {plan: {trigger: plan}}, timeout: 1m}
    then: {failed: [{set: {crm: none}}]}
  - set: {score: {step: ask, path: [body, score]}, status: {step: ask, path: status}, nothing: {step: ask, path: nothing}}
`)
	s := newStage(t, text)
	s.event("start", `{"plan":"pro"}`)
	asked := sent[*schemas.Outbox](s)[0]
	require.JSONEq(t, `{"plan":"pro"}`, asked.Body)
	require.Equal(t, journeys.Name, asked.Asker)
	require.Equal(t, s.now.Add(time.Minute), asked.NotAfter)
	s.receipt(s.id(), schemas.ReceiptAccepted, `{}`)
	s.receipt(asked.ID, schemas.ReceiptAccepted, `{"score":7,"other":[1,2,3]}`)
	s.receipt(asked.ID, schemas.ReceiptGivenUp, ``)
	s.tells("started", "step ask accepted", "step set-1 next", "completed")
	require.JSONEq(t, `{"score":7,"status":200}`, *sent[*schemas.Input](s)[0].ContactProperties)

	s = newStage(t, text)
	s.event("start", `{}`)
	s.pass(time.Hour)
	s.tells("started", "step ask failed", "step ask.failed.set-0 next", "step set-1 next", "completed")
	require.Equal(t, []string{sent[*schemas.Outbox](s)[0].ID}, s.cancels)
}

// A destination that answers twice, late or never: a call comes to one outcome, and what comes
// after it, or for a run that has ended, does nothing.
func TestACallComesToOneOutcomeWheneverItIsAnswered(t *testing.T) {
	text := steps("steps: [{call: {destination: crm, timeout: 6h, failed: continue}}, {wait: 1d}, {call: {destination: crm, timeout: 6h}}]")
	asked := func(s *stage, n int) string { return sent[*schemas.Outbox](s)[n].ID }
	s := newStage(t, text)
	s.event("start", `{}`)
	s.pass(5*time.Hour + 59*time.Minute) // it failed for hours
	s.receipt(asked(s, 0), schemas.ReceiptAccepted, `{}`)
	s.receipt(asked(s, 0), schemas.ReceiptAccepted, `{}`)
	s.pass(day)
	s.receipt(asked(s, 0), schemas.ReceiptAccepted, `{}`) // while another call is waited for
	s.tells("started", "step call-0 accepted", "step wait-1 next")
	s.pass(7 * time.Hour)
	s.receipt(asked(s, 1), schemas.ReceiptAccepted, `{}`)
	s.tells("started", "step call-0 accepted", "step wait-1 next", "failed call-2 call to crm: no answer came in time")
	require.Equal(t, []string{asked(s, 1)}, s.cancels)

	s = newStage(t, text)
	s.event("start", `{}`)
	s.receipt(asked(s, 0), schemas.ReceiptExpired, ``)
	s.receipt(asked(s, 0), schemas.ReceiptAccepted, `{}`)
	s.tells("started", "step call-0 failed")
	s.command(journeys.Command{What: journeys.CommandCancel, Run: s.s.Runs()[0].ID})
	s.receipt(asked(s, 0), schemas.ReceiptAccepted, `{}`)
	s.tells("started", "step call-0 failed", "exited wait-1 cancelled")
}

// J4: a failed run goes on at the failed step; from the start is another command.
func TestAFailedRunIsTriedAgain(t *testing.T) {
	text := steps("steps: [{email: {template: one}}, {call: {destination: crm}}, {email: {template: two}}]")
	fail := func() (*stage, string) {
		s := newStage(t, text)
		s.event("start", `{}`)
		s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptRefused, ``)
		s.tells("started", "step email-0 next", "failed call-1 call to crm: refused: because")
		runs := s.s.Runs()
		require.Len(t, runs, 1)
		require.True(t, runs[0].Failed)
		require.True(t, s.due.IsZero())
		s.effects = nil
		return s, runs[0].ID
	}
	s, run := fail()
	s.command(journeys.Command{What: journeys.CommandRetry, Run: run})
	again := sent[*schemas.Outbox](s)
	require.Len(t, again, 1)
	s.receipt(again[0].ID, schemas.ReceiptAccepted, `{}`)
	s.tells("step call-1 retried", "step call-1 accepted", "step email-2 next", "completed")

	s, run = fail()
	s.command(journeys.Command{What: journeys.CommandRetry, Run: run, FromStart: true})
	s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptAccepted, `{}`)
	s.tells("step email-0 retried", "step email-0 next", "step call-1 accepted", "step email-2 next", "completed")

	s, run = fail()
	s.event("start", `{}`)
	s.command(journeys.Command{What: journeys.CommandRetry, Run: run})
	s.tells("started", "step email-0 next")
}

// Somebody ends a run, or its open wait; one that is gone is left alone (J20).
func TestSomebodyEndsARunOrItsWait(t *testing.T) {
	s := newStage(t, steps("steps: [{waitFor: {any: [{event: paid}], timeout: 3d}, then: {paid: [{exit: paid}]}}, {call: {destination: crm}}]"))
	s.event("start", `{}`)
	run := s.s.Runs()[0].ID
	s.command(journeys.Command{What: journeys.CommandSkip, Run: run})
	s.command(journeys.Command{What: journeys.CommandCancel, Run: run})
	s.command(journeys.Command{What: journeys.CommandCancel, Run: run})
	s.command(journeys.Command{What: journeys.CommandSkip, Run: run})
	s.pass(9 * day)
	s.tells("started", "step waitFor-0 skipped", "exited call-1 cancelled")
	require.Equal(t, []string{sent[*schemas.Outbox](s)[0].ID}, s.cancels)
	s.effects = nil
	s.command(journeys.Command{What: journeys.CommandEnroll, Journey: "j", Properties: `{}`})
	s.tells("started")
	s.sleep(9 * day)
	s.step(&journeys.Input{})
	require.Len(t, s.s.Runs(), 1, "it waits for the call that was made three days after")
}

// What is told again, after an interruption, does nothing more.
func TestACommandToldAgainDoesNothingMore(t *testing.T) {
	t.Parallel()
	s := newStage(t, steps("steps: [{id: one, wait: 1h}, {id: two, wait: 1h}, {id: three, wait: 1h}]\n"))
	s.event("start", "{}")
	skip := journeys.Command{What: journeys.CommandSkip, Run: s.s.Runs()[0].ID, Step: "one", Since: s.now}
	for range 3 { // all of them at one instant, too
		s.command(skip)
	}
	s.tells("started", "step one skipped")
	skip.Step, skip.Since = "", s.now
	s.pass(time.Minute)
	s.command(skip)
	s.command(skip)
	s.tells("started", "step one skipped", "step two skipped")
	cancel := journeys.Command{What: journeys.CommandCancel, Run: skip.Run, Step: "two"}
	s.command(cancel)
	s.tells("started", "step one skipped", "step two skipped")
	cancel.Step = "three"
	s.command(cancel)
	s.command(cancel)
	s.tells("started", "step one skipped", "step two skipped", "exited three cancelled")
}

func TestARetryToldAgainDoesNotTryTwice(t *testing.T) {
	t.Parallel()
	s := newStage(t, steps("steps: [{id: ask, call: {destination: crm}}]\n"))
	s.event("start", "{}")
	began := s.now
	s.pass(2 * time.Hour)
	retry := journeys.Command{What: journeys.CommandRetry, Run: s.s.Runs()[0].ID, Since: began}
	s.command(retry)
	s.command(retry)
	s.pass(2 * time.Hour) // fails again
	s.command(retry)
	s.tells("started", "failed ask call to crm: no answer came in time", "step ask retried", "failed ask call to crm: no answer came in time")
}

func TestAnEnrolmentToldAgainEnrolsOnce(t *testing.T) {
	t.Parallel()
	for limit, text := range map[string]string{
		"ended":    steps("steps: [{set: {a: 1}}]\n"),
		"living":   steps("live: restart\nsteps: [{wait: 1h}]\n"),
		"held out": steps("holdout: 100\nsteps: [{wait: 1h}]\n"),
	} {
		s := newStage(t, text)
		in := journeys.Input{ID: "0192f000-0000-7000-8000-00000000cafe", Command: &journeys.Command{What: journeys.CommandEnroll, Journey: "j"}}
		s.step(&in)
		told := len(s.changes)
		require.NotZero(t, told, limit)
		s.step(&in)
		require.Len(t, s.changes, told, limit)
		require.Equal(t, int64(1), s.s.Entries()[0].Count, limit)
	}
}

// What a run has done outside is counted, so that a retry from the start can say how much it
// repeats (J4).
func TestChangesSayWhatStepsHaveDone(t *testing.T) {
	t.Parallel()
	s := newStage(t, steps("steps: [{email: {template: one}}, {set: {a: 1}}, {branch: [{as: x, trigger: {a: 1}}]}, {wait: 1h}, {call: {destination: crm}}]\n"))
	s.event("start", "{}")
	s.pass(time.Hour)
	s.receipt(sent[*schemas.Outbox](s)[0].ID, schemas.ReceiptRefused, "")
	s.command(journeys.Command{What: journeys.CommandRetry, Run: s.s.Runs()[0].ID, FromStart: true})
	var does []string
	for _, c := range s.changes {
		word := c.Kind + " " + c.Does
		if c.Anew {
			word += "anew"
		}
		does = append(does, word)
	}
	require.Equal(t, []string{"started ", "step email", "step set", "step ", "step ", "failed call", "retried anew", "step email", "step set", "step "}, does)
}

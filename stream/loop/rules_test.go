package loop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/loop"
)

// Six rules carry apply and publish (ARCHITECTURE.md). Each test here is the
// shortest way to the fault that appears without one of them. The schedule runs
// twice: with the rule, where nothing may be wrong, and without it, where the
// fault must appear; so the test is known to test something.
func eachWay(t *testing.T, rule loop.Rule, schedule func(t *testing.T, without func(*loop.Config)) (fault string)) {
	t.Helper()
	t.Run("holds with the rule", func(t *testing.T) {
		require.Empty(t, schedule(t, func(*loop.Config) {}))
	})
	t.Run("breaks without it", func(t *testing.T) {
		require.NotEmpty(t, schedule(t, func(c *loop.Config) { c.Without(rule) }))
	})
}

// unaware makes an instance that does not hear soon that it lost its membership.
func unaware(c *loop.Config) { c.Timing().Heartbeat = 9 * time.Second }

func TestRuleStableANewOwnerWaitsForTheOpenTransactionOfItsPredecessor(t *testing.T) {
	eachWay(t, loop.RuleStable, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 1)
		r.give(schemas.TopicIngest, 0, 1)
		a := r.prepare("a", unaware, without)
		sent, ended := a.at(loop.StepSent), a.at(loop.StepCommitted)
		a.run()
		sent.await(t) // offsets are in the transaction, which is open
		r.expel("a")
		b := r.prepare("b", without)
		unstable, fetched := b.at(loop.StepUnstable), b.at(loop.StepFetched)
		b.run()
		either(t, unstable, fetched)
		sent.pass(nil)
		ended.await(t)
		ended.pass(loop.ErrCrash)
		unstable.pass(nil)
		fetched.await(t)
		fetched.pass(nil)
		r.give(schemas.TopicIngest, 0, 1)
		r.awaitOutput("ingest/0/1")
		return r.fault()
	})
}

func TestRuleFenceAStaleOwnerThatKeptAnotherPartitionPublishesNothing(t *testing.T) {
	eachWay(t, loop.RuleFence, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 2)
		r.give(schemas.TopicIngest, 1, 1)
		a := r.prepare("a", without)
		applied := a.at(loop.StepApplied)
		a.run()
		applied.await(t)
		r.start("b", without) // takes partition 1, and publishes what a applied
		r.awaitOutput("ingest/1/0")
		applied.pass(nil) // a is a member of the new generation, with partition 0
		r.give(schemas.TopicIngest, 0, 1)
		r.awaitOutput("ingest/0/0")
		return r.fault()
	})
}

// J13: so of two processes that resume one run, one goes on with it.
func TestRuleExpectAStaleOwnerDoesNotApplyWhatItsSuccessorApplied(t *testing.T) {
	eachWay(t, loop.RuleExpect, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 1)
		r.give(schemas.TopicIngest, 0, 1)
		a := r.prepare("a", unaware, without)
		applying, applied := a.at(loop.StepApplying), a.at(loop.StepApplied)
		a.run()
		applying.await(t)
		r.expel("a")
		r.start("b", without)
		r.awaitOutputs(1)
		applying.pass(nil)
		applied.await(t)
		applied.pass(loop.ErrCrash)
		return r.fault()
	})
}

func TestRuleSeedTheGroupHasAnOffsetBeforeAnythingIsApplied(t *testing.T) {
	eachWay(t, loop.RuleSeed, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 1)
		r.give(schemas.TopicIngest, 0, 1)
		a := r.prepare("a", without)
		applied := a.at(loop.StepApplied)
		a.run()
		applied.await(t)
		applied.pass(loop.ErrCrash)
		a.wait()
		return r.goesOnOrStops(r.start("a", without), "ingest/0/0")
	})
}

func TestRuleResumeExpiredOffsetsAreSetAgainBeforeGoingOn(t *testing.T) {
	eachWay(t, loop.RuleResume, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 1)
		r.give(schemas.TopicIngest, 0, 1)
		a := r.start("a", without)
		r.awaitOutputs(1)
		a.stop()
		r.expireOffsets("a", schemas.TopicIngest)
		r.give(schemas.TopicIngest, 0, 1)
		a = r.prepare("a", without)
		applied := a.at(loop.StepApplied)
		a.run()
		applied.await(t)
		applied.pass(loop.ErrCrash)
		a.wait()
		return r.goesOnOrStops(r.start("a", without), "ingest/0/1")
	})
}

func TestRuleVerifyAStaleOwnerDoesNotStopThePartition(t *testing.T) {
	eachWay(t, loop.RuleVerify, func(t *testing.T, without func(*loop.Config)) string {
		r := newRig(t, 1)
		r.give(schemas.TopicIngest, 0, 1)
		a := r.prepare("a", unaware, without)
		fetched := a.at(loop.StepFetched) // it read that the group has no offset
		a.run()
		fetched.await(t)
		r.expel("a")
		b := r.prepare("b", without)
		applied := b.at(loop.StepApplied) // the row is there, and not published
		b.run()
		applied.await(t)
		again := a.at(loop.StepFetched)
		fetched.pass(nil)
		r.eventually("a looks again or stops", func() bool { return again.passed() || len(a.loop.Stopped()) > 0 })
		if s := a.loop.Stopped(); len(s) > 0 {
			return s[0].Reason
		}
		again.pass(nil)
		applied.pass(nil)
		r.awaitOutputs(1)
		require.Empty(t, a.loop.Stopped())
		return r.fault()
	})
}

// expireOffsets does what the broker does with a group that was stopped for
// longer than its offsets are kept.
func (r *rig) expireOffsets(instance string, topics ...schemas.Topic) {
	r.t.Helper()
	r.expel(instance)
	set := kadm.TopicsSet{}
	for _, t := range topics {
		for p := range r.partitions {
			set.Add(r.direct.Topic(t), p)
		}
	}
	found, err := r.admin.DeleteOffsets(r.t.Context(), r.direct.Group("copier"), set)
	require.NoError(r.t, err)
	require.NoError(r.t, found.Error())
}

// goesOnOrStops waits until an output is visible or a partition stopped, and
// says what is wrong.
func (r *rig) goesOnOrStops(p *runner, output string) string {
	r.t.Helper()
	r.eventually("goes on or stops", func() bool {
		r.readToEnd()
		return r.has(output) || len(p.loop.Stopped()) > 0
	})
	if s := p.loop.Stopped(); len(s) > 0 {
		return s[0].Reason
	}
	return r.fault()
}

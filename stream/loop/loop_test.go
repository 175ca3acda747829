package loop_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

func TestEveryRecordIsAppliedOnceAndItsOutputPublishedOnceInOrder(t *testing.T) {
	r := newRig(t, 3)
	for p := range int32(3) {
		r.give(schemas.TopicIngest, p, 100)
	}
	p := r.start("a")
	r.awaitOutputs(300)
	for p := range int32(3) {
		r.give(schemas.TopicIngest, p, 50)
	}
	r.awaitOutputs(450)
	p.stop()
	require.Empty(t, r.fault())
	require.Equal(t, 450, r.applied())
	for n := range int32(3) {
		require.EqualValues(t, 150, r.committed(schemas.TopicIngest, n))
		require.True(t, r.row(n).Published, "a graceful stop marks what is published")
		require.Empty(t, r.row(n).Pending)
	}
}

// Where a process can die in its batch.
var stepsOfABatch = []string{loop.StepApplying, loop.StepApplied, loop.StepBegun, loop.StepSent, loop.StepCommitted}

func TestACrashAtAnyStepLosesNothingAndRepeatsNothing(t *testing.T) {
	for _, step := range stepsOfABatch {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			r.give(schemas.TopicIngest, 0, 10)
			r.give(schemas.TopicIngest, 1, 10)
			a := r.prepare("a")
			g := a.at(step)
			a.run()
			g.await(t)
			g.pass(loop.ErrCrash)
			a.wait()
			require.True(t, a.crashed())
			r.give(schemas.TopicIngest, 0, 10)
			// The restart has the same name: it takes up the membership and aborts
			// the transaction that its predecessor left open.
			r.start("a").stopAfter(30)
			require.Empty(t, r.fault())
			require.Equal(t, 30, r.applied())
		})
	}
}

func TestARebalanceAtAnyStepLosesNothingAndRepeatsNothing(t *testing.T) {
	for _, step := range stepsOfABatch {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			r.give(schemas.TopicIngest, 0, 10)
			r.give(schemas.TopicIngest, 1, 10)
			a := r.prepare("a")
			g := a.at(step)
			a.run()
			g.await(t)
			b := r.prepare("b")
			first := loop.StepFetched
			if step == loop.StepSent {
				first = loop.StepUnstable // a's transaction holds the offsets
			}
			owned := b.at(first)
			b.run()
			owned.await(t) // b owns a partition, and a has not heard of it
			owned.pass(nil)
			g.pass(nil)
			r.give(schemas.TopicIngest, 1, 10)
			r.awaitOutputs(30)
			a.stop()
			b.stop()
			require.Empty(t, r.fault())
			require.Equal(t, 30, r.applied())
		})
	}
}

func TestAStaleOwnerWakesUpAtAnyStep(t *testing.T) {
	for _, step := range stepsOfABatch {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 10)
			a := r.prepare("a", unaware, func(c *loop.Config) { c.Timing().Txn = 2 * time.Second })
			g := a.at(step)
			a.run()
			g.await(t)
			r.expel("a")
			b := r.start("b", func(c *loop.Config) { c.Timing().Txn = time.Second })
			if step != loop.StepSent { // whose transaction b has to wait for
				r.awaitOutputs(10)
			}
			g.pass(nil)
			r.give(schemas.TopicIngest, 0, 10)
			r.awaitOutputs(20)
			a.stop()
			b.stop()
			require.Empty(t, r.fault())
			require.Equal(t, 20, r.applied())
		})
	}
}

// Once a batch had outputs, the offsets of the next are in its transaction before it
// is applied.
func TestWithOffsetsSentAheadNothingIsLostOrRepeated(t *testing.T) {
	steps := []string{loop.StepApplying, loop.StepAhead, loop.StepApplied, loop.StepBegun, loop.StepSent, loop.StepCommitted}
	for _, step := range steps {
		stalled := func(t *testing.T, opts ...func(*loop.Config)) (*rig, *runner, *gate) {
			t.Helper()
			t.Parallel()
			r := newRig(t, 2)
			r.give(schemas.TopicIngest, 0, 1)
			a := r.start("a", opts...)
			r.awaitOutputs(1)
			g := a.at(step)
			r.give(schemas.TopicIngest, 0, 10)
			r.give(schemas.TopicIngest, 1, 10)
			g.await(t)
			return r, a, g
		}
		t.Run("crash when "+step, func(t *testing.T) {
			r, a, g := stalled(t)
			g.pass(loop.ErrCrash)
			a.wait()
			require.True(t, a.crashed())
			r.start("a").stopAfter(21)
			require.Empty(t, r.fault())
			require.Equal(t, 21, r.applied())
		})
		t.Run("rebalance when "+step, func(t *testing.T) {
			r, a, g := stalled(t)
			b := r.prepare("b")
			unstable, fetched := b.at(loop.StepUnstable), b.at(loop.StepFetched)
			b.run()
			either(t, unstable, fetched) // b owns a partition, and a has not heard of it
			unstable.pass(nil)
			fetched.pass(nil)
			g.pass(nil)
			r.give(schemas.TopicIngest, 1, 10)
			r.awaitOutputs(31)
			a.stop()
			b.stop()
			require.Empty(t, r.fault())
			require.Equal(t, 31, r.applied())
		})
		t.Run("stale when "+step, func(t *testing.T) {
			r, a, g := stalled(t, unaware, func(c *loop.Config) { c.Timing().Txn = time.Second })
			r.expel("a")
			b := r.prepare("b", func(c *loop.Config) { c.Timing().Txn = time.Second })
			fetched := b.at(loop.StepFetched)
			b.run()
			fetched.await(t) // if need be after the broker has timed the transaction out
			g.pass(nil)
			fetched.pass(nil)
			r.give(schemas.TopicIngest, 0, 10)
			r.awaitOutputs(31)
			a.stop()
			b.stop()
			require.Empty(t, r.fault())
			require.Equal(t, 31, r.applied())
		})
	}
}

// Offsets that went ahead of a batch without outputs, or of one that cannot be
// applied, are not committed with anything else.
func TestOffsetsSentAheadOfABatchThatHasNothingToPublishAreTakenBack(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 1)
	silent := copier{topics: []schemas.Topic{schemas.TopicIngest}, silent: func(rec *stream.Record) bool { return rec.Offset == 1 }}
	a := r.prepare("a", func(c *loop.Config) { c.Processor = silent })
	a.run()
	r.awaitOutputs(1)
	ahead := a.at(loop.StepAhead)
	r.give(schemas.TopicIngest, 0, 1)
	ahead.await(t)
	ahead.pass(nil)
	r.eventually("the offset is committed", func() bool { return r.committed(schemas.TopicIngest, 0) == 2 })
	r.give(schemas.TopicIngest, 0, 3)
	a.stopAfter(4)
	require.Empty(t, r.fault())
	require.Equal(t, 5, r.applied())
	require.EqualValues(t, 5, r.committed(schemas.TopicIngest, 0))
}

func TestATransactionLeftOpenByADeadOwnerIsAbortedAndPublishedBySomebodyElse(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.prepare("a", func(c *loop.Config) { c.Timing().Txn = time.Second })
	g := a.at(loop.StepSent)
	a.run()
	g.await(t)
	g.pass(loop.ErrCrash)
	a.wait()
	r.expel("a")
	b := r.start("b")
	r.awaitOutputs(10) // once the broker has timed the transaction out
	b.stop()
	require.Empty(t, r.fault())
}

func TestWhatArrivesDuringABatchIsInTheNextOne(t *testing.T) {
	r := newRig(t, 3)
	r.give(schemas.TopicIngest, 0, 1)
	a := r.prepare("a")
	first := a.at(loop.StepApplied)
	a.run()
	first.await(t)
	for p := range int32(3) { // one after the other, which takes several fetches
		r.give(schemas.TopicIngest, p, 5)
		r.eventually("it is fetched", func() bool { return a.loop.Fetched() == 5*int(p+1) })
	}
	second := a.at(loop.StepApplied)
	first.pass(nil)
	second.await(t)
	require.Equal(t, 16, r.applied())
	second.pass(nil)
	a.stopAfter(16)
	require.Empty(t, r.fault())
}

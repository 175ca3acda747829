package stream_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
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
var stepsOfABatch = []string{stream.StepApplying, stream.StepApplied, stream.StepBegun, stream.StepSent, stream.StepCommitted}

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
			g.pass(stream.ErrCrash)
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
			first := stream.StepFetched
			if step == stream.StepSent {
				first = stream.StepUnstable // a's transaction holds the offsets
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
			a := r.prepare("a", unaware, func(c *stream.ProcessorConfig) { c.TxnTimeout = 2 * time.Second })
			g := a.at(step)
			a.run()
			g.await(t)
			r.expel("a")
			b := r.start("b", func(c *stream.ProcessorConfig) { c.TxnTimeout = time.Second })
			if step != stream.StepSent { // whose transaction b has to wait for
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

func TestATransactionLeftOpenByADeadOwnerIsAbortedAndPublishedBySomebodyElse(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.prepare("a", func(c *stream.ProcessorConfig) { c.TxnTimeout = time.Second })
	g := a.at(stream.StepSent)
	a.run()
	g.await(t)
	g.pass(stream.ErrCrash)
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
	first := a.at(stream.StepApplied)
	a.run()
	first.await(t)
	for p := range int32(3) { // one after the other, which takes several fetches
		r.give(schemas.TopicIngest, p, 5)
		r.eventually("it is fetched", func() bool { return a.loop.Fetched() == 5*int(p+1) })
	}
	second := a.at(stream.StepApplied)
	first.pass(nil)
	second.await(t)
	require.Equal(t, 16, r.applied())
	second.pass(nil)
	a.stopAfter(16)
	require.Empty(t, r.fault())
}

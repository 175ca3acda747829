package loop_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// event is one thing that happens to a deployment.
type event struct {
	what      string
	instance  string
	step      string
	unaware   bool
	partition int32
	records   int
}

func (e event) String() string {
	switch e.what {
	case "give":
		return fmt.Sprintf("give %d to %d", e.records, e.partition)
	case "crash", "stall":
		return fmt.Sprintf("%s %s when %s", e.what, e.instance, e.step)
	case "start":
		return fmt.Sprintf("start %s (unaware: %v)", e.instance, e.unaware)
	}
	return e.what + " " + e.instance
}

var anyStep = append([]string{loop.StepFetched, loop.StepSeeded, loop.StepUnstable, loop.StepAhead}, stepsOfABatch...)

// schedules draws what happens: records come all the time; instances come, go,
// die and stall at any step, are expelled while they stall, and wake up.
var schedules = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event {
	return event{
		what:      rapid.SampledFrom([]string{"give", "give", "give", "start", "start", "crash", "kill", "stall", "stall", "expel", "wake", "stop", "look", "look"}).Draw(t, "what"),
		instance:  rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "instance"),
		step:      rapid.SampledFrom(anyStep).Draw(t, "step"),
		unaware:   rapid.Bool().Draw(t, "unaware"),
		partition: rapid.Int32Range(0, 2).Draw(t, "partition"),
		records:   rapid.IntRange(1, 20).Draw(t, "records"),
	}
}), 15, 40)

// Crashes, rebalances, stale owners and transaction timeouts at random points:
// the committed output is each record's output once and in order, and the state
// is that of next_offset.
func TestFaultNoScheduleOfCrashesAndRebalancesLosesOrRepeatsAnything(t *testing.T) {
	seeds.Each(t, 3, func(t *testing.T, seed uint64) {
		d := deployment{rig: newRig(t, 3), running: map[string]*runner{}}
		schedule := schedules.Example(int(seed))
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("the schedule of seed %d: %v", seed, schedule)
			}
		})
		for _, e := range schedule {
			d.happen(e)
		}
		d.end()
	})
}

// faultRulesOff can be set by hand, to see that the schedules find what is wrong.
var faultRulesOff loop.Rule

type deployment struct {
	*rig
	running map[string]*runner
	all     []*runner
	stalled []*gate
	given   int
}

func (d *deployment) happen(e event) {
	p := d.running[e.instance]
	if p != nil && p.hasEnded() {
		require.True(d.t, p.err == nil || p.crashed(), "%s: %v", e.instance, p.err)
		delete(d.running, e.instance)
		p = nil
	}
	switch {
	case e.what == "give":
		d.give(schemas.TopicIngest, e.partition, e.records)
		d.given += e.records
	case e.what == "wake":
		d.wake()
	case e.what == "look":
		d.look()
	case e.what == "expel":
		// Refused when it is no member.
		_ = d.tryExpel(e.instance)
	case e.what == "start" && p == nil:
		p = d.start(e.instance, func(c *loop.Config) {
			c.Timing().Txn, c.Timing().Idle = time.Second, 10*time.Millisecond
			if e.unaware {
				c.Timing().Heartbeat = time.Second
			}
			if d.env.Cluster != nil { // a real one takes no less than 6 s
				c.SessionTimeout = 1500 * time.Millisecond
			}
			c.Without(faultRulesOff)
		})
		d.running[e.instance] = p
		d.all = append(d.all, p)
	case p == nil:
	case e.what == "crash":
		p.at(e.step).pass(loop.ErrCrash)
	case e.what == "stall":
		d.stalled = append(d.stalled, p.at(e.step))
	case e.what == "kill":
		d.wake()
		p.kill()
		p.wait()
	case e.what == "stop":
		d.wake()
		p.cancel(nil)
		p.wait() // it may have come to a crash on the way
	}
}

// wake lets everything that stalled go on.
func (d *deployment) wake() {
	for _, g := range d.stalled {
		g.pass(nil)
	}
	d.stalled = nil
}

// look gives the deployment time to get somewhere.
func (d *deployment) look() {
	ctx, cancel := context.WithTimeout(d.t.Context(), 200*time.Millisecond)
	defer cancel()
	for d.count() < d.given && ctx.Err() == nil {
		d.poll(ctx)
	}
}

// bury takes the dead out of kfake's group: it never ends the session of a member
// whose connection broke while it waited for others to join, as brokers do.
func (d *deployment) bury() {
	if d.env.Cluster == nil {
		return
	}
	for name, p := range d.running {
		if p.hasEnded() {
			delete(d.running, name)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if d.running[name] == nil {
			_ = d.tryExpel(name) // refused when it is no member
		}
	}
}

// end lets everything settle and checks.
func (d *deployment) end() {
	d.wake()
	d.bury()
	d.happen(event{what: "start", instance: "z"})
	d.awaitOutputs(d.given)
	for _, p := range d.all {
		require.Empty(d.t, p.loop.Stopped(), "nobody stops for an operator without need")
		p.cancel(nil)
	}
	for _, p := range d.all {
		p.wait()
	}
	require.Empty(d.t, d.fault())
	require.Equal(d.t, d.given, d.count())
	require.Equal(d.t, d.given, d.applied())
}

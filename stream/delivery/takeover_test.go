package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// forEver is a lease that nobody of these tests lives to see run out.
func forEver(c *delivery.Config) { c.Lease = time.Hour }

// proven makes a process the same instance as every other of that id.
func proven(id string) func(*delivery.Config) {
	return func(c *delivery.Config) { c.InstanceID = id }
}

func TestTheSameInstanceGoesOnAtOnceAfterEachOfManyKills(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		w.destination("crm", "*")
		for i := range 4 {
			p := w.start("one", proven("id"), forEver)
			w.Append(w.facts(20, 1)...)
			w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") == 20*(i+1), nil }, "deliveries of start %d", i)
			p.crash()
		}
		if w.answers() { // what was not flushed is sent again, and told
			w.start("one", proven("id"), forEver)
		}
		w.requireReceipts()
	})
}

func TestTheSameInstanceGoesOnBeforeItsGroupAnswers(t *testing.T) {
	w := newWorld(t, streamtest.FakeOnly())
	w.destination("crm", "*")
	first := w.start("one", proven("id"), forEver)
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 20)
	first.crash()
	answer := make(chan struct{})
	w.Cluster.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.Cluster.SleepControl(func() { <-answer }) // it waits for a member that died too
		return nil, nil, false
	})
	w.start("one", proven("id"), forEver)
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 40)
	close(answer)
}

func TestANameIsNoProof(t *testing.T) {
	w := newWorld(t)
	w.destination("crm", "*")
	first := w.start("one", proven("id"), func(c *delivery.Config) { c.Lease = 4 * time.Second })
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 20)
	first.crash()
	var expires time.Time
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT min(expires_at) FROM leases`).Scan(&expires))
	w.start("one", proven("the id of a copy"))
	w.Append(facts(20, 1)...)
	w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") > 20, nil }, "a delivery")
	now, err := w.db.Clock(w.Context())
	require.NoError(t, err)
	require.False(t, now.Before(expires), "it waited until the lease had run out")
	w.waitDelivered("crm", 40)
}

func TestAnInstanceThatIsBackHandsOverWhatTheGroupHasGivenToAnother(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t, streamtest.Partitions(4))
		d := w.destination("crm", "*")
		first := w.start("one", proven("id"), forEver)
		w.Append(w.facts(40, 1)...)
		w.waitDelivered("crm", 40)
		w.waitFlushed(d)
		first.crash()
		second := w.start("two", forEver) // all is its, and it waits for the leases
		w.waitStable(1)
		require.Empty(t, second.Owned())
		again := w.start("one", proven("id"), forEver)
		w.Append(w.facts(40, 1)...)
		w.Eventually(func(context.Context) (bool, error) { return len(again.Owned()) == 2 && len(second.Owned()) == 2, nil },
			"two partitions each, not %v and %v", again.Owned(), second.Owned())
		w.Append(w.facts(40, 1)...)
		w.waitDelivered("crm", 120)
		require.Zero(t, w.r.repeats)
	})
}

// waitStable waits until the sinks' group has so many members and is at rest.
func (w *world) waitStable(members int) {
	w.t.Helper()
	client, err := w.Config.NewClient("test", w.Logger)
	require.NoError(w.t, err)
	defer client.Close()
	w.Eventually(func(ctx context.Context) (bool, error) {
		groups, err := kadm.NewClient(client).DescribeGroups(ctx, w.Config.Group("sinks"))
		if err != nil {
			return false, err
		}
		g := groups[w.Config.Group("sinks")]
		return len(g.Members) == members && g.State == "Stable", g.Err
	}, "%d members of the group", members)
}

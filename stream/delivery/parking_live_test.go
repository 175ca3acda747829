package delivery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// parked is what a destination has parked.
func (w *world) parked(d *storage.Destination) (keys, records int) {
	w.t.Helper()
	keys, records, err := w.db.ParkedTotals(w.Context(), d.ID)
	require.NoError(w.t, err)
	return keys, records
}

func TestParkedKeysOutliveCrashesAndOtherOwnersAndStayInOrder(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		var mended atomic.Bool
		w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
			var n int
			_, _ = fmt.Sscanf(string(dv.Records[0].Key), "contact-%d", &n)
			if n%10 == 0 && !mended.Load() || rand.IntN(20) == 0 {
				return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
			}
			return delivery.Outcome{Status: 200}
		}
		bound := 0
		for i := range 4 {
			p := w.start("one", func(c *delivery.Config) { c.InstanceID, c.Concurrency, c.Window = "one", 16, 200 })
			w.Append(w.facts(100, 5)...)
			w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") >= 90*5*(i+1)-150, nil }, "progress, has %d", w.r.count("crm"))
			p.Crash()
			bound += 16 + int(p.Unflushed())
			p.stop()
		}
		p := w.start("two", func(c *delivery.Config) { c.ParkedMax = c.BackoffMax })
		total := 2000
		w.Eventually(func(context.Context) (bool, error) {
			// A key is parked while others are accepted; when there are none, the circuit
			// opens instead. So there is always some to deliver, but no more and more of it
			// on a slow machine. A tenth cannot be delivered yet.
			if w.r.count("crm") > total*9/10-1000 {
				w.Append(w.facts(100, 1)...)
				total += 100
			}
			keys, _ := w.parked(d)
			return keys == 10, nil
		}, "ten parked keys")
		mended.Store(true)
		w.waitDelivered("crm", total)
		w.Eventually(func(context.Context) (bool, error) { keys, records := w.parked(d); return keys+records == 0, nil }, "nothing parked")
		w.Append(w.facts(100, 1)...)
		w.waitDelivered("crm", total+100)
		require.LessOrEqual(t, w.r.repeats, bound)
		w.waitFlushed(d)
		require.Zero(t, p.HeldBytes())
		w.requireReceipts()
	})
}

func TestARewindWithParkedKeysSendsEachRecordAgainOnceAndSkipGivesThemUp(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	d := w.destination("crm", "*")
	var bad atomic.Bool
	bad.Store(true)
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if bad.Load() && string(dv.Records[0].Key) == "contact-3" {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 500}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one", func(c *delivery.Config) { c.ParkedMax = c.BackoffMax })
	trickle := func() { w.Append(facts(10, 1)...) }
	w.Append(facts(10, 20)...)
	w.Eventually(func(context.Context) (bool, error) { trickle(); keys, _ := w.parked(d); return keys == 1, nil }, "a parked key")
	starts, err := w.admin.StartOffsets(w.Context(), schemas.TopicLifecycle)
	require.NoError(t, err)
	require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, starts))
	w.Eventually(func(context.Context) (bool, error) { trickle(); keys, _ := w.parked(d); return keys == 1, nil }, "parked again")
	w.waitFlushed(d)
	bad.Store(false)
	total := int(w.Ends(schemas.TopicLifecycle)[0])
	w.waitDelivered("crm", total)
	w.Eventually(func(context.Context) (bool, error) { _, records := w.parked(d); return records == 0, nil }, "nothing parked")

	bad.Store(true)
	before := 0
	w.Eventually(func(context.Context) (bool, error) {
		trickle()
		keys, n := w.parked(d)
		before = n
		return keys == 1, nil
	}, "a parked key")
	w.waitFlushed(d)
	_, before = w.parked(d)
	_, _, err = w.db.WishParked(w.Context(), storage.SkipParked, d.ID, storage.ParkedFilter{}, "")
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { _, records := w.parked(d); return records == 0, nil }, "nothing parked")
	require.Len(t, w.WaitRecords(schemas.TopicDeadLetters, before), before)
}

package delivery_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestACrashRepeatsAtMostWhatWasInFlightAndWhatWasNotFlushed(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		w.r.answer = func(ctx context.Context, _ delivery.Delivery) delivery.Outcome {
			select {
			case <-ctx.Done():
				return delivery.Outcome{Verdict: delivery.Retry}
			case <-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond):
				return delivery.Outcome{Status: 200}
			}
		}
		w.Append(w.facts(200, 10)...)
		bound := 0
		for i := range 4 {
			p := w.start("one", func(c *delivery.Config) { c.InstanceID = "one"; c.Concurrency = 16 })
			w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") >= min(2000, 300*(i+1)), nil }, "progress")
			p.Crash()
			bound += 16 + int(p.Unflushed())
			p.stop()
		}
		w.start("one", func(c *delivery.Config) { c.InstanceID = "one" })
		w.waitDelivered("crm", 2000)
		w.waitFlushed(d)
		require.LessOrEqual(t, w.r.repeats, bound)
		t.Logf("%d repeats over 4 crashes, at most %d allowed", w.r.repeats, bound)
		w.requireReceipts()
	})
}

func TestANewOwnerWaitsForTheLeaseOfOneThatDiedAndTakesOverAtOnceFromOneThatStopped(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		first := w.start("one")
		w.Append(w.facts(10, 1)...)
		w.waitDelivered("crm", 10)
		w.waitFlushed(d)
		crashed := time.Now()
		first.crash()
		second := w.start("two")
		w.Append(w.facts(10, 1)...)
		w.waitDelivered("crm", 20)
		require.Greater(t, time.Since(crashed), 1500*time.Millisecond, "the lease of 3 s was renewed within the last 500 ms or so")

		w.waitFlushed(d)
		second.stop()
		stopped := time.Now()
		w.start("three")
		w.Append(w.facts(10, 1)...)
		w.waitDelivered("crm", 30)
		require.Less(t, time.Since(stopped), 2*time.Second)
		require.Zero(t, w.r.repeats)
		w.requireReceipts()
	})
}

func TestAnOwnerWhoseLeaseWasTakenWritesNothingAndSendsNothingNew(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t, streamtest.Partitions(1))
		d := w.destination("crm", "*")
		p := w.start("one")
		w.Append(w.facts(5, 1)...)
		w.waitDelivered("crm", 5)
		w.waitFlushed(d)
		// Somebody else takes the lease behind its back.
		_, err := storagetest.SQL(w.db).Exec(w.Context(), `UPDATE leases SET token = gen_random_uuid(), holder = 'other', expires_at = clock_timestamp() + interval '1 hour'`)
		require.NoError(t, err)
		before := w.countAttempts("delivered")
		w.Append(w.facts(5, 1)...)
		w.Eventually(func(context.Context) (bool, error) { return len(p.Owned()) == 0, nil }, "the loss noticed")
		sent := w.r.count("crm")
		w.Append(w.facts(5, 1)...)
		_, err = storagetest.SQL(w.db).Exec(w.Context(), `SELECT pg_sleep(1.2)`)
		require.NoError(t, err)
		require.Equal(t, sent, w.r.count("crm"), "nothing new is sent")
		require.Equal(t, before, w.countAttempts("delivered"), "nothing is written")
		_, err = storagetest.SQL(w.db).Exec(w.Context(), `DELETE FROM leases`)
		require.NoError(t, err)
		w.waitDelivered("crm", 15)
		w.requireReceipts()
	})
}

func TestTwoInstancesShareThePartitionsAndARebalanceUnderLoadLosesNothing(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t, streamtest.Partitions(6))
		d := w.destination("crm", "*")
		w.r.answer = func(context.Context, delivery.Delivery) delivery.Outcome {
			<-time.After(time.Millisecond) // a receiver takes its time
			return delivery.Outcome{Status: 200}
		}
		first := w.start("one", func(c *delivery.Config) { c.Concurrency = 8 })
		w.Append(w.facts(300, 10)...)
		w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") >= 300, nil }, "a start")
		second := w.start("two", func(c *delivery.Config) { c.Concurrency = 8 })
		w.Append(w.facts(300, 10)...)
		w.Eventually(func(context.Context) (bool, error) { return len(first.Owned()) == 3 && len(second.Owned()) == 3, nil }, "three partitions each")
		w.Append(w.facts(300, 5)...)
		w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") >= 5000, nil }, "progress")
		first.stop()
		w.waitDelivered("crm", 7500)
		w.waitFlushed(d)
		require.Len(t, second.Owned(), 6)
		require.Zero(t, w.r.repeats, "rebalances in good order repeat nothing")
		w.requireReceipts()
	})
}

func TestRecordsLostToRetentionBecomeOneGapAndDeliveryGoesOnAtTheLogsStart(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		w := newWorld(t, streamtest.Partitions(1), streamtest.FakeOnly())
		d := w.destination("crm", "*")
		w.Append(w.facts(10, 3)...)
		name := w.Config.Topic(w.topic)
		trim := kadm.Offsets{}
		trim.Add(kadm.Offset{Topic: name, Partition: 0, At: 20})
		_, err := w.Admin().DeleteRecords(w.Context(), trim)
		require.NoError(t, err)
		w.start("one")
		w.waitDelivered("crm", 10)
		w.waitFlushed(d)
		letters := w.WaitRecords(schemas.TopicDeadLetters, 1)
		letter, err := w.Codec.DecodeDeadLetter(letters[0].Value)
		require.NoError(t, err)
		require.Equal(t, "gap", letter.Reason)
		require.EqualValues(t, 0, letter.Offset)
		require.EqualValues(t, 20, *letter.EndOffset)
	})
}

func TestACursorBeyondTheEndOfTheLogDelaysNobodyElseAndARewindMendsIt(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.destination("other", "event.tracked") // of the same brokers
	w.start("one")
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 20)
	w.waitFlushed(d)
	var beyond, start []storage.CursorStart
	for p := range w.Ends(schemas.TopicLifecycle) {
		at := storage.CursorStart{Topic: string(schemas.TopicLifecycle), Partition: p}
		start = append(start, at)
		at.Offset = 1 << 30
		beyond = append(beyond, at)
	}
	require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, beyond))
	rounds, slowest := 0, time.Duration(0)
	for began := time.Now(); time.Since(began) < 2*time.Second; rounds++ {
		sent := time.Now()
		w.Append(append(events(20), facts(20, 1)...)...)
		w.waitDelivered("other", 20+20*rounds)
		slowest = max(slowest, time.Since(sent))
	}
	require.Less(t, slowest, 3*time.Second)
	require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, start))
	w.waitDelivered("crm", 20+20*rounds)
}

func events(n int) (all []schemas.Message) {
	for i := range n {
		all = append(all, &schemas.Event{ID: uuid.Must(uuid.NewV7()).String(), Name: "order.completed", ContactID: fmt.Sprint("contact-", i), OccurredAt: time.Now(), ReceivedAt: time.Now(), Properties: "{}"})
	}
	return all
}

func TestManyDestinationsAtTheTailCostOneRead(t *testing.T) {
	w := newWorld(t, streamtest.FakeOnly())
	var fetched [2]float64
	for i, n := range []int{1, 40} {
		reg := prometheus.NewRegistry()
		for j := range n {
			w.destination(fmt.Sprintf("d%d-%d", i, j), "*")
		}
		w.registry = reg
		p := w.start("one", func(c *delivery.Config) { c.Concurrency = 8 })
		w.Eventually(func(context.Context) (bool, error) { return len(p.Owned()) == 3, nil }, "ownership")
		for range 5 {
			w.Append(facts(30, 4)...)
		}
		for j := range n {
			w.waitDelivered(fmt.Sprintf("d%d-%d", i, j), 600)
		}
		fetched[i] = counterValue(t, reg, "hogstream_sinks_fetched_bytes_total")
		p.stop()
	}
	require.NotZero(t, fetched[0])
	require.LessOrEqual(t, fetched[1], 1.2*fetched[0])
}

func TestDeliveryGoesOnWhereItStoodAfterAnOutageOfPostgres(t *testing.T) {
	delivery.OnEveryFeed(t, func(t *testing.T) {
		server := storagetest.NewServer(t)
		w := newWorldOn(t, server.DB())
		d := w.destination("crm", "*")
		p := w.start("one", func(c *delivery.Config) { c.MaxUnflushed = 200; c.Concurrency = 8; c.Lease = 8 * time.Second })
		w.Append(w.facts(20, 1)...)
		w.waitDelivered("crm", 20)
		w.waitFlushed(d)
		server.Stop()
		w.Append(w.facts(300, 4)...)
		w.Eventually(func(context.Context) (bool, error) { return p.Unflushed() >= 200, nil }, "the bound of unflushed results")
		require.Less(t, w.r.count("crm"), 20+200+16, "no attempt starts beyond the bound")
		server.Start()
		w.waitDelivered("crm", 1220)
		w.waitFlushed(d)
		require.Zero(t, w.r.repeats)
		require.Equal(t, 1220, w.countAttempts("delivered"))
		w.requireReceipts()
	})
}

func counterValue(t testing.TB, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestTwoHundredIdleDestinationsTakeLittleMemory(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(12))
	one := w.destination("warm", "*", "event.tracked")
	p := w.start("one")
	w.Append(facts(20, 1)...)
	w.waitDelivered("warm", 20)
	w.waitFlushed(one)
	before := heap()
	const n = 200
	for i := range n {
		w.destination(fmt.Sprint("idle-", i), "contact.deleted", "event.tracked:never")
	}
	w.Append(facts(200, 5)...)
	w.waitDelivered("warm", 1020)
	w.Eventually(func(ctx context.Context) (bool, error) {
		var behind int
		err := storagetest.SQL(w.db).QueryRow(ctx, `
			SELECT count(*) FROM cursors c JOIN cursors o USING (topic, partition) JOIN destinations d ON d.id = o.destination_id
			WHERE d.name = 'warm' AND c.position <> o.position`).Scan(&behind)
		return behind == 0, err
	}, "all cursors at the end")
	each := (heap() - before) / n
	t.Logf("%d KiB for each idle destination", each>>10)
	require.Less(t, each, int64(256<<10))
	require.Zero(t, p.HeldBytes())
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

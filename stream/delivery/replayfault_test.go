package delivery_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// eachFault runs a test with its seeds.
func eachFault(t *testing.T, few int, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	seeds.Each(t, few, func(t *testing.T, seed uint64) { run(t, rand.New(rand.NewPCG(seed, 5))) })
}

func TestFaultADestinationPausedBeyondRetentionGetsOneGapAndGoesOnAtTheLogsStart(t *testing.T) {
	eachFault(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, streamtest.FakeOnly())
		d := w.destination("crm", "*")
		w.r.answer = func(context.Context, delivery.Delivery) delivery.Outcome {
			<-time.After(time.Millisecond) // a receiver takes its time
			return delivery.Outcome{Status: 200}
		}
		reg := prometheus.NewRegistry()
		w.registry = reg
		p := w.start("one", func(c *delivery.Config) { c.Concurrency = 8 })
		w.Append(facts(50, 10)...)
		at := rng.IntN(500) // paused while deliveries are in flight, or nearly done
		w.Eventually(func(context.Context) (bool, error) { return w.r.count("crm") >= at, nil }, "progress")
		_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
		require.NoError(t, err)
		w.Eventually(func(context.Context) (bool, error) { return p.Tracks("") == 0, nil }, "the pause")
		before := w.r.count("crm")
		stands := map[int32]int64{}
		cursors, err := w.db.DestinationCursors(w.Context(), d.ID)
		require.NoError(t, err)
		for _, c := range cursors {
			stands[c.Partition] = c.Position
		}
		w.Append(facts(50, 10)...)
		trim, starts := kadm.Offsets{}, map[int32]int64{}
		for n, end := range w.Ends(schemas.TopicLifecycle) {
			starts[n] = rng.Int64N(end + 1) // before its position, beyond it, or at the end
			trim.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: n, At: starts[n]})
		}
		_, err = w.Admin().DeleteRecords(w.Context(), trim)
		require.NoError(t, err)
		require.Equal(t, before, w.r.count("crm"), "paused")
		_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
		require.NoError(t, err)
		w.waitFlushed(d)

		gaps := map[int32]*schemas.DeadLetter{}
		for _, r := range w.ReadAll(schemas.TopicDeadLetters, true) {
			l, err := w.Codec.DecodeDeadLetter(r.Value)
			require.NoError(t, err)
			require.Equal(t, "gap", l.Reason)
			require.Equal(t, "destination:crm", l.Source)
			require.Nil(t, gaps[l.Partition], "one a partition")
			gaps[l.Partition] = l
		}
		for n, l := range gaps {
			// What it had read before it was paused is not lost.
			require.GreaterOrEqual(t, l.Offset, stands[n])
			require.Equal(t, starts[n], *l.EndOffset, "the log's start")
		}
		require.InDelta(t, len(gaps), counterValue(t, reg, "hogstream_delivery_gaps_total"), 0, "what an alert looks at")
		w.requireAllBut(gaps)
		require.Zero(t, w.r.repeats)
		t.Logf("it stood at %v, the log starts at %v: %d gaps", stands, starts, len(gaps))
	})
}

// requireAllBut says that every offset was delivered or is named by a gap.
func (w *world) requireAllBut(gaps map[int32]*schemas.DeadLetter) {
	w.t.Helper()
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	got := map[int32]map[int64]bool{}
	for lane, offsets := range w.r.delivered {
		var key string
		_, err := fmt.Sscanf(lane, "crm %s lifecycle", &key)
		require.NoError(w.t, err, lane)
		n := w.PartitionOf(key)
		if got[n] == nil {
			got[n] = map[int64]bool{}
		}
		for _, o := range offsets {
			got[n][o] = true
		}
	}
	for n, end := range w.Ends(schemas.TopicLifecycle) {
		for o := range end {
			if g := gaps[n]; g != nil && o >= g.Offset && o < *g.EndOffset {
				continue
			}
			require.True(w.t, got[n][o], "offset %d of partition %d", o, n)
		}
	}
}

// since collects what was delivered after the last rewind, by contact.
type since struct {
	mu   sync.Mutex
	took map[string][]int64
}

func (s *since) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = map[string][]int64{}
}

func (s *since) add(key string, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[key] = append(s.took[key], offset)
}

// Rewinds come at any moment: while it runs, with parked contacts, while instances
// come, go and die, and before the one before has finished. The last one counts:
// everything from its target on is delivered again, each contact in order, and what
// nobody was sent is a dead letter. A rewind that Postgres ended in a deadlock with a
// flush was once refused.
func TestFaultRewindsAtAnyMomentEndAtTheRightPlace(t *testing.T) {
	eachFault(t, 2, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t)
		d := w.destination("crm", "*")
		var seen since
		seen.reset()
		var mu sync.Mutex
		bad := map[string]bool{}
		fails := func(key string) bool { mu.Lock(); defer mu.Unlock(); return bad[key] }
		w.r.t = quiet{t} // two instances may have one contact in flight when one of them died
		w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
			<-time.After(time.Duration(rand.IntN(1000)) * time.Microsecond)
			key := string(dv.Records[0].Key)
			if fails(key) {
				return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
			}
			seen.add(key, dv.Records[0].Offset)
			return delivery.Outcome{Status: 200}
		}
		start := func(name string) *process {
			return w.start(name, func(c *delivery.Config) { c.Concurrency, c.ParkedMax, c.Window = 8, c.BackoffMax, 100 })
		}
		running := map[string]*process{"one": start("one")}
		names := []string{"one", "two", "three"}
		rewind := func() map[int32]int64 {
			targets, to := map[int32]int64{}, []storage.CursorStart{}
			seen.reset()
			for n, end := range w.Ends(schemas.TopicLifecycle) {
				targets[n] = []int64{0, rng.Int64N(end + 1), end}[rng.IntN(3)]
				to = append(to, storage.CursorStart{Topic: string(schemas.TopicLifecycle), Partition: n, Offset: targets[n]})
			}
			require.NoError(t, w.admin.Rewind(w.Context(), w.db, d.ID, to))
			return targets
		}
		w.Append(facts(40, 10)...)
		var log []string
		for range 14 {
			name := names[rng.IntN(len(names))]
			p, what := running[name], rng.IntN(6)
			switch {
			case what == 0 && p == nil:
				running[name] = start(name)
			case what == 0 && len(running) > 1 && rng.IntN(2) == 0:
				p.crash()
				delete(running, name)
			case what == 0 && len(running) > 1:
				p.stop()
				delete(running, name)
			case what == 1:
				w.Append(facts(40, 2)...)
			case what == 2:
				mu.Lock()
				bad[fmt.Sprint("contact-", rng.IntN(40))] = true
				mu.Unlock()
			default:
				rewind()
			}
			log = append(log, fmt.Sprint(what, " ", name))
			more := w.r.counted() + rng.IntN(60)
			near, enough := context.WithTimeout(w.Context(), 200*time.Millisecond)
			for near.Err() == nil && w.r.counted() < more {
				select {
				case <-near.Done():
				case <-time.After(time.Millisecond):
				}
			}
			enough()
		}
		targets := rewind()
		mu.Lock()
		clear(bad)
		mu.Unlock()
		if len(running) == 1 {
			start(names[(slices.Index(names, slices.Collect(maps.Keys(running))[0])+1)%3]) // and once more, while they share anew
		}
		w.Append(facts(40, 2)...)
		w.waitFlushed(d)
		w.Eventually(func(context.Context) (bool, error) { keys, records := w.parked(d); return keys+records == 0, nil }, "nothing parked")
		w.waitSkipped()
		w.requireSince(&seen, targets, log)
		w.requireDeliveredOrSkipped(d, log)
	})
}

// requireSince says that every record from the targets on was delivered after the
// rewind, each contact's in order.
func (w *world) requireSince(s *since, targets map[int32]int64, log []string) {
	w.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := map[int32]map[int64]bool{}
	for n := range targets {
		got[n] = map[int64]bool{}
	}
	for key, offsets := range s.took {
		// What an owner sent before it had heard of the rewind, and of those right
		// before it, stands before the rest and does not count.
		again := offsets
		for i := 1; i < len(offsets); i++ {
			if offsets[i] <= offsets[i-1] {
				again = offsets[i:]
			}
		}
		for _, o := range again {
			got[w.PartitionOf(key)][o] = true
		}
	}
	for n, end := range w.Ends(schemas.TopicLifecycle) {
		for o := targets[n]; o < end; o++ {
			require.True(w.t, got[n][o], "offset %d of partition %d from %d, in order at the end, after %v", o, n, targets[n], log)
		}
	}
}

// requireDeliveredOrSkipped says that no record of lifecycle is missing: each was
// delivered, or is a dead letter.
func (w *world) requireDeliveredOrSkipped(d *storage.Destination, log []string) {
	w.t.Helper()
	left, delivered := w.skipped(d), 0
	for _, r := range w.ReadAll(schemas.TopicLifecycle, true) {
		w.r.mu.Lock()
		got := w.r.first[fmt.Sprintf("%s %s lifecycle", d.Name, r.Key)][r.Offset]
		w.r.mu.Unlock()
		letter := left[fmt.Sprintf("lifecycle-%d-%d", r.Partition, r.Offset)]
		require.True(w.t, got || letter != nil, "offset %d of partition %d was lost, after %v", r.Offset, r.Partition, log)
		if got {
			delivered++
		}
	}
	w.t.Logf("%d records delivered, %d dead letters", delivered, len(left))
}

// counted is the number of attempts so far.
func (r *receiver) counted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts
}

// quiet does not fail a test for what only holds without crashes and rewinds.
type quiet struct{ testing.TB }

func (quiet) Errorf(string, ...any) {}

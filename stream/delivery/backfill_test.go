package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// replayed is a Deliverer that tells live from backfills and watches over the
// order of each.
type replayed struct {
	t      testing.TB
	answer func(delivery.Delivery) delivery.Outcome

	mu   sync.Mutex
	live map[string][]int64
	back map[string][]int64 // by replay, topic and key
	ids  map[string]int     // of records in backfills, how often
	sent []time.Time        // of each backfilled record
}

func (w *world) replayedBy(answer func(delivery.Delivery) delivery.Outcome) *replayed {
	r := &replayed{t: w.t, answer: answer, live: map[string][]int64{}, back: map[string][]int64{}, ids: map[string]int{}}
	w.r.answer = r.take
	return r
}

func (r *replayed) take(_ context.Context, d delivery.Delivery) delivery.Outcome {
	out := delivery.Outcome{Status: 200}
	if r.answer != nil {
		out = r.answer(d)
	}
	if out.Verdict != delivery.Delivered {
		return out
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range d.Records {
		lane := fmt.Sprintf("%s %s %s", d.ReplayID, rec.Topic, rec.Key)
		seen := r.live
		if d.ReplayID != "" {
			seen = r.back
			r.ids[rec.ID]++
			r.sent = append(r.sent, time.Now())
		}
		if l := seen[lane]; len(l) > 0 && l[len(l)-1] > rec.Offset {
			r.t.Errorf("%q: offset %d after %d", lane, rec.Offset, l[len(l)-1])
		}
		seen[lane] = append(seen[lane], rec.Offset)
	}
	return out
}

func (r *replayed) count() (live, back int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.live {
		live += len(l)
	}
	for _, l := range r.back {
		back += len(l)
	}
	return live, back
}

func (w *world) waitReplay(d *storage.Destination, id string, status string) *replay.Backfill {
	w.t.Helper()
	var b *replay.Backfill
	w.Eventually(func(ctx context.Context) (ok bool, err error) {
		b, err = w.replayer().Replay(ctx, d.ID, id)
		return err == nil && b.Status == status, err
	}, "backfill %s to be %s", id, status)
	return b
}

// apart keeps the checks of the world's own receiver out of the way: a contact may
// be delivered live and by a backfill at once.
type apart struct{ *replayed }

func (a apart) Batch(*storage.Destination) (int, int) { return 1, 1 << 20 }

func (a apart) Deliver(ctx context.Context, d delivery.Delivery) delivery.Outcome {
	return a.take(ctx, d)
}

func (w *world) startWith(name string, deliverer delivery.Deliverer, change ...func(*delivery.Config)) *process {
	w.t.Helper()
	cfg := delivery.Config{Instance: name, Lease: 3 * time.Second, Renew: 500 * time.Millisecond, Deadline: time.Second,
		Drain: time.Second, SessionTimeout: 2 * time.Second, BackoffBase: 5 * time.Millisecond, BackoffMax: 50 * time.Millisecond}
	for _, c := range change {
		c(&cfg)
	}
	s, err := delivery.NewSinks(cfg, delivery.Deps{Kafka: w.Config, DB: w.db, Appender: w.Log(), Codec: w.Codec, Deliverer: deliverer, Destinations: w.store, Log: w.Logger})
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{Sinks: s, cancel: cancel, done: make(chan error, 1)}
	go func() { p.done <- s.Run(ctx) }()
	w.t.Cleanup(p.stop)
	return p
}

func TestADestinationCreatedTodayIsBackfilledFromTheOldestRecordWhileLiveGoesOn(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(20, 10)...)
	w.Append(fact("contact-1", schemas.FactBucketEntered)) // not for it
	d := w.destination("crm", "contact.*")
	w.Append(facts(20, 2)...) // live
	r := w.replayedBy(nil)
	w.startWith("one", apart{r})
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{})
	require.NoError(t, err)
	require.True(t, out.Preview.Exact)
	require.LessOrEqual(t, int64(200), out.Preview.Records)
	b := w.waitReplay(d, out.Replay.ID, "finished")
	require.InDelta(t, 1, b.Progress, 0)
	require.Equal(t, b.OffsetsTotal, b.OffsetsDone)
	require.NotNil(t, b.EndedAt)
	w.Append(facts(20, 1)...)
	w.Eventually(func(context.Context) (bool, error) { live, _ := r.count(); return live == 60, nil }, "live records")
	_, back := r.count()
	require.EqualValues(t, out.Preview.Records, back, "each once, with the replay's id")
	for id, n := range r.ids {
		require.Equal(t, 1, n, id)
	}
	w.waitFlushed(d)
	var rows int
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT count(*) FROM delivery_attempts WHERE replay_id = $1`, b.ID).Scan(&rows))
	require.Equal(t, back, rows)
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.Context(), `SELECT count(*) FROM cursors WHERE replay_id = $1`, b.ID).Scan(&rows))
	require.Zero(t, rows, "an ended backfill leaves no cursors")
}

func TestABackfillTakesOnlyTheTypesAndKeysAskedFor(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(10, 4)...)
	w.Append(fact("contact-3", schemas.FactContactDeleted), fact("contact-4", schemas.FactContactDeleted))
	d := w.destination("crm", "contact.*")
	r := w.replayedBy(nil)
	w.startWith("one", apart{r})
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{Types: []string{"contact.deleted"}})
	require.NoError(t, err)
	require.EqualValues(t, 2, out.Preview.Records)
	w.waitReplay(d, out.Replay.ID, "finished")
	_, back := r.count()
	require.Equal(t, 2, back)

	out, err = w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{Keys: []string{"contact-3"}})
	require.NoError(t, err)
	require.EqualValues(t, 5, out.Preview.Records)
	w.waitReplay(d, out.Replay.ID, "finished")
	_, back = r.count()
	require.Equal(t, 7, back)

	_, err = w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{Types: []string{"event.tracked"}})
	var wrong *replay.Error
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "types", wrong.Field)
}

func TestABackfillSurvivesCrashesOfEveryProcessAndLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(30, 20)...)
	d := w.destination("crm", "contact.*")
	var served atomic.Int64
	count := func(delivery.Delivery) delivery.Outcome { served.Add(1); return delivery.Outcome{Status: 200} }
	seen := map[string]bool{}
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{Rate: 400})
	require.NoError(t, err)
	for i := range 3 {
		// A crash may repeat what was not flushed; order is checked for each life.
		life := &replayed{t: t, live: map[string][]int64{}, back: map[string][]int64{}, ids: map[string]int{}, answer: count}
		before := served.Load()
		p := w.startWith(fmt.Sprint("life-", i), apart{life})
		w.Eventually(func(context.Context) (bool, error) { return served.Load() >= before+100, nil }, "a hundred of them")
		p.crash()
		life.mu.Lock() // what was in flight may still arrive
		for id := range life.ids {
			seen[id] = true
		}
		life.mu.Unlock()
	}
	life := &replayed{t: t, live: map[string][]int64{}, back: map[string][]int64{}, ids: map[string]int{}}
	w.startWith("last", apart{life})
	w.waitReplay(d, out.Replay.ID, "finished")
	for id := range life.ids {
		seen[id] = true
	}
	require.Len(t, seen, 600)
}

func TestABackfillIsPausedResumedAndCancelled(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(30, 10)...)
	d := w.destination("crm", "contact.*")
	r := w.replayedBy(nil)
	p := w.startWith("one", apart{r})
	rep := w.replayer()
	out, err := rep.Backfill(w.Context(), d.ID, replay.BackfillRequest{Rate: 100})
	require.NoError(t, err)
	backs := func() int { _, n := r.count(); return n }
	w.Eventually(func(context.Context) (bool, error) { return backs() >= 20, nil }, "some of it")
	b, err := rep.SetReplay(w.Context(), d.ID, out.Replay.ID, storage.ReplayPaused)
	require.NoError(t, err)
	require.Equal(t, "paused", b.Status)
	require.Nil(t, b.EtaSeconds)
	w.Append(facts(30, 1)...) // live goes on
	w.Eventually(func(context.Context) (bool, error) { live, _ := r.count(); return live == 30, nil }, "live records")
	w.Eventually(func(context.Context) (bool, error) { return p.Tracks(out.Replay.ID) == 0, nil }, "the pause to be heard")
	stood := backs()
	require.Less(t, stood, 300)

	_, err = rep.SetReplay(w.Context(), d.ID, out.Replay.ID, storage.ReplayRunning)
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { return backs() >= stood+20, nil }, "more of it")
	w.Eventually(func(ctx context.Context) (bool, error) {
		b, err = rep.Replay(ctx, d.ID, out.Replay.ID)
		return err == nil && b.EtaSeconds != nil && b.Progress > 0 && b.Progress < 1, err
	}, "an estimate")

	b, err = rep.SetReplay(w.Context(), d.ID, out.Replay.ID, storage.ReplayCancelled)
	require.NoError(t, err)
	require.Equal(t, "cancelled", b.Status)
	require.Positive(t, b.OffsetsDone)
	w.Eventually(func(context.Context) (bool, error) { return p.Tracks(out.Replay.ID) == 0, nil }, "the end to be heard")
	require.Less(t, backs(), 300)
	_, err = rep.SetReplay(w.Context(), d.ID, out.Replay.ID, storage.ReplayRunning)
	require.ErrorIs(t, err, replay.ErrReplayState)
	list, err := rep.Replays(w.Context(), d.ID, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestABackfillKeepsToItsRateAcrossProcesses(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(4))
	w.Append(facts(100, 6)...)
	d := w.destination("crm", "contact.*")
	r := w.replayedBy(nil)
	one, two := w.startWith("one", apart{r}), w.startWith("two", apart{r})
	w.Eventually(func(context.Context) (bool, error) { return len(one.Owned()) == 2 && len(two.Owned()) == 2, nil }, "two partitions each")
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{Rate: 200})
	require.NoError(t, err)
	require.InDelta(t, 3, out.Preview.Seconds, 0.1)
	b := w.waitReplay(d, out.Replay.ID, "finished")
	require.Greater(t, b.ActiveSeconds, 2.0)
	slices.SortFunc(r.sent, func(a, b time.Time) int { return a.Compare(b) })
	for i := range r.sent {
		until := r.sent[i].Add(time.Second)
		n, _ := slices.BinarySearchFunc(r.sent, until, func(a, b time.Time) int { return a.Compare(b) })
		require.LessOrEqual(t, n-i, 250, "records within a second from %d on", i)
	}
}

func TestABackfillStandsStillWhileItsDestinationIsPausedAndEndsAfterwards(t *testing.T) {
	w := newWorld(t)
	w.Append(facts(10, 10)...)
	d := w.destination("crm", "contact.*")
	_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	r := w.replayedBy(nil)
	w.startWith("one", apart{r})
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{})
	require.NoError(t, err)
	b, err := w.replayer().Replay(w.Context(), d.ID, out.Replay.ID)
	require.NoError(t, err)
	require.Equal(t, "running", b.Status)
	_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	w.waitReplay(d, out.Replay.ID, "finished")
	_, back := r.count()
	require.Equal(t, 100, back)
}

// With more failing contacts than the window has places it would stand still
// otherwise, for up to the retry horizon.
func TestABackfillParksContactsThatFailAndTheOthersGoOn(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	w.Append(facts(100, 5)...)
	d := w.destination("crm", "contact.*")
	var mended atomic.Bool
	bad := func(d delivery.Delivery) bool {
		var n int
		_, _ = fmt.Sscanf(string(d.Records[0].Key), "contact-%d", &n)
		return d.ReplayID != "" && n%5 == 0
	}
	answer := func(d delivery.Delivery) delivery.Outcome {
		if bad(d) && !mended.Load() {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 500}
		}
		return delivery.Outcome{Status: 200}
	}
	small := func(c *delivery.Config) { c.Window, c.ParkedMax = 15, c.BackoffMax }
	r := w.replayedBy(answer)
	p := w.startWith("one", apart{r}, small)
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{})
	require.NoError(t, err)
	live := 0
	trickle := func() { // a contact is parked while others are accepted
		w.Append(facts(4, 1)...)
		live += 4
	}
	var b *replay.Backfill
	w.Eventually(func(ctx context.Context) (bool, error) {
		trickle()
		b, err = w.replayer().Replay(ctx, d.ID, out.Replay.ID)
		_, back := r.count()
		return err == nil && back == 400 && b.ParkedKeys == 20 && b.OffsetsDone == b.OffsetsTotal, err
	}, "the others, and 20 parked contacts")
	require.Equal(t, "running", b.Status)
	require.Equal(t, 100, b.Parked)
	require.Nil(t, b.EtaSeconds)
	w.Eventually(func(context.Context) (bool, error) { n, _ := r.count(); return n == live, nil }, "live, also of contacts that the backfill has parked")

	p.stop()
	mended.Store(true)
	w.startWith("two", apart{r}, small)
	w.waitReplay(d, out.Replay.ID, "finished")
	_, back := r.count()
	require.Equal(t, 500, back)
	for id, n := range r.ids {
		require.Equal(t, 1, n, id)
	}
	keys, records := w.parked(d)
	require.Zero(t, keys+records)
}

func TestACancelledBackfillTakesWhatItHasParkedWithItAndLeavesThatOfLive(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	w.Append(facts(10, 5)...)
	d := w.destination("crm", "contact.*")
	r := w.replayedBy(func(d delivery.Delivery) delivery.Outcome {
		if string(d.Records[0].Key) == "contact-3" {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 500}
		}
		return delivery.Outcome{Status: 200}
	})
	p := w.startWith("one", apart{r})
	out, err := w.replayer().Backfill(w.Context(), d.ID, replay.BackfillRequest{})
	require.NoError(t, err)
	w.Eventually(func(ctx context.Context) (bool, error) {
		w.Append(facts(10, 1)...)
		b, err := w.replayer().Replay(ctx, d.ID, out.Replay.ID)
		keys, _ := w.parked(d)
		return err == nil && b.ParkedKeys == 1 && b.Parked == 5 && keys == 2, err
	}, "contact-3 to be parked live and by the backfill")
	_, err = w.replayer().SetReplay(w.Context(), d.ID, out.Replay.ID, storage.ReplayCancelled)
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { return p.Tracks(out.Replay.ID) == 0, nil }, "the end to be heard")
	keys, _, err := w.db.ParkedKeys(w.Context(), d.ID, storage.ParkedFilter{}, "", 10)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, storage.LiveReplay, keys[0].ReplayID)
}

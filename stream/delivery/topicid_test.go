package delivery_test

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// taken are the records that destinations were sent, by id: on a log made anew the
// same offsets come again.
type taken struct {
	mu  sync.Mutex
	ids map[string]map[string]int // by destination, "/backfill" behind those of one
}

func (k *taken) answer(_ context.Context, d delivery.Delivery) delivery.Outcome {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := d.Destination.Name
	if d.ReplayID != "" {
		name += "/backfill"
	}
	if k.ids[name] == nil {
		k.ids[name] = map[string]int{}
	}
	for _, r := range d.Records {
		k.ids[name][r.ID]++
	}
	return delivery.Outcome{Status: 200}
}

func (k *taken) of(name string) map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.ids[name])
}

// wantTaken waits until a destination was sent so many records, and fails when one
// of the messages is not among them.
func (w *world) wantTaken(k *taken, name string, n int, all ...[]schemas.Message) {
	w.t.Helper()
	w.Eventually(func(context.Context) (bool, error) { return len(k.of(name)) >= n, nil }, "%d records at %s", n, name)
	got := k.of(name)
	require.Len(w.t, got, n, name)
	for _, m := range slices.Concat(all...) {
		require.Contains(w.t, got, m.Meta().ID, name)
	}
}

func TestDestinationsStopVisiblyOnALogThatWasMadeAnewUntilAnOperatorSaysFromWhereToGoOn(t *testing.T) {
	for name, down := range map[string]bool{"while the process runs": false, "while it is down": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k := &taken{ids: map[string]map[string]int{}}
			w.r.answer = k.answer
			crm, both := w.destination("crm", "contact.*"), w.destination("both", "contact.*", "event.tracked")
			w.destination("other", "event.tracked")
			often := func(c *delivery.Config) { c.MirrorEvery = 50 * time.Millisecond }
			p := w.start("one", often)
			old := facts(20, 5)
			w.Append(old...)
			w.wantTaken(k, "crm", 100, old)
			w.wantTaken(k, "both", 100, old)
			w.waitFlushed(crm)
			w.waitFlushed(both)
			backfill, err := w.replayer().Backfill(w.Context(), crm.ID, replay.BackfillRequest{Rate: 1})
			require.NoError(t, err)
			w.Eventually(func(context.Context) (bool, error) { return len(k.of("crm/backfill")) > 0, nil }, "the backfill to begin")
			if down {
				p.stop()
			}

			w.Recreate(schemas.TopicLifecycle)
			fresh := facts(20, 10) // the new log outgrows the positions
			w.Append(fresh...)
			if down {
				p = w.start("one", often)
			}
			w.Eventually(func(context.Context) (bool, error) {
				return p.Orphans("crm") >= 2*len(w.Ends(schemas.TopicLifecycle)) && p.Orphans("both") == len(w.Ends(schemas.TopicLifecycle)), nil
			}, "the stop")
			seen := events(20)
			w.Append(seen...)
			w.wantTaken(k, "other", 20, seen)
			w.wantTaken(k, "both", 120, old, seen) // the topic that is the same goes on
			require.Len(t, k.of("crm"), 100, "nothing of the log made anew")

			orphans, err := w.admin.Orphans(w.Context(), w.db)
			require.NoError(t, err)
			require.Len(t, orphans.Destinations, 6)
			require.Empty(t, orphans.Processors)
			w.wantLag("sink.crm", 200)
			w.wantLag("sink.both", 200)
			w.Eventually(func(context.Context) (bool, error) {
				return maps.Equal(w.Committed(stream.MirrorGroup("crm"), schemas.TopicLifecycle), map[int32]int64{0: 0, 1: 0, 2: 0}), nil
			}, "the mirror to show nothing of the new log")
			_, err = w.replayer().Backfill(w.Context(), crm.ID, replay.BackfillRequest{})
			require.ErrorContains(t, err, "rewind it first")

			// The two commands, and another backfill in place of the one that cannot go on.
			_, err = w.replayer().Rewind(w.Context(), crm.ID, replay.RewindRequest{To: "start"})
			require.NoError(t, err)
			w.wantTaken(k, "crm", 300, old, fresh)
			var undelivered *replay.UndeliveredError
			_, err = w.replayer().Skip(w.Context(), both.ID, replay.SkipRequest{})
			require.ErrorAs(t, err, &undelivered)
			require.EqualValues(t, 200, undelivered.Records, "all of the new log")
			skipped, err := w.replayer().Skip(w.Context(), both.ID, replay.SkipRequest{SkipUndelivered: true})
			require.NoError(t, err)
			require.EqualValues(t, 200, skipped.Undelivered)
			w.WaitRecords(schemas.TopicDeadLetters, 200)
			_, err = w.replayer().SetReplay(w.Context(), crm.ID, backfill.Replay.ID, storage.ReplayCancelled)
			require.NoError(t, err)
			w.waitFlushed(crm)
			before := len(k.of("crm/backfill"))
			_, err = w.replayer().Backfill(w.Context(), crm.ID, replay.BackfillRequest{})
			require.NoError(t, err)
			w.wantTaken(k, "crm/backfill", before+200, fresh)
			w.waitFlushed(both)
			last := facts(20, 1)
			w.Append(last...)
			w.wantTaken(k, "crm", 320, old, fresh, last)
			w.wantTaken(k, "both", 140, old, seen, last)
			w.Eventually(func(context.Context) (bool, error) { return p.Orphans("crm")+p.Orphans("both") == 0, nil }, "nothing to be stopped")
			w.waitFlushed(crm)
			w.wantLag("sink.crm", 0)
		})
	}
}

// wantLag waits until a group's lag is so many records.
func (w *world) wantLag(group string, want int64) {
	w.t.Helper()
	w.Eventually(func(ctx context.Context) (bool, error) {
		lags, err := w.admin.LagWithOrphans(ctx, w.db)
		for _, g := range lags {
			if g.Group == group {
				return g.Lag == want, err
			}
		}
		return false, err
	}, "a lag of %d of %s", want, group)
}

func TestCursorsFromBeforeIdsWereKeptLearnThemAndThenStopToo(t *testing.T) {
	w := newWorld(t)
	k := &taken{ids: map[string]map[string]int{}}
	w.r.answer = k.answer
	d := w.destination("crm", "contact.*")
	_, err := storagetest.SQL(w.db).Exec(t.Context(), `UPDATE cursors SET topic_id = NULL`)
	require.NoError(t, err)
	p := w.start("one")
	old := facts(20, 5)
	w.Append(old...)
	w.wantTaken(k, "crm", 100, old)
	w.waitFlushed(d)
	now, err := w.admin.TopicIDs(w.Context(), schemas.TopicLifecycle)
	require.NoError(t, err)
	w.Eventually(func(ctx context.Context) (bool, error) {
		cursors, err := w.db.DestinationCursors(ctx, d.ID)
		return err == nil && !slices.ContainsFunc(cursors, func(c storage.Cursor) bool { return c.TopicID != now[schemas.TopicLifecycle] }), err
	}, "the ids to be written")
	w.Recreate(schemas.TopicLifecycle)
	w.Append(facts(20, 10)...)
	w.Eventually(func(context.Context) (bool, error) { return p.Orphans("crm") == 3, nil }, "the stop")
	require.Len(t, k.of("crm"), 100)
}

func TestWhatIsParkedOfAFormerLogIsDeliveredAfterARewindToTheOneMadeAnew(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	ctx := w.Context()
	park := func(offset int64, id string) {
		t.Helper()
		cursors, err := w.db.DestinationCursors(ctx, d.ID)
		require.NoError(t, err)
		require.NoError(t, w.db.InTx(ctx, func(tx *storage.Tx) error {
			return tx.ParkRecords(ctx, []storage.ParkedRecord{{
				ParkedTrack: storage.ParkedTrack{DestinationID: d.ID, ReplayID: storage.LiveReplay}, Key: "contact-1", Topic: "lifecycle", Offset: offset,
				RecordID: id, RecordType: schemas.FactContactUpdated, Value: []byte("x"), Epoch: cursors[0].Epoch,
			}})
		}))
	}
	park(0, "a")
	park(3, "b")
	for _, rewound := range []string{"c", "d"} { // made anew twice
		w.Recreate(schemas.TopicLifecycle)
		_, err := w.replayer().Rewind(ctx, d.ID, replay.RewindRequest{To: "start"})
		require.NoError(t, err)
		park(0, rewound)
	}
	rows, err := storagetest.SQL(w.db).Query(ctx, `SELECT record_id FROM parked_records ORDER BY topic DESC, "offset"`)
	require.NoError(t, err)
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		ids = append(ids, id)
	}
	require.NoError(t, rows.Err())
	require.Equal(t, []string{"a", "b", "c", "d"}, ids)
	// On one log a rewind has them read again.
	_, err = w.replayer().Rewind(ctx, d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	var left int
	require.NoError(t, storagetest.SQL(w.db).QueryRow(ctx, `SELECT count(*) FROM parked_records`).Scan(&left))
	require.Equal(t, 3, left)
}

func TestWhatARewindLeftOutOfALogThatWasThenMadeAnewBecomesALetterOfTheGap(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.Append(facts(20, 1)...)
	ends := w.Ends(schemas.TopicLifecycle)
	_, err := w.replayer().Skip(w.Context(), d.ID, replay.SkipRequest{SkipUndelivered: true})
	require.NoError(t, err)
	w.Recreate(schemas.TopicLifecycle)
	w.Append(facts(20, 2)...)
	w.start("one")
	for _, r := range w.WaitRecords(schemas.TopicDeadLetters, len(ends)) {
		letter, err := w.Codec.DecodeDeadLetter(r.Value)
		require.NoError(t, err)
		require.Equal(t, "gap", letter.Reason)
		require.Zero(t, letter.Offset)
		require.Equal(t, ends[letter.Partition], *letter.EndOffset)
	}
	w.Eventually(func(ctx context.Context) (bool, error) {
		skips, err := w.db.LoadSkips(ctx, slices.Collect(maps.Keys(ends)))
		return len(skips) == 0, err
	}, "the skips to be through")
	require.Len(t, w.ReadAll(schemas.TopicDeadLetters, true), len(ends), "nothing of the new log")
}

func TestWhatWasDoneWithALetterIsNotTakenForDoneWithTheOneThatStandsThereOnATopicMadeAnew(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	sent := 0
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(context.Context, string, *stream.Record, int) (delivery.Outcome, error) {
		sent++
		return delivery.Outcome{Status: 200}, nil
	})
	list := func() []*replay.Letter {
		t.Helper()
		page, err := letters.List(w.Context(), replay.LetterFilter{Status: storage.LetterPending}, "", 100)
		require.NoError(t, err)
		return page.Letters
	}
	w.letters(d, 4)
	all := list()
	require.Len(t, all, 4)
	require.NoError(t, letters.Discard(w.Context(), all[0].Place))
	_, err := letters.Redrive(w.Context(), all[1].Place)
	require.NoError(t, err)
	require.Len(t, list(), 2)

	w.Recreate(schemas.TopicDeadLetters)
	w.letters(d, 0) // those of the same records again
	require.Len(t, list(), 4)
	for i, l := range list() {
		if i == 0 {
			require.NoError(t, letters.Discard(w.Context(), l.Place))
			continue
		}
		done, err := letters.Redrive(w.Context(), l.Place)
		require.NoError(t, err)
		require.Equal(t, 1, done.RetryCount)
	}
	require.Empty(t, list())
	require.Equal(t, 4, sent)
}

// A broker from before topics had ids reports zero, which says nothing.
func TestABrokerThatReportsNoIdsStopsNobody(t *testing.T) {
	w := newWorld(t, streamtest.WithoutTopicIDs())
	k := &taken{ids: map[string]map[string]int{}}
	w.r.answer = k.answer
	d := w.destination("crm", "contact.*")
	w.start("one")
	msgs := facts(20, 5)
	w.Append(msgs...)
	w.wantTaken(k, "crm", 100, msgs)
	w.waitFlushed(d)
	// The id was learned of a broker that has them.
	_, err := storagetest.SQL(w.db).Exec(t.Context(), `UPDATE cursors SET topic_id = gen_random_uuid(), epoch = epoch + 1`)
	require.NoError(t, err)
	w.start("two")
	more := facts(20, 1)
	w.Append(more...)
	w.wantTaken(k, "crm", 120, msgs, more)
	orphans, err := w.admin.Orphans(w.Context(), w.db)
	require.NoError(t, err)
	require.Empty(t, orphans.Destinations)
}

package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func (w *world) replayer() *replay.Replayer { return replay.NewReplayer(w.admin, w.db, w.store) }

func (w *world) repeats() int {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	return w.r.repeats
}

func TestARewindIsPreviewedExactlyAndADryRunChangesNothing(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.Append(facts(10, 4)...)
	w.Append(fact("contact-1", schemas.FactBucketEntered)) // not for it
	w.start("one")
	w.waitDelivered("crm", 40)
	w.waitFlushed(d)

	r := w.replayer()
	out, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start", DryRun: true})
	require.NoError(t, err)
	require.True(t, out.Exact)
	require.EqualValues(t, 40, out.Records)
	require.Equal(t, map[string]int64{schemas.FactContactUpdated: 40}, out.ByType)
	require.EqualValues(t, 41, out.Scanned)
	require.NotNil(t, out.First)
	require.False(t, out.First.After(out.Last.Time))
	require.False(t, out.Applied)
	for _, m := range out.Positions {
		require.Zero(t, m.To)
	}

	out, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	require.True(t, out.Applied)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() == 40, nil }, "all of it again, and from the dry run nothing")
	w.waitFlushed(d)
}

func TestARewindToATimeSendsWhatWasAppendedSinceThen(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.Append(facts(10, 3)...)
	between := time.Now().Add(2 * time.Millisecond)
	w.Eventually(func(context.Context) (bool, error) { return time.Now().After(between), nil }, "append times have milliseconds")
	w.Append(facts(10, 2)...)
	w.start("one")
	w.waitDelivered("crm", 50)
	w.waitFlushed(d)
	out, err := w.replayer().Rewind(w.Context(), d.ID, replay.RewindRequest{To: between.UTC().Format(time.RFC3339Nano)})
	require.NoError(t, err)
	require.EqualValues(t, 20, out.Records)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() == 20, nil }, "the later ones again")
	w.waitFlushed(d)
}

// Kafka reads -1 as the end and -2 as the start.
func TestATimeBefore1970IsTheStart(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.Append(facts(10, 3)...)
	for _, before := range []string{"0001-01-01T00:00:00Z", "1969-12-31T23:59:59.998Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00Z"} {
		out, err := w.replayer().Rewind(w.Context(), d.ID, replay.RewindRequest{To: before, DryRun: true})
		require.NoError(t, err, before)
		require.EqualValues(t, 30, out.Records, before)
	}
}

func TestWhereThereIsNoPartitionThereIsNoRecord(t *testing.T) {
	w := newWorld(t)
	record, err := reader.ReadRecord(w.Context(), w.admin, schemas.TopicLifecycle, 99, 0)
	require.NoError(t, err)
	require.Nil(t, record)
}

func TestOnePartitionIsRewoundToAnOffsetAndTheOthersStay(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(2))
	d := w.destination("crm", "contact.*")
	w.Append(facts(40, 5)...)
	w.start("one")
	w.waitDelivered("crm", 200)
	w.waitFlushed(d)
	end := w.Ends(schemas.TopicLifecycle)[1]
	one := int32(1)
	out, err := w.replayer().Rewind(w.Context(), d.ID, replay.RewindRequest{To: fmt.Sprint(end - 7), Partition: &one})
	require.NoError(t, err)
	require.Equal(t, []replay.Move{{Topic: "lifecycle", Partition: 1, From: end, To: end - 7}}, out.Positions)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() == 7, nil }, "seven again")
	w.waitFlushed(d)
}

func TestASecondRewindBeforeTheFirstHasFinishedWins(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(2))
	d := w.destination("crm", "contact.*")
	w.Append(facts(20, 10)...)
	w.start("one")
	w.waitDelivered("crm", 200)
	w.waitFlushed(d)
	var block atomic.Bool
	gate := make(chan struct{})
	block.Store(true)
	w.r.answer = func(ctx context.Context, _ delivery.Delivery) delivery.Outcome {
		if block.Load() {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return delivery.Outcome{Status: 200}
	}
	r := w.replayer()
	_, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	_, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	_, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "latest", SkipUndelivered: true})
	require.NoError(t, err)
	block.Store(false)
	close(gate)
	w.waitFlushed(d)
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 220)
	w.waitFlushed(d)
	require.LessOrEqual(t, w.repeats(), 400)
}

func TestARewindDuringARebalanceAndWithNobodyRunningEndsAtTheRightPlace(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.Append(facts(30, 10)...)
	p := w.start("one")
	w.waitDelivered("crm", 300)
	w.waitFlushed(d)
	r := w.replayer()
	w.start("two") // partitions move
	_, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() >= 300, nil }, "all of it again")
	w.waitFlushed(d)

	p.stop()
	before := w.repeats()
	_, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() >= before+300, nil }, "all of it a third time")
	w.waitFlushed(d)
}

// skipped are the places of the dead letters "skipped" of a destination.
func (w *world) skipped(d *storage.Destination) map[string]*schemas.DeadLetter {
	w.t.Helper()
	found := map[string]*schemas.DeadLetter{}
	for _, r := range w.ReadAll(schemas.TopicDeadLetters, true) {
		l, err := w.Codec.DecodeDeadLetter(r.Value)
		require.NoError(w.t, err)
		require.Equal(w.t, d.ID, *l.DestinationID)
		require.Equal(w.t, "skipped", l.Reason)
		found[fmt.Sprintf("%s-%d-%d", l.SourceTopic, l.Partition, l.Offset)] = l
	}
	return found
}

// waitSkipped waits until all that rewinds left out is dead letters.
func (w *world) waitSkipped() {
	w.t.Helper()
	w.Eventually(func(ctx context.Context) (bool, error) {
		var n int
		err := storagetest.SQL(w.db).QueryRow(ctx, `SELECT count(*) FROM skips`).Scan(&n)
		return n == 0, err
	}, "all that was left out to be dead letters")
}

func TestSkippingToNowMakesDeadLettersOfWhatWasAppendedWhilePausedAndSaysSoFirst(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	p := w.start("one")
	w.Append(facts(10, 1)...)
	w.waitDelivered("crm", 10)
	w.waitFlushed(d)
	_, err := w.store.SetStatus(w.Context(), d.ID, storage.DestinationPaused, "")
	require.NoError(t, err)
	w.Eventually(func(context.Context) (bool, error) { return p.Tracks("") == 0, nil }, "the pause to be heard")
	w.Append(facts(10, 5)...)
	w.Append(fact("contact-1", schemas.FactBucketEntered)) // not for it
	r := w.replayer()

	for _, to := range []string{"latest", "2062-01-31T12:00:00Z"} {
		out, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: to, DryRun: true})
		require.NoError(t, err)
		require.EqualValues(t, 50, out.Undelivered)
		require.True(t, out.UndeliveredExact)
		_, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: to})
		var undelivered *replay.UndeliveredError
		require.ErrorAs(t, err, &undelivered)
		require.EqualValues(t, 50, undelivered.Records)
		require.Equal(t, to != "latest", undelivered.Ahead)
		require.ErrorContains(t, err, "50 records before "+to)
	}
	_, err = r.Skip(w.Context(), d.ID, replay.SkipRequest{})
	require.ErrorContains(t, err, "50 records before latest are not delivered yet")

	out, err := r.Skip(w.Context(), d.ID, replay.SkipRequest{SkipUndelivered: true})
	require.NoError(t, err)
	require.True(t, out.Applied)
	require.EqualValues(t, 50, out.Undelivered)
	w.waitSkipped() // also while it is paused
	require.Len(t, w.skipped(d), 50)
	_, err = w.store.SetStatus(w.Context(), d.ID, storage.DestinationActive, "")
	require.NoError(t, err)
	w.Append(facts(10, 1)...)
	w.waitFlushed(d)
	require.Equal(t, 20, w.r.count("crm"))

	sent := map[string]bool{}
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(_ context.Context, id string, r *stream.Record, _ int) (delivery.Outcome, error) {
		sent[fmt.Sprintf("%s-%d-%d", r.Topic, r.Partition, r.Offset)] = id == d.ID
		return delivery.Outcome{Status: 200}, nil
	})
	redriven, err := letters.RedriveAll(w.Context(), replay.LetterFilter{Reason: "skipped", Status: storage.LetterPending}, "", 1000)
	require.NoError(t, err)
	require.Equal(t, 50, redriven.Retried)
	for place := range w.skipped(d) {
		require.True(t, sent[place], place)
	}
	out, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "latest"})
	require.NoError(t, err, "nothing is left to be delivered")
	require.Zero(t, out.Undelivered)
}

// A record that is in flight when the rewind comes, and is delivered after it, is no
// dead letter; one that waits to be tried again and one that is parked are.
func TestARewindForwardLeavesOutWhatIsRetriedAndParkedAndNotWhatIsStillDelivered(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	d := w.destination("crm", "contact.*")
	arrived, gate := make(chan struct{}, 100), make(chan struct{})
	var slow atomic.Bool
	w.r.answer = func(ctx context.Context, dv delivery.Delivery) delivery.Outcome {
		switch key := string(dv.Records[0].Key); {
		case key == "contact-0":
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
		case key == "contact-1" && slow.Load():
			arrived <- struct{}{}
			select {
			case <-gate:
			case <-ctx.Done():
				return delivery.Outcome{Verdict: delivery.Retry, Err: "timeout"}
			}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one", func(c *delivery.Config) { c.Deadline, c.Lease = 20*time.Second, time.Minute })
	w.Eventually(func(context.Context) (bool, error) {
		w.Append(facts(10, 1)...)
		keys, _ := w.parked(d)
		return keys == 1, nil
	}, "a parked contact")
	w.waitFlushed(d)
	_, parked := w.parked(d)
	slow.Store(true)
	w.Append(fact("contact-1", schemas.FactContactUpdated), fact("contact-1", schemas.FactContactUpdated))
	<-arrived // one is in flight, and one waits for it
	r := w.replayer()
	out, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "latest", SkipUndelivered: true})
	require.NoError(t, err)
	require.EqualValues(t, parked+2, out.Undelivered)
	close(gate)
	w.waitSkipped()
	w.Eventually(func(context.Context) (bool, error) { _, n := w.parked(d); return n == 0, nil }, "nothing parked")
	left := w.skipped(d)
	require.GreaterOrEqual(t, len(left), parked)
	for _, rec := range w.ReadAll(schemas.TopicLifecycle, true) {
		w.r.mu.Lock()
		delivered := w.r.first[fmt.Sprintf("crm %s lifecycle", rec.Key)][rec.Offset]
		w.r.mu.Unlock()
		_, skipped := left[fmt.Sprintf("lifecycle-%d-%d", rec.Partition, rec.Offset)]
		require.NotEqual(t, delivered, skipped, "offset %d of %s is delivered or a dead letter, and never both", rec.Offset, rec.Key)
	}
	require.NotContains(t, left, fmt.Sprintf("lifecycle-0-%d", w.Ends(schemas.TopicLifecycle)[0]-2), "it was in flight")
}

func TestWhatARewindLeftOutIsWrittenByWhoeverOwnsThePartitionAndWhatTheLogNoLongerHasIsAGap(t *testing.T) {
	w := newWorld(t, streamtest.FakeOnly(), streamtest.Partitions(1))
	d := w.destination("crm", "contact.*")
	w.Append(facts(10, 5)...)
	out, err := w.replayer().Skip(w.Context(), d.ID, replay.SkipRequest{SkipUndelivered: true})
	require.NoError(t, err)
	require.EqualValues(t, 50, out.Undelivered)
	trim := kadm.Offsets{}
	trim.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: 0, At: 20})
	_, err = w.Admin().DeleteRecords(w.Context(), trim)
	require.NoError(t, err)
	w.start("one")
	w.waitSkipped()
	letters := w.ReadAll(schemas.TopicDeadLetters, true)
	require.Len(t, letters, 31)
	gap, err := w.Codec.DecodeDeadLetter(letters[0].Value)
	require.NoError(t, err)
	require.Equal(t, "gap", gap.Reason)
	require.EqualValues(t, 20, *gap.EndOffset)
	require.Zero(t, w.r.count("crm"))
}

func TestAWrongRewindNamesTheFieldAndTheFix(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*", "event.tracked")
	r := w.replayer()
	nine := int32(9)
	for _, c := range []struct {
		req   replay.RewindRequest
		field string
	}{
		{replay.RewindRequest{To: "yesterday"}, "to"},
		{replay.RewindRequest{To: "17"}, "to"}, // of which topic?
		{replay.RewindRequest{To: "start", Topic: "contacts"}, "topic"},
		{replay.RewindRequest{To: "start", Partition: &nine}, "partition"},
	} {
		_, err := r.Rewind(w.Context(), d.ID, c.req)
		var wrong *replay.Error
		require.ErrorAs(t, err, &wrong, "%+v", c.req)
		require.Equal(t, c.field, wrong.Field)
	}
	for _, to := range []string{"earliest", "latest", "now", "end", "-2", "-1", "7d", "36h", "2026-01-31"} {
		out, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: to, DryRun: true})
		require.NoError(t, err, to)
		require.NotEmpty(t, out.Positions, to)
	}
	_, err := r.Rewind(w.Context(), storage.LiveReplay, replay.RewindRequest{To: "start"})
	require.ErrorIs(t, err, replay.ErrNoDestination)
}

func TestALongLogIsPreviewedInSecondsByLookingAtSamplesOfThem(t *testing.T) {
	if testing.Short() {
		t.Skip("appends much")
	}
	w := newWorld(t)
	d := w.destination("crm", "contact.updated")
	var batch []schemas.Message
	for i := range 10_000 {
		typ := schemas.FactContactUpdated
		if i%4 == 0 {
			typ = schemas.FactBucketEntered
		}
		batch = append(batch, fact(fmt.Sprint("contact-", i%500), typ))
	}
	for range 30 {
		w.Append(batch...)
	}
	began := time.Now()
	out, err := w.replayer().Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start", DryRun: true})
	require.NoError(t, err)
	t.Logf("%d of 300000 records looked at in %s", out.Scanned, time.Since(began))
	require.Less(t, time.Since(began), 5*time.Second)
	require.False(t, out.Exact)
	require.Less(t, out.Scanned, int64(300_000))
	require.InEpsilon(t, 225_000, out.Records, 0.1)

	_, err = w.replayer().Skip(w.Context(), d.ID, replay.SkipRequest{})
	var undelivered *replay.UndeliveredError
	require.ErrorAs(t, err, &undelivered)
	require.False(t, undelivered.Exact)
	require.InEpsilon(t, 225_000, undelivered.Records, 0.1)
	require.ErrorContains(t, err, "about")
}

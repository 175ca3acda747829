package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
)

// letters appends n dead letters of a destination about records that the log has.
func (w *world) letters(d *storage.Destination, n int) {
	w.t.Helper()
	w.Append(facts(n, 1)...)
	var msgs []schemas.Message
	for _, r := range w.ReadAll(schemas.TopicLifecycle, true) {
		l := stream.NewDeadLetter(r, "destination:"+d.Name, "rejected", fmt.Errorf("HTTP 422"), time.Now())
		l.DestinationID, l.Attempts = &d.ID, 5
		msgs = append(msgs, l)
	}
	w.Append(msgs...)
}

func TestDeadLettersAreListedNewestFirstInPagesAndRedrivenOnce(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.letters(d, 25)
	var sent []string
	var attempts []int
	outcome := delivery.Outcome{Verdict: delivery.Retry, Err: "HTTP 503"}
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(_ context.Context, id string, r *stream.Record, made int) (delivery.Outcome, error) {
		require.Equal(t, d.ID, id)
		attempts = append(attempts, made)
		sent = append(sent, r.ID)
		return outcome, nil
	})
	var all []*replay.Letter
	cursor := ""
	for {
		page, err := letters.List(w.Context(), replay.LetterFilter{Reason: "rejected"}, cursor, 7)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Letters), 7)
		all = append(all, page.Letters...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	require.Len(t, all, 25)
	seen := map[string]bool{}
	for i, l := range all {
		require.False(t, seen[l.Place])
		seen[l.Place] = true
		require.Equal(t, storage.LetterPending, l.Status)
		if i > 0 {
			require.False(t, l.AppendedAt.After(all[i-1].AppendedAt))
		}
	}
	page, err := letters.List(w.Context(), replay.LetterFilter{Key: "contact-3"}, "", 10)
	require.NoError(t, err)
	require.Len(t, page.Letters, 1)
	one := page.Letters[0]

	_, err = letters.Redrive(w.Context(), one.Place)
	var refused *replay.RedriveError
	require.ErrorAs(t, err, &refused)
	again, err := letters.Get(w.Context(), one.Place)
	require.NoError(t, err)
	require.Equal(t, storage.LetterPending, again.Status, "what was not taken can be retried")
	require.Equal(t, 1, again.RetryCount)

	outcome = delivery.Outcome{Status: 200}
	done, err := letters.Redrive(w.Context(), one.Place)
	require.NoError(t, err)
	require.Equal(t, "retried", done.Status)
	require.Equal(t, []string{one.RecordID, one.RecordID}, sent)
	require.Equal(t, []int{5, 6}, attempts, "the letter tells how many were made, and each redrive is one more")
	_, err = letters.Redrive(w.Context(), one.Place)
	require.ErrorIs(t, err, replay.ErrLetterDone)

	require.NoError(t, letters.Discard(w.Context(), all[0].Place))
	out, err := letters.RedriveAll(w.Context(), replay.LetterFilter{DestinationID: d.ID}, "", 100)
	require.NoError(t, err)
	pending := 24
	if all[0].Place != one.Place {
		pending = 23
	}
	require.Equal(t, pending, out.Retried)
	require.Empty(t, out.Next)
	_, err = letters.Get(w.Context(), "0-99999")
	require.ErrorIs(t, err, replay.ErrNoLetter)
	_, err = letters.List(w.Context(), replay.LetterFilter{}, "!", 10)
	require.ErrorIs(t, err, replay.ErrLetterCursor)
}

func TestDeadLettersAreNarrowedByTimeAndTypeWithoutReadingTheOthers(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.letters(d, 12)
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, nil)
	list := func(f replay.LetterFilter) *replay.LetterPage {
		page, err := letters.List(w.Context(), f, "", 100)
		require.NoError(t, err)
		return page
	}
	all := list(replay.LetterFilter{}).Letters
	require.Len(t, all, 12)
	typ := all[0].RecordType
	require.Len(t, list(replay.LetterFilter{Type: typ}).Letters, 12)
	require.Len(t, list(replay.LetterFilter{Type: "contact.*"}).Letters, 12)
	require.Empty(t, list(replay.LetterFilter{Type: "event.tracked"}).Letters)
	for i := range all {
		at := all[i].AppendedAt
		before, after := 0, 0
		for _, l := range all {
			if l.AppendedAt.Before(at) {
				before++
			} else {
				after++
			}
		}
		page := list(replay.LetterFilter{From: at})
		require.Len(t, page.Letters, after)
		require.Equal(t, after, page.Scanned, "no other is read")
		require.Len(t, list(replay.LetterFilter{To: at}).Letters, before)
		require.Len(t, list(replay.LetterFilter{From: at, To: all[0].AppendedAt.Add(time.Millisecond)}).Letters, after)
	}
	require.Empty(t, list(replay.LetterFilter{From: all[0].AppendedAt.Add(time.Hour)}).Letters)
}

func TestADeadLetterOfAProcessorGoesBackOntoItsTopicByteForByte(t *testing.T) {
	w := newWorld(t)
	w.Append(&schemas.Resolved{ID: schemas.Derive("r", "merge", 0), Type: schemas.ResolvedMerge, ContactID: "c", OccurredAt: time.Now(), Merge: &schemas.Merge{Survivor: "s"}})
	r := w.ReadAll(schemas.TopicResolved, true)[0]
	gap := stream.NewDeadLetter(r, "destination:x", "gap", fmt.Errorf("gone"), time.Now())
	end := int64(9)
	gap.EndOffset = &end
	w.Append(stream.NewDeadLetter(r, "processor:contacts", "failed", fmt.Errorf("no"), time.Now()), gap)
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, nil)
	page, err := letters.List(w.Context(), replay.LetterFilter{}, "", 10)
	require.NoError(t, err)
	require.Len(t, page.Letters, 2)
	for _, l := range page.Letters {
		_, err = letters.Redrive(w.Context(), l.Place)
		if l.Reason == "gap" {
			require.ErrorIs(t, err, replay.ErrLetterLost)
			continue
		}
		require.NoError(t, err)
	}
	both := w.WaitRecords(schemas.TopicResolved, 2)
	require.Equal(t, both[0].Value, both[1].Value)
	require.Equal(t, both[0].ID, both[1].ID)
	require.Equal(t, both[0].OccurredAt, both[1].OccurredAt)
	require.Equal(t, both[0].Partition, both[1].Partition)
	require.Zero(t, both[0].FirstAppended)
	require.Equal(t, both[0].AppendTime, both[1].FirstAppended, "what was decided since then wins over it")

	// When the log has it no more, all that the letter knows of it comes back.
	lost := *r
	lost.Offset, lost.TraceParent, lost.TraceState = 1000, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "a=b"
	w.Append(stream.NewDeadLetter(&lost, "processor:contacts", "failed", fmt.Errorf("no"), time.Now()))
	page, err = letters.List(w.Context(), replay.LetterFilter{Status: storage.LetterPending}, "", 10)
	require.NoError(t, err)
	for _, l := range page.Letters {
		if l.Reason == "failed" {
			_, err = letters.Redrive(w.Context(), l.Place)
			require.NoError(t, err)
		}
	}
	last := w.WaitRecords(schemas.TopicResolved, 3)[2]
	require.Equal(t, r.AppendTime, last.FirstAppended)
	require.Equal(t, r.OccurredAt, last.OccurredAt)
	require.Equal(t, stream.Trace{Parent: lost.TraceParent, State: "a=b"}, last.Trace())
}

func TestADeadLetterOfARecordThatManyReadIsRedrivenForItsProcessorAlone(t *testing.T) {
	w := newWorld(t)
	w.Append(fact("c", schemas.FactContactCreated))
	r := w.ReadAll(schemas.TopicLifecycle, true)[0]
	w.Append(stream.NewDeadLetter(r, "processor:buckets", "failed", fmt.Errorf("no"), time.Now()))
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, nil)
	page, err := letters.List(w.Context(), replay.LetterFilter{}, "", 10)
	require.NoError(t, err)
	done, err := letters.Redrive(w.Context(), page.Letters[0].Place)
	require.NoError(t, err)
	require.Equal(t, "retried", done.Status)
	onward := w.WaitRecords(schemas.TopicSignals, 1)[0]
	require.Equal(t, r.Key, onward.Key)
	require.Equal(t, r.Partition, onward.Partition)
	signal, err := w.Codec.DecodeSignal(onward.Value)
	require.NoError(t, err)
	require.Equal(t, "buckets", signal.For)
	require.Equal(t, string(r.Key), signal.ContactID)
	inner, redriven, err := stream.Enclosed(signal)
	require.NoError(t, err)
	require.True(t, redriven)
	require.Equal(t, r.Topic, inner.Topic)
	require.Equal(t, r.Value, inner.Value)
	require.Len(t, w.ReadAll(schemas.TopicLifecycle, true), 1, "nobody else reads it again")
}

func TestTheDeliveryLogIsSearchedInPagesThatDoNotShift(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if string(dv.Records[0].Key) == "contact-2" {
			return delivery.Outcome{Verdict: delivery.Reject, Status: 422}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one")
	w.Append(facts(10, 3)...)
	w.waitDelivered("crm", 27)
	w.waitFlushed(d)
	search := func(f storage.AttemptFilter, cursor string, limit int) ([]storage.Attempt, string) {
		list, next, err := w.db.SearchAttempts(w.Context(), d.ID, f, cursor, limit)
		require.NoError(t, err)
		return list, next
	}
	seen := map[string]bool{}
	cursor := ""
	for range 20 {
		var list []storage.Attempt
		list, cursor = search(storage.AttemptFilter{}, cursor, 4)
		for _, a := range list {
			seen[a.RecordID] = true
		}
		if cursor == "" {
			break
		}
	}
	require.Len(t, seen, 30)
	rejected, _ := search(storage.AttemptFilter{Status: 422}, "", 50)
	require.Len(t, rejected, 3)
	require.Equal(t, "contact-2", rejected[0].RecordKey)
	for _, f := range []storage.AttemptFilter{
		{RecordID: rejected[0].RecordID}, {Topic: rejected[0].Topic, Partition: rejected[0].Partition, Offset: rejected[0].Offset},
	} {
		one, _ := search(f, "", 50)
		require.Len(t, one, 1)
	}
	none, _ := search(storage.AttemptFilter{Key: "contact-2", Outcome: "delivered"}, "", 50)
	require.Empty(t, none)
	none, _ = search(storage.AttemptFilter{From: time.Now().Add(time.Hour)}, "", 50)
	require.Empty(t, none)
	_, _, err := w.db.SearchAttempts(w.Context(), d.ID, storage.AttemptFilter{}, "nonsense", 5)
	require.ErrorIs(t, err, storage.ErrListCursor)
}

package delivery_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestWhatWasAskedForCannotBeRewoundSkippedOrBackfilled(t *testing.T) {
	w := newWorld(t)
	d, alone := w.destination("crm", "outbox", "*"), w.destination("calls", "outbox")
	w.start("one")
	asked := calls(d.ID, 5, 2)
	w.Append(asked...)
	w.Append(facts(5, 2)...)
	w.waitDelivered("crm", 20)
	w.waitFlushed(d)
	r := replay.NewReplayer(w.admin, w.db, w.store)
	var wrong *replay.Error

	_, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start", Topic: schemas.TopicOutbox})
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "topic", wrong.Field)
	require.Contains(t, wrong.Message, "sent once")
	_, err = r.Skip(w.Context(), alone.ID, replay.SkipRequest{})
	require.ErrorAs(t, err, &wrong)
	_, err = r.Backfill(w.Context(), alone.ID, replay.BackfillRequest{})
	require.ErrorAs(t, err, &wrong)
	_, err = r.Backfill(w.Context(), d.ID, replay.BackfillRequest{Types: []string{"outbox"}})
	require.ErrorAs(t, err, &wrong)
	require.Equal(t, "types", wrong.Field)

	out, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start"})
	require.NoError(t, err)
	require.EqualValues(t, 10, out.Records)
	w.Eventually(func(context.Context) (bool, error) {
		w.r.mu.Lock()
		defer w.r.mu.Unlock()
		return w.r.repeats == 10, nil
	}, "the facts again, and nothing else")
	w.waitFlushed(d)
	w.requireResult(schemas.ReceiptAccepted, asked...)
}

func TestWhatWasGivenUpHasOneFinalReceiptWhenItsLetterIsRedriven(t *testing.T) {
	w := newWorld(t, streamtest.Partitions(1))
	d := w.destination("crm", "outbox")
	w.r.answer = func(_ context.Context, dv delivery.Delivery) delivery.Outcome {
		if string(dv.Records[0].Key) == "contact-0" {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
		}
		return delivery.Outcome{Status: 200}
	}
	w.start("one", func(c *delivery.Config) { c.RetryHorizon = 50 * time.Millisecond })
	givenUp := call(d.ID, "contact-0", time.Now().Add(time.Hour))
	w.Append(givenUp)
	for len(w.receipts()[givenUp.ID]) == 0 { // the horizon counts while others are accepted
		w.Append(calls(d.ID, 5, 1)[1:]...)
	}
	first := w.receipts()[givenUp.ID][0]
	require.Equal(t, schemas.ReceiptGivenUp, first.Result)
	require.Equal(t, 503, *first.Status)
	require.Positive(t, first.Attempts)

	mended := false
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(_ context.Context, id string, r *stream.Record, _ int) (delivery.Outcome, error) {
		require.Equal(t, d.ID, id)
		require.Equal(t, givenUp.ID, r.ID)
		if !mended {
			return delivery.Outcome{Verdict: delivery.Retry, Status: 503}, nil
		}
		return delivery.Outcome{Status: 200, Answer: []byte(`{"id":42}`)}, nil
	})
	page, err := letters.List(w.Context(), replay.LetterFilter{}, "", 10)
	require.NoError(t, err)
	require.Len(t, page.Letters, 1)
	_, err = letters.Redrive(w.Context(), page.Letters[0].Place)
	require.Error(t, err)
	require.Len(t, w.receipts()[givenUp.ID], 1, "it may be redriven again")
	mended = true
	_, err = letters.Redrive(w.Context(), page.Letters[0].Place)
	require.NoError(t, err)
	_, err = letters.Redrive(w.Context(), page.Letters[0].Place)
	require.ErrorIs(t, err, replay.ErrLetterDone)
	told := w.receipts()[givenUp.ID]
	require.Len(t, told, 2)
	require.True(t, told[1].Final)
	require.Equal(t, schemas.ReceiptAccepted, told[1].Result)
	require.Equal(t, "42", *told[1].ReceiverID)
	require.Greater(t, told[1].Attempts, first.Attempts)
}

func TestDestinationsGoOnAtTheStartOfAnOutboxThatWasMadeAnewWhenAnOperatorSaysSo(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "outbox", "contact.*")
	p := w.start("one")
	old := calls(d.ID, 10, 2)
	w.Append(old...)
	w.waitReceipts(old...)
	w.waitFlushed(d)

	w.Recreate(schemas.TopicOutbox)
	fresh := calls(d.ID, 10, 5) // the new log outgrows the positions
	w.Append(fresh...)
	w.Eventually(func(context.Context) (bool, error) { return p.Orphans("crm") == len(w.Ends(schemas.TopicOutbox)), nil }, "the stop")
	stray := call("0190a0a0-0000-7000-8000-000000000000", "contact-0", time.Now().Add(time.Hour))
	w.Append(stray)
	w.requireResult(schemas.ReceiptRefused, stray)

	r := replay.NewReplayer(w.admin, w.db, w.store)
	_, err := r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "latest", Topic: schemas.TopicOutbox, SkipUndelivered: true})
	var wrong *replay.Error
	require.ErrorAs(t, err, &wrong, "what was asked for would have no receipt")
	_, err = r.Rewind(w.Context(), d.ID, replay.RewindRequest{To: "start", Topic: schemas.TopicOutbox})
	require.NoError(t, err)
	w.requireResult(schemas.ReceiptAccepted, append(fresh, old...)...)
	w.waitFlushed(d)
}

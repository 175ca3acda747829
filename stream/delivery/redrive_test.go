package delivery_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/replay"
)

func TestARedriveOfManyThatRunsOutOfTimeSaysWhatWasDoneAndGoesOnWithoutTryingAnythingTwice(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.letters(d, 25)
	tried := map[string]int{}
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(_ context.Context, _ string, r *stream.Record, _ int) (delivery.Outcome, error) {
		tried[r.ID]++
		if len(tried)%3 == 0 {
			return delivery.Outcome{Verdict: delivery.Retry, Err: "HTTP 503"}, nil
		}
		return delivery.Outcome{Status: 200}, nil
	})
	letters.Patience = 0 // each call has time for one
	page, err := letters.List(w.Context(), replay.LetterFilter{}, "", 100)
	require.NoError(t, err)
	require.Len(t, page.Letters, 25)
	calls, total, cursor := 0, replay.Redriven{}, ""
	for {
		part, err := letters.RedriveAll(w.Context(), replay.LetterFilter{DestinationID: d.ID}, cursor, 7)
		require.NoError(t, err)
		require.LessOrEqual(t, part.Retried+part.Failed, 1)
		total.Retried, total.Failed = total.Retried+part.Retried, total.Failed+part.Failed
		if calls++; calls == 2 {
			w.letters(d, 3) // given up meanwhile: of another round
		}
		if cursor = part.Next; cursor == "" {
			break
		}
		require.Less(t, calls, 60)
	}
	require.Equal(t, 25-8, total.Retried)
	require.Equal(t, 8, total.Failed)
	require.Len(t, tried, 25)
	for id, n := range tried {
		require.Equal(t, 1, n, id)
	}
	page, err = letters.List(w.Context(), replay.LetterFilter{Status: storage.LetterPending}, "", 100)
	require.NoError(t, err)
	require.Greater(t, len(page.Letters), 8, "those that came meanwhile, and those that failed")
	_, err = letters.RedriveAll(w.Context(), replay.LetterFilter{}, "r.nonsense", 7)
	require.ErrorIs(t, err, replay.ErrLetterCursor)
}

// expiring is a context whose deadline passes when it is told to.
type expiring struct {
	context.Context
	done chan struct{}
}

func (e *expiring) Done() <-chan struct{} { return e.done }

func (e *expiring) Err() error {
	select {
	case <-e.done:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

func TestARedriveOfManyWhoseRequestRunsOutOfTimeInAnAttemptAnswersWithWhereToGoOn(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.letters(d, 3)
	ctx := &expiring{w.Context(), make(chan struct{})}
	letters := replay.NewDeadLetters(w.admin, w.db, w.Codec, func(context.Context, string, *stream.Record, int) (delivery.Outcome, error) {
		close(ctx.done)
		return delivery.Outcome{Verdict: delivery.Retry, Err: "timeout"}, nil
	})
	out, err := letters.RedriveAll(ctx, replay.LetterFilter{}, "", 100)
	require.NoError(t, err)
	require.Equal(t, 1, out.Failed)
	require.NotEmpty(t, out.Next)
	page, err := letters.List(w.Context(), replay.LetterFilter{Status: storage.LetterPending}, "", 10)
	require.NoError(t, err)
	require.Len(t, page.Letters, 3)
}

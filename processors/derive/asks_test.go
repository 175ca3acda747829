package derive

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

const other = "00000000-0000-4000-8000-000000000002"

func receiptFor(id string, r schemas.Receipt) *schemas.Signal {
	o := &schemas.Outbox{ID: id, ContactID: someone, Kind: schemas.OutboxCall, Destination: uuid.NewString(), Asker: simName, Epoch: 7, Hops: 3}
	return schemas.ReceiptOf(o, r, time.Unix(1_700_000_000, 0))
}

func TestAsksTakeTheFirstReceiptAndAfterGivenUpTheFinalOne(t *testing.T) {
	id := uuid.NewString()
	accepted := &schemas.Receipt{OutboxID: id, Result: schemas.ReceiptAccepted}
	givenUp := &schemas.Receipt{OutboxID: id, Result: schemas.ReceiptGivenUp}
	final := &schemas.Receipt{OutboxID: id, Result: schemas.ReceiptAccepted, Final: true}

	var a Asks
	require.False(t, a.Take(accepted), "nobody asked")
	a.Ask(id)
	require.False(t, a.Take(final), "nothing was given up")
	require.True(t, a.Take(accepted))
	require.False(t, a.Take(accepted), "a repeat")

	a.Ask(id)
	var survivor Asks
	survivor.Join(a)
	require.True(t, survivor.Take(givenUp))
	require.False(t, survivor.Take(givenUp))
	require.False(t, survivor.Take(accepted), "the first receipt was another")
	require.True(t, survivor.Take(final))
	require.False(t, survivor.Take(final))
	require.Empty(t, survivor)
}

// A step that asks on every event, and notes receipts.
func asking(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
	switch {
	case r.Event != nil:
		return Result[[]string]{State: s, Outputs: []schemas.Message{&schemas.Outbox{Kind: schemas.OutboxCall, Destination: "d"}}}, nil
	case r.Receipt != nil:
		s = append(s, r.Receipt.Result)
	case r.Loser != nil:
		s = append(s, r.Loser.State...)
	}
	return Result[[]string]{State: s}, nil
}

func TestWhatAStepAsksForBearsWhoAsksAndItsReceiptIsAStep(t *testing.T) {
	b := newBench(t, asking)
	b.handle(receiptFor(uuid.NewString(), schemas.Receipt{Result: schemas.ReceiptAccepted}))
	require.Empty(t, b.c.state, "nobody is known yet")
	b.handle(event("one", 1, 2))
	asked := b.sent[0].(*schemas.Outbox)
	require.Equal(t, someone, asked.ContactID)
	require.Equal(t, simName, asked.Asker)
	require.Equal(t, 3, asked.Hops)
	require.NoError(t, uuid.Validate(asked.ID))

	b.handle(receiptFor(asked.ID, schemas.Receipt{Result: schemas.ReceiptRefused}))
	require.Equal(t, []string{schemas.ReceiptRefused}, b.c.state)
}

func TestAChainOfReceiptsEndsInADeadLetter(t *testing.T) {
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		return Result[[]string]{State: s, Outputs: []schemas.Message{&schemas.Outbox{Kind: schemas.OutboxCall, Destination: "d"}}}, nil
	})
	b.handle(event("one", 1, 0))
	for range maxHops {
		o := b.sent[len(b.sent)-1].(*schemas.Outbox)
		b.handle(schemas.ReceiptOf(o, schemas.Receipt{Result: schemas.ReceiptAccepted}, b.m.now))
	}
	require.Len(t, b.letters, 1)
	require.Contains(t, b.letters[0], "loop")
}

// A step that only follows because of a long wait begins a chain, whatever the hops of the
// record that told it.
func TestAStepThatFollowsFromALongWaitBeginsAChain(t *testing.T) {
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		result := Result[[]string]{State: s, Outputs: []schemas.Message{&schemas.Outbox{Kind: schemas.OutboxCall, Destination: "d"}}}
		if r.Receipt != nil {
			result.Hops = new(int)
		}
		return result, nil
	})
	b.handle(event("one", 1, maxHops-1))
	for range 2 * maxHops {
		o := b.sent[len(b.sent)-1].(*schemas.Outbox)
		b.handle(schemas.ReceiptOf(o, schemas.Receipt{Result: schemas.ReceiptAccepted}, b.m.now))
		require.Equal(t, 1, b.sent[len(b.sent)-1].(*schemas.Outbox).Hops)
	}
	require.Empty(t, b.letters)
}

func TestAReceiptFollowsAContactThatWasMergedAwayAndWaitsForItsHandOver(t *testing.T) {
	loser := newBench(t, asking)
	loser.handle(event("one", 1, 0))
	asked := loser.sent[0].(*schemas.Outbox)
	loser.handle(&schemas.Signal{ID: "m", Type: schemas.SignalMerged, For: simName, ContactID: someone, Merged: &schemas.MergedSignal{Survivor: other, Seq: 1}})
	handedOver := loser.sent[1].(*schemas.Signal)
	loser.handle(schemas.ReceiptOf(asked, schemas.Receipt{Result: schemas.ReceiptAccepted}, loser.m.now))
	onward := loser.sent[2].(*schemas.Signal)
	require.Equal(t, other, onward.ContactID)
	require.Equal(t, asked.ID, onward.Receipt.OutboxID)

	survivor := newBench(t, asking)
	survivor.c.row = storage.Derived{ContactID: other, Seq: 1}
	survivor.handle(handedOver)
	survivor.handle(onward)
	require.Empty(t, survivor.c.state, "what was asked for has not been taken over")
	survivor.handle(&schemas.Fact{
		ID: uuid.NewString(), Type: schemas.FactContactMerged, ContactID: other, Seq: 2,
		Merged: &schemas.ContactMerged{LoserID: someone, Properties: "{}"},
	})
	require.Equal(t, []string{schemas.ReceiptAccepted}, survivor.c.state)

	erased := newBench(t, asking)
	erased.handle(event("one", 1, 0))
	erased.handle(&schemas.Signal{ID: "d", Type: schemas.SignalDeleted, For: simName, ContactID: someone, Deleted: &schemas.DeletedSignal{Seq: 1}})
	erased.handle(receiptFor(uuid.NewString(), schemas.Receipt{Result: schemas.ReceiptErased}))
	require.Empty(t, erased.c.state)
}

func TestAStepTakesBackWhatItAskedFor(t *testing.T) {
	id := uuid.NewString()
	b := newBench(t, func(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
		if r.Event.Name == "bad" {
			return Result[[]string]{Cancel: []string{uuid.NewString()}}, errors.New("cannot be done")
		}
		return Result[[]string]{State: s, Cancel: []string{id}}, nil
	})
	b.handle(event("bad", 1, 0))
	require.Empty(t, b.m.cancelled)
	b.handle(event("one", 2, 0))
	require.Equal(t, []string{id}, b.m.cancelled)
}

func TestWhatAStepAnswersIsKeptUnlessItFails(t *testing.T) {
	said := storage.Answer{InputID: uuid.NewString(), JSON: []byte(`{}`)}
	b := newBench(t, func(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
		if r.Event.Name == "bad" {
			return Result[[]string]{Answer: &said}, errors.New("cannot be done")
		}
		return Result[[]string]{State: s, Same: true, Answer: &said}, nil
	})
	b.handle(event("bad", 1, 0))
	require.Empty(t, b.m.answers)
	late := event("one", 3, 0)
	b.handle(late)
	require.Empty(t, b.m.answers, "it waits for the one before")
	b.handle(event("two", 2, 0))
	require.Equal(t, []storage.Answer{said, said}, b.m.answers)
	b.handle(late)
	require.Len(t, b.m.answers, 2, "a repeat is not stepped")
}

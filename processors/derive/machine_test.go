package derive

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

const someone = "00000000-0000-4000-8000-000000000001"

// stepper is a processor whose step a test writes.
type stepper struct {
	JSON[[]string]
	step func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error)
}

func (stepper) Name() string                                               { return simName }
func (stepper) Wants(t string) bool                                        { return t == schemas.FactJourneyCompleted }
func (stepper) TakeOver([]string, *Known, time.Time) ([]string, []Timer)   { return nil, nil }
func (p stepper) At(context.Context, *storage.Tx) (Logic[[]string], error) { return p, nil }
func (stepper) HandOver(s []string, _ string, _ time.Time) ([]string, []schemas.Message) {
	return s, nil
}
func (p stepper) Step(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
	return p.step(s, r, now)
}

// bench is a machine with one contact, and what it says.
type bench struct {
	t       *testing.T
	m       machine[[]string]
	c       *contact[[]string]
	sent    []schemas.Message
	letters []string
	of      []*stream.Record
	offset  int64
}

func newBench(t *testing.T, step func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error)) *bench {
	t.Helper()
	b := &bench{t: t, c: &contact[[]string]{row: storage.Derived{ContactID: someone}}}
	b.m = machine[[]string]{p: stepper{step: step}, l: stepper{step: step}, alone: true, codec: schemas.NewCodec(), out: b, now: time.Unix(1_700_000_000, 0).UTC()}
	return b
}

func (b *bench) Emit(_ *stream.Record, m schemas.Message) error {
	b.sent = append(b.sent, m)
	return nil
}

func (b *bench) DeadLetter(r *stream.Record, _, reason string, failure error) error {
	b.letters, b.of = append(b.letters, reason+": "+failure.Error()), append(b.of, r)
	return nil
}

func (b *bench) handle(m schemas.Message) {
	b.t.Helper()
	value, err := b.m.codec.Encode(m)
	require.NoError(b.t, err)
	meta := m.Meta()
	b.offset++
	in, err := decode(b.m.codec, &stream.Record{Topic: m.Topic(), Key: []byte(m.Key()), Value: value, ID: meta.ID, Type: meta.Type, Offset: b.offset})
	require.NoError(b.t, err)
	require.NoError(b.t, b.m.handle(b.c, in))
}

func event(name string, seq int64, hops int) *schemas.Event {
	return &schemas.Event{ID: schemas.Derive(someone, name, int(seq)), ContactID: someone, Name: name, Properties: "{}", Source: "api", Seq: seq, Hops: hops}
}

func names(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
	switch {
	case r.Event != nil:
		s = append(slices.Clone(s), r.Event.Name)
	case r.Timer != nil:
		s = append(slices.Clone(s), r.Timer.What)
	case r.Fact != nil:
		s = append(slices.Clone(s), r.Fact.Type)
	}
	return Result[[]string]{State: s}, nil
}

func TestARecordThatFailsIsTheOneInTheDeadLetterAndTakesItsNumber(t *testing.T) {
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		switch r.Event.Name {
		case "bad":
			return Result[[]string]{}, errors.New("cannot be stepped")
		case "worse":
			panic("broken")
		}
		return names(s, r, now)
	})
	b.handle(event("worse", 3, 0))
	b.handle(event("bad", 2, 0))
	b.handle(event("good", 4, 0))
	b.handle(event("good", 1, 0))
	require.Equal(t, []string{"good", "good"}, b.c.state)
	require.Equal(t, int64(4), b.c.row.Seq)
	require.Equal(t, []string{"failed: cannot be stepped", "failed: panic: a value of type string"}, b.letters)
	require.Equal(t, int64(2), b.of[0].Offset)
	require.Equal(t, int64(1), b.of[1].Offset)
	require.Empty(t, b.c.held)
}

func TestWhatFollowsCountsItsHopsAndACircleEnds(t *testing.T) {
	b := newBench(t, func(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
		return Result[[]string]{State: append(slices.Clone(s), r.Event.Name), Outputs: []schemas.Message{&schemas.Fact{Type: schemas.FactBucketEntered}, &schemas.Fact{Type: schemas.FactBucketLeft}}}, nil
	})
	b.handle(event("first", 1, 3))
	b.handle(event("second", 2, maxHops-1))
	b.handle(event("third", 3, maxHops))
	var hops []int
	var numbers, causes []int64
	for _, m := range b.sent {
		f := m.(*schemas.Fact)
		hops, numbers, causes = append(hops, f.Hops), append(numbers, f.WriterSeq), append(causes, f.CauseSeq)
		require.Equal(t, someone, f.ContactID)
		require.NotEmpty(t, f.ID)
		require.NotEmpty(t, f.CauseID)
		require.Equal(t, b.m.now, f.OccurredAt)
	}
	require.Equal(t, []int{4, 4, maxHops, maxHops}, hops)
	require.Equal(t, []int64{1, 2, 3, 4}, numbers, "without holes")
	require.Equal(t, []int64{1, 1, 2, 2}, causes)
	require.Len(t, b.letters, 1)
	require.Contains(t, b.letters[0], "loop: 16 facts followed from one another")
	require.Equal(t, []string{"first", "second"}, b.c.state, "nothing of the record that closes the circle is kept")
	require.Equal(t, int64(3), b.c.row.Seq)
}

func TestATimerIsToldOnceAtItsTimeUnlessItWasArmedAnewOrLeftOut(t *testing.T) {
	var seen []time.Time
	due := time.Unix(1_700_000_000, 0).Add(30 * time.Minute).UTC()
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		if r.Timer != nil {
			seen = append(seen, now)
			return Result[[]string]{State: s, Outputs: []schemas.Message{&schemas.Fact{Type: schemas.FactBucketLeft}}}, nil
		}
		switch r.Event.Name {
		case "arm":
			return Result[[]string]{State: s, Timers: []Timer{{What: "leave", Due: due}}}, nil
		case "later":
			return Result[[]string]{State: s, Timers: []Timer{{What: "leave", Due: due.Add(2 * time.Hour)}}}, nil
		}
		return Result[[]string]{State: s}, nil
	})
	fire := func(epoch int64) {
		b.handle(&schemas.Signal{ID: "t", Type: schemas.SignalTimer, For: simName, ContactID: someone, What: "leave", Epoch: epoch})
	}
	b.handle(event("arm", 1, 5))
	first := b.c.timers[0].Epoch
	b.handle(event("arm", 2, 5))
	require.Equal(t, first, b.c.timers[0].Epoch, "what stays as it is keeps its epoch")
	b.handle(event("later", 3, 5))
	fire(first)
	require.Empty(t, seen, "it was armed anew")
	b.handle(event("arm", 4, 5))
	fire(b.c.row.Epoch)
	fire(b.c.row.Epoch)
	require.Equal(t, []time.Time{due}, seen, "once, and not before it is due, whatever the clock says")
	require.Equal(t, 6, b.sent[0].(*schemas.Fact).Hops, "half an hour does not end a chain")
	b.handle(event("later", 5, 5))
	fire(b.c.row.Epoch)
	require.Equal(t, 1, b.sent[1].(*schemas.Fact).Hops, "a wait of an hour does")
	b.handle(event("arm", 6, 0))
	b.handle(event("leave out", 7, 0))
	fire(b.c.row.Epoch)
	require.Len(t, seen, 2, "it was left out")
}

func TestARedrivenRecordIsSteppedThoughItsNumberIsTaken(t *testing.T) {
	fails := true
	b := newBench(t, func(s []string, r *Record[[]string], now time.Time) (Result[[]string], error) {
		if r.Event != nil && r.Event.Name == "bad" && fails {
			return Result[[]string]{}, errors.New("cannot be stepped")
		}
		return names(s, r, now)
	})
	b.handle(event("bad", 1, 0))
	b.handle(event("good", 2, 0))
	fails = false
	signal, err := stream.Enclose(b.of[0], simName, someone, true)
	require.NoError(t, err)
	b.handle(signal)
	require.Equal(t, []string{"good", "bad"}, b.c.state)
	require.Equal(t, int64(2), b.c.row.Seq)
}

func TestADerivedFactIsSteppedOnceAndNotBeforeItsCause(t *testing.T) {
	b := newBench(t, names)
	fact := func(writer, cause int64) *schemas.Fact {
		return &schemas.Fact{ID: schemas.Derive(someone, "j", int(writer)), Type: schemas.FactJourneyCompleted, ContactID: someone, CauseSeq: cause, WriterSeq: writer, Journey: &schemas.JourneyFact{}}
	}
	b.handle(fact(1, 2))
	b.handle(event("one", 1, 0))
	b.handle(fact(1, 2))
	b.handle(event("two", 2, 0))
	b.handle(fact(1, 2))
	b.handle(fact(2, 2))
	require.Equal(t, []string{"one", "two", schemas.FactJourneyCompleted, schemas.FactJourneyCompleted}, b.c.state)
}

// The hand-over of a contact that was merged into this one may be here, and what merges it
// never come, for this one is erased first.
func TestWithAContactThatIsErasedThoseAreForgottenWhoWaitToBeTakenIn(t *testing.T) {
	const loser, before = "00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000003"
	b := newBench(t, names)
	b.handle(event("one", 1, 0))
	state, err := json.Marshal(handed{Loser: loser, Took: []string{before}, State: []byte(`["theirs"]`)})
	require.NoError(t, err)
	b.handle(&schemas.Signal{ID: "h", Type: schemas.SignalHandover, For: simName, ContactID: someone, State: new(string(state))})
	require.Len(t, b.c.held, 1)
	b.handle(&schemas.Signal{ID: "d", Type: schemas.SignalDeleted, For: simName, ContactID: someone, Deleted: &schemas.DeletedSignal{Seq: 1}})
	var forgotten []string
	for _, ch := range b.c.changes() {
		require.True(t, ch.Forget)
		forgotten = append(forgotten, ch.ContactID)
	}
	require.Equal(t, []string{someone, loser, before}, forgotten)
	require.Empty(t, b.c.held)
}

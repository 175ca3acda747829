package derive

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

// everything is a step that says all that a step can say.
func everything(s []string, r *Record[[]string], _ time.Time) (Result[[]string], error) {
	name, state := "thanked", `{"bucket":"vip","member":true}`
	return Result[[]string]{State: s, Outputs: []schemas.Message{
		&schemas.Input{Type: schemas.InputEvent, Event: &name, Source: "journey:thanks"},
		&schemas.EmailRequest{Template: "thanks", Props: "{}"},
		&schemas.Signal{For: "buckets", What: "member", State: &state},
	}}, nil
}

func TestWhatAStepSaysIsAboutItsContactWithIdsThatRepeatsShare(t *testing.T) {
	b := newBench(t, everything)
	b.handle(event("a", 1, 3))
	again := newBench(t, everything)
	again.handle(event("a", 1, 3))
	require.Equal(t, b.sent, again.sent)
	require.Len(t, b.sent, 3)

	in := b.sent[0].(*schemas.Input)
	require.Equal(t, "c:"+someone, in.Key())
	require.Equal(t, schemas.TopicIngest, in.Topic())
	require.Equal(t, b.m.now, in.ReceivedAt)
	require.Equal(t, b.m.now, in.OccurredAt)
	email := b.sent[1].(*schemas.EmailRequest)
	require.Equal(t, someone, email.ContactID)
	command := b.sent[2].(*schemas.Signal)
	require.Equal(t, someone, command.ContactID)
	require.Equal(t, schemas.SignalCommand, command.Type)
	require.Equal(t, []int{4, 4, 4}, []int{in.Hops, email.Hops, command.Hops})
	for _, m := range b.sent {
		require.NoError(t, uuid.Validate(m.Meta().ID))
	}
}

// A journey that puts a contact into a bucket and is triggered by that bucket goes in circles.
func TestHopsAreCountedThroughCommandsToo(t *testing.T) {
	b := newBench(t, everything)
	b.handle(event("a", 1, 0)) // somebody who is known
	b.sent = nil
	state := "{}"
	command := &schemas.Signal{ID: uuid.NewString(), Type: schemas.SignalCommand, For: simName, ContactID: someone, What: "x", State: &state, Hops: maxHops - 1}
	b.handle(command)
	require.Len(t, b.sent, 3)
	require.Equal(t, maxHops, b.sent[2].(*schemas.Signal).Hops)
	require.Empty(t, b.letters)

	b.sent = nil
	command.ID, command.Hops = uuid.NewString(), maxHops
	b.handle(command)
	require.Empty(t, b.sent)
	require.Len(t, b.letters, 1)
	require.Contains(t, b.letters[0], "loop: ")
}

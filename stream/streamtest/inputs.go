package streamtest

import (
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
)

// Input is the n-th event that user key sent.
func Input(key string, n int) *schemas.Input {
	props := fmt.Sprintf(`{"n":%d}`, n)
	name := "page.viewed"
	return &schemas.Input{
		ID: uuid.Must(uuid.NewV7()).String(), Type: schemas.InputEvent, Source: "api",
		ReceivedAt: time.Now(), OccurredAt: time.Date(2026, 3, 1, 12, 0, 0, n, time.UTC),
		UserID: &key, Event: &name, EventProperties: &props,
	}
}

// Inputs are the events from the one up to the other.
func Inputs(key string, from, to int) []schemas.Message {
	var msgs []schemas.Message
	for n := from; n < to; n++ {
		msgs = append(msgs, Input(key, n))
	}
	return msgs
}

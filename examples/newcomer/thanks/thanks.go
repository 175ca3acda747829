// Package thanks is a processor that asks for an email when an order is completed.
package thanks

import (
	"context"
	"errors"
	"fmt"

	"github.com/hogstream/hogstream/stream/loop"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Name is the processor's name, which never changes.
const Name = "thanks"

// Topics are what the processor reads.
func Topics() []schemas.Topic { return []schemas.Topic{schemas.TopicEvents} }

// Processor implements loop.Processor. It keeps nothing between batches.
type Processor struct{ codec *schemas.Codec }

// New makes the processor.
func New(codec *schemas.Codec) *Processor { return &Processor{codec} }

// Name implements loop.Processor.
func (p *Processor) Name() string { return Name }

// Topics implements loop.Processor.
func (p *Processor) Topics() []schemas.Topic { return Topics() }

// Apply implements loop.Processor. One that has state loads it here for the whole batch
// with one statement of tx, and writes with another what changed.
func (p *Processor) Apply(_ context.Context, _ *storage.Tx, b *loop.Batch) error {
	for _, r := range b.Records {
		e, err := p.codec.DecodeEvent(r.Value)
		if errors.Is(err, schemas.ErrUndecodable) { // nobody can ever read it
			if err := b.DeadLetter(r, "processor:"+Name, "undecodable", err); err != nil {
				return err
			}
			continue
		}
		if err != nil { // an outage: the loop waits and calls again
			return fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if request := decide(e); request != nil {
			if err := b.Emit(r, request); err != nil {
				return err
			}
		}
	}
	return nil
}

// decide says what follows from an event. It asks no clock and makes no random id, so a
// retry and a rebuild give the same.
func decide(e *schemas.Event) *schemas.EmailRequest {
	if e.Name != "order.completed" || e.Email == nil {
		return nil
	}
	return &schemas.EmailRequest{
		ID: schemas.Derive(e.ID, "email.request", 0), ContactID: e.ContactID, OccurredAt: e.OccurredAt,
		Template: "thanks", To: e.Email, Props: e.Properties,
	}
}

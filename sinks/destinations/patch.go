package destinations

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
)

// Patch changes settings; a nil field stays as it is.
type Patch struct {
	Name        *string
	Kind        *string
	URL         *string
	Description *string  // empty clears
	EventTypes  []string // replaces
	// Config replaces the whole; `null` clears. A hidden value (***) keeps the stored one,
	// unless the destination moves to another receiver.
	Config       json.RawMessage
	Disabled     *bool
	Filter       *Filter
	Transform    *string
	RateLimit    *float64
	Concurrency  *int
	RetryHorizon *time.Duration
	DeliveryLog  *string
}

// Update changes a destination and returns it; the secret is set when the change
// to a signed kind made one. A topic that is newly subscribed to is sent from its
// end on, one that no longer is loses its position. Errors as Create and Get.
func (o *Operations) Update(ctx context.Context, nameOrID string, p Patch) (*Created, error) {
	var made string
	d, err := o.change(ctx, nameOrID, func(d *storage.Destination) error {
		before := *d
		kind, _ := o.deliverer.Kind(d.Kind) // nil for one that was there once
		kept := keptSecrets(kind, p.Config, d)
		if err := p.apply(kind, d); err != nil {
			return err
		}
		kind, err := o.kind(d)
		if err != nil {
			return err
		}
		if err := refuseMove(kind, &before, d, kept); err != nil {
			return err
		}
		made = equip(kind, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	views := []View{o.view(d)}
	if err := o.addHealth(ctx, views); err != nil {
		o.log.Warn("destination.health_not_read", zap.String("destination_id", d.ID), zap.Error(err)) // the change was made
	}
	return &Created{View: views[0], Secret: made}, nil
}

func (p *Patch) apply(kind *sinks.Kind, d *storage.Destination) error {
	if err := p.applyURL(kind, d); err != nil {
		return err
	}
	if p.Config != nil {
		config, err := restoreConfig(p.Config, d.Config)
		if err != nil {
			return invalid(err)
		}
		if d.Config = config; string(config) == "null" {
			d.Config = nil
		}
	}
	if p.Description != nil {
		if d.Description = p.Description; *p.Description == "" {
			d.Description = nil
		}
	}
	if p.EventTypes != nil {
		d.EventTypes = p.EventTypes
	}
	if p.Disabled != nil {
		d.Status, d.StatusReason = storage.DestinationActive, ""
		if *p.Disabled {
			d.Status = storage.DestinationPaused
		}
	}
	set(&d.Name, p.Name)
	set(&d.Kind, p.Kind)
	if p.Filter != nil {
		d.Filter, d.Selector = p.Filter.JQ, p.Filter.stored()
	}
	set(&d.Transform, p.Transform)
	set(&d.RateLimit, p.RateLimit)
	set(&d.Concurrency, p.Concurrency)
	set(&d.RetryHorizon, p.RetryHorizon)
	set(&d.DeliveryLog, p.DeliveryLog)
	return nil
}

// applyURL changes the URL. As it is shown it stays as it is, but for one that is a
// credential: another kind would show it, so it goes when the kind does.
func (p *Patch) applyURL(kind *sinks.Kind, d *storage.Destination) error {
	kept := p.URL == nil || *p.URL == redactURL(d.URL, kind)
	switch {
	case kept && kind != nil && kind.SecretURL && p.Kind != nil && *p.Kind != d.Kind:
		d.URL = ""
	case kept:
	case strings.Contains(*p.URL, redacted):
		return &InvalidError{"url", redacted + " hides a value: write the whole URL, or leave the field out"}
	default:
		d.URL = strings.TrimSpace(*p.URL)
	}
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// change reads, changes, checks and writes a destination, again when somebody
// else was faster.
func (o *Operations) change(ctx context.Context, nameOrID string, edit func(*storage.Destination) error) (*storage.Destination, error) {
	for try := 1; ; try++ {
		d, err := o.find(ctx, nameOrID)
		if err != nil {
			return nil, err
		}
		before, _ := schemas.ParseSubscription(d.EventTypes) // valid when it was stored
		if err := edit(d); err != nil {
			return nil, err
		}
		sub, err := o.check(ctx, d)
		if err != nil {
			return nil, err
		}
		err = o.write(ctx, d, before.Topics(), sub.Topics())
		switch {
		case err == nil:
			return d, nil
		case errors.Is(err, storage.ErrDestinationName):
			return nil, nameTaken(d.Name)
		case !errors.Is(err, storage.ErrDestinationChanged) || try == 5:
			return nil, err
		}
	}
}

func (o *Operations) write(ctx context.Context, d *storage.Destination, before, after []schemas.Topic) error {
	var starts []storage.CursorStart
	if added := without(after, before); len(added) > 0 {
		var err error
		if starts, err = o.ends.EndOffsets(ctx, added...); err != nil {
			return fmt.Errorf("read ends of topics for destination %s: %w", d.Name, err)
		}
	}
	revision := d.Revision
	return o.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		d.Revision = revision // of a try before
		if err := o.store.Update(ctx, tx, d); err != nil {
			return err
		}
		for _, topic := range without(before, after) {
			if err := tx.DeleteCursors(ctx, d.ID, string(topic)); err != nil {
				return err
			}
		}
		if len(starts) == 0 {
			return nil
		}
		return tx.CreateCursors(ctx, d.ID, starts)
	})
}

func without(topics, other []schemas.Topic) []schemas.Topic {
	return slices.DeleteFunc(slices.Clone(topics), func(t schemas.Topic) bool { return slices.Contains(other, t) })
}

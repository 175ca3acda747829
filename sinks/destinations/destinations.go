// Package destinations is what operators do to destinations: make, change, move, pause,
// try out, look at and delete them, and deliver single records again.
//
// What the package promises the others:
//   - A new destination is sent everything that is appended after Create returned.
//   - Nothing is stored that could not be delivered to: settings, filter and transform
//     are checked before.
//   - Nothing secret is shown, but a new secret to the one who made it; and a secret that
//     was given for one receiver is sent to no other.
package destinations

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
)

// ErrNotFound: there is no such destination.
var ErrNotFound = errors.New("no such destination")

// InvalidError says which setting is wrong and what to write instead.
type InvalidError struct{ Field, Message string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// invalid turns an error that begins with the name of its field into an
// InvalidError.
func invalid(err error) error {
	field, message, found := strings.Cut(err.Error(), ": ")
	if !found {
		return &InvalidError{Field: "config", Message: err.Error()}
	}
	return &InvalidError{Field: field, Message: message}
}

// Ends tells where topics end. Implemented by *stream.Admin.
type Ends interface {
	// EndOffsets returns, for every partition of the topics, the offset that the
	// next record will get, with the topic's id.
	EndOffsets(ctx context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error)
}

// Operations are what operators do to destinations. It is safe for concurrent use.
type Operations struct {
	db        *storage.DB
	store     *storage.Destinations
	ends      Ends
	deliverer *sinks.Deliverer
	log       *zap.Logger
}

// New makes them. The deliverer checks settings and sends tests; it may be one of this
// process only.
func New(db *storage.DB, store *storage.Destinations, ends Ends, d *sinks.Deliverer, log *zap.Logger) *Operations {
	return &Operations{db: db, store: store, ends: ends, deliverer: d, log: log}
}

func (o *Operations) find(ctx context.Context, nameOrID string) (*storage.Destination, error) {
	d, err := o.store.Find(ctx, nameOrID)
	if storage.IsNotFound(err) {
		return nil, fmt.Errorf("%q: %w", nameOrID, ErrNotFound)
	}
	return d, err
}

// kind is that of a destination; an unknown one is an [*InvalidError].
func (o *Operations) kind(d *storage.Destination) (*sinks.Kind, error) {
	kind, err := o.deliverer.Kind(d.Kind)
	if err != nil {
		return nil, invalid(err)
	}
	return kind, nil
}

// Pause stops deliveries to a destination at its place.
func (o *Operations) Pause(ctx context.Context, nameOrID, reason string) (*View, error) {
	return o.setStatus(ctx, nameOrID, storage.DestinationPaused, reason)
}

// Resume lets deliveries go on, after Pause or a suspension.
func (o *Operations) Resume(ctx context.Context, nameOrID string) (*View, error) {
	return o.setStatus(ctx, nameOrID, storage.DestinationActive, "")
}

func (o *Operations) setStatus(ctx context.Context, nameOrID string, status storage.DestinationStatus, reason string) (*View, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	if _, err := o.store.SetStatus(ctx, d.ID, status, reason); err != nil {
		return nil, err
	}
	return o.Get(ctx, d.ID)
}

// Delete removes a destination with its cursors, or returns [ErrNotFound].
func (o *Operations) Delete(ctx context.Context, nameOrID string) error {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return err
	}
	deleted, err := o.store.Delete(ctx, d.ID)
	if err != nil {
		return err
	}
	if !deleted {
		return fmt.Errorf("%q: %w", nameOrID, ErrNotFound)
	}
	o.deliverer.Forget(d.ID)
	return nil
}

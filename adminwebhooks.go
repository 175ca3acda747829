package hogstream

import (
	"context"
	"errors"
	"fmt"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
)

// adminWebhooks gives the admin API the operations of the sinks: the rooms do
// not know one another.
type adminWebhooks struct{ ops *destinations.Operations }

var _ console.Webhooks = adminWebhooks{}

// Create implements console.Webhooks.
func (w adminWebhooks) Create(ctx context.Context, s console.Settings) (*console.Created, error) {
	return adminCreated(w.ops.Create(ctx, destinations.Settings(s)))
}

// List implements console.Webhooks.
func (w adminWebhooks) List(ctx context.Context) ([]console.View, error) {
	all, err := w.ops.List(ctx)
	if err != nil {
		return nil, adminError(err)
	}
	views := make([]console.View, len(all))
	for i, v := range all {
		views[i] = console.View(v)
	}
	return views, nil
}

// Get implements console.Webhooks.
func (w adminWebhooks) Get(ctx context.Context, id string) (*console.View, error) {
	return adminView(w.ops.Get(ctx, id))
}

// Inspect implements console.Webhooks.
func (w adminWebhooks) Inspect(ctx context.Context, id string) (*console.View, error) {
	return adminView(w.ops.Inspect(ctx, id))
}

func adminView(v *destinations.View, err error) (*console.View, error) {
	if err != nil {
		return nil, adminError(err)
	}
	view := console.View(*v)
	return &view, nil
}

// Update implements console.Webhooks.
func (w adminWebhooks) Update(ctx context.Context, id string, p console.Patch) (*console.Created, error) {
	return adminCreated(w.ops.Update(ctx, id, destinations.Patch(p)))
}

// Delete implements console.Webhooks.
func (w adminWebhooks) Delete(ctx context.Context, id string) error {
	return adminError(w.ops.Delete(ctx, id))
}

// RotateSecret implements console.Webhooks.
func (w adminWebhooks) RotateSecret(ctx context.Context, id string, r console.Rotation) (*console.Created, error) {
	return adminCreated(w.ops.RotateSecret(ctx, id, destinations.Rotation(r)))
}

// SetState implements console.Webhooks.
func (w adminWebhooks) SetState(ctx context.Context, id string, state storage.DestinationStatus, reason string) (*console.View, error) {
	set := w.ops.Resume
	if state == storage.DestinationPaused {
		set = func(ctx context.Context, id string) (*destinations.View, error) { return w.ops.Pause(ctx, id, reason) }
	}
	return adminView(set(ctx, id))
}

// Preview implements console.Webhooks.
func (w adminWebhooks) Preview(ctx context.Context, id string, s console.Sample) (*console.SampleRequest, error) {
	v, err := w.ops.Preview(ctx, id, destinations.Sample(s))
	return (*console.SampleRequest)(v), adminError(err)
}

// Test implements console.Webhooks.
func (w adminWebhooks) Test(ctx context.Context, id string, s console.Sample) (*console.Tested, error) {
	t, err := w.ops.Test(ctx, id, destinations.Sample(s))
	if err != nil {
		return nil, adminError(err)
	}
	return &console.Tested{
		Request:    (*console.SampleRequest)(t.Request),
		DeliveryID: t.DeliveryID, EventType: t.EventType, Verdict: t.Verdict, Delivered: t.Delivered,
		Status: t.Status, LatencyMS: t.LatencyMS, Error: t.Error, Response: t.Response,
	}, nil
}

func adminCreated(c *destinations.Created, err error) (*console.Created, error) {
	if err != nil {
		return nil, adminError(err)
	}
	return &console.Created{View: console.View(c.View), Secret: c.Secret}, nil
}

// adminError says an error of the sinks in the words of the admin API.
func adminError(err error) error {
	var wrong *destinations.InvalidError
	var rotating *destinations.RotatingError
	switch {
	case errors.As(err, &wrong):
		return &console.InvalidError{Field: wrong.Field, Message: wrong.Message}
	case errors.As(err, &rotating):
		return fmt.Errorf("%w: %w", console.ErrRotating, err)
	case errors.Is(err, destinations.ErrNotFound):
		return fmt.Errorf("%w: %w", console.ErrNotFound, err)
	case errors.Is(err, storage.ErrDestinationChanged):
		return fmt.Errorf("%w: %w", console.ErrConflict, err)
	}
	return err
}

// adminRecords gives the admin API single records.
type adminRecords struct {
	admin *stream.Admin
	ops   *destinations.Operations
}

var _ console.Records = adminRecords{}

// Records that are looked for by their id: so many offsets of each partition,
// the newest first.
const soughtByID = 50_000

// ReadRecord implements console.Records.
func (r adminRecords) ReadRecord(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error) {
	return reader.ReadRecord(ctx, r.admin, topic, partition, offset)
}

// FindRecord implements console.Records.
func (r adminRecords) FindRecord(ctx context.Context, id string) (*stream.Record, error) {
	return reader.FindRecord(ctx, r.admin, id, soughtByID, schemas.TopicLifecycle, schemas.TopicEvents)
}

// Redeliver implements console.Records.
func (r adminRecords) Redeliver(ctx context.Context, id string, record *stream.Record) (delivery.Outcome, error) {
	return r.RedeliverAgain(ctx, id, record, -1)
}

// RedeliverAgain is Redeliver of a record of which it is known how many attempts were made.
func (r adminRecords) RedeliverAgain(ctx context.Context, id string, record *stream.Record, made int) (delivery.Outcome, error) {
	out, err := r.ops.Redeliver(ctx, id, record, made)
	if err != nil {
		return out, adminError(err)
	}
	return out, nil
}

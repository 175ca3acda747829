package destinations

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// addHealth adds to destinations how their deliveries go.
func (o *Operations) addHealth(ctx context.Context, views []View) error {
	if len(views) == 0 {
		return nil
	}
	ids := make([]string, len(views))
	for i := range views {
		ids[i] = views[i].ID
	}
	healths, err := o.db.ReadHealth(ctx, ids)
	if err != nil {
		return err
	}
	for i := range views {
		views[i].DestinationHealth = *healths[views[i].ID]
	}
	return nil
}

// Inspect is Get with the lag, for which Kafka is asked.
func (o *Operations) Inspect(ctx context.Context, nameOrID string) (*View, error) {
	v, err := o.Get(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	views := []View{*v}
	err = o.inspect(ctx, views)
	return &views[0], err
}

// inspect adds how far destinations are, and leaves it out while Kafka does not answer:
// the rest is wanted most when something is out of order.
func (o *Operations) inspect(ctx context.Context, views []View) error {
	if err := o.addLag(ctx, views); err != nil {
		o.log.Warn("destination.lag_unknown", zap.Error(err))
		for i := range views {
			views[i].Lag = nil
		}
	}
	return ctx.Err()
}

// lagWithin bounds the question how far Kafka's logs reach.
const lagWithin = 3 * time.Second

// addLag adds how many offsets of their topics destinations have not finished, and
// where they are stopped.
func (o *Operations) addLag(ctx context.Context, views []View) error {
	ids := make([]string, len(views))
	for i := range views {
		ids[i] = views[i].ID
	}
	cursors, err := o.db.DestinationCursors(ctx, ids...)
	if err != nil {
		return err
	}
	// Read after the cursors: what was finished lies before the ends.
	bounded, cancel := context.WithTimeout(ctx, lagWithin)
	defer cancel()
	ends, err := o.ends.EndOffsets(bounded, schemas.FedTopics()...)
	if err != nil {
		return err
	}
	type place struct {
		topic     string
		partition int32
	}
	endOf := map[place]storage.CursorStart{}
	for _, e := range ends {
		endOf[place{e.Topic, e.Partition}] = e
	}
	byID := map[string]*View{}
	for i := range views {
		views[i].Lag = new(int64)
		byID[views[i].ID] = &views[i]
	}
	for _, c := range cursors {
		v := byID[c.DestinationID]
		end := endOf[place{c.Topic, c.Partition}]
		lag, stopped, err := delivery.Standing(c, v.Name, end)
		if err != nil {
			return err
		}
		if c.ReplayID == storage.LiveReplay {
			*v.Lag += lag
		}
		if stopped != nil {
			v.Stopped = append(v.Stopped, *stopped)
		}
	}
	return nil
}

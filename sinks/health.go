package sinks

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
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
	healths, err := storage.ReadHealth(ctx, o.db, ids)
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
	lag, err := o.lag(ctx, v)
	if err != nil {
		// The rest is wanted most when something is out of order.
		o.deliverer.log.Warn("destination.lag_unknown", zap.String("destination_id", v.ID), zap.Error(err))
		return v, ctx.Err()
	}
	v.Lag = &lag
	return v, nil
}

// lagWithin bounds the question how far Kafka's logs reach.
const lagWithin = 3 * time.Second

// lag is how many offsets of its topics a destination has not finished.
func (o *Operations) lag(ctx context.Context, v *View) (lag int64, err error) {
	sub, err := schemas.ParseSubscription(v.EventTypes)
	if err != nil {
		return 0, err
	}
	cursors, err := storage.DestinationCursors(ctx, o.db, v.ID)
	if err != nil {
		return 0, err
	}
	// Read after the cursors: what was finished lies before the ends.
	bounded, cancel := context.WithTimeout(ctx, lagWithin)
	defer cancel()
	ends, err := o.ends.EndOffsets(bounded, sub.Topics()...)
	if err != nil {
		return 0, err
	}
	type place struct {
		topic     string
		partition int32
	}
	end := map[place]int64{}
	for _, e := range ends {
		end[place{e.Topic, e.Partition}] = e.Offset
	}
	for _, c := range cursors {
		if c.ReplayID != storage.LiveReplay {
			continue
		}
		n, err := stream.Unfinished(c, end[place{c.Topic, c.Partition}])
		if err != nil {
			return 0, err
		}
		lag += n
	}
	return lag, nil
}

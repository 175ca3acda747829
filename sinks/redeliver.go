package sinks

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Redeliver makes one attempt now to deliver a record to a destination, outside
// its lanes: whatever the destination subscribes to, also when it is paused, and
// in no order with what it is sent live. The attempt stands in the delivery log.
func (o *Operations) Redeliver(ctx context.Context, nameOrID string, r *stream.Record) (stream.Outcome, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return stream.Outcome{}, err
	}
	before, _, err := storage.SearchAttempts(ctx, o.db, d.ID, storage.AttemptFilter{Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset}, "", 1)
	if err != nil {
		return stream.Outcome{}, err
	}
	attempt := 1
	if len(before) > 0 {
		attempt = before[0].Attempt + 1
	}
	started := time.Now()
	out := o.deliverer.Deliver(ctx, stream.Delivery{Destination: d, Records: []*stream.Record{r}, Attempt: attempt})
	row := storage.Attempt{
		At: started, DestinationID: d.ID, RecordID: r.ID, RecordType: r.Type, RecordKey: string(r.Key),
		Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, Attempt: attempt, Outcome: out.Verdict.String(),
		Status: out.Status, Latency: out.Latency, Error: out.Err, Response: out.Response,
	}
	logged, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = o.db.InTx(logged, func(tx *storage.Tx) error { return storage.WriteAttempts(logged, tx, []storage.Attempt{row}) })
	if err != nil {
		// The attempt was made: its outcome is worth more than its row.
		o.deliverer.log.Warn("delivery.redelivery_not_logged", zap.String("destination_id", d.ID), zap.Error(err))
	}
	return out, nil
}

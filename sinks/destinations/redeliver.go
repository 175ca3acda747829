package destinations

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Redeliver makes one attempt now to deliver a record to a destination, outside
// its lanes: whatever the destination subscribes to, also when it is paused, and
// in no order with what it is sent live. The attempt stands in the delivery log, as
// the one after the made ones; made below 0 has them looked up there. Nothing is sent
// of somebody who was erased, but that they were deleted: the outcome is Erased.
func (o *Operations) Redeliver(ctx context.Context, nameOrID string, r *stream.Record, made int) (delivery.Outcome, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return delivery.Outcome{}, err
	}
	if made < 0 {
		if made, err = o.attemptsMade(ctx, d.ID, r); err != nil {
			return delivery.Outcome{}, err
		}
	}
	attempt := made + 1
	started := time.Now()
	out := delivery.Outcome{Verdict: delivery.Erased}
	erased, err := o.erased(ctx, r)
	if err != nil {
		return delivery.Outcome{}, err
	}
	if !erased {
		out = o.deliverer.Deliver(ctx, delivery.Delivery{Destination: d, Records: []*stream.Record{r}, Attempt: attempt})
	}
	row := storage.Attempt{
		At: started, DestinationID: d.ID, RecordID: r.ID, RecordType: r.Type, RecordKey: string(r.Key),
		Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, Attempt: attempt, Outcome: out.Verdict.String(),
		Status: out.Status, Latency: out.Latency, Error: out.Err, Response: out.Response,
	}
	logged, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err = o.db.InTx(logged, func(tx *storage.Tx) error { return tx.WriteAttempts(logged, []storage.Attempt{row}) })
	if err != nil {
		// The attempt was made: its outcome is worth more than its row.
		o.log.Warn("delivery.redelivery_not_logged", zap.String("destination_id", d.ID), zap.Error(err))
	}
	return out, nil
}

// erased says whether a record is about somebody who was erased, by its key or its
// content, and is not what says so.
func (o *Operations) erased(ctx context.Context, r *stream.Record) (bool, error) {
	about := []string{string(r.Key)}
	p, err := o.deliverer.Payload(r)
	if err == nil {
		about = append(about, p.Person.ContactID)
	}
	if err == nil && p.Type == schemas.FactContactDeleted {
		return false, nil
	}
	found, err := o.db.Erased(ctx, about...)
	return len(found) > 0, err
}

// Clocks of brokers and processes may differ by so much.
const clocksApart = time.Hour

// countedFor bounds the look for attempts made before: their number is told to who
// reads the log, and is not worth the time in which the attempt could be made.
const countedFor = 2 * time.Second

// attemptsMade is the number of the last attempt to deliver a record: 0 when there is
// none since the record was appended, or when the log is so long that it takes too
// much time to find it.
func (o *Operations) attemptsMade(ctx context.Context, destinationID string, r *stream.Record) (int, error) {
	from := r.AppendTime
	if !from.IsZero() {
		from = from.Add(-clocksApart)
	}
	bounded, cancel := context.WithTimeout(ctx, countedFor)
	defer cancel()
	last, err := o.db.LastAttempt(bounded, destinationID, storage.AttemptPlace{Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset}, from)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return 0, nil
	}
	return last, err
}

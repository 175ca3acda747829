package destinations

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Tested is what came of a test.
type Tested struct {
	// DeliveryID is the id of the message that was sent.
	DeliveryID string `json:"deliveryId"`
	EventType  string `json:"eventType"`
	Verdict    string `json:"verdict"`
	Delivered  bool   `json:"delivered"`
	Status     int    `json:"status"` // of HTTP, 0 without an answer
	LatencyMS  int64  `json:"latencyMs"`
	Error      string `json:"error,omitempty"`
	Response   string `json:"response,omitempty"`
	// Request is what was sent, or why nothing was.
	Request *SampleRequest `json:"request"`
}

// Test sends a sample to a destination now, whatever it subscribes to and also when
// it is paused, marked by the header Hogstream-Test and under an id of its own, and
// returns what came of it. What its filter leaves out is not sent.
func (o *Operations) Test(ctx context.Context, nameOrID string, s Sample) (*Tested, error) {
	t, err := o.try(ctx, nameOrID, s, true)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	out := t.Send(ctx)
	if t.Request != nil {
		o.logTest(ctx, t.dest, t.payload, out)
	}
	return &Tested{
		DeliveryID: t.payload.MessageID(), EventType: t.payload.Type, Verdict: out.Verdict.String(), Delivered: out.Verdict == delivery.Delivered,
		Status: out.Status, LatencyMS: out.Latency.Milliseconds(), Error: out.Err, Response: string(out.Response), Request: t.preview,
	}, nil
}

// logTest puts the attempt into the delivery log, under no topic. The answer to
// whoever tests is worth more than the row: a failure to write it is only logged.
func (o *Operations) logTest(ctx context.Context, d *storage.Destination, p *sinks.Payload, out delivery.Outcome) {
	err := o.db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.WriteAttempts(ctx, []storage.Attempt{{
			At: time.Now(), DestinationID: d.ID, RecordID: p.ID, RecordType: p.Type, RecordKey: p.Person.ContactID,
			Partition: -1, Offset: -1, Attempt: 1, Outcome: out.Verdict.String(), Status: out.Status,
			Latency: out.Latency, Error: out.Err, Response: out.Response,
		}})
	})
	if err != nil {
		o.log.Warn("destination.test_not_logged", zap.String("destination_id", d.ID), zap.Error(err))
	}
}

package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// previewWebhook is POST /webhooks/{id}/preview: the request that a record would
// be sent as now. Nothing is sent.
func (c *console) previewWebhook(r *http.Request) (any, error) {
	id, s, err := c.sample(r)
	if err != nil {
		return nil, err
	}
	return c.Webhooks.Preview(r.Context(), id, s)
}

// testWebhook is POST /webhooks/{id}/test: the message is on its way before the
// answer, which says what came of it.
func (c *console) testWebhook(r *http.Request) (any, error) {
	id, s, err := c.sample(r)
	if err != nil {
		return nil, err
	}
	t, err := c.Webhooks.Test(r.Context(), id, s)
	if err != nil {
		return nil, err
	}
	sent := t.Request == nil || t.Request.Result == "sent"
	c.audit(r, "webhooks", id, map[string]any{"operation": "test", "deliveryId": t.DeliveryID, "type": t.EventType, "delivered": t.Delivered})
	return answer{http.StatusAccepted, testJSON{
		Enqueued: sent, EventType: t.EventType, DeliveryID: t.DeliveryID, Delivered: t.Delivered, Verdict: t.Verdict,
		Status: t.Status, LatencyMS: t.LatencyMS, Error: t.Error, Response: t.Response, Request: t.Request,
	}}, nil
}

// sample reads what a preview or a test is made with: "record", a place on the
// log or a record's id; "message", the JSON of one; or nothing.
func (c *console) sample(r *http.Request) (id string, s Sample, err error) {
	id, f, err := target(r, true)
	if err != nil {
		return "", s, err
	}
	record, message := f.text("record", 1, maxNameLen), f.object("message")
	if record != nil && message != nil {
		f.wrong("message", "custom", "Either a record or a message, not both", "leave one of them out")
	}
	if err := f.err(); err != nil {
		return "", s, err
	}
	s.Message = message
	if record != nil {
		s.Record, err = c.recordNamed(r.Context(), id, *record)
	}
	return id, s, err
}

// recordNamed reads a record by its place, or by its id: where the destination's
// delivery log of the last day says it stands, else among the newest of the log.
func (c *console) recordNamed(ctx context.Context, destination, name string) (*stream.Record, error) {
	if c.Records == nil {
		return nil, &refusal{http.StatusServiceUnavailable, "Service unavailable: records are not read by this process", ""}
	}
	recordID := strings.TrimPrefix(name, messagePrefix)
	if uuid.Validate(recordID) != nil {
		return c.recordAt(ctx, name)
	}
	logged, _, err := storage.SearchAttempts(ctx, c.DB, destination, storage.AttemptFilter{RecordID: recordID, From: c.Now().Add(-24 * time.Hour)}, "", 1)
	if err != nil {
		return nil, err
	}
	if len(logged) > 0 && logged[0].Topic != "" {
		return c.recordAt(ctx, place{schemas.Topic(logged[0].Topic), logged[0].Partition, logged[0].Offset}.String())
	}
	record, err := c.Records.FindRecord(ctx, recordID)
	if err == nil && record == nil {
		err = &refusal{http.StatusNotFound, "No record with this id is among the newest of the log", "name its place: <topic>-<partition>-<offset>, as the delivery log and topics tail show it"}
	}
	return record, err
}

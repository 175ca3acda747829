package console

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/web"
)

type sampleRequestBody struct {
	Record  string         `json:"record,omitempty" doc:"A place on the log, as lifecycle-3-1042, or a record's id. Without record and message: a webhook.test."`
	Message map[string]any `json:"message,omitempty" doc:"As webhooks get it (id, type, timestamp, data), or as records are shown (topic, value)."`
}

// sampleRoutes are those that try a destination.
func (c *console) sampleRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/test", Scopes: changing, Tag: "Destinations", Summary: "Send a test message, or a record as a test, now",
			Request: sampleRequestBody{}, Answers: map[int]any{202: testJSON{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/test {"record":"lifecycle-3-1042"}`, Handle: c.testWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/preview", Scopes: changing, Tag: "Destinations", Summary: "Show the request that a record would be sent as",
			Request: sampleRequestBody{}, Answers: map[int]any{200: destinations.SampleRequest{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/preview {"record":"lifecycle-3-1042"}`, Handle: c.previewWebhook, NotFound: noWebhook,
		},
	}
}

// previewWebhook is POST /webhooks/{id}/preview: the request that a record would
// be sent as now. Nothing is sent.
func (c *console) previewWebhook(r *web.Request) (any, error) {
	id, s, err := c.sample(r)
	if err != nil {
		return nil, err
	}
	return c.Destinations.Preview(r.Context(), id, s)
}

// testWebhook is POST /webhooks/{id}/test: the message is on its way before the
// answer, which says what came of it.
func (c *console) testWebhook(r *web.Request) (any, error) {
	id, s, err := c.sample(r)
	if err != nil {
		return nil, err
	}
	t, err := c.Destinations.Test(r.Context(), id, s)
	if err != nil {
		return nil, err
	}
	sent := t.Request.Result == "sent"
	c.audit(r, "webhooks", id, map[string]any{"operation": "test", "deliveryId": t.DeliveryID, "type": t.EventType, "delivered": t.Delivered})
	return web.Answered(http.StatusAccepted, testJSON{sent, *t}), nil
}

// sample reads what a preview or a test is made with: "record", a place on the
// log or a record's id; "message", the JSON of one; or nothing.
func (c *console) sample(r *web.Request) (id string, s destinations.Sample, err error) {
	id, f, err := r.Target()
	if err != nil {
		return "", s, err
	}
	record, message := f.Text("record", 1, maxNameLen), f.Object("message")
	if record != nil && message != nil {
		f.Wrong("message", "custom", "Either a record or a message, not both", "leave one of them out")
	}
	if err := f.Err(); err != nil {
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
	recordID := strings.TrimPrefix(name, messagePrefix)
	if uuid.Validate(recordID) != nil {
		return c.recordAt(ctx, name)
	}
	logged, _, err := c.DB.SearchAttempts(ctx, destination, storage.AttemptFilter{RecordID: recordID, From: time.Now().Add(-24 * time.Hour)}, "", 1)
	if err != nil {
		return nil, err
	}
	if len(logged) > 0 && logged[0].Topic != "" {
		return c.recordAt(ctx, place{schemas.Topic(logged[0].Topic), logged[0].Partition, logged[0].Offset}.String())
	}
	record, err := c.Records.FindRecord(ctx, recordID)
	if err == nil && record == nil {
		err = refuse(http.StatusNotFound, "No record with this id is among the newest of the log", "name its place: <topic>-<partition>-<offset>, as the delivery log and topics tail show it")
	}
	return record, err
}

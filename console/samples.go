package console

import (
	"context"
	"encoding/json"
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
	Record  string     `json:"record,omitempty" minLength:"1" maxLength:"100" doc:"A place on the log, as lifecycle-3-1042, or a record's id. Without record and message: a webhook.test."`
	Message web.Object `json:"message,omitempty" doc:"As webhooks get it (id, type, timestamp, data), or as records are shown (topic, value)."`
}

// Check is that a sample is one thing.
func (s *sampleRequestBody) Check() web.IssuesError {
	if s.Record == "" || s.Message == nil {
		return nil
	}
	return web.IssuesError{web.Wrong("message", "custom", "Either a record or a message, not both", "leave one of them out")}
}

// sampleRoutes are those that try a destination.
func (c *console) sampleRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/test", Scopes: changing, Tag: "Destinations", Summary: "Send a test message, or a record as a test, now",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/test {"record":"lifecycle-3-1042"}`, Handle: web.Body(c.testWebhook), Status: http.StatusAccepted, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/preview", Scopes: changing, Tag: "Destinations", Summary: "Show the request that a record would be sent as",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/preview {"record":"lifecycle-3-1042"}`, Handle: web.Body(c.previewWebhook), NotFound: noWebhook,
		},
	}
}

// previewWebhook is POST /webhooks/{id}/preview: the request that a record would
// be sent as now. Nothing is sent.
func (c *console) previewWebhook(r *web.Request, req *sampleRequestBody) (*destinations.SampleRequest, error) {
	s, err := c.sample(r, req)
	if err != nil {
		return nil, err
	}
	return c.Destinations.Preview(r.Context(), r.ID, s)
}

// testWebhook is POST /webhooks/{id}/test: the message is on its way before the
// answer, which says what came of it.
func (c *console) testWebhook(r *web.Request, req *sampleRequestBody) (out testJSON, err error) {
	s, err := c.sample(r, req)
	if err != nil {
		return out, err
	}
	t, err := c.Destinations.Test(r.Context(), r.ID, s)
	if err != nil {
		return out, err
	}
	c.audit(r, "webhooks", r.ID, map[string]any{"operation": "test", "deliveryId": t.DeliveryID, "type": t.EventType, "delivered": t.Delivered})
	return testJSON{t.Request.Result == "sent", *t}, nil
}

// sample is what a preview or a test is made with.
func (c *console) sample(r *web.Request, req *sampleRequestBody) (s destinations.Sample, err error) {
	s.Message = json.RawMessage(req.Message)
	if req.Record != "" {
		s.Record, err = c.recordNamed(r.Context(), r.ID, req.Record)
	}
	return s, err
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

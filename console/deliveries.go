package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Records reads records where they stand and delivers them again.
type Records interface {
	// ReadRecord returns nil when the log has the record no more.
	ReadRecord(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error)
	// Redeliver makes one attempt now; ErrNotFound for an unknown destination.
	Redeliver(ctx context.Context, id string, r *stream.Record) (stream.Outcome, error)
}

// attemptJSON is a row of the delivery log. Delivery names the record on the log:
// <topic>-<partition>-<offset>.
type attemptJSON struct {
	Delivery  string  `json:"deliveryId"`
	At        isoTime `json:"attemptedAt"`
	RecordID  string  `json:"recordId"`
	Type      string  `json:"type"`
	Key       string  `json:"key"`
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Offset    int64   `json:"offset"`
	Attempt   int     `json:"attempt"`
	Outcome   string  `json:"outcome" enum:"delivered,retry,rejected,refused,skipped,split"`
	Status    *int    `json:"status"`
	LatencyMS int64   `json:"latencyMs"`
	Error     *string `json:"error"`
	Response  *string `json:"response"`
	ReplayID  *string `json:"replayId"`
}

type attemptPage struct {
	Deliveries []attemptJSON `json:"deliveries"`
	Limit      int           `json:"limit"`
	NextCursor *string       `json:"nextCursor"`
}

type redeliveredJSON struct {
	Delivery  string `json:"deliveryId"`
	Delivered bool   `json:"delivered"`
	Verdict   string `json:"verdict"`
	Status    int    `json:"status"`
	LatencyMS int64  `json:"latencyMs"`
	Error     string `json:"error,omitempty"`
	Response  string `json:"response,omitempty"`
}

const noDelivery = "Delivery not found"

func attemptOf(a *storage.Attempt) attemptJSON {
	text := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	out := attemptJSON{
		Delivery: fmt.Sprintf("%s-%d-%d", a.Topic, a.Partition, a.Offset), At: isoTime(a.At), RecordID: a.RecordID, Type: a.RecordType,
		Key: a.RecordKey, Topic: a.Topic, Partition: a.Partition, Offset: a.Offset, Attempt: a.Attempt, Outcome: a.Outcome,
		LatencyMS: a.Latency.Milliseconds(), Error: text(a.Error), Response: text(string(a.Response)), ReplayID: text(a.ReplayID),
	}
	if a.Status != 0 {
		out.Status = &a.Status
	}
	return out
}

// listDeliveries is GET /webhooks/{id}/deliveries: the delivery log, newest first.
func (c *console) listDeliveries(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" {
		return
	}
	q := r.URL.Query()
	f := &form{}
	filter := storage.AttemptFilter{
		RecordID: strings.TrimPrefix(q.Get("recordId"), "msg_"), Key: q.Get("key"), Type: q.Get("type"), Outcome: q.Get("outcome"),
		Status: f.within(q, "status", 0, 0, 999), ReplayID: q.Get("replayId"), From: f.queryTime(q, "from"), To: f.queryTime(q, "to"),
	}
	limit := f.within(q, "limit", 50, 1, 500)
	if !f.ok(w) {
		return
	}
	list, next, err := storage.SearchAttempts(r.Context(), c.DB, id, filter, q.Get("cursor"), limit)
	if errors.Is(err, storage.ErrAttemptCursor) {
		failIssues(w, []issue{{Code: "custom", Path: []any{"cursor"}, Message: err.Error(), Fix: "send nextCursor as it was given"}})
		return
	}
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	respond(w, http.StatusOK, attemptPageOf(list, next, limit))
}

func attemptPageOf(list []storage.Attempt, next string, limit int) attemptPage {
	out := attemptPage{Deliveries: []attemptJSON{}, Limit: limit}
	for i := range list {
		out.Deliveries = append(out.Deliveries, attemptOf(&list[i]))
	}
	if next != "" {
		out.NextCursor = &next
	}
	return out
}

// queryTime reads an optional time.
func (f *form) queryTime(q url.Values, name string) time.Time {
	if !q.Has(name) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, q.Get(name))
	if err != nil {
		f.wrong(name, "invalid_format", "Invalid ISO datetime", "send a time such as 2026-01-31T12:00:00Z")
	}
	return t
}

// place reads {delivery}; false when it names no place.
func place(r *http.Request) (topic string, partition int32, offset int64, ok bool) {
	parts := strings.Split(chi.URLParam(r, "delivery"), "-")
	if len(parts) < 3 {
		return "", 0, 0, false
	}
	n := len(parts)
	p, err1 := strconv.ParseInt(parts[n-2], 10, 32)
	o, err2 := strconv.ParseInt(parts[n-1], 10, 64)
	return strings.Join(parts[:n-2], "-"), int32(p), o, err1 == nil && err2 == nil
}

// getDelivery is GET /webhooks/{id}/deliveries/{delivery}: all attempts of one record.
func (c *console) getDelivery(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" {
		return
	}
	topic, partition, offset, ok := place(r)
	if !ok {
		fail(w, http.StatusNotFound, noDelivery, "")
		return
	}
	list, next, err := storage.SearchAttempts(r.Context(), c.DB, id, storage.AttemptFilter{Topic: topic, Partition: partition, Offset: offset}, "", 100)
	switch {
	case err != nil:
		c.failErr(w, r, err, noDelivery)
	case len(list) == 0:
		fail(w, http.StatusNotFound, noDelivery, "")
	default:
		respond(w, http.StatusOK, attemptPageOf(list, next, 100))
	}
}

// redeliver is POST /webhooks/{id}/deliveries/{delivery}/redeliver: one attempt
// now; the answer says what came of it.
func (c *console) redeliver(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" {
		return
	}
	if c.Records == nil {
		fail(w, http.StatusServiceUnavailable, "Service unavailable: records are not read by this process", "")
		return
	}
	topic, partition, offset, ok := place(r)
	if !ok || topic != string(schemas.TopicLifecycle) && topic != string(schemas.TopicEvents) {
		fail(w, http.StatusNotFound, noDelivery, "")
		return
	}
	record, err := c.Records.ReadRecord(r.Context(), schemas.Topic(topic), partition, offset)
	if err == nil && record == nil {
		fail(w, http.StatusNotFound, "The log does not have this record any more", "")
		return
	}
	if err != nil {
		c.failErr(w, r, err, noDelivery)
		return
	}
	out, err := c.Records.Redeliver(r.Context(), id, record)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	delivered := out.Verdict == stream.Delivered
	c.audit(r, "webhooks", id, map[string]any{"operation": "redeliver", "deliveryId": chi.URLParam(r, "delivery"), "delivered": delivered})
	respond(w, http.StatusOK, redeliveredJSON{
		Delivery: chi.URLParam(r, "delivery"), Delivered: delivered, Verdict: out.Verdict.String(), Status: out.Status,
		LatencyMS: out.Latency.Milliseconds(), Error: out.Err, Response: string(out.Response),
	})
}

package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/web"
)

// Records reads single records of the log.
type Records interface {
	// ReadRecord returns nil when the log has the record no more.
	ReadRecord(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (*stream.Record, error)
	// FindRecord looks among the newest records of the topics that destinations are
	// sent; nil when it is not among them.
	FindRecord(ctx context.Context, id string) (*stream.Record, error)
}

// attemptJSON is a row of the delivery log. Delivery names the record on the log:
// <topic>-<partition>-<offset>.
type attemptJSON struct {
	Delivery  string          `json:"deliveryId"`
	At        schemas.ISOTime `json:"attemptedAt" format:"date-time"`
	RecordID  string          `json:"recordId"`
	Type      string          `json:"type"`
	Key       string          `json:"key"`
	Topic     string          `json:"topic"`
	Partition int32           `json:"partition"`
	Offset    int64           `json:"offset"`
	Attempt   int             `json:"attempt"`
	AttemptOutcome
	Status    *int    `json:"status"`
	LatencyMS int64   `json:"latencyMs"`
	Error     *string `json:"error" doc:"Of an attempt without an answer, scope full-admin sees addresses, names and certificates; others its class: dns, tls, connection refused, timeout and the like."`
	Response  *string `json:"response"`
	ReplayID  *string `json:"replayId"`
}

// AttemptOutcome is what came of an attempt, in its answer and as a filter.
type AttemptOutcome struct {
	Outcome string `json:"outcome" enum:"delivered,retry,rejected,refused,skipped,split,erased"`
}

type attemptQuery struct {
	NextPage
	AttemptOutcome
	Limit     int       `json:"limit" minimum:"1" maximum:"500" default:"50"`
	RecordID  string    `json:"recordId"`
	Contact   string    `json:"contact" doc:"contact id"`
	Key       string    `json:"key" doc:"the same as contact"`
	Type      string    `json:"type" doc:"event.tracked for all product events; * at the end for any ending"`
	EventType string    `json:"eventType" doc:"the same as type"`
	Status    int       `json:"status" minimum:"0" maximum:"999" doc:"of HTTP"`
	ReplayID  string    `json:"replayId"`
	From      time.Time `json:"from" doc:"a day before to, or now, when left out"`
	To        time.Time `json:"to" doc:"exclusive"`
}

type attemptPage struct {
	Deliveries []attemptJSON    `json:"deliveries"`
	Limit      int              `json:"limit"`
	NextCursor *string          `json:"nextCursor"`
	From       *schemas.ISOTime `json:"from,omitempty" format:"date-time" doc:"How far back was looked: a day when the request did not say."`
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

// attemptOf is a row of the log. A test has no place on a topic: its message
// names it.
func attemptOf(a *storage.Attempt) attemptJSON {
	out := attemptJSON{
		Delivery: place{schemas.Topic(a.Topic), a.Partition, a.Offset}.String(), At: schemas.ISOTime{Time: a.At}, RecordID: a.RecordID, Type: a.RecordType,
		Key: a.RecordKey, Topic: a.Topic, Partition: a.Partition, Offset: a.Offset, Attempt: a.Attempt, AttemptOutcome: AttemptOutcome{a.Outcome},
		LatencyMS: a.Latency.Milliseconds(), Error: optional(a.Error), Response: optional(string(a.Response)), ReplayID: optional(a.ReplayID),
	}
	if a.Topic == "" {
		out.Delivery = messagePrefix + a.RecordID
	}
	if a.Status != 0 {
		out.Status = &a.Status
	}
	return out
}

// messagePrefix stands before a record's id in the messages of destinations.
const messagePrefix = "msg_"

// deliveryRoutes are those of the delivery log.
func (c *console) deliveryRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/deliveries", Scopes: reading, Tag: "Deliveries", Summary: "Search the delivery log, newest first",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/deliveries?outcome=rejected&limit=100`, Handle: web.Query(c.listDeliveries), NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/deliveries/{delivery}", Scopes: reading, Tag: "Deliveries", Summary: "Show all attempts to deliver a record",
			Params:  []web.Param{deliveryParam},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/deliveries/lifecycle-3-1042`, Handle: web.Path(c.getDelivery), NotFound: noDelivery,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/deliveries/{delivery}/redeliver", Scopes: changing, Tag: "Deliveries", Summary: "Deliver a record again now",
			Params:  []web.Param{deliveryParam},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/deliveries/lifecycle-3-1042/redeliver`, Handle: web.Path(c.redeliver), NotFound: noDelivery,
		},
	}
}

var deliveryParam = web.Param{Name: "delivery", Text: "topic, partition and offset of the record, as lifecycle-3-1042"}

// listDeliveries is GET /webhooks/{id}/deliveries: the delivery log, newest first.
func (c *console) listDeliveries(r *web.Request, q *attemptQuery) (out attemptPage, err error) {
	if _, err := c.Destinations.Get(r.Context(), r.ID); err != nil {
		return out, err
	}
	filter := storage.AttemptFilter{
		RecordID: strings.TrimPrefix(q.RecordID, messagePrefix), Key: cmp.Or(q.Contact, q.Key), Type: cmp.Or(q.Type, q.EventType),
		Outcome: q.Outcome, Status: q.Status, ReplayID: q.ReplayID, From: q.From, To: q.To,
	}
	if filter.From.IsZero() {
		filter.From = c.searchedFrom(filter.To)
	}
	list, next, err := c.DB.SearchAttempts(r.Context(), r.ID, filter, q.Cursor, q.Limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = refuse(http.StatusServiceUnavailable, "The search took too long", "look at a shorter time, with from and to")
	}
	if err != nil {
		return out, err
	}
	out = c.hideFailures(r, attemptPageOf(list, next, q.Limit))
	out.From = schemas.ISOTimeOf(&filter.From)
	return out, nil
}

// searched is how far back a search of the delivery log goes that does not say.
// The log has no index but destination and time. One on the record's id made writing
// it cost 1.75 times as much, and another on the contact 2.7 times, on every delivery;
// without them a search looks at about a million rows a second.
const searched = 24 * time.Hour

// searchedFrom is where a search begins that names no beginning.
func (c *console) searchedFrom(to time.Time) time.Time {
	if to.IsZero() {
		to = time.Now()
	}
	return to.Add(-searched).UTC().Truncate(time.Millisecond)
}

func attemptPageOf(list []storage.Attempt, next string, limit int) attemptPage {
	out := attemptPage{Deliveries: []attemptJSON{}, Limit: limit, NextCursor: optional(next)}
	for i := range list {
		out.Deliveries = append(out.Deliveries, attemptOf(&list[i]))
	}
	return out
}

// A place is where a record stands on the log.
type place struct {
	topic     schemas.Topic
	partition int32
	offset    int64
}

// String is the name of the delivery of the record that stands there.
func (p place) String() string { return fmt.Sprintf("%s-%d-%d", p.topic, p.partition, p.offset) }

// parsePlace reads <topic>-<partition>-<offset>; false when it names no place
// that destinations are sent records of.
func parsePlace(text string) (place, bool) {
	parts := strings.Split(text, "-")
	if len(parts) < 3 {
		return place{}, false
	}
	n := len(parts)
	partition, err1 := strconv.ParseInt(parts[n-2], 10, 32)
	offset, err2 := strconv.ParseInt(parts[n-1], 10, 64)
	p := place{schemas.Topic(strings.Join(parts[:n-2], "-")), int32(partition), offset}
	_, fed := schemas.FeedOf(p.topic)
	return p, err1 == nil && err2 == nil && fed
}

// deliveryFilter finds the attempts of {delivery}: a record's place, or the
// message of a test.
func deliveryFilter(delivery string) (storage.AttemptFilter, bool) {
	if p, ok := parsePlace(delivery); ok {
		return storage.AttemptFilter{Topic: string(p.topic), Partition: p.partition, Offset: p.offset}, true
	}
	id := strings.TrimPrefix(delivery, messagePrefix)
	return storage.AttemptFilter{RecordID: id}, uuid.Validate(id) == nil
}

// getDelivery is GET /webhooks/{id}/deliveries/{delivery}: all attempts of one record.
func (c *console) getDelivery(r *web.Request) (out attemptPage, err error) {
	filter, ok := deliveryFilter(r.Param("delivery"))
	if !ok {
		return out, web.ErrNotFound
	}
	if _, err := c.Destinations.Get(r.Context(), r.ID); err != nil {
		return out, err
	}
	if filter.From, err = c.attemptedFrom(r.Context(), filter); err != nil {
		return out, err
	}
	list, next, err := c.DB.SearchAttempts(r.Context(), r.ID, filter, "", 100)
	if err == nil && len(list) == 0 {
		err = web.ErrNotFound
	}
	return c.hideFailures(r, attemptPageOf(list, next, 100)), err
}

// clocksApart is by how much the clocks of brokers and processes may differ.
const clocksApart = time.Hour

// attemptedFrom is before the first attempt to deliver a record, so that only the days
// since then are searched: a record is delivered after it was appended, and an id of
// version 7 says when it was made. Without either it is the beginning of the log.
func (c *console) attemptedFrom(ctx context.Context, f storage.AttemptFilter) (time.Time, error) {
	if f.Topic == "" {
		if id, err := uuid.Parse(f.RecordID); err == nil && id.Version() == 7 {
			seconds, nanos := id.Time().UnixTime()
			return time.Unix(seconds, nanos).Add(-clocksApart), nil
		}
		return time.Time{}, nil
	}
	record, err := c.Records.ReadRecord(ctx, schemas.Topic(f.Topic), f.Partition, f.Offset)
	switch {
	case ctx.Err() != nil:
		return time.Time{}, ctx.Err()
	case err != nil, record == nil, record.AppendTime.IsZero():
		return time.Time{}, nil // Kafka is away, or has it no more; what was attempted is shown all the same
	}
	return record.AppendTime.Add(-clocksApart), nil
}

// redeliver is POST /webhooks/{id}/deliveries/{delivery}/redeliver: one attempt
// now; the answer says what came of it.
func (c *console) redeliver(r *web.Request) (shown redeliveredJSON, err error) {
	named := r.Param("delivery")
	record, err := c.recordAt(r.Context(), named)
	if err != nil {
		return shown, err
	}
	out, err := c.Destinations.Redeliver(r.Context(), r.ID, record, -1)
	if err != nil {
		return shown, err
	}
	delivered := out.Verdict == delivery.Delivered
	c.audit(r, "webhooks", r.ID, map[string]any{"operation": "redeliver", "deliveryId": named, "delivered": delivered})
	return redeliveredJSON{
		Delivery: named, Delivered: delivered, Verdict: out.Verdict.String(), Status: out.Status,
		LatencyMS: out.Latency.Milliseconds(), Error: out.Err, Response: string(out.Response),
	}, nil
}

// recordAt reads the record of a delivery from the log.
func (c *console) recordAt(ctx context.Context, delivery string) (*stream.Record, error) {
	p, ok := parsePlace(delivery)
	if !ok {
		return nil, refuse(http.StatusNotFound, noDelivery, "name it as <topic>-<partition>-<offset>, for example lifecycle-3-1042")
	}
	if feed, _ := schemas.FeedOf(p.topic); feed.Answers {
		return nil, refuse(http.StatusConflict, "What processors ask a destination for is sent once, and they were told what came of it", "when it was given up, retry its dead letter")
	}
	record, err := c.Records.ReadRecord(ctx, p.topic, p.partition, p.offset)
	if err == nil && record == nil {
		err = refuse(http.StatusNotFound, "The log does not have this record any more", "")
	}
	return record, err
}

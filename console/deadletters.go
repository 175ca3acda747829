package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/hogstream/hogstream/stream/replay"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/web"
)

// DeadLetters is what operators do with what was given up. Implemented by
// *replay.DeadLetters.
type DeadLetters interface {
	List(ctx context.Context, f replay.LetterFilter, cursor string, limit int) (*replay.LetterPage, error)
	Get(ctx context.Context, place string) (*replay.Letter, error)
	Redrive(ctx context.Context, place string) (*replay.Letter, error)
	RedriveAll(ctx context.Context, f replay.LetterFilter, cursor string, limit int) (*replay.Redriven, error)
	Discard(ctx context.Context, place string) error
}

// Values decodes the values of records for people. Implemented by *schemas.Codec.
type Values interface {
	JSON(topic schemas.Topic, value []byte) ([]byte, error)
}

// letterDestination is where a delivery that was given up was to go. Its URL holds no
// secret.
type letterDestination struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	URL  string `json:"url"`
}

// letterJSON is a dead letter; the fields up to createdAt are the reference's.
// Payload is the record's bytes (base64), in the answer to one letter only.
type letterJSON struct {
	ID         string  `json:"id"`
	Source     string  `json:"source"`
	SourceID   *string `json:"sourceId"`
	Payload    []byte  `json:"payload" nullable:"true"`
	Error      string  `json:"error"`
	RetryCount int     `json:"retryCount"`
	LetterStatus
	RetriedAt *schemas.ISOTime `json:"retriedAt" format:"date-time"`
	CreatedAt schemas.ISOTime  `json:"createdAt" format:"date-time"`

	Reason       string            `json:"reason"`
	Attempts     int               `json:"attempts"`
	RecordID     string            `json:"recordId"`
	RecordType   string            `json:"recordType"`
	RecordKey    string            `json:"recordKey"`
	Topic        string            `json:"topic"`
	Partition    int32             `json:"partition"`
	Offset       int64             `json:"offset"`
	EndOffset    *int64            `json:"endOffset"`
	ResponseCode *int              `json:"responseCode"`
	ResponseBody *string           `json:"responseBody"`
	Headers      map[string]string `json:"headers,omitempty"`

	Destination *letterDestination `json:"destination" doc:"Of a delivery; null when the destination was deleted, and for other sources."`
	Value       json.RawMessage    `json:"value,omitempty" doc:"The payload, decoded, in the answer to one entry; none when it cannot be."`
}

// LetterStatus is what became of a dead letter, in its answer and as a filter.
type LetterStatus struct {
	Status string `json:"status" enum:"pending,retrying,retried,discarded,erased"`
}

// LetterFilter narrows which dead letters are meant.
type LetterFilter struct {
	NextPage
	Source        string    `json:"source" doc:"processor:<name> or destination:<name>"`
	Reason        string    `json:"reason"`
	Type          string    `json:"type" doc:"event.tracked is all product events; a * at the end any ending"`
	Contact       string    `json:"contact" doc:"a contact id"`
	Key           string    `json:"key" doc:"the same as contact"`
	RecordID      string    `json:"recordId"`
	Destination   string    `json:"destination" doc:"by id or name"`
	DestinationID string    `json:"destinationId" doc:"by id"`
	From          time.Time `json:"from" doc:"given up then or later"`
	To            time.Time `json:"to" doc:"exclusive"`
}

type (
	letterQuery struct {
		LetterFilter
		LetterStatus
		Limit int `json:"limit" minimum:"1" maximum:"100" default:"50"`
	}
	letterRetry struct {
		LetterFilter
		Limit int `json:"limit" minimum:"1" maximum:"1000" default:"100"`
	}
)

type letterPage struct {
	Entries    []letterJSON `json:"entries"`
	Limit      int          `json:"limit"`
	NextCursor *string      `json:"nextCursor" doc:"Of the next part; null at the end. A part may be short, even empty, with a next one: a request looks at 20,000 entries and no more."`
	Scanned    int          `json:"scanned" doc:"So many entries were looked at."`
}

func letterOf(l *replay.Letter, whole bool) letterJSON {
	out := letterJSON{
		ID: l.Place, Source: l.Source, SourceID: l.DestinationID, Error: l.Error, RetryCount: l.RetryCount, LetterStatus: LetterStatus{l.Status},
		RetriedAt: schemas.ISOTimeOf(l.RetriedAt), CreatedAt: schemas.ISOTime{Time: l.AppendedAt}, Reason: l.Reason, Attempts: l.Attempts,
		RecordID: l.RecordID, RecordType: l.RecordType, RecordKey: string(l.RecordKey), Topic: l.SourceTopic,
		Partition: l.Partition, Offset: l.Offset, EndOffset: l.EndOffset, ResponseCode: l.ResponseCode, ResponseBody: l.ResponseBody,
	}
	if whole {
		out.Payload, out.Headers = l.RecordValue, l.RecordHeaders
	}
	return out
}

func (c *console) filter(ctx context.Context, f *LetterFilter, status string) (replay.LetterFilter, error) {
	filter := replay.LetterFilter{
		From: f.From, To: f.To, Source: f.Source, Reason: f.Reason, Type: f.Type, Key: cmp.Or(f.Contact, f.Key),
		RecordID: strings.TrimPrefix(f.RecordID, messagePrefix), DestinationID: f.DestinationID, Status: status,
	}
	if f.Destination == "" {
		return filter, nil
	}
	filter.DestinationID = f.Destination
	found, err := c.Destinations.Get(ctx, f.Destination)
	switch {
	case err == nil:
		filter.DestinationID = found.ID
	case errors.Is(err, destinations.ErrNotFound) && uuid.Validate(f.Destination) == nil: // it was deleted
	case errors.Is(err, destinations.ErrNotFound):
		return filter, web.IssuesError{{Code: "custom", Path: []any{"destination"}, Message: "no destination has this name or id", Fix: "use the name or the id of a destination"}}
	default:
		return filter, err
	}
	return filter, nil
}

// named adds to dead letters of deliveries where they were to go.
func (c *console) named(ctx context.Context, letters ...*letterJSON) error {
	known := map[string]*letterDestination{}
	for _, l := range letters {
		if l.SourceID == nil {
			continue
		}
		at, ok := known[*l.SourceID]
		if !ok {
			v, err := c.Destinations.Get(ctx, *l.SourceID)
			switch {
			case err == nil:
				at = &letterDestination{v.Name, v.Kind, v.URL}
			case !errors.Is(err, destinations.ErrNotFound):
				return err
			}
			known[*l.SourceID] = at
		}
		l.Destination = at
	}
	return nil
}

// noLettersDestination is what a 404 of a retry says.
const noLettersDestination = "The destination of this entry was deleted"

// What bodies look like.
type (
	letterRetried struct {
		Retried bool `json:"retried"`
	}
	letterDiscarded struct {
		Discarded bool `json:"discarded"`
	}
)

// letterRoutes are those of dead letters.
func (c *console) letterRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/dlq", Scopes: reading, Tag: "Dead letters", Summary: "List dead letters, newest first",
			Example: `/v1/admin/dlq?status=pending&source=destination:crm`, Handle: web.Query(c.listLetters),
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/dlq/retry", Scopes: changing, Tag: "Dead letters", Summary: "Send the pending dead letters that match on their way again",
			Answers: map[int]any{502: web.FailureBody{}},
			Example: `/v1/admin/dlq/retry?source=destination:crm&limit=100`, Handle: web.Query(c.retryLetters), NotFound: noLettersDestination,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/dlq/{entry}", Scopes: reading, Tag: "Dead letters", Summary: "Show a dead letter",
			Example: `/v1/admin/dlq/0-42`, Handle: web.Path(c.getLetter), NotFound: noLettersDestination,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/dlq/{entry}/retry", Scopes: changing, Tag: "Dead letters", Summary: "Send a dead letter on its way again",
			Answers: map[int]any{502: web.FailureBody{}},
			Example: `/v1/admin/dlq/0-42/retry`, Handle: web.Path(c.retryLetter), NotFound: noLettersDestination,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/dlq/{entry}", Scopes: changing, Tag: "Dead letters", Summary: "Discard a dead letter",
			Example: `/v1/admin/dlq/0-42`, Handle: web.Path(c.discardLetter), NotFound: noLettersDestination,
		},
	}
}

// listLetters is GET /dlq.
func (c *console) listLetters(r *web.Request, q *letterQuery) (out letterPage, err error) {
	filter, err := c.filter(r.Context(), &q.LetterFilter, q.Status)
	if err != nil {
		return out, err
	}
	page, err := c.DeadLetters.List(r.Context(), filter, q.Cursor, q.Limit)
	if err != nil {
		return out, err
	}
	out = letterPage{Entries: []letterJSON{}, Limit: q.Limit, Scanned: page.Scanned, NextCursor: optional(page.Next)}
	for _, l := range page.Letters {
		out.Entries = append(out.Entries, c.letterFor(r, l, false))
	}
	letters := make([]*letterJSON, len(out.Entries))
	for i := range out.Entries {
		letters[i] = &out.Entries[i]
	}
	return out, c.named(r.Context(), letters...)
}

// getLetter is GET /dlq/{entry}.
func (c *console) getLetter(r *web.Request) (out letterJSON, err error) {
	l, err := c.DeadLetters.Get(r.Context(), r.Param("entry"))
	if err != nil {
		return out, err
	}
	out = c.letterFor(r, l, true)
	if value, err := c.Values.JSON(schemas.Topic(l.SourceTopic), l.RecordValue); err == nil {
		out.Value = value
	}
	return out, c.named(r.Context(), &out)
}

// retryLetter is POST /dlq/{entry}/retry: the record is on its way again before
// the answer.
func (c *console) retryLetter(r *web.Request) (out letterRetried, err error) {
	entry := r.Param("entry")
	l, err := c.DeadLetters.Redrive(r.Context(), entry)
	if errors.Is(err, destinations.ErrNotFound) {
		return out, refuse(http.StatusNotFound, noLettersDestination, "discard the entry")
	}
	if err != nil {
		return out, err
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "retry", "source": l.Source, "recordId": l.RecordID})
	return letterRetried{true}, nil
}

// retryLetters is POST /dlq/retry: those that match, or all; the answer says where
// to go on.
func (c *console) retryLetters(r *web.Request, q *letterRetry) (*replay.Redriven, error) {
	filter, err := c.filter(r.Context(), &q.LetterFilter, "")
	if err != nil {
		return nil, err
	}
	out, err := c.DeadLetters.RedriveAll(r.Context(), filter, q.Cursor, q.Limit)
	if out != nil {
		c.audit(r, "dlq", "", map[string]any{"operation": "retry", "filter": auditedFilter(filter), "retried": out.Retried, "failed": out.Failed})
	}
	return out, err
}

// auditedFilter is a filter as the audit log keeps it: a key may be a sender's name for
// a person, and an audit entry outlives the person's erasure.
func auditedFilter(f replay.LetterFilter) replay.LetterFilter {
	if f.Key != "" && uuid.Validate(f.Key) != nil {
		f.Key = "(a subject)"
	}
	return f
}

// discardLetter is DELETE /dlq/{entry}.
func (c *console) discardLetter(r *web.Request) (out letterDiscarded, err error) {
	entry := r.Param("entry")
	if err := c.DeadLetters.Discard(r.Context(), entry); err != nil {
		return out, err
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "discard"})
	return letterDiscarded{true}, nil
}

package console

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// DeadLetters is what operators do with what was given up. Implemented by
// *stream.DeadLetters.
type DeadLetters interface {
	List(ctx context.Context, f stream.LetterFilter, cursor string, limit int) (*stream.LetterPage, error)
	Get(ctx context.Context, place string) (*stream.Letter, error)
	Redrive(ctx context.Context, place string) (*stream.Letter, error)
	RedriveAll(ctx context.Context, f stream.LetterFilter, cursor string, limit int) (*stream.Redriven, error)
	Discard(ctx context.Context, place string) error
}

// letterJSON is a dead letter; the fields up to createdAt are the reference's.
// Payload is the record's bytes (base64), in the answer to one letter only.
type letterJSON struct {
	ID         string           `json:"id"`
	Source     string           `json:"source"`
	SourceID   *string          `json:"sourceId"`
	Payload    []byte           `json:"payload" nullable:"true"`
	Error      string           `json:"error"`
	RetryCount int              `json:"retryCount"`
	Status     string           `json:"status" enum:"pending,retrying,retried,discarded,erased"`
	RetriedAt  *schemas.ISOTime `json:"retriedAt" format:"date-time"`
	CreatedAt  schemas.ISOTime  `json:"createdAt" format:"date-time"`

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
}

type letterPage struct {
	Entries    []letterJSON `json:"entries"`
	Limit      int          `json:"limit"`
	NextCursor *string      `json:"nextCursor" doc:"Of the next part; null at the end. A part may be short, even empty, with a next one: a request looks at 20,000 entries and no more."`
	Scanned    int          `json:"scanned" doc:"So many entries were looked at."`
}

func letterOf(l *stream.Letter, whole bool) letterJSON {
	out := letterJSON{
		ID: l.Place, Source: l.Source, SourceID: l.DestinationID, Error: l.Error, RetryCount: l.RetryCount, Status: l.Status,
		RetriedAt: schemas.ISOTimeOf(l.RetriedAt), CreatedAt: schemas.ISOTime{Time: l.AppendedAt}, Reason: l.Reason, Attempts: l.Attempts,
		RecordID: l.RecordID, RecordType: l.RecordType, RecordKey: string(l.RecordKey), Topic: l.SourceTopic,
		Partition: l.Partition, Offset: l.Offset, EndOffset: l.EndOffset, ResponseCode: l.ResponseCode, ResponseBody: l.ResponseBody,
	}
	if whole {
		out.Payload, out.Headers = l.RecordValue, l.RecordHeaders
	}
	return out
}

func (f *form) letterFilter(q url.Values) stream.LetterFilter {
	return stream.LetterFilter{
		From: f.queryTime(q, "from"), To: f.queryTime(q, "to"),
		Source: q.Get("source"), Reason: q.Get("reason"), Type: q.Get("type"), Key: q.Get("key"),
		RecordID: strings.TrimPrefix(q.Get("recordId"), messagePrefix), DestinationID: q.Get("destinationId"), Status: q.Get("status"),
	}
}

// noLettersDestination is what a 404 of a retry says.
const noLettersDestination = "The destination of this entry was deleted"

// listLetters is GET /dlq.
func (c *console) listLetters(r *http.Request) (any, error) {
	f, q := queryForm(r)
	limit, filter := f.within(q, "limit", 50, 1, 100), f.letterFilter(q)
	if err := f.err(); err != nil {
		return nil, err
	}
	page, err := c.DeadLetters.List(r.Context(), filter, q.Get("cursor"), limit)
	if err != nil {
		return nil, err
	}
	out := letterPage{Entries: []letterJSON{}, Limit: limit, Scanned: page.Scanned, NextCursor: optional(page.Next)}
	for _, l := range page.Letters {
		out.Entries = append(out.Entries, c.letterFor(r, l, false))
	}
	return out, nil
}

// getLetter is GET /dlq/{entry}.
func (c *console) getLetter(r *http.Request) (any, error) {
	l, err := c.DeadLetters.Get(r.Context(), chi.URLParam(r, "entry"))
	if err != nil {
		return nil, err
	}
	return c.letterFor(r, l, true), nil
}

// retryLetter is POST /dlq/{entry}/retry: the record is on its way again before
// the answer.
func (c *console) retryLetter(r *http.Request) (any, error) {
	entry := chi.URLParam(r, "entry")
	l, err := c.DeadLetters.Redrive(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "retry", "source": l.Source, "recordId": l.RecordID})
	return map[string]bool{"retried": true}, nil
}

// retryLetters is POST /dlq/retry: those that match, or all; the answer says where
// to go on.
func (c *console) retryLetters(r *http.Request) (any, error) {
	f, q := queryForm(r)
	limit, filter := f.within(q, "limit", 100, 1, 1000), f.letterFilter(q)
	if err := f.err(); err != nil {
		return nil, err
	}
	out, err := c.DeadLetters.RedriveAll(r.Context(), filter, q.Get("cursor"), limit)
	if out != nil {
		c.audit(r, "dlq", "", map[string]any{"operation": "retry", "filter": auditedFilter(filter), "retried": out.Retried, "failed": out.Failed})
	}
	return out, err
}

// auditedFilter is a filter as the audit log keeps it: a key may be a sender's name for
// a person, and an audit entry outlives the person's erasure.
func auditedFilter(f stream.LetterFilter) stream.LetterFilter {
	if f.Key != "" && uuid.Validate(f.Key) != nil {
		f.Key = "(a subject)"
	}
	return f
}

// discardLetter is DELETE /dlq/{entry}.
func (c *console) discardLetter(r *http.Request) (any, error) {
	entry := chi.URLParam(r, "entry")
	if err := c.DeadLetters.Discard(r.Context(), entry); err != nil {
		return nil, err
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "discard"})
	return map[string]bool{"discarded": true}, nil
}

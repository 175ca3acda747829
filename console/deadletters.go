package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"

	"github.com/go-chi/chi/v5"

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
	ID         string   `json:"id"`
	Source     string   `json:"source"`
	SourceID   *string  `json:"sourceId"`
	Payload    []byte   `json:"payload"`
	Error      string   `json:"error"`
	RetryCount int      `json:"retryCount"`
	Status     string   `json:"status" enum:"pending,retrying,retried,discarded"`
	RetriedAt  *isoTime `json:"retriedAt"`
	CreatedAt  isoTime  `json:"createdAt"`

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
	NextCursor *string      `json:"nextCursor"`
	Scanned    int          `json:"scanned"`
}

const noLetter = "DLQ entry not found"

func letterOf(l *stream.Letter, whole bool) letterJSON {
	out := letterJSON{
		ID: l.Place, Source: l.Source, SourceID: l.DestinationID, Error: l.Error, RetryCount: l.RetryCount, Status: l.Status,
		RetriedAt: isoTimeOf(l.RetriedAt), CreatedAt: isoTime(l.AppendedAt), Reason: l.Reason, Attempts: l.Attempts,
		RecordID: l.RecordID, RecordType: l.RecordType, RecordKey: string(l.RecordKey), Topic: l.SourceTopic,
		Partition: l.Partition, Offset: l.Offset, EndOffset: l.EndOffset, ResponseCode: l.ResponseCode, ResponseBody: l.ResponseBody,
	}
	if whole {
		out.Payload, out.Headers = l.RecordValue, l.RecordHeaders
	}
	return out
}

func (c *console) deadLetters(w http.ResponseWriter) bool {
	if c.DeadLetters == nil {
		fail(w, http.StatusServiceUnavailable, "Service unavailable: dead letters are not read by this process", "")
	}
	return c.DeadLetters != nil
}

func letterFilter(q url.Values) stream.LetterFilter {
	return stream.LetterFilter{
		Source: q.Get("source"), Reason: q.Get("reason"), Type: q.Get("type"), Key: q.Get("key"),
		RecordID: q.Get("recordId"), DestinationID: q.Get("destinationId"), Status: q.Get("status"),
	}
}

func (c *console) listLetters(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := &form{}
	limit := f.within(q, "limit", 50, 1, 100)
	if !f.ok(w) || !c.deadLetters(w) {
		return
	}
	page, err := c.DeadLetters.List(r.Context(), letterFilter(q), q.Get("cursor"), limit)
	if err != nil {
		c.failLetter(w, r, err)
		return
	}
	out := letterPage{Entries: []letterJSON{}, Limit: limit, Scanned: page.Scanned}
	for _, l := range page.Letters {
		out.Entries = append(out.Entries, letterOf(l, false))
	}
	if page.Next != "" {
		out.NextCursor = &page.Next
	}
	respond(w, http.StatusOK, out)
}

func (c *console) getLetter(w http.ResponseWriter, r *http.Request) {
	if !c.deadLetters(w) {
		return
	}
	l, err := c.DeadLetters.Get(r.Context(), chi.URLParam(r, "entry"))
	if err != nil {
		c.failLetter(w, r, err)
		return
	}
	respond(w, http.StatusOK, letterOf(l, true))
}

// retryLetter is POST /dlq/{entry}/retry: the record is on its way again before
// the answer.
func (c *console) retryLetter(w http.ResponseWriter, r *http.Request) {
	if !c.deadLetters(w) {
		return
	}
	entry := chi.URLParam(r, "entry")
	l, err := c.DeadLetters.Redrive(r.Context(), entry)
	if err != nil {
		c.failLetter(w, r, err)
		return
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "retry", "source": l.Source, "recordId": l.RecordID})
	respond(w, http.StatusOK, map[string]bool{"retried": true})
}

// retryLetters is POST /dlq/retry: those that match, or all; the answer says where
// to go on.
func (c *console) retryLetters(w http.ResponseWriter, r *http.Request) {
	if !c.deadLetters(w) {
		return
	}
	q := r.URL.Query()
	f := &form{}
	limit := f.within(q, "limit", 100, 1, 1000)
	if !f.ok(w) {
		return
	}
	out, err := c.DeadLetters.RedriveAll(r.Context(), letterFilter(q), q.Get("cursor"), limit)
	if out != nil {
		c.audit(r, "dlq", "", map[string]any{"operation": "retry", "filter": letterFilter(q), "retried": out.Retried, "failed": out.Failed})
	}
	if err != nil {
		c.failLetter(w, r, err)
		return
	}
	respond(w, http.StatusOK, out)
}

func (c *console) discardLetter(w http.ResponseWriter, r *http.Request) {
	if !c.deadLetters(w) {
		return
	}
	entry := chi.URLParam(r, "entry")
	if err := c.DeadLetters.Discard(r.Context(), entry); err != nil {
		c.failLetter(w, r, err)
		return
	}
	c.audit(r, "dlq", entry, map[string]any{"operation": "discard"})
	respond(w, http.StatusOK, map[string]bool{"discarded": true})
}

func (c *console) failLetter(w http.ResponseWriter, r *http.Request, err error) {
	var refused *stream.RedriveError
	switch {
	case errors.As(err, &refused):
		fail(w, http.StatusBadGateway, refused.Error(), "mend the destination, then retry; the entry is pending")
	case errors.Is(err, stream.ErrNoLetter):
		fail(w, http.StatusNotFound, noLetter, "")
	case errors.Is(err, stream.ErrLetterDone):
		fail(w, http.StatusConflict, "Entry is not in pending state", "")
	case errors.Is(err, stream.ErrLetterLost):
		fail(w, http.StatusConflict, err.Error(), "discard the entry")
	case errors.Is(err, stream.ErrLetterCursor):
		failIssues(w, []issue{{Code: "custom", Path: []any{"cursor"}, Message: err.Error(), Fix: "send nextCursor as it was given"}})
	default:
		c.failErr(w, r, err, "The destination of this entry was deleted")
	}
}

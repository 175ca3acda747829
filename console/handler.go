package console

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// handler answers a request: with a body under 200, with an [answer] under
// another status, or with an error, which fail puts into the words of the API.
type handler func(r *http.Request) (any, error)

type answer struct {
	status int
	body   any
}

// refusal is an error whose answer the handler decided.
type refusal struct {
	status    int
	text, fix string
}

// Error implements error.
func (e *refusal) Error() string { return e.text }

// mistakes are what is wrong with a request.
type mistakes []issue

// Error implements error.
func (m mistakes) Error() string { return m[0].Message }

// route serves a handler with requests that hold nothing but what the route takes.
// subject is what was not found when an error says so.
func (c *console) route(takes *accepted, subject string, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		checked, err := takes.check(r)
		if err != nil {
			c.failErr(w, r, err, subject)
			return
		}
		body, err := h(checked)
		if err != nil {
			c.failErr(w, r, err, subject)
			return
		}
		if a, ok := body.(answer); ok {
			respond(w, a.status, a.body)
			return
		}
		respond(w, http.StatusOK, body)
	}
}

// needs answers 503 to everything when a part of this process is not there.
func needs(part any, without string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		if part != nil {
			return next
		}
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fail(w, http.StatusServiceUnavailable, "Service unavailable: "+without, "")
		})
	}
}

// known are errors of the parts with an answer of their own; without a text the
// error is the text.
var known = []struct {
	err       error
	status    int
	text, fix string
}{
	{ErrConflict, http.StatusConflict, "", "read it again and repeat the change"},
	{ErrRotating, http.StatusConflict, "", `wait until then, or send "force": true, which ends that secret at once`},
	{stream.ErrNoDestination, http.StatusNotFound, noWebhook, ""},
	{stream.ErrNoReplay, http.StatusNotFound, "Backfill not found", ""},
	{stream.ErrReplayState, http.StatusConflict, "", "start another one"},
	{stream.ErrNoLetter, http.StatusNotFound, "DLQ entry not found", ""},
	{stream.ErrLetterDone, http.StatusConflict, "Entry is not in pending state", ""},
	{stream.ErrLetterLost, http.StatusConflict, "", "discard the entry"},
	{stream.ErrLetterErased, http.StatusConflict, "The person of this entry was erased", "discard the entry"},
}

// failErr tells the sender's fault from ours. subject is what was not found.
func (c *console) failErr(w http.ResponseWriter, r *http.Request, err error, subject string) {
	if wrong := mistakesOf(err); wrong != nil {
		failIssues(w, wrong)
		return
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			if k.text == "" {
				k.text = err.Error()
			}
			fail(w, k.status, k.text, k.fix)
			return
		}
	}
	var refused *refusal
	var redrive *stream.RedriveError
	var undelivered *stream.UndeliveredError
	switch {
	case errors.As(err, &undelivered):
		fail(w, http.StatusConflict, undelivered.Error(), `to make dead letters of them instead, send "skipUndelivered": true (--skip-undelivered)`)
	case errors.As(err, &refused):
		fail(w, refused.status, refused.text, refused.fix)
	case errors.As(err, &redrive):
		fail(w, http.StatusBadGateway, redrive.Error(), "mend the destination, then retry; the entry is pending")
	case errors.Is(err, ErrNotFound), storage.IsNotFound(err):
		fail(w, http.StatusNotFound, subject, "")
	case storage.IsUnavailable(err), errors.Is(err, stream.ErrBusy), errors.Is(err, context.DeadlineExceeded):
		c.Logger.Warn("admin.unavailable", zap.String("route", chi.RouteContext(r.Context()).RoutePattern()), zap.String("request_id", requestID(w)), zap.Error(err))
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "Service unavailable", "send the request again")
	default:
		c.Logger.Error("admin.failed", zap.String("route", chi.RouteContext(r.Context()).RoutePattern()), zap.String("request_id", requestID(w)), zap.Error(err))
		fail(w, http.StatusInternalServerError, "Internal Server Error", "")
	}
}

// sent are the fields of bodies that settings are read from under another name.
var sent = map[string]string{"retryHorizon": "retryHorizonSeconds", "overlap": "overlapSeconds"}

// issuePath is where a field stands in the body: `config.apiKey` within config,
// `eventTypes[1]` within eventTypes. Names of headers may hold dots.
func issuePath(field string) []any {
	path := []any{}
	for i, part := range strings.SplitN(field, ".", 3) {
		name, index, isItem := strings.Cut(strings.TrimSuffix(part, "]"), "[")
		n, err := strconv.Atoi(index)
		switch {
		case isItem && err == nil:
			path = append(path, name, n)
		case i == 0 && sent[part] != "":
			path = append(path, sent[part])
		default:
			path = append(path, part)
		}
	}
	return path
}

// mistakesOf are the issues that an error of the sender stands for, or none.
func mistakesOf(err error) []issue {
	var list mistakes
	var setting *InvalidError
	var replay *stream.ReplayError
	wrong := func(field, message, fix string) []issue {
		return []issue{{Code: "custom", Path: issuePath(field), Message: message, Fix: fix}}
	}
	switch {
	case errors.As(err, &list):
		return list
	case errors.As(err, &setting):
		return wrong(setting.Field, setting.Message, setting.Message)
	case errors.As(err, &replay):
		return wrong(replay.Field, replay.Message, replay.Message)
	case errors.Is(err, stream.ErrLetterCursor), errors.Is(err, storage.ErrListCursor):
		return wrong("cursor", err.Error(), "send nextCursor as it was given")
	}
	return nil
}

package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Issue is one thing that is wrong with a request, in the words of the validator
// that clients know, and with the fix.
type Issue struct {
	Expected  string `json:"expected,omitempty"`
	Origin    string `json:"origin,omitempty"`
	Code      string `json:"code"`
	Minimum   *int   `json:"minimum,omitempty"`
	Maximum   *int   `json:"maximum,omitempty"`
	Inclusive *bool  `json:"inclusive,omitempty"`
	Format    string `json:"format,omitempty"`
	Path      []any  `json:"path"`
	Message   string `json:"message"`
	Fix       string `json:"fix,omitempty"`
}

// failureBody is the one envelope of errors.
type failureBody struct {
	Error     string `json:"error"`
	Detail    string `json:"detail,omitempty"`
	Path      []any  `json:"path,omitempty"`
	Fix       string `json:"fix,omitempty"`
	RequestID string `json:"requestId"`
}

// issuesBody is the envelope of what is wrong with fields, which clients know.
type issuesBody struct {
	Success   bool       `json:"success" enum:"false"`
	Error     issuesText `json:"error"`
	RequestID string     `json:"requestId"`
}

type issuesText struct {
	Name    string `json:"name"`
	Message string `json:"message" doc:"A JSON list of issues, each with path, message and fix."`
}

// fail answers with an error and, if there is one, its fix.
func (x *exchange) fail(status int, text, fix string) {
	x.failWith(status, failureBody{Error: text, Fix: fix})
}

func (x *exchange) failWith(status int, body failureBody) {
	body.RequestID = x.requestID
	x.encode(status, body)
}

// encode answers with a value as JSON.
func (x *exchange) encode(status int, value any) {
	text, err := marshal(value)
	if err != nil {
		x.err = fmt.Errorf("encode the response: %w", err)
		status, text = http.StatusInternalServerError, []byte(`{"error":"Internal Server Error"}`)
	}
	x.json(status, text)
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(value any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// failIssues answers 400 with everything that is wrong, in the envelope that
// clients know: the issues are a JSON document within a string.
func (x *exchange) failIssues(status int, issues []Issue) {
	var list bytes.Buffer
	enc := json.NewEncoder(&list)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(issues); err != nil {
		x.err = err
	}
	var body issuesBody
	body.Error.Name = "ZodError"
	body.Error.Message = string(bytes.TrimSuffix(list.Bytes(), []byte("\n")))
	body.RequestID = x.requestID
	x.encode(status, body)
}

const noSubject = "email or userId is required"

func (x *exchange) failNoSubject() {
	x.fail(http.StatusBadRequest, noSubject, "name the person: give userId, email or anonymousId")
}

// failure is an error that says how the request is answered.
type failure struct {
	status int
	body   failureBody
}

// Error implements error.
func (f *failure) Error() string { return f.body.Error }

// failErr answers with an error that came from below, telling the sender's
// fault from ours.
func (x *exchange) failErr(err error) {
	x.err = err
	var f *failure
	switch {
	case errors.As(err, &f):
		x.failWith(f.status, f.body)
	case errors.Is(err, stream.ErrTooLarge):
		x.fail(http.StatusRequestEntityTooLarge, "The record is too large for the log", "send less in one request")
	case isOutage(err):
		x.unavailable("Service unavailable: it is not known whether the request took effect", "send it again; an idempotency key makes that safe")
	default:
		x.fail(http.StatusInternalServerError, "Internal Server Error", "")
	}
}

// unavailable answers 503 and when to come back.
func (x *exchange) unavailable(text, fix string) {
	x.w.Header().Set("Retry-After", "1")
	x.fail(http.StatusServiceUnavailable, text, fix)
}

// isOutage reports that nothing is wrong with the request and a retry may help.
func isOutage(err error) bool {
	return errors.Is(err, stream.ErrBusy) || errors.Is(err, stream.ErrClosed) ||
		errors.Is(err, schemas.ErrRegistryUnavailable) || storage.IsUnavailable(err)
}

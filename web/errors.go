package web

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
	Expected  string   `json:"expected,omitempty"`
	Origin    string   `json:"origin,omitempty"`
	Code      string   `json:"code"`
	Minimum   *int     `json:"minimum,omitempty"`
	Maximum   *int     `json:"maximum,omitempty"`
	Inclusive *bool    `json:"inclusive,omitempty"`
	Format    string   `json:"format,omitempty"`
	Values    []string `json:"values,omitempty"`
	Path      []any    `json:"path"`
	Message   string   `json:"message"`
	Fix       string   `json:"fix,omitempty"`
}

// IssuesError is the error of a request in which they were found; the answer is 400 with
// all of them.
type IssuesError []Issue

// Error implements error.
func (i IssuesError) Error() string { return i[0].Message }

// Wrong is an issue of a field or parameter, with its fix.
func Wrong(name, code, message, fix string) Issue {
	return Issue{Code: code, Path: []any{name}, Message: message, Fix: fix}
}

// KindOf names the kind of a JSON value, which is not empty and does not begin with space.
func KindOf[T ~string | ~[]byte](value T) string {
	switch value[0] {
	case '{':
		return "object"
	case '[':
		return "array"
	case '"':
		return "string"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

// FailureBody is the one envelope of errors.
type FailureBody struct {
	Error     string `json:"error"`
	Detail    string `json:"detail,omitempty"`
	Path      []any  `json:"path,omitempty"`
	Fix       string `json:"fix,omitempty"`
	RequestID string `json:"requestId"`
}

// IssuesBody is the envelope of what is wrong with fields, which clients know.
type IssuesBody struct {
	Success   bool       `json:"success" enum:"false"`
	Error     IssuesText `json:"error"`
	RequestID string     `json:"requestId"`
}

// IssuesText holds the issues, a JSON document within a string.
type IssuesText struct {
	Name    string `json:"name"`
	Message string `json:"message" doc:"A JSON list of issues, each with path, message and fix."`
}

// RefusalError is an error that says how the request is answered.
type RefusalError struct {
	Status int
	Body   FailureBody
}

// Error implements error.
func (f *RefusalError) Error() string { return f.Body.Error }

// Refuse returns a *RefusalError.
func Refuse(status int, body FailureBody) *RefusalError { return &RefusalError{status, body} }

// Fail answers with an error and, if there is one, its fix.
func (x *Exchange) Fail(status int, text, fix string) {
	x.FailWith(status, FailureBody{Error: text, Fix: fix})
}

// FailWith answers with an error; the request's id is filled in.
func (x *Exchange) FailWith(status int, body FailureBody) {
	body.RequestID = x.RequestID
	x.Encode(status, body)
}

// Encode answers with a value as JSON.
func (x *Exchange) Encode(status int, value any) {
	text, err := Marshal(value)
	if err != nil {
		x.Err = fmt.Errorf("encode the response: %w", err)
		status, text = http.StatusInternalServerError, []byte(`{"error":"Internal Server Error"}`)
	}
	x.JSON(status, text)
}

// Marshal is json.Marshal that leaves <, > and & as they are.
func Marshal(value any) ([]byte, error) { return marshal(value, "") }

func marshal(value any, indent string) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(value)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// FailIssues answers 400 with everything that is wrong, in the envelope that
// clients know.
func (x *Exchange) FailIssues(issues []Issue) {
	list, err := marshal(issues, "  ")
	if err != nil {
		x.Err = err
	}
	x.Encode(http.StatusBadRequest, IssuesBody{Error: IssuesText{"ZodError", string(list)}, RequestID: x.RequestID})
}

// FailErr answers with an error that came from below, telling the sender's
// fault from ours.
func (x *Exchange) FailErr(err error) {
	x.Err = err
	var failure *RefusalError
	var issues IssuesError
	switch {
	case errors.As(err, &failure):
		x.FailWith(failure.Status, failure.Body)
	case errors.As(err, &issues):
		x.FailIssues(issues)
	case errors.Is(err, stream.ErrTooLarge):
		x.Fail(http.StatusRequestEntityTooLarge, "The record is too large for the log", "send less in one request")
	case IsOutage(err):
		x.Unavailable("Service unavailable: it is not known whether the request took effect", "send it again; an idempotency key makes that safe")
	default:
		x.Fail(http.StatusInternalServerError, "Internal Server Error", "")
	}
}

// Unavailable answers 503 and when to come back.
func (x *Exchange) Unavailable(text, fix string) {
	x.Header().Set("Retry-After", "1")
	x.Fail(http.StatusServiceUnavailable, text, fix)
}

// IsOutage reports that nothing is wrong with the request and a retry may help.
func IsOutage(err error) bool {
	return errors.Is(err, stream.ErrBusy) || errors.Is(err, stream.ErrClosed) ||
		errors.Is(err, schemas.ErrRegistryUnavailable) || storage.IsUnavailable(err)
}

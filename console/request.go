package console

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/document"
)

// maxBody bounds a body, in bytes.
const maxBody = 1 << 20

// form is a request's body or query on the way to a struct: each method takes one
// field and notes what is wrong with it.
type form struct {
	fields map[string]json.RawMessage
	issues []issue
}

// readForm is the JSON object that a request came with. An empty body is an empty
// object where that is allowed.
func readForm(r *http.Request, mayBeEmpty bool) (*form, error) {
	in := receivedOf(r)
	if in.empty && !mayBeEmpty {
		_, err := readObject(r, nil)
		return nil, err
	}
	return &form{fields: in.fields}, nil
}

// readObject reads a JSON object.
func readObject(r *http.Request, body []byte) (fields map[string]json.RawMessage, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && !(strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return nil, &refusal{http.StatusUnsupportedMediaType, "Content-Type must be application/json", "send Content-Type: application/json"}
	}
	err = document.Validate(string(body), document.MaxDepth)
	if err == nil {
		err = json.Unmarshal(body, &fields)
	}
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, "Malformed JSON in request body", "send a JSON object in UTF-8: " + err.Error()}
	}
	return fields, nil
}

// readBody reads a body, also a compressed one.
func readBody(r *http.Request) ([]byte, error) {
	var from io.Reader = http.MaxBytesReader(nil, r.Body, maxBody)
	encoding := strings.ToLower(r.Header.Get("Content-Encoding"))
	switch encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		gz, err := gzip.NewReader(from)
		if err != nil {
			return nil, unreadable(err, encoding)
		}
		from = gz
	default:
		return nil, &refusal{http.StatusUnsupportedMediaType, "Unsupported Content-Encoding", "send the body as gzip or without encoding"}
	}
	body, err := io.ReadAll(io.LimitReader(from, maxBody+1))
	switch {
	case err != nil:
		return nil, unreadable(err, encoding)
	case len(body) > maxBody:
		return nil, unreadable(&http.MaxBytesError{Limit: maxBody}, encoding)
	}
	return body, nil
}

func unreadable(err error, encoding string) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("Request body is larger than %d bytes", maxBody), "send less"}
	case encoding != "" && encoding != "identity":
		return &refusal{http.StatusBadRequest, "The request body is not gzip", "send what Content-Encoding says"}
	}
	return &refusal{http.StatusBadRequest, "The request body could not be read to its end", ""}
}

// queryForm notes what is wrong with a query.
func queryForm(r *http.Request) (*form, url.Values) { return &form{}, r.URL.Query() }

// err is what is wrong, or nil.
func (f *form) err() error {
	if len(f.issues) == 0 {
		return nil
	}
	return mistakes(f.issues)
}

func (f *form) wrong(name, code, message, fix string) {
	f.issues = append(f.issues, issue{Code: code, Path: []any{name}, Message: message, Fix: fix})
}

func (f *form) wrongType(name, expected string, value json.RawMessage) {
	fix := "send a " + expected
	if string(value) == "null" {
		fix = "leave the field out instead of sending null"
	}
	f.issues = append(f.issues, issue{Code: "invalid_type", Expected: expected, Path: []any{name}, Message: "Invalid input: expected " + expected + ", received " + kindOf(value), Fix: fix})
}

func kindOf(value json.RawMessage) string {
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

// missing notes a field that is needed.
func (f *form) missing(name, expected string) {
	f.issues = append(f.issues, issue{Code: "invalid_type", Expected: expected, Path: []any{name}, Message: "Invalid input: expected " + expected + ", received undefined", Fix: "send " + name})
}

func (f *form) has(name string) bool { return f.fields[name] != nil }

// text reads an optional string of at least low and at most high characters.
func (f *form) text(name string, low, high int) *string {
	raw := f.fields[name]
	if raw == nil {
		return nil
	}
	var s string
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		f.wrongType(name, "string", raw)
		return nil
	}
	switch n := utf8.RuneCountInString(s); {
	case strings.IndexByte(s, 0) >= 0:
		f.wrong(name, "invalid_format", "Invalid text: contains the character U+0000", "remove the NUL character")
	case n < low || low > 0 && strings.TrimSpace(s) == "":
		f.wrong(name, "too_small", fmt.Sprintf("Too small: expected string to have >=%d characters", low), "send a text that is not blank")
	case n > high:
		f.wrong(name, "too_big", fmt.Sprintf("Too big: expected string to have <=%d characters", high), "send a shorter text")
	default:
		return &s
	}
	return nil
}

func (f *form) flag(name string) *bool {
	raw := f.fields[name]
	if raw == nil {
		return nil
	}
	var b bool
	if raw[0] == 'n' || json.Unmarshal(raw, &b) != nil {
		f.wrongType(name, "boolean", raw)
		return nil
	}
	return &b
}

// number reads an optional number that is not negative.
func (f *form) number(name string) *float64 {
	raw := f.fields[name]
	if raw == nil {
		return nil
	}
	var n float64
	if raw[0] == 'n' || json.Unmarshal(raw, &n) != nil {
		f.wrongType(name, "number", raw)
		return nil
	}
	if n < 0 {
		f.wrong(name, "too_small", "Too small: expected number to be >=0", "send 0 or more")
		return nil
	}
	return &n
}

// whole reads an optional whole number that is not negative.
func (f *form) whole(name string) *int {
	n := f.number(name)
	if n == nil {
		return nil
	}
	i := int(*n)
	if float64(i) != *n || i > 1<<31 {
		f.wrong(name, "invalid_type", "Invalid input: expected int, received number", "send a whole number")
		return nil
	}
	return &i
}

// texts reads an optional list of at least one string.
func (f *form) texts(name string) []string {
	raw := f.fields[name]
	if raw == nil {
		return nil
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		f.wrongType(name, "array", raw)
		return nil
	}
	if len(list) == 0 {
		f.wrong(name, "too_small", "Too small: expected array to have >=1 items", "send at least one")
		return nil
	}
	out, before := make([]string, len(list)), len(f.issues)
	for i, item := range list {
		at := len(f.issues)
		switch {
		case item[0] != '"' || json.Unmarshal(item, &out[i]) != nil:
			f.wrongType(name, "string", item)
		case strings.IndexByte(out[i], 0) >= 0:
			f.wrong(name, "invalid_format", "Invalid text: contains the character U+0000", "remove the NUL character")
		}
		if len(f.issues) > at {
			f.issues[at].Path = append(f.issues[at].Path, i)
		}
	}
	if len(f.issues) > before {
		return nil
	}
	return out
}

// object reads an optional JSON object as it is.
func (f *form) object(name string) json.RawMessage {
	raw := f.fields[name]
	if raw != nil && raw[0] != '{' {
		f.wrongType(name, "object", raw)
		return nil
	}
	return raw
}

// withoutSeconds is how a time may be written, too.
const withoutSeconds = "2006-01-02T15:04Z"

// time reads an optional time in UTC.
func (f *form) time(name string) *time.Time {
	s := f.text(name, 1, 40)
	if s == nil {
		return nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999Z", withoutSeconds} {
		if t, err := time.Parse(layout, *s); err == nil {
			return &t
		}
	}
	f.wrong(name, "invalid_format", "Invalid ISO datetime", "send a time in UTC such as 2026-01-31T12:00:00Z")
	return nil
}

// page is what a list is asked for.
type page struct{ limit, offset int }

// pageOf reads limit (1 to 100, 50 when left out) and offset.
func (f *form) pageOf(q url.Values) page {
	return page{limit: f.within(q, "limit", 50, 1, 100), offset: f.within(q, "offset", 0, 0, 1<<31-1)}
}

func (f *form) within(q url.Values, name string, otherwise, low, high int) int {
	if !q.Has(name) {
		return otherwise
	}
	n, err := strconv.Atoi(q.Get(name))
	switch {
	case err != nil:
		f.wrong(name, "invalid_type", "Invalid input: expected int", fmt.Sprintf("send a whole number from %d to %d", low, high))
	case n < low:
		f.wrong(name, "too_small", fmt.Sprintf("Too small: expected number to be >=%d", low), fmt.Sprintf("send a whole number from %d to %d", low, high))
	case n > high:
		f.wrong(name, "too_big", fmt.Sprintf("Too big: expected number to be <=%d", high), fmt.Sprintf("send a whole number from %d to %d", low, high))
	}
	return n
}

// queryFlag reads true or false, as the description of the parameter has it.
func queryFlag(q url.Values, name string, otherwise bool) bool {
	if !q.Has(name) {
		return otherwise
	}
	return q.Get(name) == "true"
}

// pathText reads a part of the path that may be any text. The router leaves it as
// it was written when that is not how Go writes it: `a%2Fb`, `a%40b.c`.
func pathText(r *http.Request, name string) string {
	text := chi.URLParam(r, name)
	if r.URL.RawPath == "" {
		return text
	}
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// pathID reads {id}, a UUID.
func pathID(r *http.Request) (string, error) {
	id := strings.ToLower(chi.URLParam(r, "id"))
	if parsed, err := uuid.Parse(id); err != nil || len(id) != 36 || parsed.String() != id {
		return "", mistakes{{Code: "invalid_format", Path: []any{"id"}, Message: "Invalid UUID", Fix: "send the id as it was given"}}
	}
	return id, nil
}

// target reads what most changes of a destination come with: its id and a body.
func target(r *http.Request, mayBeEmpty bool) (id string, f *form, err error) {
	if id, err = pathID(r); err == nil {
		f, err = readForm(r, mayBeEmpty)
	}
	return id, f, err
}

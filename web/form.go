package web

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Form is a request's body or query on the way to a struct: each method takes one
// field, nil or the default when it was left out, and notes what is wrong with it.
type Form struct {
	Fields map[string]json.RawMessage // of the body, as they were sent
	Issues []Issue
}

// Err is what is wrong, or nil.
func (f *Form) Err() error {
	if len(f.Issues) == 0 {
		return nil
	}
	return IssuesError(f.Issues)
}

// Wrong notes what is wrong with a field or parameter, and the fix.
func (f *Form) Wrong(name, code, message, fix string) {
	f.Issues = append(f.Issues, Issue{Code: code, Path: []any{name}, Message: message, Fix: fix})
}

func (f *Form) wrongType(name, expected string, value json.RawMessage) {
	fix := "send a " + expected
	if string(value) == "null" {
		fix = "leave the field out instead of sending null"
	}
	f.Issues = append(f.Issues, Issue{Code: "invalid_type", Expected: expected, Path: []any{name}, Message: "Invalid input: expected " + expected + ", received " + KindOf(value), Fix: fix})
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

// Missing notes a field that is needed.
func (f *Form) Missing(name, expected string) {
	f.Issues = append(f.Issues, Issue{Code: "invalid_type", Expected: expected, Path: []any{name}, Message: "Invalid input: expected " + expected + ", received undefined", Fix: "send " + name})
}

// Has reports whether the body has a field.
func (f *Form) Has(name string) bool { return f.Fields[name] != nil }

// Text reads an optional string of at least low and at most high characters.
func (f *Form) Text(name string, low, high int) *string {
	raw := f.Fields[name]
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
		f.Wrong(name, "invalid_format", "Invalid text: contains the character U+0000", "remove the NUL character")
	case n < low || low > 0 && strings.TrimSpace(s) == "":
		f.Wrong(name, "too_small", fmt.Sprintf("Too small: expected string to have >=%d characters", low), "send a text that is not blank")
	case n > high:
		f.Wrong(name, "too_big", fmt.Sprintf("Too big: expected string to have <=%d characters", high), "send a shorter text")
	default:
		return &s
	}
	return nil
}

// Flag reads an optional true or false.
func (f *Form) Flag(name string) *bool {
	raw := f.Fields[name]
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

// Number reads an optional number that is not negative.
func (f *Form) Number(name string) *float64 {
	raw := f.Fields[name]
	if raw == nil {
		return nil
	}
	var n float64
	if raw[0] == 'n' || json.Unmarshal(raw, &n) != nil {
		f.wrongType(name, "number", raw)
		return nil
	}
	if n < 0 {
		f.Wrong(name, "too_small", "Too small: expected number to be >=0", "send 0 or more")
		return nil
	}
	return &n
}

// Whole reads an optional whole number that is not negative.
func (f *Form) Whole(name string) *int {
	n := f.Number(name)
	if n == nil {
		return nil
	}
	i := int(*n)
	if float64(i) != *n || i > 1<<31 {
		f.Wrong(name, "invalid_type", "Invalid input: expected int, received number", "send a whole number")
		return nil
	}
	return &i
}

// Texts reads an optional list of at least one string.
func (f *Form) Texts(name string) []string {
	raw := f.Fields[name]
	if raw == nil {
		return nil
	}
	var list []json.RawMessage
	if raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		f.wrongType(name, "array", raw)
		return nil
	}
	if len(list) == 0 {
		f.Wrong(name, "too_small", "Too small: expected array to have >=1 items", "send at least one")
		return nil
	}
	out, before := make([]string, len(list)), len(f.Issues)
	for i, item := range list {
		at := len(f.Issues)
		switch {
		case item[0] != '"' || json.Unmarshal(item, &out[i]) != nil:
			f.wrongType(name, "string", item)
		case strings.IndexByte(out[i], 0) >= 0:
			f.Wrong(name, "invalid_format", "Invalid text: contains the character U+0000", "remove the NUL character")
		}
		if len(f.Issues) > at {
			f.Issues[at].Path = append(f.Issues[at].Path, i)
		}
	}
	if len(f.Issues) > before {
		return nil
	}
	return out
}

// Object reads an optional JSON object as it is.
func (f *Form) Object(name string) json.RawMessage {
	raw := f.Fields[name]
	if raw != nil && raw[0] != '{' {
		f.wrongType(name, "object", raw)
		return nil
	}
	return raw
}

// Time reads an optional time in UTC.
func (f *Form) Time(name string) *time.Time {
	s := f.Text(name, 1, 40)
	if s == nil {
		return nil
	}
	if t, ok := ParseTime(*s); ok {
		return &t
	}
	f.Wrong(name, "invalid_format", "Invalid ISO datetime", "send a time in UTC such as 2026-01-31T12:00:00Z")
	return nil
}

// Page is what a list is asked for.
type Page struct{ Limit, Offset int }

// Page reads limit (1 to 100, 50 when left out) and offset.
func (f *Form) Page(q url.Values) Page {
	return Page{Limit: f.Within(q, "limit", 50, 1, 100), Offset: f.Within(q, "offset", 0, 0, 1<<31-1)}
}

// Within reads an optional whole number from low to high.
func (f *Form) Within(q url.Values, name string, otherwise, low, high int) int {
	if !q.Has(name) {
		return otherwise
	}
	n, err := strconv.Atoi(q.Get(name))
	switch {
	case err != nil:
		f.Wrong(name, "invalid_type", "Invalid input: expected int", fmt.Sprintf("send a whole number from %d to %d", low, high))
	case n < low:
		f.Wrong(name, "too_small", fmt.Sprintf("Too small: expected number to be >=%d", low), fmt.Sprintf("send a whole number from %d to %d", low, high))
	case n > high:
		f.Wrong(name, "too_big", fmt.Sprintf("Too big: expected number to be <=%d", high), fmt.Sprintf("send a whole number from %d to %d", low, high))
	}
	return n
}

// QueryFlag reads true or false, as the description of the parameter has it.
func QueryFlag(q url.Values, name string, otherwise bool) bool {
	if !q.Has(name) {
		return otherwise
	}
	return q.Get(name) == "true"
}

// QueryTime reads an optional time of the query; the zero time without one.
func (f *Form) QueryTime(q url.Values, name string) time.Time {
	if !q.Has(name) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, q.Get(name))
	if err == nil {
		return t
	}
	t, ok := ParseTime(q.Get(name)) // also without seconds
	if !ok {
		f.Wrong(name, "invalid_format", "Invalid ISO datetime", "send a time such as 2026-01-31T12:00:00Z")
	}
	return t
}

package hogstream

import (
	"context"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap/zapcore"

	"github.com/hogstream/hogstream/storage"
)

// Values of records stay in the log, in Postgres and in what is delivered. Errors quote
// them: Postgres the row that it refuses, parsers what they could not parse. So every
// error is put into other words where it leaves the process by a log line or a span.

// discreet is the text of an error without the input that errors in its chain quote.
func discreet(err error) string {
	text := err.Error()
	for _, e := range chain(err, nil) {
		if safe, quotes := withoutInput(e); quotes {
			text = strings.ReplaceAll(text, e.Error(), safe)
		}
	}
	return text
}

// chain are an error and all that it wraps, outermost first.
func chain(err error, found []error) []error {
	if err == nil || len(found) > 100 {
		return found
	}
	found = append(found, err)
	switch e := err.(type) { //nolint:errorlint // each of the chain is looked at by itself
	case interface{ Unwrap() error }:
		return chain(e.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			found = chain(one, found)
		}
	}
	return found
}

// withoutInput is what may be said of an error that quotes input.
func withoutInput(err error) (text string, quotes bool) {
	switch e := err.(type) { //nolint:errorlint // each of the chain is looked at by itself
	case *strconv.NumError:
		return e.Func + ": " + e.Err.Error(), true
	case *time.ParseError:
		return "not a time", true
	case *json.UnmarshalTypeError:
		return "JSON of another type than " + e.Type.String(), true
	case *json.SyntaxError:
		return "malformed JSON at byte " + strconv.FormatInt(e.Offset, 10), true
	case *url.Error:
		return e.Op + ": " + discreet(e.Err), true
	}
	return storage.WithoutValues(err)
}

// discreetCore writes errors discreetly.
type discreetCore struct{ zapcore.Core }

// With implements [zapcore.Core].
func (c discreetCore) With(fields []zapcore.Field) zapcore.Core {
	return discreetCore{c.Core.With(discreetFields(fields))}
}

// Check implements [zapcore.Core].
func (c discreetCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements [zapcore.Core].
func (c discreetCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	return c.Core.Write(e, discreetFields(fields))
}

func discreetFields(fields []zapcore.Field) []zapcore.Field {
	isError := func(f zapcore.Field) bool { return f.Type == zapcore.ErrorType }
	if !slices.ContainsFunc(fields, isError) {
		return fields
	}
	fields = slices.Clone(fields)
	for i, f := range fields {
		if err, ok := f.Interface.(error); ok && isError(f) {
			fields[i] = zapcore.Field{Key: f.Key, Type: zapcore.StringType, String: discreet(err)}
		}
	}
	return fields
}

// ownScope begins the names of our own tracers, whose spans say what went wrong by its
// class. Those of libraries quote the error.
const ownScope = "github.com/hogstream/hogstream/"

// discreetExporter exports spans without the texts of errors and the paths of requests.
type discreetExporter struct{ sdktrace.SpanExporter }

// ExportSpans implements [sdktrace.SpanExporter].
func (x discreetExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	shown := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		shown[i] = discreetSpan{s}
	}
	return x.SpanExporter.ExportSpans(ctx, shown)
}

type discreetSpan struct{ sdktrace.ReadOnlySpan }

// quoting are attributes that hold values: an admin route's path names a contact, a query
// an email, and an exception's message whatever went wrong with what.
var quoting = map[attribute.Key]bool{
	"url.path": true, "url.query": true, "url.full": true, "http.target": true, "http.url": true, "exception.message": true,
}

func withoutQuoting(attrs []attribute.KeyValue) []attribute.KeyValue {
	return slices.DeleteFunc(slices.Clone(attrs), func(kv attribute.KeyValue) bool { return quoting[kv.Key] })
}

// Attributes implements [sdktrace.ReadOnlySpan].
func (s discreetSpan) Attributes() []attribute.KeyValue {
	return withoutQuoting(s.ReadOnlySpan.Attributes())
}

// Events implements [sdktrace.ReadOnlySpan].
func (s discreetSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i := range events {
		events[i].Attributes = withoutQuoting(events[i].Attributes)
	}
	return events
}

// Status implements [sdktrace.ReadOnlySpan].
func (s discreetSpan) Status() sdktrace.Status {
	status := s.ReadOnlySpan.Status()
	if !strings.HasPrefix(s.InstrumentationScope().Name, ownScope) {
		status.Description = ""
	}
	return status
}

package stream

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
)

// Tracer makes the spans of this package; it follows the process's provider.
var Tracer = otel.Tracer("github.com/hogstream/hogstream/stream")

// Context returns ctx with the trace context that the record arrived with, so
// that a span started in it is a child of what caused the record. It is ctx
// itself when the record carries none, or one that is not sampled.
func (r *Record) Context(ctx context.Context) context.Context {
	const sampled = "-01" // the flags, at the end of a traceparent
	if n := len(r.TraceParent); n < len(sampled) || r.TraceParent[n-len(sampled):] != sampled {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		HeaderTraceParent: r.TraceParent, HeaderTraceState: r.TraceState,
	})
}

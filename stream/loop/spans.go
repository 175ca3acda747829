package loop

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/hogstream/hogstream/stream"
)

// startSpans begins a span for each record of the batch that is traced. Outputs
// carry the span of their cause, so that what they lead to hangs below it.
func (w *worker) startSpans(ctx context.Context, b *Batch) []trace.Span {
	var spans []trace.Span
	for _, r := range b.Records {
		parent := r.Context(ctx)
		if parent == ctx {
			continue
		}
		spanCtx, span := stream.Tracer.Start(parent, "process "+w.name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(b.Now),
			trace.WithAttributes(
				attribute.String("messaging.system", "kafka"),
				attribute.String("messaging.destination.name", string(r.Topic)),
				attribute.Int("messaging.destination.partition.id", int(r.Partition)),
				attribute.Int64("messaging.kafka.offset", r.Offset),
				attribute.String("messaging.message.id", r.ID),
				attribute.Int("messaging.batch.message_count", len(b.Records)),
			))
		if !span.IsRecording() {
			continue
		}
		if b.traces == nil {
			b.traces = make(map[*stream.Record]stream.Trace)
		}
		b.traces[r] = stream.TraceFrom(spanCtx)
		spans = append(spans, span)
	}
	return spans
}

func endSpans(spans []trace.Span, err error) {
	for _, span := range spans {
		if err != nil {
			span.SetStatus(codes.Error, "batch failed") // the log says why
		}
		span.End()
	}
}

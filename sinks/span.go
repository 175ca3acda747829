package sinks

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/hogstream/hogstream/stream/delivery"
)

var tracer = otel.Tracer("github.com/hogstream/hogstream/sinks")

// startSpan begins the span of an attempt, below what caused its first record;
// the other records of a batch are linked. Untraced records cost nothing.
func startSpan(ctx context.Context, del *delivery.Delivery) (context.Context, trace.Span) {
	if len(del.Records) == 0 {
		return ctx, nil
	}
	parent := del.Records[0].Context(ctx)
	if parent == ctx {
		return ctx, nil
	}
	var links []trace.Link
	for _, r := range del.Records[1:] {
		if other := r.Context(ctx); other != ctx {
			links = append(links, trace.LinkFromContext(other))
		}
	}
	return tracer.Start(parent, "deliver "+del.Destination.Kind, trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...),
		trace.WithAttributes(
			attribute.String("hogstream.destination", del.Destination.Name),
			attribute.String("messaging.message.id", del.Records[0].ID),
			attribute.Int("messaging.batch.message_count", len(del.Records)),
			attribute.Int("hogstream.attempt", del.Attempt),
		))
}

func endSpan(span trace.Span, out *delivery.Outcome) {
	if span == nil {
		return
	}
	span.SetAttributes(attribute.Int("http.response.status_code", out.Status), attribute.String("hogstream.verdict", out.Verdict.String()))
	if out.Verdict != delivery.Delivered && out.Verdict != delivery.Skipped && out.Verdict != delivery.Erased {
		span.SetStatus(codes.Error, out.Class())
	}
	span.End()
}

// propagate puts the trace context of the attempt on the request.
func propagate(ctx context.Context, carrier propagation.TextMapCarrier) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		propagation.TraceContext{}.Inject(ctx, carrier)
	}
}

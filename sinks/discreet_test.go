package sinks

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// nobody is a URL where nobody listens any more.
func nobody() string {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	return srv.URL
}

func TestTheURLOfSlackIsInNoErrorOfADelivery(t *testing.T) {
	d := newDeliverer(t, Config{AllowLoopback: true})
	tlsOnly := httptest.NewTLSServer(http.NotFoundHandler())
	defer tlsOnly.Close()
	for _, raw := range []string{
		nobody() + "/services/credential", "https://hooks.nowhere.invalid/services/credential", tlsOnly.URL + "/services/credential",
		strings.Replace(tlsOnly.URL, "https", "http", 1) + "/services/credential",
	} {
		dest := &storage.Destination{ID: uuid.NewString(), Name: "alerts", Kind: "slack", URL: raw}
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(sinktest.Fact(schemas.FactContactCreated), 1)}, Attempt: 1})
		require.NotEqual(t, delivery.Delivered, out.Verdict, raw)
		require.NotContains(t, out.Err+string(out.Response), "credential", raw)
	}
}

func TestASpanTellsAFailureByItsClass(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	_, span := provider.Tracer("t").Start(t.Context(), "deliver")
	endSpan(span, &delivery.Outcome{Verdict: delivery.Reject, Status: 400, Err: "HTTP 400: planted"})
	require.NoError(t, provider.ForceFlush(t.Context()))
	require.Equal(t, "HTTP 400", kept.GetSpans()[0].Status.Description)
}

package sinks

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// What vendors quote and what programs choke on stands in the delivery log and in dead
// letters, and nowhere else.
func TestNoValueOfARecordIsToldOutsideTheDeliveryLogAndDeadLetters(t *testing.T) {
	const planted = "planted-value"
	core, lines := observer.New(zap.DebugLevel)
	reg := prometheus.NewRegistry()
	p := newPathTelling(t, 15*time.Second, zap.New(core), reg)
	status := func(code int) *httptest.Server { // a vendor that quotes
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, "cannot take %s", body)
		}))
		t.Cleanup(srv.Close)
		return srv
	}
	types := []string{"event.tracked"}
	for _, s := range []Settings{
		{Name: "rejecting", URL: status(http.StatusBadRequest).URL, EventTypes: types},
		{Name: "failing", URL: status(http.StatusServiceUnavailable).URL, EventTypes: types},
		{Name: "refusing", URL: status(http.StatusUnauthorized).URL, EventTypes: types},
		{Name: "choking", URL: status(http.StatusOK).URL, EventTypes: types, Transform: ".data.properties.secret + 1"},
		{Name: "slack", Kind: "slack", URL: nobody() + "/services/T/B/planted-value", EventTypes: types, RateLimit: 1000},
	} {
		_, err := p.ops.Create(t.Context(), s)
		require.NoError(t, err, s.Name)
	}
	var msgs []schemas.Message
	now := time.Now()
	for c := range 8 {
		msgs = append(msgs, &schemas.Event{
			ID: uuid.Must(uuid.NewV7()).String(), ContactID: fmt.Sprint("contact-", c), Name: "step",
			Properties: `{"secret":"` + planted + `"}`, OccurredAt: now, ReceivedAt: now, Source: "api",
		})
	}
	p.Append(msgs...)
	want := map[string]string{"rejecting": "HTTP 400", "failing": "HTTP 503", "refusing": "HTTP 401", "choking": "transform", "slack": "connection refused"}
	p.Eventually(func(ctx context.Context) (bool, error) {
		views, err := p.ops.List(ctx)
		for _, v := range views {
			if v.LastError == nil || *v.LastError != want[v.Name] {
				return false, err
			}
		}
		return len(views) == len(want), err
	}, "last errors by their class")
	var logged, parked int
	require.NoError(t, p.db.QueryRow(t.Context(), `SELECT count(*) FROM delivery_attempts WHERE convert_from(response, 'UTF8') || COALESCE(error, '') LIKE '%'||$1||'%'`, planted).Scan(&logged))
	require.Positive(t, logged, "the delivery log tells it")
	require.NoError(t, p.db.QueryRow(t.Context(), `SELECT count(*) FROM parked_keys WHERE error LIKE '%'||$1||'%'`, planted).Scan(&parked))
	require.Zero(t, parked)
	require.NotEmpty(t, lines.FilterMessage("delivery.attempted").All())
	for _, line := range lines.All() {
		require.NotContains(t, fmt.Sprint(line.Message, line.ContextMap()), planted)
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	require.NotEmpty(t, families)
	require.NotContains(t, fmt.Sprint(families), planted)
}

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
		out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{recordOf(t, sampleFact(schemas.FactContactCreated), 1)}, Attempt: 1})
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

package web

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// routeOf is the pattern of the route that a request took.
func routeOf(r *http.Request) string { return chi.RouteContext(r.Context()).RoutePattern() }

// finished counts a request and writes its log line.
func (e *Edge) finished(x *Exchange, r *http.Request, took time.Duration) {
	method, route := methodOf(r), routeOf(r)
	if route == "" || strings.Contains(route, "*") && (x.status == http.StatusNotFound || x.status == http.StatusMethodNotAllowed) {
		route = "unmatched"
	}
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
		span.SetName(method + " " + route)
	}
	if x.status == http.StatusServiceUnavailable && errors.Is(r.Context().Err(), context.Canceled) {
		x.status = statusClientLeft // nothing is away: nobody waited for the answer
	}
	e.metrics.request(method, route, x.status, took)
	level := zap.InfoLevel
	if x.status >= 500 {
		level = zap.WarnLevel
	}
	if e.cfg.AccessLog == "off" || e.cfg.AccessLog == "failures" && x.status < 400 {
		return
	}
	line := e.log.Check(level, "http.request")
	if line == nil {
		return
	}
	var buf [16]zap.Field
	fields := append(buf[:0],
		zap.String("method", method), zap.String("route", route), // a path may name a person
		zap.Int("status", x.status), zap.Float64("duration_ms", float64(took.Microseconds())/1000),
		zap.String("request_id", x.RequestID), zap.Int64("bytes_in", r.ContentLength), zap.Int64("bytes_out", x.written))
	if x.Caller != nil {
		fields = append(fields, zap.String("key_id", x.Caller.ID), zap.String("key_name", x.Caller.Name))
	} else {
		fields = append(fields, zap.String("address", e.ClientAddress(r)))
	}
	if x.InputID != "" {
		fields = append(fields, zap.String("input_id", x.InputID))
	}
	if x.Accepted > 0 || x.Rejected > 0 {
		fields = append(fields, zap.Int("accepted", x.Accepted), zap.Int("rejected", x.Rejected))
	}
	if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
		fields = append(fields, zap.Stringer("trace_id", sc.TraceID()))
	}
	if x.Err != nil {
		fields = append(fields, zap.Error(x.Err))
	}
	line.Write(fields...)
}

// metrics is how long requests took.
type metrics struct {
	requests *prometheus.HistogramVec
	byRoute  sync.Map // requestLabels → prometheus.Observer: no look-up by strings a request
}

type requestLabels struct {
	method, route string
	status        int
}

func newMetrics() *metrics {
	return &metrics{requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "hogstream", Subsystem: "http", Name: "request_seconds", Help: "Time to answer a request.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"method", "route", "status"})}
}

// statusClientLeft stands in log and metrics, as it does in those of many proxies, for a
// request whose client hung up before it was answered.
const statusClientLeft = 499

// methods keeps made-up methods out of labels, log lines and names of spans.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

func methodOf(r *http.Request) string {
	if methods[r.Method] {
		return r.Method
	}
	return "other"
}

func (m *metrics) request(method, route string, status int, took time.Duration) {
	labels := requestLabels{method, route, status}
	o, ok := m.byRoute.Load(labels)
	if !ok {
		o, _ = m.byRoute.LoadOrStore(labels, m.requests.WithLabelValues(method, route, strconv.Itoa(status)))
	}
	if observer, ok := o.(prometheus.Observer); ok {
		observer.Observe(took.Seconds())
	}
}

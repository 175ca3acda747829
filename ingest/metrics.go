package ingest

import (
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the room tells Prometheus.
type metrics struct {
	requests *prometheus.HistogramVec
	accepted prometheus.Counter
	rejected prometheus.Counter
	limited  prometheus.Counter
	batch    prometheus.Histogram

	byRoute sync.Map // requestLabels → prometheus.Observer: no look-up by strings a request
}

type requestLabels struct {
	method, route string
	status        int
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hogstream", Subsystem: "ingest", Name: name, Help: help})
	}
	return &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "hogstream", Subsystem: "http", Name: "request_seconds", Help: "Time to answer a request.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"method", "route", "status"}),
		accepted: counter("events_accepted_total", "Events that are on the log."),
		rejected: counter("events_rejected_total", "Events that were refused, or not confirmed by the log."),
		limited:  counter("rate_limited_total", "Requests beyond their rate limit."),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hogstream", Subsystem: "ingest", Name: "batch_events", Help: "Events in one batch request.",
			Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000},
		}),
	}
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.requests, m.accepted, m.rejected, m.limited, m.batch} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

// methods keeps made-up methods out of the labels.
var methods = map[string]bool{"GET": true, "HEAD": true, "POST": true, "PUT": true, "PATCH": true, "DELETE": true, "OPTIONS": true}

func (m *metrics) request(method, route string, status int, took time.Duration) {
	if !methods[method] {
		method = "other"
	}
	labels := requestLabels{method, route, status}
	o, ok := m.byRoute.Load(labels)
	if !ok {
		o, _ = m.byRoute.LoadOrStore(labels, m.requests.WithLabelValues(method, route, strconv.Itoa(status)))
	}
	if observer, ok := o.(prometheus.Observer); ok {
		observer.Observe(took.Seconds())
	}
}

func (m *metrics) events(accepted, rejected int) {
	if accepted > 0 {
		m.accepted.Add(float64(accepted))
	}
	if rejected > 0 {
		m.rejected.Add(float64(rejected))
	}
}

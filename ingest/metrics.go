package ingest

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics is what the API tells Prometheus.
type metrics struct {
	accepted prometheus.Counter
	rejected prometheus.Counter
	limited  prometheus.Counter
	batch    prometheus.Histogram
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hogstream", Subsystem: "ingest", Name: name, Help: help})
	}
	return &metrics{
		accepted: counter("events_accepted_total", "Events that are on the log."),
		rejected: counter("events_rejected_total", "Events that were refused, or not confirmed by the log."),
		limited:  counter("rate_limited_total", "Requests beyond their rate limit."),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hogstream", Subsystem: "ingest", Name: "batch_events", Help: "Events in one batch request.",
			Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000},
		}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.accepted, m.rejected, m.limited, m.batch}
}

func register(r prometheus.Registerer, all ...[]prometheus.Collector) error {
	for _, c := range slices.Concat(all...) {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}

func (m *metrics) events(accepted, rejected int) {
	if accepted > 0 {
		m.accepted.Add(float64(accepted))
	}
	if rejected > 0 {
		m.rejected.Add(float64(rejected))
	}
}

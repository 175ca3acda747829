package sinks

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/stream"
)

// metrics are the figures of the room. Destinations are labelled by id, since a
// name may change under a running series.
type metrics struct {
	attempts  *prometheus.CounterVec
	records   *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	freshness *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hogstream_delivery_attempts_total",
			Help: "Attempts to deliver, by what came of them; status is that of HTTP, 0 without an answer.",
		}, []string{"destination", "kind", "verdict", "status"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hogstream_delivered_records_total",
			Help: "Records that a destination took.",
		}, []string{"destination", "kind"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hogstream_delivery_attempt_seconds",
			Help:    "Time from the start of a request to its judged answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15},
		}, []string{"kind"}),
		freshness: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hogstream_delivery_freshness_seconds",
			Help:    "Time from when something happened to the 2xx for it.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 5, 15, 60, 300, 1800, 7200, 86400},
		}, []string{"destination"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.attempts, m.records, m.latency, m.freshness} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(del *stream.Delivery, out *stream.Outcome, now time.Time) {
	dest := del.Destination
	m.attempts.WithLabelValues(dest.ID, dest.Kind, out.Verdict.String(), strconv.Itoa(out.Status)).Inc()
	if out.Status > 0 {
		m.latency.WithLabelValues(dest.Kind).Observe(out.Latency.Seconds())
	}
	if out.Verdict != stream.Delivered {
		return
	}
	m.records.WithLabelValues(dest.ID, dest.Kind).Add(float64(len(del.Records)))
	if del.ReplayID != "" {
		return // what is sent again is old by intention
	}
	fresh := m.freshness.WithLabelValues(dest.ID)
	for _, r := range del.Records {
		if !r.OccurredAt.IsZero() {
			fresh.Observe(max(0, now.Sub(r.OccurredAt).Seconds()))
		}
	}
}

// forget drops the series of a destination that no longer exists.
func (m *metrics) forget(destinationID string) {
	by := prometheus.Labels{"destination": destinationID}
	m.attempts.DeletePartialMatch(by)
	m.records.DeletePartialMatch(by)
	m.freshness.DeletePartialMatch(by)
}

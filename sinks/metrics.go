package sinks

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// metrics are the figures of deliveries. Destinations are labelled by id, since a
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

// series are those of one destination, each looked up when it is first needed:
// by its labels, a series costs more than what is counted.
type series struct {
	all      *metrics
	id, kind string

	latest    atomic.Pointer[answered] // attempts mostly end as the last one did
	latency   atomic.Pointer[prometheus.Observer]
	delivered atomic.Pointer[delivered]
}

type answered struct {
	verdict delivery.Verdict
	status  int
	count   prometheus.Counter
}

type delivered struct {
	records   prometheus.Counter
	freshness prometheus.Observer
}

func (m *metrics) of(dest *storage.Destination) *series {
	return &series{all: m, id: dest.ID, kind: dest.Kind}
}

func (s *series) observe(del *delivery.Delivery, out *delivery.Outcome, now time.Time) {
	s.attempts(out).Inc()
	if out.Status > 0 {
		s.latencies().Observe(out.Latency.Seconds())
	}
	if out.Verdict != delivery.Delivered && out.Verdict != delivery.Partial {
		return
	}
	took := func(i int) bool { return out.Results == nil || out.Results[i].Verdict == delivery.Delivered }
	n := 0
	for i := range del.Records {
		if took(i) {
			n++
		}
	}
	d := s.deliveries()
	d.records.Add(float64(n))
	if del.ReplayID != "" {
		return // what is sent again is old by intention
	}
	for i, r := range del.Records {
		if took(i) && !r.OccurredAt.IsZero() {
			d.freshness.Observe(max(0, now.Sub(r.OccurredAt).Seconds()))
		}
	}
}

func (s *series) attempts(out *delivery.Outcome) prometheus.Counter {
	a := s.latest.Load()
	if a == nil || a.verdict != out.Verdict || a.status != out.Status {
		a = &answered{
			verdict: out.Verdict, status: out.Status,
			count: s.all.attempts.WithLabelValues(s.id, s.kind, out.Verdict.String(), strconv.Itoa(out.Status)),
		}
		s.latest.Store(a)
	}
	return a.count
}

func (s *series) latencies() prometheus.Observer {
	l := s.latency.Load()
	if l == nil {
		o := s.all.latency.WithLabelValues(s.kind)
		l = &o
		s.latency.Store(l)
	}
	return *l
}

func (s *series) deliveries() *delivered {
	d := s.delivered.Load()
	if d == nil {
		d = &delivered{records: s.all.records.WithLabelValues(s.id, s.kind), freshness: s.all.freshness.WithLabelValues(s.id)}
		s.delivered.Store(d)
	}
	return d
}

// forget drops the series of a destination that no longer exists.
func (m *metrics) forget(destinationID string) {
	by := prometheus.Labels{"destination": destinationID}
	m.attempts.DeletePartialMatch(by)
	m.records.DeletePartialMatch(by)
	m.freshness.DeletePartialMatch(by)
}

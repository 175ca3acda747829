package delivery

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/storage"
)

// sinkMetrics are what delivery tells Prometheus. Attempts, their outcomes and
// latency are counted where they are made, by the Deliverer.
type sinkMetrics struct {
	registerer prometheus.Registerer
	all        []prometheus.Collector

	dead      *prometheus.CounterVec
	gaps      *prometheus.CounterVec
	suspended *prometheus.CounterVec
	parked    *prometheus.CounterVec
	spilled   *prometheus.CounterVec
	info      *prometheus.GaugeVec
	circuits  *prometheus.CounterVec
	flushes   prometheus.Histogram
	rows      *prometheus.CounterVec
	receipts  *prometheus.CounterVec
}

// destinationMetrics are those of one destination, looked up once.
type destinationMetrics struct {
	dead, gaps, suspended, parked, spilled, circuits prometheus.Counter
}

func newSinkMetrics(reg prometheus.Registerer) (*sinkMetrics, error) {
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hogstream_" + name, Help: help}, labels)
	}
	m := &sinkMetrics{
		registerer: reg,
		dead:       counters("delivery_dead_letters_total", "Records given up.", "destination", "kind"),
		gaps:       counters("delivery_gaps_total", "Ranges that retention removed before they were delivered.", "destination", "kind"),
		suspended:  counters("destination_suspensions_total", "Times the rules suspended a destination.", "destination", "kind"),
		parked:     counters("delivery_parked_keys_total", "Keys parked because a record of theirs failed.", "destination", "kind"),
		spilled:    counters("delivery_spilled_keys_total", "Keys spilled because they filled the window.", "destination", "kind"),
		circuits:   counters("delivery_circuit_openings_total", "Times most calls failed and deliveries paused.", "destination", "kind"),
		flushes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hogstream_delivery_flush_seconds", Help: "Time to write results to Postgres.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5},
		}),
		rows:     counters("delivery_flushed_rows_total", "Rows written by flushes.", "table"),
		receipts: counters("delivery_receipts_total", "Receipts of outbox records by what came of them: accepted, refused, given up, expired, cancelled, erased.", "result"),
	}
	m.info = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "hogstream_destination_info", Help: "1 for each destination: the name of an id, for other series carry the id, which never changes.",
	}, []string{"destination", "name", "kind"})
	m.all = []prometheus.Collector{m.info, m.dead, m.gaps, m.suspended, m.parked, m.spilled, m.circuits, m.flushes, m.rows, m.receipts}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.all {
		if err := reg.Register(c); err != nil {
			m.all = m.all[:i]
			m.unregister()
			return nil, fmt.Errorf("register sink metrics: %w", err)
		}
	}
	return m, nil
}

// watch adds the gauges that are read from the running delivery.
func (m *sinkMetrics) watch(s *Sinks) {
	gauge := func(name, help string, value func() float64) {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "hogstream_" + name, Help: help}, value)
		if m.registerer != nil && m.registerer.Register(g) == nil {
			m.all = append(m.all, g)
		}
	}
	gauge("delivery_unflushed", "Results that wait for Postgres.", func() float64 { return float64(s.flush.pending.Load()) })
	gauge("delivery_held_bytes", "Bytes of records read and not finished.", func() float64 { return float64(s.env.held.Load()) })
	gauge("delivery_stopped_cursors", "Cursors of destinations and backfills that wait for an operator, since their topic was made anew.", func() float64 { return float64(s.orphaned("")) })
	gauge("sinks_partitions", "Partition numbers whose lease this process has.", func() float64 { return float64(len(s.listHoldings())) })
}

func (m *sinkMetrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.all {
		m.registerer.Unregister(c)
	}
}

func (m *sinkMetrics) of(d *storage.Destination) destinationMetrics {
	var dm destinationMetrics
	m.info.DeletePartialMatch(prometheus.Labels{"destination": d.ID})
	m.info.WithLabelValues(d.ID, d.Name, d.Kind).Set(1)
	dm.dead = m.dead.WithLabelValues(d.ID, d.Kind)
	dm.gaps = m.gaps.WithLabelValues(d.ID, d.Kind)
	dm.suspended = m.suspended.WithLabelValues(d.ID, d.Kind)
	dm.parked = m.parked.WithLabelValues(d.ID, d.Kind)
	dm.spilled = m.spilled.WithLabelValues(d.ID, d.Kind)
	dm.circuits = m.circuits.WithLabelValues(d.ID, d.Kind)
	return dm
}

// forget removes the series of a deleted destination.
func (m *sinkMetrics) forget(d *storage.Destination) {
	labels := prometheus.Labels{"destination": d.ID}
	for _, v := range []*prometheus.MetricVec{m.info.MetricVec, m.dead.MetricVec, m.gaps.MetricVec, m.suspended.MetricVec, m.parked.MetricVec, m.spilled.MetricVec, m.circuits.MetricVec} {
		v.DeletePartialMatch(labels)
	}
}

func (m *sinkMetrics) flushed(attempts, cursors int, took time.Duration) {
	m.flushes.Observe(took.Seconds())
	m.rows.WithLabelValues("delivery_attempts").Add(float64(attempts))
	m.rows.WithLabelValues("cursors").Add(float64(cursors))
}

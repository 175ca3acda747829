package reader

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// readerMetrics are what a reader tells Prometheus.
type readerMetrics struct {
	registerer prometheus.Registerer
	fetched    prometheus.Counter
	cached     prometheus.Gauge
}

func newReaderMetrics(reg prometheus.Registerer) (*readerMetrics, error) {
	m := &readerMetrics{
		registerer: reg,
		fetched:    prometheus.NewCounter(prometheus.CounterOpts{Name: "hogstream_sinks_fetched_bytes_total", Help: "Bytes of record batches fetched for destinations."}),
		cached:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "hogstream_sinks_cached_bytes", Help: "Bytes of records read and kept for destinations."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.fetched, m.cached} {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("register metrics of the log's reader: %w", err)
		}
	}
	return m, nil
}

func (m *readerMetrics) unregister() {
	if m.registerer != nil {
		m.registerer.Unregister(m.fetched)
		m.registerer.Unregister(m.cached)
	}
}

package loop

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// loopMetrics are what a processor's workers tell Prometheus.
type loopMetrics struct {
	records, outputs, deadLetters, restarts prometheus.Counter
	batch, apply, publish                   prometheus.Observer
	lag, stopped, format                    *prometheus.GaugeVec // by partition
}

// loopMetricsFor registers the collectors, which all loops of a registerer
// share, and returns those of one processor. reg may be nil.
func loopMetricsFor(reg prometheus.Registerer, processor string) (*loopMetrics, error) {
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		v := shared(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hogstream_processor_" + name, Help: help}, []string{"processor"}), &errs)
		return v.WithLabelValues(processor)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Observer {
		v := shared(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "hogstream_processor_" + name, Help: help, Buckets: buckets}, []string{"processor"}), &errs)
		return v.WithLabelValues(processor)
	}
	gauge := func(name, help string) *prometheus.GaugeVec {
		v := shared(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "hogstream_processor_" + name, Help: help}, []string{"processor", "partition"}), &errs)
		return v.MustCurryWith(prometheus.Labels{"processor": processor})
	}
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 15)
	m := &loopMetrics{
		records:     counter("records_total", "Records applied."),
		outputs:     counter("outputs_total", "Records published."),
		deadLetters: counter("dead_letters_total", "Records given up because applying them alone failed."),
		restarts:    counter("restarts_total", "Batches whose publishing failed and was taken up again by the table of recovery."),
		batch:       histogram("batch_records", "Records in a batch.", prometheus.ExponentialBuckets(1, 2, 15)),
		apply:       histogram("apply_seconds", "Time of a batch's transaction in Postgres.", seconds),
		publish:     histogram("publish_seconds", "Time of a batch's transaction in Kafka.", seconds),
		lag:         gauge("lag_records", "Offsets between the end of the log and the processor, over its topics."),
		stopped:     gauge("partition_stopped", "1 for a partition that waits for an operator, or for an instance of a newer release."),
		format:      gauge("partition_format", "The format in which a partition's state is written."),
	}
	return m, errors.Join(errs...)
}

// shared registers a collector, or returns the one registered before.
func shared[C prometheus.Collector](reg prometheus.Registerer, c C, errs *[]error) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if before, ok := already.ExistingCollector.(C); ok {
			return before
		}
	}
	if err != nil {
		*errs = append(*errs, err)
	}
	return c
}

func (m *loopMetrics) setLag(partition int32, records int64) {
	m.lag.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(records))
}

func (m *loopMetrics) setStopped(partition int32, stopped bool) {
	v := 0.0
	if stopped {
		v = 1
	}
	m.stopped.WithLabelValues(strconv.Itoa(int(partition))).Set(v)
}

func (m *loopMetrics) setFormat(partition, format int32) {
	m.format.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(format))
}

// forget takes out the gauges of a partition that has another owner.
func (m *loopMetrics) forget(partition int32) {
	m.lag.DeleteLabelValues(strconv.Itoa(int(partition)))
	m.stopped.DeleteLabelValues(strconv.Itoa(int(partition)))
	m.format.DeleteLabelValues(strconv.Itoa(int(partition)))
}

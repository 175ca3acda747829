package hogstream

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxFigures bounds how many series a gauge has: those beyond are one, named other.
const maxFigures = 200

// keptFigures is a gauge of counters that are kept in Postgres beside what they count, read
// whenever somebody asks.
type keptFigures struct {
	desc   *prometheus.Desc
	labels int
	failed func(error) // is told that Postgres does not answer: there are no figures then
	read   func(context.Context) ([]keptFigure, error)
}

// keptFigure is a value with those of its labels.
type keptFigure struct {
	labels []string
	n      int64
}

func newKeptFigures(name, help string, labels []string, failed func(error), read func(context.Context) ([]keptFigure, error)) *keptFigures {
	return &keptFigures{prometheus.NewDesc(name, help, labels, nil), len(labels), failed, read}
}

// Describe implements prometheus.Collector.
func (k *keptFigures) Describe(out chan<- *prometheus.Desc) { out <- k.desc }

// Collect implements prometheus.Collector.
func (k *keptFigures) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all, err := k.read(ctx)
	if err != nil {
		k.failed(err)
		return
	}
	other := int64(0)
	for i, f := range all {
		if i >= maxFigures {
			other += f.n
			continue
		}
		out <- prometheus.MustNewConstMetric(k.desc, prometheus.GaugeValue, float64(f.n), f.labels...)
	}
	if len(all) > maxFigures {
		names := make([]string, k.labels)
		for i := range names {
			names[i] = "other"
		}
		out <- prometheus.MustNewConstMetric(k.desc, prometheus.GaugeValue, float64(other), names...)
	}
}

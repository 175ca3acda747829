package storage

import (
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// measurePool registers the pool's figures and returns how to take them out.
// All are read at scrape time; the pool counts them anyway.
func measurePool(registry prometheus.Registerer, pool *pgxpool.Pool) (remove func()) {
	gauge := func(name, help string, read func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "postgres", Name: name, Help: help,
		}, func() float64 { return read(pool.Stat()) })
	}
	counter := func(name, help string, read func(*pgxpool.Stat) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "hogstream", Subsystem: "postgres", Name: name, Help: help,
		}, func() float64 { return read(pool.Stat()) })
	}
	collectors := []prometheus.Collector{
		gauge("connections_in_use", "Connections that run something now.",
			func(s *pgxpool.Stat) float64 { return float64(s.AcquiredConns()) }),
		gauge("connections_idle", "Connections open and waiting.",
			func(s *pgxpool.Stat) float64 { return float64(s.IdleConns()) }),
		gauge("connections_max", "Bound of the pool.",
			func(s *pgxpool.Stat) float64 { return float64(s.MaxConns()) }),
		counter("acquires_waited_total", "Acquires that found no free connection and waited.",
			func(s *pgxpool.Stat) float64 { return float64(s.EmptyAcquireCount()) }),
		counter("acquire_wait_seconds_total", "Time spent waiting for a free connection.",
			func(s *pgxpool.Stat) float64 { return s.EmptyAcquireWaitTime().Seconds() }),
	}
	var registered []prometheus.Collector
	for _, c := range collectors {
		// A second DB on the same registry is not measured; the first keeps its figures.
		if registry.Register(c) == nil {
			registered = append(registered, c)
		}
	}
	return func() {
		for _, c := range registered {
			registry.Unregister(c)
		}
	}
}

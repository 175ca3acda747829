package hogstream

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"

	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// openAPI makes the HTTP API and the services that keep it current.
func (a *App) openAPI() (http.Handler, []service, error) {
	answers := storage.NewAnswers(a.db)
	proxies, err := a.cfg.TrustedProxies()
	if err != nil {
		return nil, nil, err
	}
	api, err := ingest.New(ingest.Config{
		AdminKey: a.cfg.AdminAPIKey, RateLimit: a.cfg.HTTP.RateLimit, AdminRateLimit: a.cfg.HTTP.AdminRateLimit,
		PublicRateLimit: a.cfg.HTTP.PublicRateLimit, AnswerTimeout: a.cfg.HTTP.AnswerTimeout,
		TrustedProxies: proxies, PublicURL: a.cfg.HTTP.PublicURL, Version: Version, AccessLog: a.cfg.Log.Access, HideDocs: a.cfg.HTTP.HideDocs,
	}, ingest.Deps{
		Appender: a.log, DB: a.db, Answers: answers, Admin: a.console(), Metrics: a.metricsOnAPI(),
		Probes: a.probes(), Lag: a.lag, Workers: a.neededProcessors,
		Exits:  func() bool { return a.definitions.Set().DeclaresExits() },
		Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics, TracerProvider: otel.GetTracerProvider(),
	})
	if err != nil {
		return nil, nil, err
	}
	return api, []service{{"api keys", api.Run}, {"answers", answers.Run}}, nil
}

// metrics serves what this process measures.
func (a *App) metrics() http.Handler {
	return promhttp.HandlerFor(a.tel.Metrics, promhttp.HandlerOpts{})
}

// metricsOnAPI is metrics, unless they have an address of their own.
func (a *App) metricsOnAPI() http.Handler {
	if a.cfg.HTTP.MetricsAddr != "" {
		return nil
	}
	return a.metrics()
}

// openHealth serves the health of a process that does not play ingest.
func (a *App) openHealth() (http.Handler, []service, error) {
	health, err := ingest.New(ingest.Config{
		HealthOnly: true, AdminKey: a.cfg.AdminAPIKey, PublicRateLimit: a.cfg.HTTP.PublicRateLimit, Version: Version, AccessLog: a.cfg.Log.Access,
	}, ingest.Deps{
		DB: a.db, Metrics: a.metricsOnAPI(), Probes: a.probes(), Lag: a.lag, Workers: a.neededProcessors,
		Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics,
	})
	return health, nil, err
}

// processorState is nil while a processor works on all of its partitions.
func processorState(loop *loop.Loop) error {
	if err := loop.Ready(); err != nil {
		return err
	}
	stopped := loop.Stopped()
	left := 0
	for _, p := range stopped {
		if p.Newer {
			left++
		}
	}
	if left > 0 {
		return ingest.NoticeError(fmt.Sprintf("%d partitions are left to instances of a newer release, which writes a format that this one does not know: upgrade this instance", left))
	}
	if n := len(stopped); n > 0 {
		return ingest.NoticeError(fmt.Sprintf("%d partitions wait for an operator: see `hogstream processors ls` and the log line processor.partition_stopped", n))
	}
	return nil
}

// probes ask the parts of this process whether they work.
func (a *App) probes() []ingest.Probe {
	probes := []ingest.Probe{
		{Name: "kafka", Needed: true, Check: a.log.Ready},
		{Name: "registry", Check: a.reg.Ping},
		{Name: "positions", Check: a.positions},
	}
	for _, c := range a.ready {
		probes = append(probes, ingest.Probe{Name: c.name, Check: c.run})
	}
	return probes
}

// lag is how far all groups are behind. Without Postgres it is what Kafka says alone.
func (a *App) lag(ctx context.Context) ([]stream.GroupLag, error) {
	lags, err := a.admin.LagWithOrphans(ctx, a.db)
	if storage.IsUnavailable(err) {
		return a.admin.Lag(ctx)
	}
	return lags, err
}

// positions is nil while every processor and destination stands on the log that its
// topics have now. Without Postgres nothing is known of it.
func (a *App) positions(ctx context.Context) error {
	orphans, err := a.admin.Orphans(ctx, a.db)
	switch {
	case storage.IsUnavailable(err):
		return nil
	case err != nil:
		return err
	case len(orphans.Destinations) > 0:
		return ingest.NoticeError(fmt.Sprintf("a topic was made anew: %d cursors of destinations wait for an operator, see `hogstream destinations ls`", len(orphans.Destinations)))
	case len(orphans.Processors) > 0:
		return ingest.NoticeError(fmt.Sprintf("a topic was made anew: %d partitions of processors wait for an operator, see `hogstream processors ls`", len(orphans.Processors)))
	}
	return nil
}

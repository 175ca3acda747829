package hogstream

import (
	"net/http"

	"go.opentelemetry.io/otel"

	"github.com/hogstream/hogstream/console"
	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/storage"
)

// openAPI makes the HTTP API and the rooms that keep it current.
func (a *App) openAPI() (http.Handler, []room, error) {
	answers := storage.NewAnswers(a.db)
	admin, err := a.console()
	if err != nil {
		return nil, nil, err
	}
	proxies, err := a.cfg.TrustedProxies()
	if err != nil {
		return nil, nil, err
	}
	api, err := ingest.New(ingest.Config{
		AdminKey: a.cfg.AdminAPIKey, RateLimit: a.cfg.HTTP.RateLimit, AdminRateLimit: a.cfg.HTTP.AdminRateLimit,
		PublicRateLimit: a.cfg.HTTP.PublicRateLimit, AnswerTimeout: a.cfg.HTTP.AnswerTimeout,
		TrustedProxies: proxies, PublicURL: a.cfg.HTTP.PublicURL, Version: Version, AccessLog: a.cfg.Log.Access, HideDocs: a.cfg.HTTP.HideDocs,
	}, ingest.Deps{
		Appender: a.log, DB: a.db, Answers: answers, Admin: admin, Describe: []ingest.Description{console.Describe},
		Probes: a.probes(), Lag: a.admin.Lag,
		Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics, TracerProvider: otel.GetTracerProvider(),
	})
	if err != nil {
		return nil, nil, err
	}
	return api, []room{{"api keys", api.Run}, {"answers", answers.Run}}, nil
}

// openHealth serves the health of a process that does not play ingest.
func (a *App) openHealth() (http.Handler, error) {
	return ingest.New(ingest.Config{
		HealthOnly: true, PublicRateLimit: a.cfg.HTTP.PublicRateLimit, Version: Version, AccessLog: a.cfg.Log.Access,
	}, ingest.Deps{DB: a.db, Probes: a.probes(), Lag: a.admin.Lag, Logger: a.tel.Logger.Logger, Registerer: a.tel.Metrics})
}

// probes ask the parts of this process whether they work.
func (a *App) probes() []ingest.Probe {
	probes := []ingest.Probe{
		{Name: "kafka", Needed: true, Check: a.admin.Ping},
		{Name: "registry", Check: a.reg.Ping},
	}
	for _, c := range a.ready {
		probes = append(probes, ingest.Probe{Name: c.name, Check: c.run})
	}
	return probes
}

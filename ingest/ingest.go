// Package ingest is HTTP in: the data API, authentication, rate limits, health
// and the API's description.
//
// What it promises:
//   - 202 for an event means that all in-sync replicas have it. 503 means that
//     its fate is unknown: the same idempotency key makes a retry safe.
//   - What is refused leaves nothing behind, and the answer names the field and
//     the fix. In a batch each event stands for itself.
//   - Properties reach the log byte for byte as they were sent.
//   - Every route but health and the description needs a key, and every one of
//     those a scope; /metrics asks for `read`. A revoked key stops within a second on all instances.
//   - Nothing grows without bound: bodies, caches of keys, rate limits.
//
// The rate limits of keys hold for all processes together (see sharing). Those of
// addresses are divided among them.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/web"
)

// Config is what can be set. The zero value of a duration means its default; the
// zero value of a limit means no limit.
type Config struct {
	// AdminKey is a bearer token with all scopes, to bootstrap; empty for none.
	AdminKey string
	// RateLimit and AdminRateLimit are requests a minute for each API key, on
	// data and on admin routes. Rejected requests do not count.
	RateLimit, AdminRateLimit int
	// PublicRateLimit is requests a minute for each client address on routes
	// without a key, and with a key that is not known yet.
	PublicRateLimit int
	// AnswerTimeout is how long a synchronous request waits; 0 means 5 s.
	AnswerTimeout time.Duration
	// TrustedProxies are the networks whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
	// PublicURL is where the API is reached from outside, for its description.
	PublicURL string
	// Version is the version of the program, told by health.
	Version string
	// AccessLog is which requests are logged: "all" (or empty), "failures", "off".
	AccessLog string
	// HideDocs answers 404 to /openapi.json and /docs.
	HideDocs bool
	// HealthOnly serves health and nothing else, for a process that takes no events.
	// It needs no Appender, and is not ready without the database.
	HealthOnly bool
}

// Validate reports everything that is wrong, one line a field.
func (c Config) Validate() error {
	var errs []error
	notNegative := func(name string, n int) {
		if n < 0 {
			errs = append(errs, fmt.Errorf("ingest: %s %d: must be positive, or 0 for no limit", name, n))
		}
	}
	notNegative("RateLimit", c.RateLimit)
	notNegative("AdminRateLimit", c.AdminRateLimit)
	notNegative("PublicRateLimit", c.PublicRateLimit)
	if c.AnswerTimeout < 0 {
		errs = append(errs, fmt.Errorf("ingest: AnswerTimeout %s: must be positive, or 0 for 5 s", c.AnswerTimeout))
	}
	switch c.AccessLog {
	case "", "all", "failures", "off":
	default:
		errs = append(errs, fmt.Errorf("ingest: AccessLog %q: use all, failures or off", c.AccessLog))
	}
	if n := len(c.AdminKey); n > 0 && n < 8 {
		errs = append(errs, errors.New("ingest: AdminKey is shorter than 8 characters: take a long random text, for example from `openssl rand -hex 32`"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.AnswerTimeout == 0 {
		c.AnswerTimeout = 5 * time.Second
	}
	return c
}

// Deps is what the API works with. Appender and DB are needed; the rest may be
// left out.
type Deps struct {
	// Appender takes the inputs.
	Appender stream.Appender
	DB       *storage.DB
	// Answers gives synchronous answers; somebody runs it. Without it, events
	// with an idempotency key are answered as if they had none, and changes of
	// contacts with 503.
	Answers *storage.Answers
	// Exits says whether an event may end runs of journeys, which a sender that waits is told
	// then. Without it no event does.
	Exits func() bool
	// Admin are the routes below /v1/admin. Their exchange names the caller.
	Admin []web.Route
	// Metrics serves /metrics, to callers with `read`.
	Metrics http.Handler
	// Probes are asked by health beside the database.
	Probes []Probe
	// Lag says how far the consumer groups are behind, for health.
	Lag func(context.Context) ([]stream.GroupLag, error)
	// Workers are the groups without whose members no event gets any further, or what is
	// defined is not done; nil is none.
	Workers func() []string
	// Logger, Registerer: silent and unmeasured without them.
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	// TracerProvider gets a span for each request; without it, the trace context
	// of the request is passed on as it came.
	TracerProvider trace.TracerProvider
	// Now is the clock; time.Now without it.
	Now func() time.Time
}

// API is the HTTP API. It is safe for concurrent use.
type API struct {
	cfg     Config
	deps    Deps
	log     *zap.Logger
	now     func() time.Time
	keys    *keyCache
	data    *limiter
	admin   *limiter
	public  *limiter
	sharing *sharing
	metrics *metrics
	edge    *web.Edge
	health  *health
	table   *web.Table
	handler http.Handler
	// exitsLate says that what an event did to runs was not known in time, the last time.
	exitsLate atomic.Bool
}

// New makes an API. It asks nobody for anything; Run keeps it current.
func New(cfg Config, deps Deps) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Appender == nil && !cfg.HealthOnly || deps.DB == nil {
		return nil, errors.New("ingest: Appender and DB are needed")
	}
	if deps.Logger == nil {
		deps.Logger = zap.NewNop()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	cfg = cfg.withDefaults()
	a := &API{
		cfg: cfg, deps: deps, log: deps.Logger, now: deps.Now,
		sharing: newSharing(deps.DB), metrics: newMetrics(),
		edge: web.NewEdge(web.Config{TrustedProxies: cfg.TrustedProxies, AccessLog: cfg.AccessLog}, deps.Logger),
	}
	if deps.Registerer != nil {
		if err := register(deps.Registerer, a.edge.Collectors(), a.metrics.collectors()); err != nil {
			return nil, fmt.Errorf("ingest: %w", err)
		}
	}
	a.data, a.admin = newLimiter(cfg.RateLimit, "data", a.sharing), newLimiter(cfg.AdminRateLimit, "admin", a.sharing)
	a.public = newLimiter(cfg.PublicRateLimit, "", a.sharing)
	a.keys = newKeyCache(cfg.AdminKey, deps.DB, deps.Now)
	a.health = newHealth(a)
	table, err := web.Compile(web.About{Version: cfg.Version, PublicURL: cfg.PublicURL}, a.routes())
	if err != nil {
		return nil, err
	}
	a.table = table
	a.handler = a.traced(a.mux())
	return a, nil
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

// Run hears of revoked keys, notes when keys were used, and shares the limits with
// other processes, until ctx ends. Without it, a revoked key stops after 10 seconds,
// and limits are counted as if this process were alone.
func (a *API) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.deps.DB.ListenAPIKeys(ctx, a.keys.invalidate) })
	group.Go(func() error { a.noteUse(ctx); return nil })
	group.Go(func() error { a.sharing.run(ctx, a.log); return nil })
	return group.Wait()
}

// NewServer returns a server for handler with the timeouts that keep slow
// clients from holding connections.
func NewServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       72 * time.Second,
		MaxHeaderBytes:    64 << 10,
	}
}

// traced puts the caller's trace context, or a span within it, into the
// request's context; the log writes it into the records' headers.
func (a *API) traced(next http.Handler) http.Handler {
	w3c := propagation.TraceContext{}
	if makesSpans(a.deps.TracerProvider) {
		return otelhttp.NewHandler(next, "http", otelhttp.WithTracerProvider(a.deps.TracerProvider), otelhttp.WithPropagators(w3c),
			otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method })) // the route is known at the end
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header["Traceparent"] != nil {
			r = r.WithContext(w3c.Extract(r.Context(), propagation.HeaderCarrier(r.Header)))
		}
		next.ServeHTTP(w, r)
	})
}

// makesSpans tells a provider that makes spans from none, and from one that
// stands in for none: a span that nobody sees costs a tenth of a request.
func makesSpans(p trace.TracerProvider) bool {
	if p == nil {
		return false
	}
	_, span := p.Tracer("ingest").Start(context.Background(), "start")
	defer span.End()
	return span.SpanContext().IsValid()
}

// requestTimeout bounds what is not bounded otherwise.
const requestTimeout = 30 * time.Second

// bounded is the request's context with the deadline of ordinary work.
func (a *API) bounded(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), requestTimeout)
}

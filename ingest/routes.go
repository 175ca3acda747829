package ingest

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/hogstream/hogstream/storage"
)

// gatedPrefixes ask for a key before it is looked whether a path below them
// exists, so that nobody without one learns which do.
var gatedPrefixes = []string{"/v1/emails", "/v1/lists", "/v1/campaigns"}

// routes is the table of all routes with what they ask for.
func (a *API) routes() *chi.Mux {
	mux := chi.NewRouter()
	mux.Use(a.exchanges, headAsGet)
	notFound := handle(func(x *exchange, _ *http.Request) { x.fail(http.StatusNotFound, "Not Found", "") })
	mux.NotFound(notFound)
	mux.MethodNotAllowed(notFound) // a wrong method answers as an unknown path

	mux.Get("/v1/health/live", handle(a.health.live))
	mux.Get("/v1/health", a.open(a.health.full))
	// Not limited by address: all probes of a balancer come from a few, and its
	// finding is given out again for a second.
	mux.Get("/v1/health/ready", handle(a.health.ready))
	if a.deps.Metrics != nil {
		mux.Method(http.MethodGet, metricsPath, a.serveMetrics())
	}
	if a.cfg.HealthOnly {
		return mux
	}
	mux.Route("/v1/events", func(r chi.Router) {
		r.Use(a.gate(a.data))
		r.Post("/", a.allow(a.postEvent, storage.ScopeIngest, storage.ScopeWrite))
		r.Post("/batch", a.allow(a.postEvents, storage.ScopeIngest, storage.ScopeWrite))
	})
	mux.Route("/v1/contacts", func(r chi.Router) {
		r.Use(a.gate(a.data))
		r.Put("/", a.allow(a.putContact, storage.ScopeIngest, storage.ScopeWrite))
		r.Delete("/", a.allow(a.deleteContact, storage.ScopeIngest))
		r.Get("/find", a.allow(a.findContacts, storage.ScopeIngest, storage.ScopeRead))
	})
	for _, prefix := range gatedPrefixes {
		mux.Route(prefix, func(r chi.Router) {
			r.Use(a.gate(a.data))
			r.Handle("/", notFound)
			r.Handle("/*", notFound)
		})
	}
	mux.Route("/v1/admin", func(r chi.Router) {
		r.Use(a.gate(a.admin))
		admin := a.allowAdmin(notFound)
		if a.deps.Admin != nil {
			admin = a.allowAdmin(a.deps.Admin)
		}
		r.Handle("/", admin)
		r.Handle("/*", admin)
	})

	if !a.cfg.HideDocs {
		docs := newDescription(a.cfg, a.deps.Describe)
		mux.Get("/openapi.json", a.open(docs.serveJSON))
		mux.Get("/docs", a.open(docs.servePage))
	}
	return mux
}

// headAsGet answers HEAD where there is a GET, as probes of balancers ask; net/http
// leaves the body out.
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			chi.RouteContext(r.Context()).RouteMethod = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

// handle makes a handler of ours one of net/http's.
func handle(h func(*exchange, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(exchangeOf(w), r) }
}

// metricsPath is where the metrics are, unless they have an address of their own.
const metricsPath = "/metrics"

// serveMetrics asks for a key, for metrics tell what a deployment does.
func (a *API) serveMetrics() http.Handler {
	return a.gate(a.admin)(a.allow(func(x *exchange, r *http.Request) { a.deps.Metrics.ServeHTTP(x, r) }, storage.ScopeRead))
}

// open is for routes without a key: limited by the client's address.
func (a *API) open(h func(*exchange, *http.Request)) http.HandlerFunc {
	return handle(func(x *exchange, r *http.Request) {
		if a.limit(x, a.public, a.clientAddress(r)) {
			h(x, r)
		}
	})
}

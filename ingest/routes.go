package ingest

import (
	"net/http"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// routes is the table of all routes that this process serves.
func (a *API) routes() []web.Route {
	routes := slices.Concat(a.health.routes(), a.metricsRoutes())
	if a.cfg.HealthOnly {
		return routes
	}
	return slices.Concat(routes, a.eventRoutes(), a.contactRoutes(), a.docsRoutes(), a.deps.Admin)
}

// area is paths that ask for a key before it is looked whether one of them exists, so
// that nobody without a key learns which do.
type area struct {
	prefix  string
	limit   *limiter
	unknown http.HandlerFunc // answers paths and methods that do not exist
}

// notFound answers where no route is, and where one is with another method.
func (a *API) notFound(x *web.Exchange, r *http.Request) {
	methods := a.table.Methods(r.URL.EscapedPath())
	if len(methods) == 0 {
		x.Fail(http.StatusNotFound, "Not Found", "")
		return
	}
	x.Header().Set("Allow", strings.Join(methods, ", "))
	x.Fail(http.StatusMethodNotAllowed, "Method Not Allowed", "use "+strings.Join(methods, " or "))
}

func (a *API) areas() []area {
	if a.cfg.HealthOnly {
		return nil
	}
	none := web.Handle(a.notFound)
	areas := []area{{"/v1/admin", a.admin, web.Handle(a.unknownAdmin)}}
	for _, prefix := range []string{"/v1/events", "/v1/contacts", "/v1/emails", "/v1/lists", "/v1/campaigns"} {
		areas = append(areas, area{prefix, a.data, none})
	}
	return areas
}

// mux serves the table.
func (a *API) mux() *chi.Mux {
	mux := chi.NewRouter()
	mux.Use(a.edge.Exchanges, headAsGet)
	mux.NotFound(web.Handle(a.notFound))
	mux.MethodNotAllowed(web.Handle(a.notFound))
	routes := a.table.Routes
	for _, area := range a.areas() {
		mux.Route(area.prefix, func(r chi.Router) {
			r.Use(a.gate(area.limit))
			r.HandleFunc("/", area.unknown)
			r.HandleFunc("/*", area.unknown)
			routes = slices.DeleteFunc(slices.Clone(routes), func(route web.Route) bool {
				rest, inside := strings.CutPrefix(route.Path, area.prefix)
				if inside = inside && (rest == "" || rest[0] == '/'); inside {
					r.Method(route.Method, "/"+strings.TrimPrefix(rest, "/"), a.allow(route))
				}
				return inside
			})
		})
	}
	for _, route := range routes {
		switch {
		case route.Open:
			mux.Method(route.Method, route.Path, web.Handle(route.Serve))
		default:
			mux.Method(route.Method, route.Path, a.gate(a.admin)(a.allow(route)))
		}
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

// metricsRoutes asks for a key, for metrics tell what a deployment does.
func (a *API) metricsRoutes() []web.Route {
	if a.deps.Metrics == nil {
		return nil
	}
	return []web.Route{{
		Method: http.MethodGet, Path: web.MetricsPath, Scopes: []string{storage.ScopeRead}, Tag: "Health", Summary: "What the process measures, for Prometheus",
		Answers: map[int]any{200: web.Media("text/plain")}, Example: web.MetricsPath,
		Serve: func(x *web.Exchange, r *http.Request) { a.deps.Metrics.ServeHTTP(x, r) },
	}}
}

// docsRoutes are the description itself.
func (a *API) docsRoutes() []web.Route {
	if a.cfg.HideDocs {
		return nil
	}
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/openapi.json", Open: true, Tag: "Description", Summary: "This description, in OpenAPI 3.1",
			Answers: map[int]any{200: map[string]any{}}, Example: "/openapi.json",
			Serve: a.open(func(x *web.Exchange, _ *http.Request) { x.JSON(http.StatusOK, a.table.JSON) }),
		},
		{
			Method: http.MethodGet, Path: "/docs", Open: true, Tag: "Description", Summary: "This description, as a page",
			Answers: map[int]any{200: web.Media("text/html")}, Example: "/docs",
			Serve: a.open(func(x *web.Exchange, _ *http.Request) { x.Page(a.table.Page) }),
		},
	}
}

// open is for routes without a key: limited by the client's address.
func (a *API) open(h func(*web.Exchange, *http.Request)) func(*web.Exchange, *http.Request) {
	return func(x *web.Exchange, r *http.Request) {
		if a.limit(x, a.public, a.edge.ClientAddress(r)) {
			h(x, r)
		}
	}
}

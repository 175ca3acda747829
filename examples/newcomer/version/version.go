// Package version is a route of the admin API that tells the program's version.
package version

import (
	"net/http"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type answer struct {
	Version string `json:"version"`
}

// Routes are those of the version.
func Routes(version string) []web.Route {
	return []web.Route{{
		Method: http.MethodGet, Path: "/v1/admin/version", Scopes: []string{storage.ScopeRead}, Tag: "Process", Summary: "Show the version",
		Example: "/v1/admin/version",
		Handle:  web.Path(func(*web.Request) (answer, error) { return answer{version}, nil }),
	}}
}

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
		Answers: map[int]any{http.StatusOK: answer{}},
		Example: "/v1/admin/version",
		Handle:  func(*web.Request) (any, error) { return answer{version}, nil },
	}}
}

package web_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/web"
)

type thing struct {
	Name string `json:"name"`
}

type dry struct {
	Dry bool `json:"dry"`
}

// whole is a route that lacks nothing.
func whole() web.Route {
	return web.Route{
		Method: http.MethodPost, Path: "/v1/things/{id}", Scopes: []string{"write"}, Tag: "Things", Summary: "Change a thing",
		Query: dry{}, Request: thing{},
		Answers: map[int]any{200: thing{}}, Example: `/v1/things/1?dry=true {"name":"a"}`,
		Serve: func(*web.Exchange, *http.Request) {},
	}
}

func TestARouteThatLacksSomethingIsNotServed(t *testing.T) {
	t.Parallel()
	_, err := web.Compile(web.About{}, []web.Route{whole()})
	require.NoError(t, err)
	for want, change := range map[string]func(*web.Route){
		"description":                 func(r *web.Route) { r.Summary = "" },
		"description: set Tag":        func(r *web.Route) { r.Tag = "" },
		"scope":                       func(r *web.Route) { r.Scopes = nil },
		"scope: set Scopes, or Open":  func(r *web.Route) { r.Open = true },
		"answer":                      func(r *web.Route) { r.Answers = nil },
		"handler":                     func(r *web.Route) { r.Serve = nil },
		"no example":                  func(r *web.Route) { r.Example = "" },
		"its path is not that of":     func(r *web.Route) { r.Example = `/v1/other/1 {"name":"a"}` },
		"no parameter wet":            func(r *web.Route) { r.Example = `/v1/things/1?wet=true {"name":"a"}` },
		"must have a body":            func(r *web.Route) { r.Example = `/v1/things/1` },
		"its body is not JSON":        func(r *web.Route) { r.Example = `/v1/things/1 {` },
		"its body does not fit: json": func(r *web.Route) { r.Example = `/v1/things/1 {"nam":"a"}` },
	} {
		r := whole()
		change(&r)
		_, err := web.Compile(web.About{}, []web.Route{r})
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "POST /v1/things/{id}")
	}
	_, err = web.Compile(web.About{}, []web.Route{whole(), whole()})
	require.ErrorContains(t, err, "twice")
}

func TestADescriptionShowsTheExamples(t *testing.T) {
	t.Parallel()
	table, err := web.Compile(web.About{}, []web.Route{whole()})
	require.NoError(t, err)
	require.Contains(t, string(table.JSON), `"example":{"name":"a"}`)
	require.Contains(t, string(table.JSON), `"example":"true"`)
	require.Contains(t, string(table.Page), `/v1/things/1?dry=true`)
}

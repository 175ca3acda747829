package console_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/web"
)

// description is an OpenAPI document, as far as the tests look into it.
type description struct {
	Paths      map[string]map[string]operation
	Components struct{ Schemas map[string]*schema }
}

type operation struct {
	Parameters []struct {
		Name, In string
		Schema   schema
	}
	RequestBody *struct{ Content map[string]media }
	Responses   map[string]struct{ Content map[string]media }
}

type media struct{ Schema schema }

type schema struct {
	Ref         string `json:"$ref"`
	Type        any
	Format      string
	Enum, AnyOf []any
	Properties  map[string]*schema
}

func describedBy(t *testing.T, table *web.Table) *description {
	t.Helper()
	doc := &description{}
	require.NoError(t, json.Unmarshal(table.JSON, doc))
	return doc
}

// A described route of the admin API.
type described struct {
	method, path string
	op           operation
	types        map[string]*schema
}

// describedRoutes are all of them, with ids in their paths that are well formed.
func describedRoutes(t *testing.T, table *web.Table) (all []described) {
	t.Helper()
	doc := describedBy(t, table)
	id := uuid.NewString()
	fill := strings.NewReplacer("/v1/admin", "", "{id}", id, "{delivery}", "events-0-1", "{key}", id, "{entry}", "0-1", "{replay}", id)
	for path, item := range doc.Paths {
		for method, op := range item {
			all = append(all, described{strings.ToUpper(method), fill.Replace(path), op, doc.Components.Schemas})
		}
	}
	require.Greater(t, len(all), 30)
	return all
}

func TestNoAdminRouteTakesAnythingThatItsDescriptionDoesNotName(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, d := range describedRoutes(t, s.table) {
		name := d.method + " " + d.path
		require.Equal(t, []string{`["misspelt"]`}, fullPaths(t, s.request(d.method, d.path+"?misspelt=1", "", http.StatusBadRequest)), name)
		require.Equal(t, []string{`["misspelt"]`}, fullPaths(t, s.request(d.method, d.path, `{"misspelt":null}`, http.StatusBadRequest)), name)
		refused := s.request(d.method, d.path+"?limit=%zz", "", http.StatusBadRequest)
		require.Contains(t, refused["error"], "Malformed query", name)
		s.request(d.method, d.path+"?a=1;b=2", "", http.StatusBadRequest)
		for _, p := range d.op.Parameters {
			if p.In != "query" {
				continue
			}
			at := []string{`["` + p.Name + `"]`}
			require.Equal(t, at, fullPaths(t, s.request(d.method, d.path+"?"+p.Name+"=1&"+p.Name+"=2", "", http.StatusBadRequest)), name)
			for _, bad := range []string{"%00", "%ff"} {
				require.Equal(t, at, fullPaths(t, s.request(d.method, d.path+"?"+p.Name+"="+bad, "", http.StatusBadRequest)), name)
			}
			if len(p.Schema.Enum) > 0 {
				require.Equal(t, at, fullPaths(t, s.request(d.method, d.path+"?"+p.Name+"=misspelt", "", http.StatusBadRequest)), name)
			}
			if d.method != http.MethodGet {
				require.Equal(t, at, fullPaths(t, s.request(d.method, d.path+"?"+p.Name+"=", "", http.StatusBadRequest)), name)
			}
		}
		for field, schema := range d.bodyFields() {
			quoted, err := json.Marshal(field)
			require.NoError(t, err)
			twice := "{" + string(quoted) + ":null," + string(quoted) + ":null}"
			require.Equal(t, []string{"[" + string(quoted) + "]"}, fullPaths(t, s.request(d.method, d.path, twice, http.StatusBadRequest)), name)
			if len(schema.Enum) > 0 {
				require.Equal(t, []string{"[" + string(quoted) + "]"}, fullPaths(t, s.request(d.method, d.path, "{"+string(quoted)+`:"misspelt"}`, http.StatusBadRequest)), name)
			}
		}
	}
	require.Empty(t, s.audit(), "something was changed")
	require.Zero(t, s.positions.skipped)
	require.Empty(t, s.positions.asked)
}

func (d described) bodyFields() map[string]*schema {
	if d.op.RequestBody == nil {
		return nil
	}
	body := d.op.RequestBody.Content["application/json"].Schema
	return d.types[strings.TrimPrefix(body.Ref, "#/components/schemas/")].Properties
}

func TestWhatIsRefusedComesWithWhatThereIs(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	text := func(body map[string]any) string {
		out, err := json.Marshal(body)
		require.NoError(t, err)
		return string(out)
	}
	refused := text(s.request(http.MethodPost, "/api-keys", `{"name":"shop","expires_at":"2199-01-01T00:00Z"}`, http.StatusBadRequest))
	require.Contains(t, refused, `expires_at`)
	require.Contains(t, refused, "use one of expiresAt, name, scopes")
	require.Contains(t, text(s.request(http.MethodPost, "/dlq/retry?destinationid=crm", "", http.StatusBadRequest)), "destinationId")
	require.Contains(t, text(s.request(http.MethodPost, "/dlq/retry", `{"destinationId":"x"}`, http.StatusBadRequest)), "takes no fields")
	require.Equal(t, "This route takes no body", s.request(http.MethodPost, "/dlq/retry", `source=x`, http.StatusBadRequest)["error"])
	require.Contains(t, text(s.request(http.MethodGet, "/webhooks/"+uuid.NewString()+"/deliveries?outcome=failed", "", http.StatusBadRequest)), "use one of delivered, retry")
	s.request(http.MethodGet, "/contacts/a%00b", "", http.StatusBadRequest)
	s.request(http.MethodPost, "/dlq/retry", `{}`, http.StatusOK) // an empty object says nothing
}

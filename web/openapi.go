package web

import (
	"bytes"
	_ "embed" // of the page
	"html/template"
	"maps"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// About is what the description says of the API as a whole.
type About struct {
	Version   string // of the program; empty for a build without one
	PublicURL string // where it is reached from outside, if that is known
}

// newDocument is a description without routes.
func newDocument(about About) *huma.OpenAPI {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Hogstream API", Version: about.Version,
			Description: "Send events and contact changes in, look contacts up, and manage what goes out. " +
				"Routes for data pass over fields and parameters that they do not know; those below /v1/admin answer 400 to them and change nothing."},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", schemaName),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"apiKey": {Type: "http", Scheme: "bearer", Description: "An API key, hsk_…"},
			},
		},
	}
	if doc.Info.Version == "" {
		doc.Info.Version = "dev"
	}
	if about.PublicURL != "" {
		doc.Servers = []*huma.Server{{URL: about.PublicURL}}
	}
	return doc
}

// schemaName names a type in the description. Types of other packages carry their
// package's name, for two packages may well call a type of theirs the same, which huma
// answers with a panic.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	pkg := path.Base(t.PkgPath())
	if t.Name() == "" || pkg == "web" || pkg == "ingest" || pkg == "schemas" {
		return name
	}
	return strings.ToUpper(pkg[:1]) + pkg[1:] + name
}

// operation describes one route.
func (a *accepted) operation(r *Route) *huma.Operation {
	types := a.types
	sent, _ := r.readExample(a) // checked before
	op := &huma.Operation{
		Method: r.Method, Path: r.Path, Summary: r.Summary, Description: r.Text, Tags: []string{r.Tag}, Parameters: a.parameters(r, sent),
		OperationID: strings.ToLower(r.Method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(r.Path),
		Responses:   map[string]*huma.Response{},
	}
	if a.body != nil {
		op.RequestBody = &huma.RequestBody{Required: a.required, Content: map[string]*huma.MediaType{"application/json": {Schema: a.bodyRef, Example: sent.body}}}
	}
	answer := func(status int, body any) {
		if _, own := op.Responses[strconv.Itoa(status)]; !own {
			op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: content(types, body)}
		}
	}
	for status, body := range r.Answers {
		answer(status, body)
	}
	if r.Open {
		return op
	}
	op.Description = strings.TrimSpace(op.Description + " Scope: " + strings.Join(r.Scopes, " or ") + ".")
	op.Security = []map[string][]string{{"apiKey": {}}}
	answer(http.StatusBadRequest, []any{FailureBody{}, IssuesBody{}})
	for _, status := range r.refusals() {
		answer(status, FailureBody{})
	}
	return op
}

// refusals are the statuses that a route with a key answers failures with.
func (r *Route) refusals() []int {
	statuses := []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable}
	if r.Request != nil {
		statuses = append(statuses, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	if strings.Contains(r.Path, "{") {
		statuses = append(statuses, http.StatusNotFound)
		if r.Method != http.MethodGet {
			statuses = append(statuses, http.StatusConflict)
		}
	}
	return statuses
}

// parameters are those of the path and of the query.
func (a *accepted) parameters(r *Route, sent example) (params []*huma.Param) {
	add := func(in, name, text string, schema *huma.Schema) {
		p := &huma.Param{Name: name, In: in, Required: in == "path", Description: text, Schema: schema}
		if value, given := sent.params[name]; given {
			p.Example = value
		}
		params = append(params, p)
	}
	for _, name := range r.pathParams() {
		schema, text := &huma.Schema{Type: huma.TypeString}, ""
		if name == "id" && a.uuid {
			schema.Format = "uuid"
		}
		if i := slices.IndexFunc(r.Params, func(p Param) bool { return p.Name == name }); i >= 0 {
			text = r.Params[i].Text
		}
		add("path", name, text, schema)
	}
	for _, name := range slices.Sorted(maps.Keys(a.query.Properties)) {
		schema := *a.query.Properties[name]
		text := schema.Description
		schema.Description = ""
		add("query", name, text, &schema)
	}
	return params
}

func (r *Route) pathParams() (names []string) {
	for part := range strings.SplitSeq(r.Path, "/") {
		if name, isParam := strings.CutPrefix(part, "{"); isParam {
			names = append(names, strings.TrimSuffix(name, "}"))
		}
	}
	return names
}

func content(types huma.Registry, body any) map[string]*huma.MediaType {
	switch body := body.(type) {
	case Media:
		return map[string]*huma.MediaType{string(body): {Schema: &huma.Schema{Type: huma.TypeString}}}
	case []any:
		either := &huma.Schema{}
		for _, one := range body {
			either.AnyOf = append(either.AnyOf, schemaOf(types, one))
		}
		return map[string]*huma.MediaType{"application/json": {Schema: either}}
	}
	return map[string]*huma.MediaType{"application/json": {Schema: schemaOf(types, body)}}
}

func schemaOf(types huma.Registry, value any) *huma.Schema {
	t := reflect.TypeOf(value)
	return types.Schema(t, true, t.Name())
}

func resolve(types huma.Registry, s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return types.SchemaFromRef(s.Ref)
	}
	return s
}

//go:embed docs.html
var docsTemplate string

// docsPage renders the description; it needs nothing from elsewhere.
func docsPage(doc *huma.OpenAPI, routes []Route) []byte {
	type field struct{ Name, Type, Text string }
	type operation struct {
		Method, Path, Summary, Text, Example string
		Fields                               []field
		Responses                            []string
	}
	type group struct {
		Name       string
		Operations []operation
	}
	var groups []group
	examples := map[string]string{}
	for _, r := range routes {
		examples[r.Method+" "+r.Path] = r.Example
	}
	add := func(method, path string, op *huma.Operation) {
		if op == nil {
			return
		}
		o := operation{Method: method, Path: path, Summary: op.Summary, Text: op.Description, Example: examples[method+" "+path]}
		if op.RequestBody != nil {
			s := resolve(doc.Components.Schemas, op.RequestBody.Content["application/json"].Schema)
			for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
				p := s.Properties[name]
				f := field{Name: name, Type: p.Type, Text: p.Description}
				if slices.Contains(s.Required, name) {
					f.Type += ", required"
				}
				o.Fields = append(o.Fields, f)
			}
		}
		for _, p := range op.Parameters {
			o.Fields = append(o.Fields, field{Name: p.Name, Type: p.In, Text: p.Description})
		}
		for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
			o.Responses = append(o.Responses, status+" "+op.Responses[status].Description)
		}
		tag := op.Tags[0]
		i := slices.IndexFunc(groups, func(g group) bool { return g.Name == tag })
		if i < 0 {
			groups = append(groups, group{Name: tag})
			i = len(groups) - 1
		}
		groups[i].Operations = append(groups[i].Operations, o)
	}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		add("GET", path, item.Get)
		add("POST", path, item.Post)
		add("PUT", path, item.Put)
		add("PATCH", path, item.Patch)
		add("DELETE", path, item.Delete)
	}
	var page bytes.Buffer
	err := template.Must(template.New("docs").Parse(docsTemplate)).Execute(&page, map[string]any{"Info": doc.Info, "Groups": groups})
	if err != nil {
		panic("web: render the docs: " + err.Error()) // of our own template
	}
	return page.Bytes()
}

package web

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
)

// Route is everything about one route. Serving it, reading its requests and its place
// in the API's description follow from it.
type Route struct {
	Method string
	// Path in full, with its parameters in braces: /v1/admin/contacts/{id}.
	Path string
	// Scopes are those of which a caller needs one. A route is Open instead when it
	// asks for no key.
	Scopes []string
	Open   bool

	// Tag is the chapter of the description that it stands in, Summary its line there,
	// Text what else is to be said; the scopes are added.
	Tag, Summary, Text string
	// Params are the parts of the path that need a word.
	Params []Param
	// Query and Request are values of the types of the query and the body, nil for none,
	// of a route with Serve: a Handle has its own.
	Query, Request any
	// Answers are values of the types of the answers by status: several types as a
	// []any, no JSON as a [Media]. That of a Handle, and what every route may answer, is
	// added.
	Answers map[int]any
	// Example is a request as one would send it: path, query, and after a blank the body.
	Example string

	// Serve reads the request by itself and answers it. It passes over what it does
	// not know. Compile makes it of Handle, where that is set instead.
	Serve func(*Exchange, *http.Request)
	// Handle gets what the route takes, read and checked: other requests are answered with
	// what is wrong with them. Status is that of its answer, 200 without.
	Handle Handler
	Status int
	// NotFound is what a 404 of Handle says. Errors says its other errors in the words of
	// the API.
	NotFound string
	Errors   func(error) error
}

// Param is a part of a path.
type Param struct{ Name, Text string }

// Media is an answer that is not JSON: its content type.
type Media string

// example is the parts of a route's example.
type example struct {
	params map[string]string // of path and query
	body   json.RawMessage
}

// readExample reads a route's example and says what it lacks or has wrong.
func (r *Route) readExample(a *accepted) (example, error) {
	target, body, hasBody := strings.Cut(r.Example, " ")
	out := example{params: map[string]string{}}
	at, err := url.Parse(target)
	if err != nil {
		return out, err
	}
	want, got := strings.Split(r.Path, "/"), strings.Split(at.Path, "/")
	if len(want) != len(got) {
		return out, fmt.Errorf("its path is not that of %s", r.Path)
	}
	for i, part := range want {
		switch name, isParam := strings.CutPrefix(part, "{"); {
		case isParam:
			out.params[strings.TrimSuffix(name, "}")] = got[i]
		case part != got[i]:
			return out, fmt.Errorf("its path is not that of %s", r.Path)
		}
	}
	for name, values := range at.Query() {
		if a.query.Properties[name] == nil {
			return out, fmt.Errorf("the route has no parameter %s", name)
		}
		out.params[name] = values[0]
	}
	switch {
	case hasBody != (r.Request != nil):
		return out, errors.New("it must have a body when the route takes one, and none otherwise")
	case hasBody && !json.Valid([]byte(body)):
		return out, errors.New("its body is not JSON")
	}
	if hasBody {
		dec := json.NewDecoder(strings.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(reflect.New(reflect.TypeOf(r.Request)).Interface()); err != nil {
			return out, fmt.Errorf("its body does not fit: %w", err)
		}
		out.body = json.RawMessage(body)
	}
	return out, nil
}

// takeHandler takes the types of a handler.
func (r *Route) takeHandler() {
	h, status := r.Handle, cmp.Or(r.Status, http.StatusOK)
	switch {
	case h.call == nil:
		return
	case h.body:
		r.Request = reflect.Zero(h.in).Interface()
	default:
		r.Query = reflect.Zero(h.in).Interface()
	}
	if h.out.Kind() != reflect.Interface {
		r.Answers = maps.Clone(r.Answers)
		if r.Answers == nil {
			r.Answers = map[int]any{}
		}
		r.Answers[status] = reflect.Zero(h.out).Interface()
	}
}

// lacks is what a route cannot be served without, one error each.
func (r *Route) lacks(a *accepted) error {
	var errs []error
	missing := func(what string, is bool) {
		if is {
			errs = append(errs, fmt.Errorf("web: route %s %s has no %s", r.Method, r.Path, what))
		}
	}
	missing("description: set Tag and Summary", r.Tag == "" || r.Summary == "")
	missing("scope: set Scopes, or Open for a route without a key", (len(r.Scopes) == 0) != r.Open)
	missing("answer: set Answers", len(r.Answers) == 0)
	missing("handler: set Serve or Handle", (r.Serve == nil) == (r.Handle.call == nil))
	missing("example: set Example", r.Example == "")
	for _, in := range []any{r.Query, r.Request} {
		missing("schema for the fields that its request embeds: export their type", in != nil && hidesFields(reflect.TypeOf(in)))
	}
	if r.Example != "" {
		if _, err := r.readExample(a); err != nil {
			errs = append(errs, fmt.Errorf("web: the example of route %s %s: %w", r.Method, r.Path, err))
		}
	}
	return errors.Join(errs...)
}

// hidesFields reports whether a struct embeds one that is not exported: decoders of JSON
// fill its fields, and schemas leave them out.
func hidesFields(t reflect.Type) bool {
	for i := 0; t.Kind() == reflect.Struct && i < t.NumField(); i++ {
		if f := t.Field(i); f.Anonymous && (!f.IsExported() || hidesFields(f.Type)) {
			return true
		}
	}
	return false
}

// Table is routes that are whole, and their description.
type Table struct {
	Routes []Route
	// JSON is their description in OpenAPI 3.1, Page the same as HTML.
	JSON, Page []byte
}

// Methods are those of the routes at a path as it was sent, HEAD with GET; none where no
// route is.
func (t *Table) Methods(path string) (methods []string) {
	got := strings.Split(path, "/")
	for _, r := range t.Routes {
		want := strings.Split(r.Path, "/")
		fits := len(want) == len(got)
		for i := 0; fits && i < len(want); i++ {
			fits = want[i] == got[i] || strings.HasPrefix(want[i], "{") && got[i] != ""
		}
		if fits {
			methods = append(methods, r.Method)
		}
	}
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// Compile checks routes and describes them. The error names every route that lacks
// something.
func Compile(about About, routes []Route) (*Table, error) {
	routes = slices.Clone(routes)
	doc := newDocument(about)
	all := make([]*accepted, len(routes))
	var errs []error
	seen := map[string]bool{}
	for i := range routes {
		name := routes[i].Method + " " + routes[i].Path
		if seen[name] {
			errs = append(errs, fmt.Errorf("web: route %s is there twice", name))
		}
		seen[name] = true
		routes[i].takeHandler()
		all[i] = accepts(doc.Components.Schemas, &routes[i])
		errs = append(errs, routes[i].lacks(all[i]))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range routes {
		doc.AddOperation(all[i].operation(&routes[i]))
		if routes[i].Handle.call != nil {
			routes[i].Serve = all[i].checked(routes[i])
		}
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("web: describe the routes: %w", err)
	}
	return &Table{Routes: routes, JSON: text, Page: docsPage(doc, routes)}, nil
}

package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/storage"
)

// maxBody bounds the body of a checked request, in bytes.
const maxBody = 1 << 20

// Request is a request that holds nothing but what its route takes.
type Request struct {
	*http.Request
	Exchange *Exchange

	fields map[string]json.RawMessage
}

// Handler answers a request that was checked: with a body under 200, with what
// [Answered] returns, or with an error. Errors are answered as [Exchange.FailErr] does;
// ErrNotFound and that of storage are 404 with the route's NotFound.
type Handler func(*Request) (any, error)

// ErrNotFound is the error of a handler that did not find what the path names.
var ErrNotFound = errors.New("not found")

type answered struct {
	status int
	body   any
}

// Answered is a body under a status of its own.
func Answered(status int, body any) any { return answered{status, body} }

// Param is a part of the path as it was written.
func (r *Request) Param(name string) string { return chi.URLParam(r.Request, name) }

// TextParam is a part of the path that may be any text. The router leaves it as it was
// written when that is not how Go writes it: `a%2Fb`, `a%40b.c`.
func (r *Request) TextParam(name string) string {
	text := r.Param(name)
	if r.URL.RawPath == "" {
		return text
	}
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// ID is {id} in the path, a UUID.
func (r *Request) ID() (string, error) {
	id := strings.ToLower(r.Param("id"))
	if parsed, err := uuid.Parse(id); err != nil || len(id) != 36 || parsed.String() != id {
		return "", IssuesError{{Code: "invalid_format", Path: []any{"id"}, Message: "Invalid UUID", Fix: "send the id as it was given"}}
	}
	return id, nil
}

// Fields are those of the body; none when it was left out.
func (r *Request) Fields() *Form { return &Form{Fields: r.fields} }

// Target is what most changes come with: {id} and the fields of the body.
func (r *Request) Target() (id string, f *Form, err error) {
	id, err = r.ID()
	return id, r.Fields(), err
}

// Values are the parameters of the query, and a form that notes what is wrong with them.
func (r *Request) Values() (*Form, url.Values) { return &Form{}, r.URL.Query() }

// What a checked route takes is what its description says, and nothing else: a filter
// that is misspelt and passed over acts on everything, and an `expires_at` makes a key
// for ever.
type accepted struct {
	query    map[string]*huma.Param
	body     *huma.Schema // nil: none
	required bool
	types    huma.Registry
}

func acceptedBy(types huma.Registry, op *huma.Operation) *accepted {
	a := &accepted{query: map[string]*huma.Param{}, types: types}
	for _, p := range op.Parameters {
		if p.In == "query" {
			a.query[p.Name] = p
		}
	}
	if op.RequestBody != nil {
		a.body, a.required = resolve(types, op.RequestBody.Content["application/json"].Schema), op.RequestBody.Required
	}
	return a
}

// checked serves a route whose handler gets requests that were checked.
func (a *accepted) checked(route *Route) func(*Exchange, *http.Request) {
	handle, notFound := route.Handle, route.NotFound
	return func(x *Exchange, r *http.Request) {
		in, err := a.check(x, r)
		if err != nil {
			x.FailErr(err)
			return
		}
		body, err := handle(in)
		if err != nil {
			x.failHandled(r, err, notFound)
			return
		}
		if own, ok := body.(answered); ok {
			x.Encode(own.status, own.body)
			return
		}
		x.Encode(http.StatusOK, body)
	}
}

// failHandled answers with the error of a handler, telling the sender's fault from ours.
func (x *Exchange) failHandled(r *http.Request, err error, notFound string) {
	x.Err = err
	var failure *RefusalError
	var issues IssuesError
	what := []zap.Field{zap.String("route", routeOf(r)), zap.String("request_id", x.RequestID), zap.Error(err)}
	switch {
	case errors.As(err, &failure), errors.As(err, &issues):
		x.FailErr(err)
	case errors.Is(err, ErrNotFound), storage.IsNotFound(err):
		x.Fail(http.StatusNotFound, notFound, "")
	case IsOutage(err), errors.Is(err, context.DeadlineExceeded):
		x.edge.log.Warn("http.unavailable", what...)
		x.Unavailable("Service unavailable", "send the request again")
	default:
		x.edge.log.Error("http.failed", what...)
		x.Fail(http.StatusInternalServerError, "Internal Server Error", "")
	}
}

// check refuses whatever the route does not take, and returns the request with its body
// read.
func (a *accepted) check(x *Exchange, r *http.Request) (*Request, error) {
	if !isPlain(r.URL.Path) {
		return nil, Refuse(http.StatusBadRequest, FailureBody{Error: "Malformed path: not UTF-8, or contains the character U+0000", Fix: "send plain text"})
	}
	f := &Form{}
	if err := a.checkQuery(f, r); err != nil {
		return nil, err
	}
	body, err := readBody(x, r, maxBody)
	if err != nil {
		return nil, err
	}
	in := &Request{Request: r, Exchange: x}
	if len(body) > 0 || a.required && len(f.Issues) == 0 {
		if in.fields, err = a.checkBody(f, r, body); err != nil {
			return nil, err
		}
	}
	return in, f.Err()
}

func isPlain(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// checkQuery notes parameters that are unknown, given twice, or not among the words
// that there are. An empty filter of a change is one too: it would change everything.
func (a *accepted) checkQuery(f *Form, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Refuse(http.StatusBadRequest, FailureBody{Error: "Malformed query: " + err.Error(), Fix: "percent-encode each name and value"})
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		param, known := a.query[name]
		switch {
		case !known:
			f.unknown([]any{name}, "parameter", name, slices.Sorted(maps.Keys(a.query)))
		case len(values) > 1:
			f.Wrong(name, "custom", "Given "+fmt.Sprint(len(values))+" times", "send the parameter once")
		case !isPlain(values[0]):
			f.Wrong(name, "invalid_format", "Invalid text: not UTF-8, or contains the character U+0000", "send plain text")
		case values[0] == "" && r.Method != http.MethodGet && r.Method != http.MethodHead:
			f.Wrong(name, "too_small", "Too small: expected string to have >=1 characters", "give a value, or leave the parameter out")
		default:
			f.word([]any{name}, values[0], param.Schema)
		}
	}
	return nil
}

// unknown notes a parameter or field that the route does not have.
func (f *Form) unknown(path []any, what, name string, known []string) {
	fix := "leave it out: this route takes no " + what + "s"
	if len(known) > 0 {
		fix = "use one of " + strings.Join(known, ", ")
	}
	f.Issues = append(f.Issues, Issue{Code: "unrecognized_keys", Path: path, Message: fmt.Sprintf("Unrecognized %s: %q", what, name), Fix: fix})
}

// word notes a text that is none of the words that the schema allows.
func (f *Form) word(path []any, text string, schema *huma.Schema) {
	if schema == nil || len(schema.Enum) == 0 || slices.Contains(schema.Enum, any(text)) {
		return
	}
	var words []string
	for _, w := range schema.Enum {
		words = append(words, fmt.Sprint(w))
	}
	f.Issues = append(f.Issues, Issue{
		Code: "invalid_value", Values: words, Path: path,
		Message: `Invalid option: expected one of "` + strings.Join(words, `"|"`) + `"`, Fix: "use one of " + strings.Join(words, ", "),
	})
}

// checkBody reads a body that is not empty and notes the fields that the route does not
// have, at every depth that the description describes.
func (a *accepted) checkBody(f *Form, r *http.Request, body []byte) (map[string]json.RawMessage, error) {
	fields, err := readObject(r, body)
	switch {
	case err != nil && a.body == nil:
		return nil, Refuse(http.StatusBadRequest, FailureBody{Error: "This route takes no body", Fix: "send none"})
	case err != nil:
		return nil, err
	case a.body == nil:
		a.checkObject(f, nil, body, &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false})
		return nil, nil
	}
	a.checkObject(f, nil, body, a.body)
	return fields, nil
}

// checkValue notes what is wrong within a value; types are the handlers' business.
func (a *accepted) checkValue(f *Form, path []any, raw json.RawMessage, schema *huma.Schema) {
	schema = resolve(a.types, schema)
	if schema == nil || len(raw) == 0 {
		return
	}
	switch raw[0] {
	case '{':
		a.checkObject(f, path, raw, schema)
	case '[':
		var items []json.RawMessage
		if json.Unmarshal(raw, &items) == nil {
			for i, item := range items {
				a.checkValue(f, append(slices.Clone(path), i), item, schema.Items)
			}
		}
	case '"':
		var text string
		if json.Unmarshal(raw, &text) == nil {
			f.word(path, text, schema)
		}
	}
}

func (a *accepted) checkObject(f *Form, path []any, raw json.RawMessage, schema *huma.Schema) {
	if schema.AdditionalProperties != false {
		return // settings of a kind, a message: whoever reads them checks them
	}
	seen := map[string]bool{}
	_ = eachMember(raw, func(name string, value json.RawMessage) { // read before, so it is JSON
		at := append(slices.Clone(path), name)
		property, known := schema.Properties[name]
		switch {
		case !known:
			f.unknown(at, "field", name, slices.Sorted(maps.Keys(schema.Properties)))
		case seen[name]:
			f.Issues = append(f.Issues, Issue{Code: "custom", Path: at, Message: "Given twice", Fix: "send the field once"})
		default:
			a.checkValue(f, at, value, property)
		}
		seen[name] = true
	})
}

// eachMember calls f for each member of a JSON object, also for one given twice.
func eachMember(raw json.RawMessage, f func(name string, value json.RawMessage)) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return errors.New("not an object")
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return err
		}
		f(name.(string), value)
	}
	return nil
}

// readObject reads a JSON object.
func readObject(r *http.Request, body []byte) (fields map[string]json.RawMessage, err error) {
	if err := requireJSON(r); err != nil {
		return nil, err
	}
	err = document.Validate(string(body), document.MaxDepth)
	if err == nil {
		err = json.Unmarshal(body, &fields)
	}
	if err != nil {
		return nil, Refuse(http.StatusBadRequest, FailureBody{Error: MalformedJSON, Fix: "send a JSON object in UTF-8: " + err.Error()})
	}
	return fields, nil
}

package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// What a route takes is what its description says, and nothing else: a filter that is
// misspelt and passed over acts on everything, and an `expires_at` makes a key for ever.
// So every route is checked against the description before its handler sees the request.

// adminPath is where the room is mounted, as the description names its paths.
const adminPath = "/v1/admin"

// accepted is what a route takes.
type accepted struct {
	query map[string]*huma.Param
	body  *huma.Schema // nil: none
	types huma.Registry
}

// describeItself is the description of this room alone.
func describeItself() *huma.OpenAPI {
	unique := func(t reflect.Type, hint string) string {
		return strings.ReplaceAll(t.PkgPath(), "/", "_") + huma.DefaultSchemaNamer(t, hint)
	}
	doc := &huma.OpenAPI{Components: &huma.Components{Schemas: huma.NewMapRegistry("#/components/schemas/", unique)}}
	Describe(doc)
	return doc
}

// acceptedBy finds a route in the description; one that is not there cannot be served.
func acceptedBy(doc *huma.OpenAPI, method, path string) (*accepted, error) {
	item := doc.Paths[adminPath+path]
	if item == nil {
		item = &huma.PathItem{}
	}
	op := map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
	}[method]
	if op == nil {
		return nil, fmt.Errorf("console: %s %s is not described: add it to Describe", method, path)
	}
	a := &accepted{query: map[string]*huma.Param{}, types: doc.Components.Schemas}
	for _, p := range op.Parameters {
		if p.In == "query" {
			a.query[p.Name] = p
		}
	}
	if op.RequestBody != nil {
		a.body = a.resolve(op.RequestBody.Content["application/json"].Schema)
	}
	return a, nil
}

func (a *accepted) resolve(s *huma.Schema) *huma.Schema {
	if s != nil && s.Ref != "" {
		return a.types.SchemaFromRef(s.Ref)
	}
	return s
}

// check refuses whatever the route does not take, and returns the request with its body
// read.
func (a *accepted) check(r *http.Request) (*http.Request, error) {
	if !isPlain(r.URL.Path) {
		return nil, &refusal{http.StatusBadRequest, "Malformed path: not UTF-8, or contains the character U+0000", "send plain text"}
	}
	f := &form{}
	if err := a.checkQuery(f, r); err != nil {
		return nil, err
	}
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	in := &received{empty: len(body) == 0}
	if !in.empty {
		if in.fields, err = a.checkBody(f, r, body); err != nil {
			return nil, err
		}
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	return r.WithContext(context.WithValue(r.Context(), receivedKey{}, in)), nil
}

// received is the body of a request.
type received struct {
	empty  bool
	fields map[string]json.RawMessage
}

type receivedKey struct{}

func receivedOf(r *http.Request) *received {
	in, _ := r.Context().Value(receivedKey{}).(*received)
	if in == nil {
		return &received{empty: true}
	}
	return in
}

func isPlain(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// checkQuery notes parameters that are unknown, given twice, or not among the words
// that there are. An empty filter of a change is one too: it would change everything.
func (a *accepted) checkQuery(f *form, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return &refusal{http.StatusBadRequest, "Malformed query: " + err.Error(), "percent-encode each name and value"}
	}
	for _, name := range sortedNames(query) {
		values := query[name]
		param, known := a.query[name]
		switch {
		case !known:
			f.unknown([]any{name}, "parameter", name, sortedNames(a.query))
		case len(values) > 1:
			f.wrong(name, "custom", "Given "+fmt.Sprint(len(values))+" times", "send the parameter once")
		case !isPlain(values[0]):
			f.wrong(name, "invalid_format", "Invalid text: not UTF-8, or contains the character U+0000", "send plain text")
		case values[0] == "" && r.Method != http.MethodGet && r.Method != http.MethodHead:
			f.wrong(name, "too_small", "Too small: expected string to have >=1 characters", "give a value, or leave the parameter out")
		default:
			f.word([]any{name}, values[0], param.Schema)
		}
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// unknown notes a parameter or field that the route does not have.
func (f *form) unknown(path []any, what, name string, known []string) {
	fix := "leave it out: this route takes no " + what + "s"
	if len(known) > 0 {
		fix = "use one of " + strings.Join(known, ", ")
	}
	f.issues = append(f.issues, issue{Code: "unrecognized_keys", Path: path, Message: fmt.Sprintf("Unrecognized %s: %q", what, name), Fix: fix})
}

// word notes a text that is none of the words that the schema allows.
func (f *form) word(path []any, text string, schema *huma.Schema) {
	if schema == nil || len(schema.Enum) == 0 || slices.Contains(schema.Enum, any(text)) {
		return
	}
	var words []string
	for _, w := range schema.Enum {
		words = append(words, fmt.Sprint(w))
	}
	f.issues = append(f.issues, issue{
		Code: "invalid_value", Values: words, Path: path,
		Message: `Invalid option: expected one of "` + strings.Join(words, `"|"`) + `"`, Fix: "use one of " + strings.Join(words, ", "),
	})
}

// checkBody reads a body that is not empty and notes the fields that the route does not
// have, at every depth that the description describes.
func (a *accepted) checkBody(f *form, r *http.Request, body []byte) (map[string]json.RawMessage, error) {
	fields, err := readObject(r, body)
	switch {
	case err != nil && a.body == nil:
		return nil, &refusal{http.StatusBadRequest, "This route takes no body", "send none"}
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
func (a *accepted) checkValue(f *form, path []any, raw json.RawMessage, schema *huma.Schema) {
	schema = a.resolve(schema)
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

func (a *accepted) checkObject(f *form, path []any, raw json.RawMessage, schema *huma.Schema) {
	if schema.AdditionalProperties != false {
		return // settings of a kind, a message: whoever reads them checks them
	}
	seen := map[string]bool{}
	_ = eachMember(raw, func(name string, value json.RawMessage) { // read before, so it is JSON
		at := append(slices.Clone(path), name)
		property, known := schema.Properties[name]
		switch {
		case !known:
			f.unknown(at, "field", name, sortedNames(schema.Properties))
		case seen[name]:
			f.issues = append(f.issues, issue{Code: "custom", Path: at, Message: "Given twice", Fix: "send the field once"})
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

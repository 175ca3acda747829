package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
)

// Page is what a list is asked for, and what its answer repeats.
type Page struct {
	Limit  int `json:"limit" minimum:"1" maximum:"100" default:"50"`
	Offset int `json:"offset" minimum:"0" maximum:"2147483647"`
}

// Object is a JSON object as it was sent, or null where a field is nullable.
type Object json.RawMessage

// Schema implements huma.SchemaProvider.
func (Object) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *Object) UnmarshalJSON(text []byte) error { return (*json.RawMessage)(o).UnmarshalJSON(text) }

// MarshalJSON implements json.Marshaler.
func (o Object) MarshalJSON() ([]byte, error) { return json.RawMessage(o).MarshalJSON() }

// accepted is what a route takes. A checked one takes what its description says, and
// nothing else: a filter that is misspelt and passed over acts on everything, and an
// `expires_at` makes a key for ever.
type accepted struct {
	types    huma.Registry
	in       reflect.Type // of a handler
	query    *huma.Schema // its properties are the parameters
	body     *huma.Schema // nil: none
	bodyRef  *huma.Schema // as the description names it
	required bool         // the body
	uuid     bool         // {id} is one
}

func accepts(types huma.Registry, r *Route) *accepted {
	a := &accepted{types: types, in: r.Handle.in, query: &huma.Schema{}}
	a.uuid = slices.Contains(r.pathParams(), "id") && !slices.ContainsFunc(r.Params, func(p Param) bool { return p.Name == "id" })
	if r.Query != nil {
		a.query = huma.SchemaFromType(types, reflect.TypeOf(r.Query))
		a.query.Required = nil
	}
	if r.Request != nil {
		a.bodyRef = schemaOf(types, r.Request)
		a.body = resolve(types, a.bodyRef)
		// A body may be left out where nothing has to be said.
		a.required = r.Method == http.MethodPatch || len(a.body.Required) > 0 || r.Handle.call == nil
	}
	return a
}

// read refuses whatever the route does not take, and returns the request with what its
// handler takes.
func (a *accepted) read(x *Exchange, r *http.Request) (*Request, any, error) {
	if !isPlain(r.URL.Path) {
		return nil, nil, Refuse(http.StatusBadRequest, FailureBody{Error: "Malformed path: not UTF-8, or contains the character U+0000", Fix: "send plain text"})
	}
	f := &reading{types: a.types, change: r.Method != http.MethodGet && r.Method != http.MethodHead}
	req := &Request{Request: r, Exchange: x}
	if a.uuid {
		var ok bool
		if req.ID, ok = pathID(r); !ok {
			f.wrong([]any{"id"}, "invalid_format", "Invalid UUID", "send the id as it was given")
		}
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, nil, Refuse(http.StatusBadRequest, FailureBody{Error: "Malformed query: " + err.Error(), Fix: "percent-encode each name and value"})
	}
	members := []member{}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		members = append(members, member{name, query[name]})
	}
	req.sent = f.object(nil, "parameter", members, a.query, f.param)
	body, err := readBody(x, r, maxBody)
	if err != nil {
		return nil, nil, err
	}
	if len(body) > 0 || a.required && len(f.issues) == 0 {
		fields, err := a.readBody(f, r, string(body))
		switch {
		case err != nil:
			return nil, nil, err
		case a.body != nil:
			req.sent = fields
		}
	}
	in, err := a.value(f, req.sent)
	return req, in, err
}

// readBody reads the fields of a body.
func (a *accepted) readBody(f *reading, r *http.Request, text string) (map[string]string, error) {
	err := requireJSON(r)
	if wrong := document.Validate(text, document.MaxDepth); err == nil && wrong != nil {
		err = Malformed(wrong, "")
	}
	switch {
	case err != nil && a.body == nil:
		return nil, Refuse(http.StatusBadRequest, FailureBody{Error: "This route takes no body", Fix: "send none"})
	case err != nil:
		return nil, err
	}
	return f.object(nil, "field", membersOf(text), cmp.Or(a.body, &huma.Schema{}), f.value), nil
}

// value makes what the handler takes of what is good, or says all that is not.
func (a *accepted) value(f *reading, sent map[string]string) (any, error) {
	object := []string{}
	for name, property := range cmp.Or(a.body, a.query).Properties {
		if text, ok := sent[name]; ok {
			object = append(object, `"`+name+`":`+text)
		} else if text, err := json.Marshal(property.Default); err == nil && property.Default != nil {
			object = append(object, `"`+name+`":`+string(text))
		}
	}
	in := reflect.New(a.in).Interface()
	if err := json.Unmarshal([]byte("{"+strings.Join(object, ",")+"}"), in); err != nil {
		return nil, fmt.Errorf("web: read a request by its schema: %w", err)
	}
	// What a field lacks beside others is not told of one that is misspelt.
	if own, ok := in.(interface{ Check() IssuesError }); ok && len(f.issues) == 0 {
		f.issues = append(f.issues, own.Check()...)
	}
	if len(f.issues) > 0 {
		return nil, f.issues
	}
	return in, nil
}

func isPlain(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// member is a name with what was sent under it, more than once perhaps.
type member struct {
	name   string
	values []string
}

// membersOf are those of a valid JSON object, in the order of the text.
func membersOf(text string) (all []member) {
	m := document.Members{Text: text, At: document.SkipSpace(text, 0)}
	for m.Next() {
		i := slices.IndexFunc(all, func(other member) bool { return other.name == m.Name })
		if i < 0 {
			i, all = len(all), append(all, member{name: m.Name})
		}
		all[i].values = append(all[i].values, m.Value)
	}
	return all
}

// reading is one pass over a request by the schemas of its route, and everything that is
// wrong with it. What is good it returns as JSON that decodes into the schema's type.
type reading struct {
	types  huma.Registry
	change bool
	issues IssuesError
}

func (f *reading) wrong(path []any, code, message, fix string) {
	f.issues = append(f.issues, Issue{Code: code, Path: path, Message: message, Fix: fix})
}

// fixes are what to send, by what is expected.
var fixes = map[string]string{
	huma.TypeString: "send a string", huma.TypeBoolean: "send true or false", huma.TypeNumber: "send a number",
	huma.TypeInteger: "send a whole number", huma.TypeArray: "send a list", huma.TypeObject: "send an object",
}

// wrongType notes a value that is of another type; empty is none.
func (f *reading) wrongType(path []any, expected, value string) {
	received, fix := "undefined", fmt.Sprint("send ", path[len(path)-1])
	if value != "" {
		received, fix = KindOf(value), fixes[expected]
	}
	if received == "null" {
		fix = "leave the field out instead of sending null"
	}
	f.issues = append(f.issues, Issue{Code: "invalid_type", Expected: expected, Path: path, Message: "Invalid input: expected " + expected + ", received " + received, Fix: fix})
}

// object reads members by the schema of their object: what it calls "field" or
// "parameter", their values by a function.
func (f *reading) object(path []any, what string, members []member, s *huma.Schema, value func([]any, string, *huma.Schema) (string, bool)) map[string]string {
	good, strange := map[string]string{}, false
	for _, m := range members {
		at := append(slices.Clone(path), m.name)
		property, known := s.Properties[m.name]
		switch {
		case !known:
			f.unknown(at, what, slices.Sorted(maps.Keys(s.Properties)))
			strange = true
		case len(m.values) > 1:
			f.wrong(at, "custom", fmt.Sprintf("Given %d times", len(m.values)), "send the "+what+" once")
			strange = true
		default:
			if text, ok := value(at, m.values[0], resolve(f.types, property)); ok {
				good[m.name] = text
			}
		}
	}
	for _, name := range s.Required {
		sent := slices.ContainsFunc(members, func(m member) bool { return m.name == name })
		if !sent && !strange { // what is strange may be what is missing, misspelt
			f.wrongType(append(slices.Clone(path), name), resolve(f.types, s.Properties[name]).Type, "")
		}
	}
	return good
}

// unknown notes a parameter or field that the route does not have.
func (f *reading) unknown(path []any, what string, known []string) {
	fix := "leave it out: this route takes no " + what + "s"
	if len(known) > 0 {
		fix = "use one of " + strings.Join(known, ", ")
	}
	f.wrong(path, "unrecognized_keys", fmt.Sprintf("Unrecognized %s: %q", what, path[len(path)-1]), fix)
}

// param reads the text of a parameter. An empty filter of a change would change
// everything.
func (f *reading) param(path []any, text string, s *huma.Schema) (string, bool) {
	quoted, _ := json.Marshal(text) // of a string
	switch {
	case !isPlain(text):
		f.wrong(path, "invalid_format", "Invalid text: not UTF-8, or contains the character U+0000", "send plain text")
	case text == "" && f.change:
		f.wrong(path, "too_small", "Too small: expected string to have >=1 characters", "give a value, or leave the parameter out")
	case s.Type == huma.TypeBoolean && text != "true" && text != "false":
		f.word(path, []any{"true", "false"})
	case s.Type == huma.TypeBoolean:
		return text, true
	case s.Type == huma.TypeInteger:
		n, err := strconv.Atoi(text)
		if err == nil {
			return f.number(path, strconv.Itoa(n), s)
		}
		f.wrong(path, "invalid_type", "Invalid input: expected int", span(s))
	case s.Format == "date-time":
		if t, ok := schemas.ParseMoment(text, time.Now()); ok {
			return t.Format(`"` + time.RFC3339Nano + `"`), true
		}
		f.wrong(path, "invalid_format", "Invalid time", "send "+schemas.MomentForms)
	default:
		return f.text(path, string(quoted), s)
	}
	return "", false
}

// value reads the JSON of a field.
func (f *reading) value(path []any, raw string, s *huma.Schema) (string, bool) {
	kind := s.Type
	if kind == huma.TypeInteger {
		kind = huma.TypeNumber
	}
	switch {
	case kind == "" || raw == "null" && s.Nullable:
		return raw, true
	case KindOf(raw) != kind:
		f.wrongType(path, kind, raw)
		return "", false
	}
	switch kind {
	case huma.TypeString:
		return f.text(path, raw, s)
	case huma.TypeNumber:
		return f.number(path, raw, s)
	case huma.TypeArray:
		return f.list(path, raw, s)
	case huma.TypeObject:
		before := len(f.issues)
		if s.AdditionalProperties == false { // else whoever reads it checks it: settings of a kind, a message
			f.object(path, "field", membersOf(raw), s, f.value)
		}
		return raw, len(f.issues) == before
	}
	return raw, true
}

func (f *reading) list(path []any, raw string, s *huma.Schema) (string, bool) {
	var items []json.RawMessage
	if err := json.Unmarshal([]byte(raw), &items); err != nil || s.MinItems != nil && len(items) < *s.MinItems {
		f.wrong(path, "too_small", "Too small: expected array to have >=1 items", "send at least one")
		return "", false
	}
	before := len(f.issues)
	for i, item := range items {
		f.value(append(slices.Clone(path), i), string(item), resolve(f.types, s.Items))
	}
	return raw, len(f.issues) == before
}

func (f *reading) text(path []any, raw string, s *huma.Schema) (string, bool) {
	text, err := document.Unquote(raw)
	n := utf8.RuneCountInString(text)
	switch {
	case err != nil || document.HasLoneSurrogate(raw):
		f.wrong(path, "invalid_format", "Invalid text: half of a surrogate pair", "send whole characters")
	case strings.IndexByte(text, 0) >= 0:
		f.wrong(path, "invalid_format", "Invalid text: contains the character U+0000", "remove the NUL character")
	case s.MinLength != nil && (n < *s.MinLength || strings.TrimSpace(text) == ""):
		f.wrong(path, "too_small", fmt.Sprintf("Too small: expected string to have >=%d characters", *s.MinLength), "send a text that is not blank")
	case s.MaxLength != nil && n > *s.MaxLength:
		f.wrong(path, "too_big", fmt.Sprintf("Too big: expected string to have <=%d characters", *s.MaxLength), "send a shorter text")
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, any(text)):
		f.word(path, s.Enum)
	case s.Format == "date-time":
		t, ok := ParseTime(text)
		if !ok {
			f.wrong(path, "invalid_format", "Invalid ISO datetime", "send a time in UTC such as 2026-01-31T12:00:00Z")
		}
		return t.Format(`"` + time.RFC3339Nano + `"`), ok
	default:
		return raw, true
	}
	return "", false
}

// word notes a text that is none of the words that there are.
func (f *reading) word(path []any, enum []any) {
	var words []string
	for _, w := range enum {
		words = append(words, fmt.Sprint(w))
	}
	f.issues = append(f.issues, Issue{
		Code: "invalid_value", Values: words, Path: path,
		Message: `Invalid option: expected one of "` + strings.Join(words, `"|"`) + `"`, Fix: "use one of " + strings.Join(words, ", "),
	})
}

// maxInt bounds whole numbers whose schema does not.
const maxInt = 1 << 31

func (f *reading) number(path []any, raw string, s *huma.Schema) (string, bool) {
	n, err := strconv.ParseFloat(raw, 64)
	whole := s.Type == huma.TypeInteger
	switch {
	case err != nil:
		f.wrong(path, "too_big", "Too big: no number of 64 bits", "send a smaller number")
	case whole && n != math.Trunc(n):
		f.wrong(path, "invalid_type", "Invalid input: expected int, received number", span(s))
	case s.Minimum != nil && n < *s.Minimum:
		f.wrong(path, "too_small", "Too small: expected number to be >="+plain(*s.Minimum), span(s))
	case s.Maximum != nil && n > *s.Maximum, whole && math.Abs(n) > maxInt:
		most := float64(maxInt)
		if s.Maximum != nil {
			most = *s.Maximum
		}
		f.wrong(path, "too_big", "Too big: expected number to be <="+plain(most), span(s))
	case whole:
		return strconv.Itoa(int(n)), true // of 6e1 too
	default:
		return raw, true
	}
	return "", false
}

func plain(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// span says which numbers may be sent.
func span(s *huma.Schema) string {
	fix := fixes[s.Type]
	switch {
	case s.Minimum != nil && s.Maximum != nil:
		return fix + " from " + plain(*s.Minimum) + " to " + plain(*s.Maximum)
	case s.Minimum != nil:
		return fix + " of " + plain(*s.Minimum) + " or more"
	}
	return fix
}

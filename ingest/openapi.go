package ingest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hogstream/hogstream/schemas"
)

// description is the API in OpenAPI 3.1, and as a page.
type description struct {
	json []byte
	page []byte
}

func newDescription(cfg Config, others []Description) *description {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Hogstream API", Version: cfg.Version,
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
	if cfg.PublicURL != "" {
		doc.Servers = []*huma.Server{{URL: cfg.PublicURL}}
	}
	describe(doc)
	for _, d := range others {
		d(doc)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		panic("ingest: describe the API: " + err.Error()) // of our own types
	}
	return &description{json: text, page: docsPage(doc)}
}

// schemaName names a type in the description. Types of other rooms carry their
// room's name, for two rooms may well call a type of theirs the same, which huma
// answers with a panic.
func schemaName(t reflect.Type, hint string) string {
	name := huma.DefaultSchemaNamer(t, hint)
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	room := path.Base(t.PkgPath())
	if t.Name() == "" || room == "ingest" || room == "schemas" {
		return name
	}
	return strings.ToUpper(room[:1]) + room[1:] + name
}

func (d *description) serveJSON(x *exchange, _ *http.Request) { x.json(http.StatusOK, d.json) }

func (d *description) servePage(x *exchange, _ *http.Request) {
	h := x.w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write(d.page) // the client went away
}

// What bodies look like, for the description alone: events are read by hand.
type (
	eventRequest struct {
		Name              string          `json:"name" minLength:"1" maxLength:"255" doc:"Name of the event. Names that begin with bucket: bucket. journey: journey. email. contact. webhook. event.tracked hogstream. are reserved." example:"order.completed"`
		UserID            string          `json:"userId,omitempty" minLength:"1" maxLength:"255" doc:"Your id of the person. One of userId, email and anonymousId is needed."`
		Email             string          `json:"email,omitempty" format:"email" maxLength:"320"`
		AnonymousID       string          `json:"anonymousId,omitempty" minLength:"1" maxLength:"255"`
		EventProperties   map[string]any  `json:"eventProperties,omitempty" doc:"Goes to the event alone. Kept byte for byte; nests at most 64 levels."`
		ContactProperties map[string]any  `json:"contactProperties,omitempty" doc:"Is merged into the contact alone; null removes a property."`
		Lists             map[string]bool `json:"lists,omitempty" doc:"Memberships to set, by list id."`
		IdempotencyKey    string          `json:"idempotencyKey,omitempty" maxLength:"255" doc:"An event with a key that this API key used within the window is not stored again. The header Idempotency-Key wins; an empty header switches it off."`
		Timestamp         string          `json:"timestamp,omitempty" format:"date-time" doc:"When it happened, in UTC with Z; now when left out."`
	}
	batchRequest struct {
		Events []eventRequest `json:"events" minItems:"1" maxItems:"1000"`
	}
	batchResponse struct {
		Accepted  int             `json:"accepted"`
		Rejected  []rejectedEvent `json:"rejected"`
		IDs       []*string       `json:"ids,omitempty" doc:"With ?ids=true: the ids in the order of the batch, null for a rejected event."`
		RequestID string          `json:"requestId"`
		Error     string          `json:"error,omitempty" doc:"None was accepted."`
	}
	conflictResponse struct {
		Error     string             `json:"error"`
		Fix       string             `json:"fix,omitempty"`
		RequestID string             `json:"requestId"`
		Conflicts []schemas.Conflict `json:"conflicts,omitempty"`
	}
	contactRequest struct {
		UserID      string          `json:"userId,omitempty" minLength:"1" maxLength:"255" doc:"One of userId, email and anonymousId is needed."`
		Email       string          `json:"email,omitempty" format:"email" maxLength:"320"`
		AnonymousID string          `json:"anonymousId,omitempty" minLength:"1" maxLength:"255"`
		Properties  map[string]any  `json:"properties,omitempty" doc:"Merged into the contact's; null removes a property."`
		Lists       map[string]bool `json:"lists,omitempty"`
	}
	subjectRequest struct {
		UserID      string `json:"userId,omitempty"`
		Email       string `json:"email,omitempty"`
		AnonymousID string `json:"anonymousId,omitempty"`
	}
	deletedResponse struct {
		Deleted bool `json:"deleted"`
	}
)

// describe adds the operations of this room.
func describe(doc *huma.OpenAPI) {
	d := describer{doc}
	d.add(http.MethodPost, "/v1/events", "Send an event", "Events",
		"202 means that the log has it. With an idempotency key the answer says whether the event was new (`stored`). Scope: ingest or write.",
		eventRequest{}, map[int]any{202: eventResponse{}})
	d.add(http.MethodPost, "/v1/events/batch", "Send up to 1000 events", "Events",
		"At most 5 MiB. Each event stands for itself: what is rejected is named by its index with the fix. 400 when none is good. A bare array is taken too. Each event may carry its own idempotencyKey. Scope: ingest or write.",
		batchRequest{}, map[int]any{202: batchResponse{}, 400: []any{batchResponse{}, failureBody{}}})
	d.add(http.MethodPut, "/v1/contacts", "Create or change a contact", "Contacts",
		"Answers when the change is applied; 202 with the input's id when that takes longer than 5 seconds. Scope: ingest or write.",
		contactRequest{}, map[int]any{200: contactResponse{}, 202: acceptedResponse{}, 409: conflictResponse{}, 413: conflictResponse{}})
	d.add(http.MethodDelete, "/v1/contacts", "Erase a contact", "Contacts",
		"404 when there is none. Scope: ingest.",
		subjectRequest{}, map[int]any{200: deletedResponse{}, 202: acceptedResponse{}, 404: failureBody{}, 409: conflictResponse{}})
	parameter := func(name, text string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	d.add(http.MethodGet, "/v1/contacts/find", "Find contacts", "Contacts",
		"By any name a contact ever had, also of one that was merged into it. At least one parameter is needed; each finds at most one. Scope: ingest or read.",
		nil, map[int]any{200: contactsResponse{}},
		parameter("userId", ""), parameter("email", ""), parameter("anonymousId", ""), parameter("id", "the contact's own id"))
	d.add(http.MethodGet, "/v1/health", "Health in detail", "Health",
		"200 when everything works, 503 when something does not. /v1/health/ready is 503 when no events can be taken; /v1/health/live is 200 while the process answers.",
		nil, map[int]any{200: healthReport{}, 503: healthReport{}})
}

type describer struct{ doc *huma.OpenAPI }

// add describes one operation; responses are by status, and several are one of them.
func (d describer) add(method, path, summary, tag, text string, request any, responses map[int]any, params ...*huma.Param) {
	op := &huma.Operation{
		Method: method, Path: path, Summary: summary, Description: text, Tags: []string{tag}, Parameters: params,
		OperationID: strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path),
		Responses:   map[string]*huma.Response{},
	}
	if request != nil {
		op.RequestBody = &huma.RequestBody{Required: true, Content: d.content(request)}
	}
	for status, body := range responses {
		op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: d.content(body)}
	}
	if strings.HasPrefix(path, "/v1/") && tag != "Health" {
		op.Security = []map[string][]string{{"apiKey": {}}}
		for _, status := range []int{400, 401, 403, 413, 415, 429, 503} {
			if _, own := responses[status]; own {
				continue
			}
			var body any = failureBody{}
			if status == http.StatusBadRequest {
				body = []any{failureBody{}, issuesBody{}}
			}
			op.Responses[fmt.Sprint(status)] = &huma.Response{Description: http.StatusText(status), Content: d.content(body)}
		}
	}
	d.doc.AddOperation(op)
}

func (d describer) content(body any) map[string]*huma.MediaType {
	schema := func(body any) *huma.Schema {
		t := reflect.TypeOf(body)
		return d.doc.Components.Schemas.Schema(t, true, t.Name())
	}
	several, ok := body.([]any)
	if !ok {
		return map[string]*huma.MediaType{"application/json": {Schema: schema(body)}}
	}
	either := &huma.Schema{}
	for _, one := range several {
		either.AnyOf = append(either.AnyOf, schema(one))
	}
	return map[string]*huma.MediaType{"application/json": {Schema: either}}
}

//go:embed docs.html
var docsTemplate string

// docsPage renders the description; it needs nothing from elsewhere.
func docsPage(doc *huma.OpenAPI) []byte {
	type field struct{ Name, Type, Text string }
	type operation struct {
		Method, Path, Summary, Text string
		Fields                      []field
		Responses                   []string
	}
	type group struct {
		Name       string
		Operations []operation
	}
	resolve := func(s *huma.Schema) *huma.Schema {
		if s != nil && s.Ref != "" {
			return doc.Components.Schemas.SchemaFromRef(s.Ref)
		}
		return s
	}
	var groups []group
	add := func(method, path string, op *huma.Operation) {
		if op == nil {
			return
		}
		o := operation{Method: method, Path: path, Summary: op.Summary, Text: op.Description}
		if op.RequestBody != nil {
			s := resolve(op.RequestBody.Content["application/json"].Schema)
			for _, name := range sortedKeys(s.Properties) {
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
		for _, status := range sortedKeys(op.Responses) {
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
	for _, path := range sortedKeys(doc.Paths) {
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
		panic("ingest: render the docs: " + err.Error()) // of our own template
	}
	return page.Bytes()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

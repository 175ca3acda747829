package console

import (
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hogstream/hogstream/stream"
)

// What bodies look like, for the description alone.
type (
	keyRequest struct {
		Name      string   `json:"name" minLength:"1" maxLength:"100"`
		Scopes    []string `json:"scopes,omitempty" doc:"read (the default), journey-admin, full-admin, ingest, write."`
		ExpiresAt string   `json:"expiresAt,omitempty" format:"date-time"`
	}
	webhookRequest struct {
		Name                string         `json:"name,omitempty" doc:"Unique; made from kind and host when left out."`
		Kind                string         `json:"kind,omitempty" doc:"webhook (the default), posthog, segment, slack."`
		URL                 string         `json:"url,omitempty"`
		Description         string         `json:"description,omitempty" maxLength:"500"`
		EventTypes          []string       `json:"eventTypes" minItems:"1" doc:"Catalog names, patterns such as contact.*, event.tracked or event.tracked:<name>."`
		Config              map[string]any `json:"config,omitempty" doc:"Settings of the kind."`
		Secret              string         `json:"secret,omitempty" doc:"whsec_ and 24 to 64 bytes in base64. Made when left out."`
		SigningKey          string         `json:"signingKey,omitempty" doc:"With config.ed25519: whsk_ and the private key in base64. Made when left out, never shown."`
		Disabled            bool           `json:"disabled,omitempty"`
		Filter              string         `json:"filter,omitempty" doc:"jq; what it does not say true to is not sent."`
		Transform           string         `json:"transform,omitempty" doc:"jq; makes the data that is sent."`
		RateLimit           float64        `json:"rateLimit,omitempty" doc:"Requests a second, 0 for no limit."`
		Concurrency         int            `json:"concurrency,omitempty" doc:"Requests in flight."`
		RetryHorizonSeconds int            `json:"retryHorizonSeconds,omitempty"`
		DeliveryLog         string         `json:"deliveryLog,omitempty" doc:"all, failures or off."`
	}
	webhookPatch struct {
		Name                *string        `json:"name,omitempty"`
		Kind                *string        `json:"kind,omitempty"`
		URL                 *string        `json:"url,omitempty"`
		Description         *string        `json:"description,omitempty" doc:"null clears."`
		EventTypes          []string       `json:"eventTypes,omitempty" doc:"Replaces."`
		Config              map[string]any `json:"config,omitempty" doc:"Replaces the whole; null clears. A value shown as *** keeps the stored one."`
		Disabled            *bool          `json:"disabled,omitempty"`
		Filter              *string        `json:"filter,omitempty"`
		Transform           *string        `json:"transform,omitempty"`
		RateLimit           *float64       `json:"rateLimit,omitempty"`
		Concurrency         *int           `json:"concurrency,omitempty"`
		RetryHorizonSeconds *int           `json:"retryHorizonSeconds,omitempty"`
		DeliveryLog         *string        `json:"deliveryLog,omitempty"`
	}
	rotateRequest struct {
		OverlapSeconds *int   `json:"overlapSeconds,omitempty" doc:"How long the old secret signs beside the new one; a day when left out."`
		Secret         string `json:"secret,omitempty" doc:"The new one; made when left out."`
		SigningKey     string `json:"signingKey,omitempty" doc:"The new private ed25519 key (whsk_), with config.ed25519; made when left out."`
		Force          bool   `json:"force,omitempty" doc:"Rotate while the secret before the present one still signs, which then ends at once; 409 without."`
	}
	sampleRequestBody struct {
		Record  string         `json:"record,omitempty" doc:"A place on the log, as lifecycle-3-1042, or a record's id. Without record and message: a webhook.test."`
		Message map[string]any `json:"message,omitempty" doc:"As webhooks get it (id, type, timestamp, data), or as records are shown (topic, value)."`
	}
	parkedRequest struct {
		Keys      []string `json:"keys,omitempty" doc:"Contact ids."`
		Reason    string   `json:"reason,omitempty" enum:"failing,spilled"`
		Status    int      `json:"status,omitempty" doc:"Of HTTP, of the last attempt."`
		Error     string   `json:"error,omitempty" doc:"A part of the last error."`
		Partition *int     `json:"partition,omitempty"`
		ReplayID  string   `json:"replayId,omitempty" doc:"Of a backfill; 00000000-0000-0000-0000-000000000000 for live deliveries."`
		All       bool     `json:"all,omitempty" doc:"Needed when nothing narrows."`
		Cursor    string   `json:"cursor,omitempty" doc:"nextCursor of the call before, with the same filter."`
	}
	rewindRequest struct {
		To        string `json:"to" doc:"start, latest, a time, or an offset."`
		Topic     string `json:"topic,omitempty" doc:"Only this one: lifecycle or events."`
		Partition *int   `json:"partition,omitempty" doc:"Only this one."`

		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"Leave out what was not delivered yet and lies before that: dead letters. Without it, that is refused."`
		DryRun          bool `json:"dryRun,omitempty" doc:"Say what would be sent and left out, and change nothing."`
	}
	skipRequest struct {
		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"Leave out what was not delivered yet: dead letters. Without it, that is refused."`
		DryRun          bool `json:"dryRun,omitempty" doc:"Say what would be sent and left out, and change nothing."`
	}
	pauseRequest struct {
		Reason string `json:"reason,omitempty"`
	}
	resumeRequest struct {
		SkipToNow       bool `json:"skipToNow,omitempty" doc:"Do not send what was appended meanwhile."`
		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"With skipToNow: leave out what was not delivered yet: dead letters. Without it, that is refused."`
	}
	backfillRequest struct {
		From   string   `json:"from,omitempty" doc:"start (the default), a time, or an offset."`
		To     string   `json:"to,omitempty" doc:"live (where the destination stands now, the default), latest, a time, or an offset."`
		Types  []string `json:"types,omitempty" doc:"Only these of those that the destination subscribes to."`
		Keys   []string `json:"keys,omitempty" doc:"Only these contact ids."`
		Rate   float64  `json:"rate,omitempty" doc:"Records a second; 0 for no limit of its own."`
		DryRun bool     `json:"dryRun,omitempty" doc:"Say what would be sent, and begin nothing."`
	}
	backfillPreviewed struct {
		Preview stream.Preview `json:"preview"`
		Replay  *string        `json:"replay" doc:"null: a dry run begins none."`
	}
	letterRetried struct {
		Retried bool `json:"retried"`
	}
	letterDiscarded struct {
		Discarded bool `json:"discarded"`
	}
	revokedResponse struct {
		Revoked bool `json:"revoked"`
	}
	webhookDeleted struct {
		Deleted bool `json:"deleted"`
	}
)

// Describe adds the operations of this room to the API's description.
func Describe(doc *huma.OpenAPI) {
	d := describer{doc}
	query := func(name, text string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: text, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	words := func(p *huma.Param, words ...any) *huma.Param {
		p.Schema.Enum = words
		return p
	}
	// as takes the words that the answer has in a field.
	as := func(p *huma.Param, answer any) *huma.Param {
		return words(p, doc.Components.Schemas.SchemaFromRef(d.schema(answer).Ref).Properties[p.Name].Enum...)
	}
	flag := func(name, text string) *huma.Param { return words(query(name, text), "true", "false") }
	limit, limit500, offset := query("limit", "1 to 100, 50 when left out"), query("limit", "1 to 500, 50 when left out"), query("offset", "0 when left out")
	d.add(http.MethodGet, "/v1/admin/api-keys", "List API keys", "API keys", nil, 200, keyPage{}, limit, offset, flag("includeRevoked", "false when left out"))
	d.add(http.MethodPost, "/v1/admin/api-keys", "Create an API key", "API keys", keyRequest{}, 201, newKeyJSON{})
	d.add(http.MethodDelete, "/v1/admin/api-keys/{id}", "Revoke an API key", "API keys", nil, 200, revokedResponse{})
	d.add(http.MethodGet, "/v1/admin/audit-logs", "List changes", "Audit log", nil, 200, auditPage{}, limit, offset, query("actor", ""), query("resource", ""), query("resourceId", ""), query("action", ""),
		query("from", "a time, inclusive"), query("to", "a time, inclusive"))
	d.add(http.MethodGet, "/v1/admin/contacts", "List contacts", "Contacts", nil, 200, contactPage{}, limit, offset, query("search", "part of an email, userId or anonymousId"),
		query("cursor", "empty to read all contacts in the order of their ids, then nextCursor of the page before; in place of offset"))
	d.add(http.MethodGet, "/v1/admin/contacts/{id}", "Show a contact by its id or userId", "Contacts", nil, 200, contactResponse{})
	d.add(http.MethodGet, "/v1/admin/webhooks", "List destinations", "Destinations", nil, 200, webhookPage{}, limit, offset, flag("includeDisabled", "true when left out"))
	d.add(http.MethodPost, "/v1/admin/webhooks", "Create a destination", "Destinations", webhookRequest{}, 201, Created{})
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}", "Show a destination", "Destinations", nil, 200, View{})
	d.add(http.MethodPatch, "/v1/admin/webhooks/{id}", "Change a destination", "Destinations", webhookPatch{}, 200, Created{})
	d.add(http.MethodDelete, "/v1/admin/webhooks/{id}", "Delete a destination", "Destinations", nil, 200, webhookDeleted{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/rotate-secret", "Give a destination a new secret", "Destinations", rotateRequest{}, 200, secretJSON{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/test", "Send a test message, or a record as a test, now", "Destinations", sampleRequestBody{}, 202, testJSON{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/preview", "Show the request that a record would be sent as", "Destinations", sampleRequestBody{}, 200, SampleRequest{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/pause", "Stop deliveries at their place", "Destinations", pauseRequest{}, 200, View{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/resume", "Go on after a pause or a suspension", "Destinations", resumeRequest{}, 200, View{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/skip", "Go on from now", "Replay", skipRequest{}, 200, stream.Rewound{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/rewind", "Go on from somewhere else, previewed first", "Replay", rewindRequest{}, 200, stream.Rewound{})
	delivery := &huma.Param{Name: "delivery", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "topic, partition and offset of the record, as lifecycle-3-1042"}
	cursor := query("cursor", "nextCursor of the page before")
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/deliveries", "Search the delivery log, newest first", "Deliveries", nil, 200, attemptPage{}, limit500, cursor,
		query("recordId", ""), query("key", "contact id"), query("type", "event.tracked for all product events; * at the end for any ending"), query("eventType", "the same as type"), as(query("outcome", ""), attemptJSON{}),
		query("status", "of HTTP"), query("replayId", ""), query("from", "a time; a day before to, or now, when left out"), query("to", "a time, exclusive"))
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/deliveries/{delivery}", "Show all attempts to deliver a record", "Deliveries", nil, 200, attemptPage{}, delivery)
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/deliveries/{delivery}/redeliver", "Deliver a record again now", "Deliveries", nil, 200, redeliveredJSON{}, delivery)
	parked := []*huma.Param{limit500, cursor, as(query("reason", ""), parkedKeyJSON{}), query("status", "of HTTP, of the last attempt"), query("error", "a part of the last error"), query("partition", ""), query("replayId", ""), flag("total", "true to count them all")}
	d.add(http.MethodGet, "/v1/admin/parked", "Count what each destination has parked", "Parked keys", nil, 200, parkedTotalsPage{})
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/parked", "List the parked contacts of a destination", "Parked keys", nil, 200, parkedPage{}, parked...)
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/parked/{key}", "Show a parked contact and its records", "Parked keys", nil, 200, parkedKeyPage{}, limit500,
		&huma.Param{Name: "key", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}, Description: "contact id"})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/parked/retry", "Try parked contacts again now", "Parked keys", parkedRequest{}, 200, parkedWished{})
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/parked/skip", "Give up what is parked of contacts by now: dead letters", "Parked keys", parkedRequest{}, 200, parkedWished{})
	letters := []*huma.Param{cursor, query("source", "processor:<name> or destination:<name>"), query("reason", ""), query("type", "event.tracked is all product events; a * at the end any ending"), query("key", "a contact id"), query("recordId", ""), query("destinationId", ""),
		query("from", "a time: given up then or later"), query("to", "a time, exclusive")}
	entry := &huma.Param{Name: "entry", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
	d.add(http.MethodGet, "/v1/admin/dlq", "List dead letters, newest first", "Dead letters", nil, 200, letterPage{}, append(slices.Clone(letters), limit, as(query("status", ""), letterJSON{}))...)
	d.add(http.MethodPost, "/v1/admin/dlq/retry", "Send the pending dead letters that match on their way again", "Dead letters", nil, 200, stream.Redriven{}, append(slices.Clone(letters), query("limit", "1 to 1000, 100 when left out"))...)
	d.add(http.MethodGet, "/v1/admin/dlq/{entry}", "Show a dead letter", "Dead letters", nil, 200, letterJSON{}, entry)
	d.add(http.MethodPost, "/v1/admin/dlq/{entry}/retry", "Send a dead letter on its way again", "Dead letters", nil, 200, letterRetried{}, entry)
	d.add(http.MethodDelete, "/v1/admin/dlq/{entry}", "Discard a dead letter", "Dead letters", nil, 200, letterDiscarded{}, entry)
	replay := &huma.Param{Name: "replay", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}}
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/replays", "List backfills", "Replay", nil, 200, replayPage{}, limit)
	d.add(http.MethodPost, "/v1/admin/webhooks/{id}/replays", "Begin a backfill, previewed first", "Replay", backfillRequest{}, 201, stream.Backfilled{})
	d.add(http.MethodGet, "/v1/admin/webhooks/{id}/replays/{replay}", "Show how far a backfill is", "Replay", nil, 200, stream.Backfill{}, replay)
	for _, verb := range []string{"Pause", "Resume", "Cancel"} {
		d.add(http.MethodPost, "/v1/admin/webhooks/{id}/replays/{replay}/"+strings.ToLower(verb), verb+" a backfill", "Replay", nil, 200, stream.Backfill{}, replay)
	}
}

type describer struct{ doc *huma.OpenAPI }

func (d describer) add(method, path, summary, tag string, request any, status int, response any, params ...*huma.Param) {
	scope := "Scope: full-admin."
	if method == http.MethodGet {
		scope = "Scope: read."
	}
	op := &huma.Operation{
		Method: method, Path: path, Summary: summary, Description: scope, Tags: []string{tag}, Parameters: params,
		OperationID: strings.ToLower(method) + strings.NewReplacer("/", "-", "{", "", "}", "").Replace(path),
		Security:    []map[string][]string{{"apiKey": {}}},
		Responses:   map[string]*huma.Response{strconv.Itoa(status): {Description: http.StatusText(status), Content: d.content(response)}},
	}
	refused := []int{401, 403, 429, 503}
	if strings.Contains(path, "{id}") {
		op.Parameters = append(op.Parameters, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	if strings.Contains(path, "{") {
		refused = append(refused, http.StatusNotFound)
		if method != http.MethodGet {
			refused = append(refused, http.StatusConflict)
		}
	}
	if strings.HasPrefix(path, "/v1/admin/dlq/") && method == http.MethodPost {
		refused = append(refused, http.StatusBadGateway)
	}
	if request != nil {
		refused = append(refused, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	for _, status := range refused {
		op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: d.content(adminFailure{})}
	}
	either := &huma.Schema{AnyOf: []*huma.Schema{d.schema(adminFailure{}), d.schema(issuesBody{})}}
	op.Responses["400"] = &huma.Response{Description: http.StatusText(http.StatusBadRequest), Content: map[string]*huma.MediaType{"application/json": {Schema: either}}}
	if status == http.StatusCreated && path == "/v1/admin/webhooks/{id}/replays" { // of a dry run
		op.Responses["200"] = &huma.Response{Description: http.StatusText(http.StatusOK), Content: d.content(backfillPreviewed{})}
	}
	if request != nil {
		// A body may be left out where nothing has to be said.
		schema := d.schema(request)
		if schema.Ref != "" {
			schema = d.doc.Components.Schemas.SchemaFromRef(schema.Ref)
		}
		op.RequestBody = &huma.RequestBody{Required: method == http.MethodPatch || len(schema.Required) > 0, Content: d.content(request)}
	}
	d.doc.AddOperation(op)
}

func (d describer) content(body any) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: d.schema(body)}}
}

func (d describer) schema(body any) *huma.Schema {
	t := reflect.TypeOf(body)
	return d.doc.Components.Schemas.Schema(t, true, "Admin"+t.Name())
}

package console

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

type webhookPage struct {
	Endpoints []destinations.View `json:"endpoints"`
	Total     int                 `json:"total"`
	Limit     int                 `json:"limit"`
	Offset    int                 `json:"offset"`
}

type testJSON struct {
	Enqueued bool `json:"enqueued" doc:"Whether something was sent: not when the filter leaves the record out."`
	destinations.Tested
}

type secretJSON struct {
	ID                  string           `json:"id"`
	Secret              string           `json:"secret"`
	SecretPrefix        *string          `json:"secretPrefix"`
	PublicKey           *string          `json:"publicKey"`
	PreviousSecretUntil *schemas.ISOTime `json:"previousSecretUntil" format:"date-time"`
}

const noWebhook = "Webhook endpoint not found"

// What bodies look like.
type (
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
	pauseRequest struct {
		Reason string `json:"reason,omitempty"`
	}
	resumeRequest struct {
		SkipToNow       bool `json:"skipToNow,omitempty" doc:"Do not send what was appended meanwhile."`
		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"With skipToNow: leave out what was not delivered yet: dead letters. Without it, that is refused."`
	}
	webhookDeleted struct {
		Deleted bool `json:"deleted"`
	}
)

// webhookRoutes are those of destinations.
func (c *console) webhookRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks", Scopes: reading, Tag: "Destinations", Summary: "List destinations",
			Params: append(paging(), flag("includeDisabled", "true when left out")), Answers: map[int]any{200: webhookPage{}},
			Example: `/v1/admin/webhooks?includeDisabled=false`, Handle: c.listWebhooks,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks", Scopes: changing, Tag: "Destinations", Summary: "Create a destination",
			Request: webhookRequest{}, Answers: map[int]any{201: destinations.Created{}},
			Example: `/v1/admin/webhooks {"name":"crm","url":"https://crm.example.com/in","eventTypes":["contact.*"]}`, Handle: c.createWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}", Scopes: reading, Tag: "Destinations", Summary: "Show a destination",
			Answers: map[int]any{200: destinations.View{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: c.getWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodPatch, Path: "/v1/admin/webhooks/{id}", Scopes: changing, Tag: "Destinations", Summary: "Change a destination",
			Request: webhookPatch{}, Answers: map[int]any{200: destinations.Created{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01 {"rateLimit":50}`, Handle: c.updateWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/webhooks/{id}", Scopes: changing, Tag: "Destinations", Summary: "Delete a destination",
			Answers: map[int]any{200: webhookDeleted{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: c.deleteWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/rotate-secret", Scopes: changing, Tag: "Destinations", Summary: "Give a destination a new secret",
			Request: rotateRequest{}, Answers: map[int]any{200: secretJSON{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/rotate-secret {"overlapSeconds":3600}`, Handle: c.rotateSecret, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/pause", Scopes: changing, Tag: "Destinations", Summary: "Stop deliveries at their place",
			Request: pauseRequest{}, Answers: map[int]any{200: destinations.View{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/pause {"reason":"maintenance"}`, Handle: c.pauseWebhook, NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/resume", Scopes: changing, Tag: "Destinations", Summary: "Go on after a pause or a suspension",
			Request: resumeRequest{}, Answers: map[int]any{200: destinations.View{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/resume {"skipToNow":false}`, Handle: c.resumeWebhook, NotFound: noWebhook,
		},
	}
}

// listWebhooks is GET /webhooks.
func (c *console) listWebhooks(r *web.Request) (any, error) {
	f, q := r.Values()
	p, disabledToo := f.Page(q), web.QueryFlag(q, "includeDisabled", true)
	if err := f.Err(); err != nil {
		return nil, err
	}
	all, err := c.Destinations.List(r.Context())
	if err != nil {
		return nil, err
	}
	out := webhookPage{Endpoints: []destinations.View{}, Limit: p.Limit, Offset: p.Offset}
	for _, v := range all {
		if !disabledToo && v.Status == "disabled" {
			continue
		}
		if out.Total >= p.Offset && len(out.Endpoints) < p.Limit {
			out.Endpoints = append(out.Endpoints, v)
		}
		out.Total++
	}
	return out, nil
}

// Limits of texts, in characters.
const (
	maxNameLen   = 100
	maxURL       = 2048
	maxDescribed = 500
	maxProgram   = 64 << 10 // a filter or a transform
	maxSecret    = 256
)

// createWebhook is POST /webhooks.
func (c *console) createWebhook(r *web.Request) (any, error) {
	f := r.Fields()
	if !f.Has("eventTypes") {
		f.Missing("eventTypes", "array")
	}
	p := patchOf(f)
	secret, signing := f.Text("secret", 1, maxSecret), f.Text("signingKey", 1, maxSecret)
	if err := f.Err(); err != nil {
		return nil, err
	}
	s := destinations.Settings{Description: p.Description, EventTypes: p.EventTypes, Config: p.Config}
	take(&s.Name, p.Name)
	take(&s.Kind, p.Kind)
	take(&s.URL, p.URL)
	take(&s.Secret, secret)
	take(&s.SigningKey, signing)
	take(&s.Disabled, p.Disabled)
	take(&s.Filter, p.Filter)
	take(&s.Transform, p.Transform)
	take(&s.RateLimit, p.RateLimit)
	take(&s.Concurrency, p.Concurrency)
	take(&s.RetryHorizon, p.RetryHorizon)
	take(&s.DeliveryLog, p.DeliveryLog)
	created, err := c.Destinations.Create(r.Context(), s)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", created.ID, detailOf(f, &created.View))
	return web.Answered(http.StatusCreated, created), nil
}

func take[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// patch reads the settings of a destination; what they must be is the business
// of its kind.
func patchOf(f *web.Form) destinations.Patch {
	p := destinations.Patch{
		Name: f.Text("name", 1, maxNameLen), Kind: f.Text("kind", 1, maxNameLen), URL: f.Text("url", 0, maxURL),
		EventTypes: f.Texts("eventTypes"), Disabled: f.Flag("disabled"),
		Filter: f.Text("filter", 0, maxProgram), Transform: f.Text("transform", 0, maxProgram),
		RateLimit: f.Number("rateLimit"), Concurrency: f.Whole("concurrency"), DeliveryLog: f.Text("deliveryLog", 0, maxNameLen),
		Config: f.Object("config"), Description: f.Text("description", 0, maxDescribed),
	}
	if seconds := f.Whole("retryHorizonSeconds"); seconds != nil {
		horizon := time.Duration(*seconds) * time.Second
		p.RetryHorizon = &horizon
	}
	return p
}

// detail is what the audit row says: the names of the fields that were sent, and
// what may be shown of the outcome.
func detailOf(f *web.Form, v *destinations.View) map[string]any {
	fields := []string{}
	for _, name := range []string{"name", "kind", "url", "description", "eventTypes", "config", "secret", "signingKey", "disabled", "filter", "transform", "rateLimit", "concurrency", "retryHorizonSeconds", "deliveryLog"} {
		if f.Has(name) {
			fields = append(fields, name)
		}
	}
	return map[string]any{"fields": fields, "name": v.Name, "kind": v.Kind, "eventTypes": v.EventTypes, "status": v.Status, "revision": v.Revision}
}

// getWebhook is GET /webhooks/{id}.
func (c *console) getWebhook(r *web.Request) (any, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	return c.Destinations.Inspect(r.Context(), id)
}

// updateWebhook is PATCH /webhooks/{id}.
func (c *console) updateWebhook(r *web.Request) (any, error) {
	id, f, err := r.Target()
	if err != nil {
		return nil, err
	}
	// null clears these two.
	clearDescription := string(f.Fields["description"]) == "null"
	clearConfig := string(f.Fields["config"]) == "null"
	if clearDescription {
		f.Fields["description"] = json.RawMessage(`""`)
	}
	if clearConfig {
		delete(f.Fields, "config")
	}
	p := patchOf(f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if clearConfig {
		p.Config = json.RawMessage("null")
		f.Fields["config"] = p.Config
	}
	updated, err := c.Destinations.Update(r.Context(), id, p)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, detailOf(f, &updated.View))
	return updated, nil
}

// deleteWebhook is DELETE /webhooks/{id}.
func (c *console) deleteWebhook(r *web.Request) (any, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	before, err := c.Destinations.Get(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if err := c.Destinations.Delete(r.Context(), id); err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"name": before.Name, "kind": before.Kind})
	return webhookDeleted{true}, nil
}

// rotateSecret is POST /webhooks/{id}/rotate-secret.
func (c *console) rotateSecret(r *web.Request) (any, error) {
	id, f, err := r.Target()
	if err != nil {
		return nil, err
	}
	seconds, secret, signing := f.Whole("overlapSeconds"), f.Text("secret", 1, maxSecret), f.Text("signingKey", 1, maxSecret)
	force := f.Flag("force")
	if err := f.Err(); err != nil {
		return nil, err
	}
	var rotation destinations.Rotation
	if seconds != nil {
		d := time.Duration(*seconds) * time.Second
		rotation.Overlap = &d
	}
	take(&rotation.Secret, secret)
	take(&rotation.SigningKey, signing)
	take(&rotation.Force, force)
	rotated, err := c.Destinations.RotateSecret(r.Context(), id, rotation)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "rotate-secret", "previousSecretUntil": rotated.PreviousSecretUntil, "force": rotation.Force})
	return secretJSON{ID: rotated.ID, Secret: rotated.Secret, SecretPrefix: rotated.SecretPrefix, PublicKey: rotated.PublicKey, PreviousSecretUntil: rotated.PreviousSecretUntil}, nil
}

// pauseWebhook is POST /webhooks/{id}/pause: nothing is sent, nothing is lost.
func (c *console) pauseWebhook(r *web.Request) (any, error) {
	id, f, err := r.Target()
	if err != nil {
		return nil, err
	}
	reason := f.Text("reason", 0, maxDescribed)
	if err := f.Err(); err != nil {
		return nil, err
	}
	text := ""
	take(&text, reason)
	v, err := c.Destinations.Pause(r.Context(), id, text)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": v.State, "reason": text})
	return v, nil
}

// resumeWebhook is POST /webhooks/{id}/resume: after a pause or a suspension it
// goes on where it stands, or from now on with skipToNow.
func (c *console) resumeWebhook(r *web.Request) (any, error) {
	id, f, err := r.Target()
	if err != nil {
		return nil, err
	}
	skip, undelivered := f.Flag("skipToNow"), f.Flag("skipUndelivered")
	if err := f.Err(); err != nil {
		return nil, err
	}
	if skip != nil && *skip {
		var req replay.SkipRequest
		take(&req.SkipUndelivered, undelivered)
		if _, err := c.Rewinds.Skip(r.Context(), id, req); err != nil {
			return nil, err
		}
	}
	v, err := c.Destinations.Resume(r.Context(), id)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": v.State, "reason": ""})
	return v, nil
}

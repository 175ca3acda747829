package console

import (
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/stream/replay"
	"github.com/hogstream/hogstream/web"
)

type webhookPage struct {
	Endpoints []destinations.View `json:"endpoints"`
	Total     int                 `json:"total"`
	web.Page
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
	webhookQuery struct {
		web.Page
		IncludeDisabled bool `json:"includeDisabled" default:"true"`
	}
	// WebhookSettings are what a destination is made and changed by. What they must be is
	// the business of its kind.
	WebhookSettings struct {
		Name                *string         `json:"name,omitempty" minLength:"1" maxLength:"100" doc:"Unique; made from kind and host when left out."`
		Kind                *string         `json:"kind,omitempty" minLength:"1" maxLength:"100" doc:"webhook (the default), posthog, segment, slack."`
		URL                 *string         `json:"url,omitempty" maxLength:"2048"`
		Disabled            *bool           `json:"disabled,omitempty"`
		Filter              json.RawMessage `json:"filter,omitempty" doc:"What it does not say true to is not sent: jq as a text, or a condition on records (docs/conditions.md, Filters) as an object or a list of these; an empty text for none."`
		Transform           *string         `json:"transform,omitempty" maxLength:"65536" doc:"jq; makes the data that is sent."`
		RateLimit           *float64        `json:"rateLimit,omitempty" minimum:"0" doc:"Requests a second, 0 for no limit."`
		Concurrency         *int            `json:"concurrency,omitempty" minimum:"0" doc:"Requests in flight."`
		RetryHorizonSeconds *int            `json:"retryHorizonSeconds,omitempty" minimum:"0"`
		DeliveryLog         *string         `json:"deliveryLog,omitempty" maxLength:"100" doc:"all, failures or off."`
	}
	webhookRequest struct {
		WebhookSettings
		Description *string    `json:"description,omitempty" maxLength:"500"`
		EventTypes  []string   `json:"eventTypes" minItems:"1" nullable:"false" doc:"Catalog names, patterns such as contact.*, event.tracked or event.tracked:<name>; outbox for what processors ask this destination for."`
		Config      web.Object `json:"config,omitempty" doc:"Settings of the kind."`
		Secret      string     `json:"secret,omitempty" minLength:"1" maxLength:"256" doc:"whsec_ and 24 to 64 bytes in base64. Made when left out."`
		SigningKey  string     `json:"signingKey,omitempty" minLength:"1" maxLength:"256" doc:"With config.ed25519: whsk_ and the private key in base64. Made when left out, never shown."`
	}
	webhookPatch struct {
		WebhookSettings
		Description *string    `json:"description,omitempty" maxLength:"500" nullable:"true" doc:"null clears."`
		EventTypes  []string   `json:"eventTypes,omitempty" minItems:"1" nullable:"false" doc:"Replaces."`
		Config      web.Object `json:"config,omitempty" nullable:"true" doc:"Replaces the whole; null clears. A value shown as *** keeps the stored one."`
	}
	rotateRequest struct {
		OverlapSeconds *int   `json:"overlapSeconds,omitempty" minimum:"0" doc:"How long the old secret signs beside the new one; a day when left out."`
		Secret         string `json:"secret,omitempty" minLength:"1" maxLength:"256" doc:"The new one; made when left out."`
		SigningKey     string `json:"signingKey,omitempty" minLength:"1" maxLength:"256" doc:"The new private ed25519 key (whsk_), with config.ed25519; made when left out."`
		Force          bool   `json:"force,omitempty" doc:"Rotate while the secret before the present one still signs, which then ends at once; 409 without."`
	}
	pauseRequest struct {
		Reason string `json:"reason,omitempty" maxLength:"500"`
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
			Example: `/v1/admin/webhooks?includeDisabled=false`, Handle: web.Query(c.listWebhooks),
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks", Scopes: changing, Tag: "Destinations", Summary: "Create a destination",
			Example: `/v1/admin/webhooks {"name":"crm","url":"https://crm.example.com/in","eventTypes":["contact.*"]}`, Handle: web.Body(c.createWebhook), Status: http.StatusCreated, NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}", Scopes: reading, Tag: "Destinations", Summary: "Show a destination",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: web.Path(c.getWebhook), NotFound: noWebhook,
		},
		{
			Method: http.MethodPatch, Path: "/v1/admin/webhooks/{id}", Scopes: changing, Tag: "Destinations", Summary: "Change a destination",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01 {"rateLimit":50}`, Handle: web.Body(c.updateWebhook), NotFound: noWebhook,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/webhooks/{id}", Scopes: changing, Tag: "Destinations", Summary: "Delete a destination",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: web.Path(c.deleteWebhook), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/rotate-secret", Scopes: changing, Tag: "Destinations", Summary: "Give a destination a new secret",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/rotate-secret {"overlapSeconds":3600}`, Handle: web.Body(c.rotateSecret), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/pause", Scopes: changing, Tag: "Destinations", Summary: "Stop deliveries at their place",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/pause {"reason":"maintenance"}`, Handle: web.Body(c.pauseWebhook), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/resume", Scopes: changing, Tag: "Destinations", Summary: "Go on after a pause or a suspension",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/resume {"skipToNow":false}`, Handle: web.Body(c.resumeWebhook), NotFound: noWebhook,
		},
	}
}

// listWebhooks is GET /webhooks.
func (c *console) listWebhooks(r *web.Request, q *webhookQuery) (out webhookPage, err error) {
	all, err := c.Destinations.List(r.Context())
	if err != nil {
		return out, err
	}
	out = webhookPage{Endpoints: []destinations.View{}, Page: q.Page}
	for _, v := range all {
		if !q.IncludeDisabled && v.Status == "disabled" {
			continue
		}
		if out.Total >= q.Offset && len(out.Endpoints) < q.Limit {
			out.Endpoints = append(out.Endpoints, v)
		}
		out.Total++
	}
	return out, nil
}

// createWebhook is POST /webhooks.
func (c *console) createWebhook(r *web.Request, req *webhookRequest) (*destinations.Created, error) {
	s := destinations.Settings{Description: req.Description, EventTypes: req.EventTypes, Config: json.RawMessage(req.Config), Secret: req.Secret, SigningKey: req.SigningKey}
	take(&s.Name, req.Name)
	take(&s.Kind, req.Kind)
	take(&s.URL, req.URL)
	take(&s.Disabled, req.Disabled)
	take(&s.Transform, req.Transform)
	take(&s.RateLimit, req.RateLimit)
	take(&s.Concurrency, req.Concurrency)
	take(&s.RetryHorizon, seconds(req.RetryHorizonSeconds))
	take(&s.DeliveryLog, req.DeliveryLog)
	filter, err := filterOf(req.Filter)
	if err != nil {
		return nil, err
	}
	take(&s.Filter, filter)
	created, err := c.Destinations.Create(r.Context(), s)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", created.ID, detailOf(r, &created.View))
	return created, nil
}

// filterOf is the filter of a request, nil when it has none.
func filterOf(sent json.RawMessage) (*destinations.Filter, error) {
	if sent == nil {
		return nil, nil //nolint:nilnil // a field that was left out is no error
	}
	var f destinations.Filter
	if err := f.UnmarshalJSON(sent); err != nil {
		return nil, err
	}
	return &f, nil
}

func take[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func seconds(n *int) *time.Duration {
	if n == nil {
		return nil
	}
	d := time.Duration(*n) * time.Second
	return &d
}

// detailOf is what the audit row says: the names of the fields that were sent, and
// what may be shown of the outcome.
func detailOf(r *web.Request, v *destinations.View) map[string]any {
	return map[string]any{"fields": r.Sent(), "name": v.Name, "kind": v.Kind, "eventTypes": v.EventTypes, "status": v.Status, "revision": v.Revision}
}

// getWebhook is GET /webhooks/{id}.
func (c *console) getWebhook(r *web.Request) (*destinations.View, error) {
	return c.Destinations.Inspect(r.Context(), r.ID)
}

// updateWebhook is PATCH /webhooks/{id}.
func (c *console) updateWebhook(r *web.Request, req *webhookPatch) (*destinations.Created, error) {
	filter, err := filterOf(req.Filter)
	if err != nil {
		return nil, err
	}
	p := destinations.Patch{
		Name: req.Name, Kind: req.Kind, URL: req.URL, Description: req.Description, EventTypes: req.EventTypes, Config: json.RawMessage(req.Config),
		Disabled: req.Disabled, Filter: filter, Transform: req.Transform, RateLimit: req.RateLimit, Concurrency: req.Concurrency,
		RetryHorizon: seconds(req.RetryHorizonSeconds), DeliveryLog: req.DeliveryLog,
	}
	if p.Description == nil && slices.Contains(r.Sent(), "description") { // null clears
		p.Description = new(string)
	}
	updated, err := c.Destinations.Update(r.Context(), r.ID, p)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", r.ID, detailOf(r, &updated.View))
	return updated, nil
}

// deleteWebhook is DELETE /webhooks/{id}.
func (c *console) deleteWebhook(r *web.Request) (out webhookDeleted, err error) {
	before, err := c.Destinations.Get(r.Context(), r.ID)
	if err != nil {
		return out, err
	}
	if err := c.Destinations.Delete(r.Context(), r.ID); err != nil {
		return out, err
	}
	c.audit(r, "webhooks", r.ID, map[string]any{"name": before.Name, "kind": before.Kind})
	return webhookDeleted{true}, nil
}

// rotateSecret is POST /webhooks/{id}/rotate-secret.
func (c *console) rotateSecret(r *web.Request, req *rotateRequest) (out secretJSON, err error) {
	rotation := destinations.Rotation{Overlap: seconds(req.OverlapSeconds), Secret: req.Secret, SigningKey: req.SigningKey, Force: req.Force}
	rotated, err := c.Destinations.RotateSecret(r.Context(), r.ID, rotation)
	if err != nil {
		return out, err
	}
	c.audit(r, "webhooks", r.ID, map[string]any{"operation": "rotate-secret", "previousSecretUntil": rotated.PreviousSecretUntil, "force": rotation.Force})
	return secretJSON{ID: rotated.ID, Secret: rotated.Secret, SecretPrefix: rotated.SecretPrefix, PublicKey: rotated.PublicKey, PreviousSecretUntil: rotated.PreviousSecretUntil}, nil
}

// pauseWebhook is POST /webhooks/{id}/pause: nothing is sent, nothing is lost.
func (c *console) pauseWebhook(r *web.Request, req *pauseRequest) (*destinations.View, error) {
	v, err := c.Destinations.Pause(r.Context(), r.ID, req.Reason)
	return c.stateSet(r, v, req.Reason, err)
}

// resumeWebhook is POST /webhooks/{id}/resume: after a pause or a suspension it
// goes on where it stands, or from now on with skipToNow.
func (c *console) resumeWebhook(r *web.Request, req *resumeRequest) (*destinations.View, error) {
	if req.SkipToNow {
		if _, err := c.Rewinds.Skip(r.Context(), r.ID, replay.SkipRequest{SkipUndelivered: req.SkipUndelivered}); err != nil {
			return nil, err
		}
	}
	v, err := c.Destinations.Resume(r.Context(), r.ID)
	return c.stateSet(r, v, "", err)
}

func (c *console) stateSet(r *web.Request, v *destinations.View, reason string, err error) (*destinations.View, error) {
	if err == nil {
		c.audit(r, "webhooks", r.ID, map[string]any{"operation": v.State, "reason": reason})
	}
	return v, err
}

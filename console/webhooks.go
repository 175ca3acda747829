package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Webhooks is what operators do to destinations.
type Webhooks interface {
	// Create returns when the destination's positions are written: what is
	// appended after that is delivered. A wrong setting is an *InvalidError.
	Create(ctx context.Context, s Settings) (*Created, error)
	// List returns all, newest first.
	List(ctx context.Context) ([]View, error)
	// Get returns one, or ErrNotFound, as all that follow.
	Get(ctx context.Context, id string) (*View, error)
	// Inspect is Get with the lag.
	Inspect(ctx context.Context, id string) (*View, error)
	// Update changes what the patch names. ErrConflict: somebody else did so at
	// the same time.
	Update(ctx context.Context, id string, p Patch) (*Created, error)
	Delete(ctx context.Context, id string) error
	// RotateSecret makes or takes new keys; the old ones sign beside them for a while.
	// ErrRotating: those of the rotation before still do.
	RotateSecret(ctx context.Context, id string, r Rotation) (*Created, error)
	// SetState pauses (at its place) or resumes.
	SetState(ctx context.Context, id string, state storage.DestinationStatus, reason string) (*View, error)
	// Preview builds the request that a sample would be sent as, and sends nothing.
	Preview(ctx context.Context, id string, s Sample) (*SampleRequest, error)
	// Test sends a sample now, marked as a test and under an id of its own, and
	// returns what came of it.
	Test(ctx context.Context, id string, s Sample) (*Tested, error)
}

// Errors that a Webhooks returns.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("it was changed meanwhile")
	ErrRotating = errors.New("secret not rotated")
)

// InvalidError says which setting is wrong and what to write instead.
type InvalidError struct{ Field, Message string }

// Error implements error.
func (e *InvalidError) Error() string { return e.Field + ": " + e.Message }

// Settings are what a new destination is made from. Empty means the default.
type Settings struct {
	Name              string
	Kind              string
	URL               string
	Description       *string
	EventTypes        []string
	Config            json.RawMessage
	Secret            string
	SigningKey        string
	Disabled          bool
	Filter, Transform string
	RateLimit         float64 // requests a second
	Concurrency       int
	RetryHorizon      time.Duration
	DeliveryLog       string
}

// Rotation is what a destination shall sign with; nil and empty mean the default,
// and keys that are made.
type Rotation struct {
	Overlap            *time.Duration
	Secret, SigningKey string
	Force              bool // although a rotation is under way
}

// Patch changes settings; a nil field stays as it is.
type Patch struct {
	Name         *string
	Kind         *string
	URL          *string
	Description  *string         // empty clears
	EventTypes   []string        // replaces
	Config       json.RawMessage // replaces; `null` clears
	Disabled     *bool
	Filter       *string
	Transform    *string
	RateLimit    *float64
	Concurrency  *int
	RetryHorizon *time.Duration
	DeliveryLog  *string
}

// View is a destination as it may be shown: nothing secret is in it.
type View struct {
	ID             string           `json:"id"`
	URL            string           `json:"url"`
	Description    *string          `json:"description"`
	EventTypes     []string         `json:"eventTypes"`
	SecretPrefix   *string          `json:"secretPrefix"`
	Kind           string           `json:"kind"`
	Config         json.RawMessage  `json:"config"`
	Status         string           `json:"status" enum:"enabled,disabled"`
	OrganizationID *string          `json:"organizationId"`
	LastDeliveryAt *schemas.ISOTime `json:"lastDeliveryAt" format:"date-time"`
	CreatedAt      schemas.ISOTime  `json:"createdAt" format:"date-time"`
	UpdatedAt      schemas.ISOTime  `json:"updatedAt" format:"date-time"`

	Name                string                    `json:"name"`
	State               storage.DestinationStatus `json:"state" enum:"active,paused,suspended"`
	StateReason         string                    `json:"stateReason"`
	Filter              string                    `json:"filter"`
	Transform           string                    `json:"transform"`
	RateLimit           float64                   `json:"rateLimit"`
	Concurrency         int                       `json:"concurrency"`
	RetryHorizonSeconds int64                     `json:"retryHorizonSeconds"`
	DeliveryLog         string                    `json:"deliveryLog"`
	PreviousSecretUntil *schemas.ISOTime          `json:"previousSecretUntil" format:"date-time"`
	PublicKey           *string                   `json:"publicKey" doc:"Of the ed25519 signature (v1a), null without config.ed25519."`
	Revision            int64                     `json:"revision"`
	storage.DestinationHealth
}

// Created is a destination and, this once, its new secret.
type Created struct {
	View
	Secret string `json:"secret,omitempty"`
}

// Sample is what a preview or a test is made with: a record of the log, or a
// message as JSON, or without both a webhook.test.
type Sample struct {
	Record  *stream.Record
	Message json.RawMessage
}

// SampleRequest is the request that a destination would be sent, its secrets hidden.
type SampleRequest struct {
	Result     string            `json:"result" enum:"sent,skipped,rejected,refused,erased" doc:"skipped: the filter or the transform leaves it out. rejected: the record's fault. refused: the settings cannot be used. erased: the person was, and nothing of theirs is shown or sent."`
	Error      string            `json:"error,omitempty"`
	Method     string            `json:"method,omitempty"`
	URL        string            `json:"url,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Body       string            `json:"body,omitempty"`
	Compressed bool              `json:"compressed,omitempty" doc:"The body is sent compressed, as the header Content-Encoding tells; it is shown as it is before that."`
	Subscribed bool              `json:"subscribed" doc:"Whether the destination wants records of this type."`
}

// Tested is what came of a test.
type Tested struct {
	Request    *SampleRequest
	DeliveryID string
	EventType  string
	Verdict    string
	Delivered  bool
	Status     int // of HTTP, 0 without an answer
	LatencyMS  int64
	Error      string
	Response   string
}

type webhookPage struct {
	Endpoints []View `json:"endpoints"`
	Total     int    `json:"total"`
	Limit     int    `json:"limit"`
	Offset    int    `json:"offset"`
}

type testJSON struct {
	Enqueued   bool           `json:"enqueued" doc:"Whether something was sent: not when the filter leaves the record out."`
	EventType  string         `json:"eventType"`
	DeliveryID string         `json:"deliveryId"`
	Delivered  bool           `json:"delivered"`
	Verdict    string         `json:"verdict"`
	Status     int            `json:"status"`
	LatencyMS  int64          `json:"latencyMs"`
	Error      string         `json:"error,omitempty"`
	Response   string         `json:"response,omitempty"`
	Request    *SampleRequest `json:"request"`
}

type secretJSON struct {
	ID                  string           `json:"id"`
	Secret              string           `json:"secret"`
	SecretPrefix        *string          `json:"secretPrefix"`
	PublicKey           *string          `json:"publicKey"`
	PreviousSecretUntil *schemas.ISOTime `json:"previousSecretUntil" format:"date-time"`
}

const noWebhook = "Webhook endpoint not found"

// listWebhooks is GET /webhooks.
func (c *console) listWebhooks(r *http.Request) (any, error) {
	f, q := queryForm(r)
	p, disabledToo := f.pageOf(q), queryFlag(q, "includeDisabled", true)
	if err := f.err(); err != nil {
		return nil, err
	}
	all, err := c.Webhooks.List(r.Context())
	if err != nil {
		return nil, err
	}
	out := webhookPage{Endpoints: []View{}, Limit: p.limit, Offset: p.offset}
	for _, v := range all {
		if !disabledToo && v.Status == "disabled" {
			continue
		}
		if out.Total >= p.offset && len(out.Endpoints) < p.limit {
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
func (c *console) createWebhook(r *http.Request) (any, error) {
	f, err := readForm(r, false)
	if err != nil {
		return nil, err
	}
	if !f.has("eventTypes") {
		f.missing("eventTypes", "array")
	}
	p := f.patch()
	secret, signing := f.text("secret", 1, maxSecret), f.text("signingKey", 1, maxSecret)
	if err := f.err(); err != nil {
		return nil, err
	}
	s := Settings{Description: p.Description, EventTypes: p.EventTypes, Config: p.Config}
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
	created, err := c.Webhooks.Create(r.Context(), s)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", created.ID, f.detail(&created.View))
	return answer{http.StatusCreated, created}, nil
}

func take[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// patch reads the settings of a destination; what they must be is the business
// of its kind.
func (f *form) patch() Patch {
	p := Patch{
		Name: f.text("name", 1, maxNameLen), Kind: f.text("kind", 1, maxNameLen), URL: f.text("url", 0, maxURL),
		EventTypes: f.texts("eventTypes"), Disabled: f.flag("disabled"),
		Filter: f.text("filter", 0, maxProgram), Transform: f.text("transform", 0, maxProgram),
		RateLimit: f.number("rateLimit"), Concurrency: f.whole("concurrency"), DeliveryLog: f.text("deliveryLog", 0, maxNameLen),
		Config: f.object("config"), Description: f.text("description", 0, maxDescribed),
	}
	if seconds := f.whole("retryHorizonSeconds"); seconds != nil {
		horizon := time.Duration(*seconds) * time.Second
		p.RetryHorizon = &horizon
	}
	return p
}

// detail is what the audit row says: the names of the fields that were sent, and
// what may be shown of the outcome.
func (f *form) detail(v *View) map[string]any {
	fields := []string{}
	for _, name := range []string{"name", "kind", "url", "description", "eventTypes", "config", "secret", "signingKey", "disabled", "filter", "transform", "rateLimit", "concurrency", "retryHorizonSeconds", "deliveryLog"} {
		if f.has(name) {
			fields = append(fields, name)
		}
	}
	return map[string]any{"fields": fields, "name": v.Name, "kind": v.Kind, "eventTypes": v.EventTypes, "status": v.Status, "revision": v.Revision}
}

// getWebhook is GET /webhooks/{id}.
func (c *console) getWebhook(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return c.Webhooks.Inspect(r.Context(), id)
}

// updateWebhook is PATCH /webhooks/{id}.
func (c *console) updateWebhook(r *http.Request) (any, error) {
	id, f, err := target(r, false)
	if err != nil {
		return nil, err
	}
	// null clears these two.
	clearDescription := string(f.fields["description"]) == "null"
	clearConfig := string(f.fields["config"]) == "null"
	if clearDescription {
		f.fields["description"] = json.RawMessage(`""`)
	}
	if clearConfig {
		delete(f.fields, "config")
	}
	p := f.patch()
	if err := f.err(); err != nil {
		return nil, err
	}
	if clearConfig {
		p.Config = json.RawMessage("null")
		f.fields["config"] = p.Config
	}
	updated, err := c.Webhooks.Update(r.Context(), id, p)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, f.detail(&updated.View))
	return updated, nil
}

// deleteWebhook is DELETE /webhooks/{id}.
func (c *console) deleteWebhook(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	before, err := c.Webhooks.Get(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if err := c.Webhooks.Delete(r.Context(), id); err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"name": before.Name, "kind": before.Kind})
	return map[string]bool{"deleted": true}, nil
}

// rotateSecret is POST /webhooks/{id}/rotate-secret.
func (c *console) rotateSecret(r *http.Request) (any, error) {
	id, f, err := target(r, true)
	if err != nil {
		return nil, err
	}
	seconds, secret, signing := f.whole("overlapSeconds"), f.text("secret", 1, maxSecret), f.text("signingKey", 1, maxSecret)
	force := f.flag("force")
	if err := f.err(); err != nil {
		return nil, err
	}
	var rotation Rotation
	if seconds != nil {
		d := time.Duration(*seconds) * time.Second
		rotation.Overlap = &d
	}
	take(&rotation.Secret, secret)
	take(&rotation.SigningKey, signing)
	take(&rotation.Force, force)
	rotated, err := c.Webhooks.RotateSecret(r.Context(), id, rotation)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "rotate-secret", "previousSecretUntil": rotated.PreviousSecretUntil, "force": rotation.Force})
	return secretJSON{ID: rotated.ID, Secret: rotated.Secret, SecretPrefix: rotated.SecretPrefix, PublicKey: rotated.PublicKey, PreviousSecretUntil: rotated.PreviousSecretUntil}, nil
}

// pauseWebhook is POST /webhooks/{id}/pause: nothing is sent, nothing is lost.
func (c *console) pauseWebhook(r *http.Request) (any, error) {
	id, f, err := target(r, true)
	if err != nil {
		return nil, err
	}
	reason := f.text("reason", 0, maxDescribed)
	if err := f.err(); err != nil {
		return nil, err
	}
	text := ""
	take(&text, reason)
	return c.setState(r, id, storage.DestinationPaused, text)
}

// resumeWebhook is POST /webhooks/{id}/resume: after a pause or a suspension it
// goes on where it stands, or from now on with skipToNow.
func (c *console) resumeWebhook(r *http.Request) (any, error) {
	id, f, err := target(r, true)
	if err != nil {
		return nil, err
	}
	skip, undelivered := f.flag("skipToNow"), f.flag("skipUndelivered")
	if err := f.err(); err != nil {
		return nil, err
	}
	if skip != nil && *skip {
		if c.Rewinds == nil {
			return nil, &refusal{http.StatusServiceUnavailable, "Service unavailable: " + noPositions, ""}
		}
		var req stream.SkipRequest
		take(&req.SkipUndelivered, undelivered)
		if _, err := c.Rewinds.Skip(r.Context(), id, req); err != nil {
			return nil, err
		}
	}
	return c.setState(r, id, storage.DestinationActive, "")
}

func (c *console) setState(r *http.Request, id string, state storage.DestinationStatus, reason string) (any, error) {
	v, err := c.Webhooks.SetState(r.Context(), id, state, reason)
	if err != nil {
		return nil, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": state, "reason": reason})
	return v, nil
}

package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/hogstream/hogstream/storage"
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
	// Update changes what the patch names. ErrConflict: somebody else did so at
	// the same time.
	Update(ctx context.Context, id string, p Patch) (*Created, error)
	Delete(ctx context.Context, id string) error
	// RotateSecret makes a new secret; the old one signs beside it for overlap,
	// nil for the default.
	RotateSecret(ctx context.Context, id string, overlap *time.Duration) (*Created, error)
	// SetState pauses (at its place) or resumes.
	SetState(ctx context.Context, id string, state storage.DestinationStatus, reason string) (*View, error)
	// Test sends a test message now and returns what came of it.
	Test(ctx context.Context, id string) (*Tested, error)
}

// Errors that a Webhooks returns.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("it was changed meanwhile")
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
	Disabled          bool
	Filter, Transform string
	RateLimit         float64 // requests a second
	Concurrency       int
	RetryHorizon      time.Duration
	DeliveryLog       string
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
	ID             string          `json:"id"`
	URL            string          `json:"url"`
	Description    *string         `json:"description"`
	EventTypes     []string        `json:"eventTypes"`
	SecretPrefix   *string         `json:"secretPrefix"`
	Kind           string          `json:"kind"`
	Config         json.RawMessage `json:"config"`
	Status         string          `json:"status" enum:"enabled,disabled"`
	OrganizationID *string         `json:"organizationId"`
	LastDeliveryAt *time.Time      `json:"lastDeliveryAt"`
	CreatedAt      time.Time       `json:"createdAt"`
	UpdatedAt      time.Time       `json:"updatedAt"`

	Name                string                    `json:"name"`
	State               storage.DestinationStatus `json:"state" enum:"active,paused,suspended"`
	StateReason         string                    `json:"stateReason"`
	Filter              string                    `json:"filter"`
	Transform           string                    `json:"transform"`
	RateLimit           float64                   `json:"rateLimit"`
	Concurrency         int                       `json:"concurrency"`
	RetryHorizonSeconds int64                     `json:"retryHorizonSeconds"`
	DeliveryLog         string                    `json:"deliveryLog"`
	PreviousSecretUntil *time.Time                `json:"previousSecretUntil"`
	Revision            int64                     `json:"revision"`
}

// Created is a destination and, this once, its new secret.
type Created struct {
	View
	Secret string `json:"secret,omitempty"`
}

// Tested is what came of a test.
type Tested struct {
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
	Enqueued   bool   `json:"enqueued"`
	EventType  string `json:"eventType"`
	DeliveryID string `json:"deliveryId"`
	Delivered  bool   `json:"delivered"`
	Verdict    string `json:"verdict"`
	Status     int    `json:"status"`
	LatencyMS  int64  `json:"latencyMs"`
	Error      string `json:"error,omitempty"`
	Response   string `json:"response,omitempty"`
}

type secretJSON struct {
	ID                  string     `json:"id"`
	Secret              string     `json:"secret"`
	SecretPrefix        *string    `json:"secretPrefix"`
	PreviousSecretUntil *time.Time `json:"previousSecretUntil"`
}

const noWebhook = "Webhook endpoint not found"

// webhooks reports whether destinations can be worked with here; otherwise it has
// answered.
func (c *console) webhooks(w http.ResponseWriter) bool {
	if c.Webhooks == nil {
		fail(w, http.StatusServiceUnavailable, "Service unavailable: destinations are not managed by this process", "")
	}
	return c.Webhooks != nil
}

func (c *console) listWebhooks(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f := &form{}
	p, disabledToo := f.pageOf(q), f.queryFlag(q, "includeDisabled", true)
	if !f.ok(w) || !c.webhooks(w) {
		return
	}
	all, err := c.Webhooks.List(r.Context())
	if err != nil {
		c.failErr(w, r, err, "")
		return
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
	respond(w, http.StatusOK, out)
}

// Limits of texts, in characters.
const (
	maxNameLen   = 100
	maxURL       = 2048
	maxDescribed = 500
	maxProgram   = 64 << 10 // a filter or a transform
	maxSecret    = 256
)

func (c *console) createWebhook(w http.ResponseWriter, r *http.Request) {
	f := readForm(w, r, false)
	if f == nil || !c.webhooks(w) {
		return
	}
	if !f.has("eventTypes") {
		f.missing("eventTypes", "array")
	}
	p := f.patch()
	secret := f.text("secret", 1, maxSecret)
	if !f.ok(w) {
		return
	}
	s := Settings{Description: p.Description, EventTypes: p.EventTypes, Config: p.Config}
	take(&s.Name, p.Name)
	take(&s.Kind, p.Kind)
	take(&s.URL, p.URL)
	take(&s.Secret, secret)
	take(&s.Disabled, p.Disabled)
	take(&s.Filter, p.Filter)
	take(&s.Transform, p.Transform)
	take(&s.RateLimit, p.RateLimit)
	take(&s.Concurrency, p.Concurrency)
	take(&s.RetryHorizon, p.RetryHorizon)
	take(&s.DeliveryLog, p.DeliveryLog)
	created, err := c.Webhooks.Create(r.Context(), s)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", created.ID, f.detail(&created.View))
	respond(w, http.StatusCreated, created)
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
	for _, name := range []string{"name", "kind", "url", "description", "eventTypes", "config", "secret", "disabled", "filter", "transform", "rateLimit", "concurrency", "retryHorizonSeconds", "deliveryLog"} {
		if f.has(name) {
			fields = append(fields, name)
		}
	}
	return map[string]any{"fields": fields, "name": v.Name, "kind": v.Kind, "eventTypes": v.EventTypes, "status": v.Status, "revision": v.Revision}
}

func (c *console) getWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	v, err := c.Webhooks.Get(r.Context(), id)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	respond(w, http.StatusOK, v)
}

func (c *console) updateWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	f := readForm(w, r, false)
	if f == nil {
		return
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
	if !f.ok(w) {
		return
	}
	if clearConfig {
		p.Config = json.RawMessage("null")
		f.fields["config"] = p.Config
	}
	updated, err := c.Webhooks.Update(r.Context(), id, p)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, f.detail(&updated.View))
	respond(w, http.StatusOK, updated)
}

func (c *console) deleteWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	before, err := c.Webhooks.Get(r.Context(), id)
	if err == nil {
		err = c.Webhooks.Delete(r.Context(), id)
	}
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, map[string]any{"name": before.Name, "kind": before.Kind})
	respond(w, http.StatusOK, map[string]bool{"deleted": true})
}

func (c *console) rotateSecret(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	f := readForm(w, r, true)
	if f == nil {
		return
	}
	seconds := f.whole("overlapSeconds")
	if !f.ok(w) {
		return
	}
	var overlap *time.Duration
	if seconds != nil {
		d := time.Duration(*seconds) * time.Second
		overlap = &d
	}
	rotated, err := c.Webhooks.RotateSecret(r.Context(), id, overlap)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "rotate-secret", "previousSecretUntil": rotated.PreviousSecretUntil})
	respond(w, http.StatusOK, secretJSON{ID: rotated.ID, Secret: rotated.Secret, SecretPrefix: rotated.SecretPrefix, PreviousSecretUntil: rotated.PreviousSecretUntil})
}

// testWebhook is POST /webhooks/{id}/test: the message is on its way before the
// answer, which says what came of it.
func (c *console) testWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	t, err := c.Webhooks.Test(r.Context(), id)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "test", "deliveryId": t.DeliveryID, "delivered": t.Delivered})
	respond(w, http.StatusAccepted, testJSON{
		Enqueued: true, EventType: t.EventType, DeliveryID: t.DeliveryID, Delivered: t.Delivered, Verdict: t.Verdict,
		Status: t.Status, LatencyMS: t.LatencyMS, Error: t.Error, Response: t.Response,
	})
}

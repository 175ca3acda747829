package destinations

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// SampleRequest is the request that a sample would be sent as, with its secrets hidden.
type SampleRequest struct {
	Result  string            `json:"result" enum:"sent,skipped,rejected,refused,erased" doc:"skipped: the filter or the transform leaves it out. rejected: the record's fault. refused: the settings cannot be used. erased: the person was, and nothing of theirs is shown or sent."`
	Error   string            `json:"error,omitempty"`
	Method  string            `json:"method,omitempty"`
	URL     string            `json:"url,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	// Body is what it is before it is compressed.
	Body       string `json:"body,omitempty"`
	Compressed bool   `json:"compressed,omitempty" doc:"The body is sent compressed, as the header Content-Encoding tells; it is shown as it is before that."`
	// Subscribed says whether the destination wants records of this type at all.
	Subscribed bool `json:"subscribed" doc:"Whether the destination wants records of this type."`
}

// Preview builds the request for a sample, as it would be sent now, and sends
// nothing.
func (o *Operations) Preview(ctx context.Context, nameOrID string, s Sample) (*SampleRequest, error) {
	t, err := o.try(ctx, nameOrID, s, false)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	return t.preview, nil
}

// A trial is a sample on its way to a destination.
type trial struct {
	*sinks.Trial
	dest    *storage.Destination
	payload *sinks.Payload // before filter and transform
	preview *SampleRequest
}

// try makes a sample ready for a destination, as it would be sent; as a test, marked and
// under an id of its own. Of somebody who was erased nothing is sent.
func (o *Operations) try(ctx context.Context, nameOrID string, s Sample, test bool) (*trial, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	p, shaped, err := o.sample(s, d.ID, time.Now())
	if err != nil {
		return nil, err
	}
	if test && shaped {
		p = p.WithID(uuid.Must(uuid.NewV7()).String())
	}
	about := []string{p.Person.ContactID}
	if s.Record != nil {
		about = append(about, string(s.Record.Key))
	}
	erased, err := o.db.Erased(ctx, about...)
	if err != nil {
		return nil, err
	}
	t := &trial{dest: d, payload: p}
	if len(erased) > 0 {
		t.Trial = &sinks.Trial{Outcome: delivery.Outcome{Verdict: delivery.Erased, Err: "the person was erased"}}
	} else {
		t.Trial = o.deliverer.Try(ctx, d, p, shaped, test)
	}
	sub, _ := schemas.ParseSubscription(d.EventTypes) // valid when it was stored
	t.preview = o.show(t.Trial, d)
	t.preview.Subscribed = !shaped || wants(sub, p)
	return t, nil
}

// wants says whether a destination subscribes to what a payload was made of.
func wants(sub schemas.Subscription, p *sinks.Payload) bool {
	if p.Event != nil {
		return sub.Matches(schemas.TypeEventTracked + ":" + p.Event.Name)
	}
	return sub.Matches(p.Type)
}

// results are how a preview calls why nothing is sent.
var results = map[delivery.Verdict]string{
	delivery.Skipped: "skipped", delivery.Reject: "rejected", delivery.Refuse: "refused", delivery.Erased: "erased",
}

// show is a trial as it may be shown.
func (o *Operations) show(t *sinks.Trial, d *storage.Destination) *SampleRequest {
	if t.Request == nil {
		return &SampleRequest{Result: results[t.Outcome.Verdict], Error: t.Outcome.Err}
	}
	kind, _ := o.deliverer.Kind(d.Kind)
	return maskRequest(t.Request, t.Body, d, kind)
}

// maskRequest shows a request with this body, and hides secrets by name (headers, those
// of the config among them) and by value (what else the config calls secret, wherever it
// stands in the request; of two that begin alike the longer one first).
func maskRequest(req *transport.Request, body []byte, dest *storage.Destination, kind *sinks.Kind) *SampleRequest {
	var config any
	_ = json.Unmarshal(dest.Config, &config) // nothing to hide in what is no JSON
	var hide []string
	secrets := secretValues("", config, kind)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		hide = append(hide, secret, redacted, sinks.InQuotes(secret), redacted)
	}
	mask := strings.NewReplacer(hide...)
	v := &SampleRequest{
		Result: "sent", Method: http.MethodPost, URL: mask.Replace(redactURL(req.URL.String(), kind)),
		Body: mask.Replace(string(body)), Headers: map[string]string{},
		Compressed: req.Header["Content-Encoding"] != nil,
	}
	for name, values := range req.Header {
		value := mask.Replace(strings.Join(values, ", "))
		if secretName.MatchString(name) || isConfigured(config, name) {
			value = redacted
		}
		v.Headers[name] = value
	}
	return v
}

// isConfigured says whether the config holds the value of a header. It is hidden there
// and nowhere else: a value such as "1" would hide the better part of the request.
func isConfigured(config any, header string) bool {
	settings, _ := config.(map[string]any)
	given, _ := settings["headers"].(map[string]any)
	for name := range given {
		if strings.EqualFold(name, header) {
			return true
		}
	}
	return false
}

// secretValues are the secret strings of a config, but for its headers.
func secretValues(parent string, config any, kind *sinks.Kind) (found []string) {
	switch v := config.(type) {
	case map[string]any:
		for name, member := range v {
			if parent == "" && name == "headers" {
				continue
			}
			if s, ok := member.(string); ok && s != "" && isSecret(parent, name, kind) {
				found = append(found, s)
				continue
			}
			found = append(found, secretValues(name, member, kind)...)
		}
	case []any:
		for _, member := range v {
			found = append(found, secretValues(parent, member, kind)...)
		}
	}
	return found
}

package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Preview is the request that a destination would be sent, with its secrets
// hidden.
type Preview struct {
	// Result says what would happen: sent, skipped (the filter or the transform
	// leaves it out), rejected (Error says why), or refused (the settings cannot
	// be used).
	Result  string            `json:"result" enum:"sent,skipped,rejected,refused"`
	Error   string            `json:"error,omitempty"`
	Method  string            `json:"method,omitempty"`
	URL     string            `json:"url,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	// Subscribed says whether the destination wants records of this type at all.
	Subscribed bool `json:"subscribed"`
}

// PayloadOf is a message as destinations see it: an [*schemas.Event] or an
// [*schemas.Fact].
func PayloadOf(m schemas.Message) (*Payload, error) {
	switch m := m.(type) {
	case *schemas.Event:
		return eventPayload(m)
	case *schemas.Fact:
		return factPayload(m)
	}
	return nil, fmt.Errorf("topic %s holds nothing for destinations", m.Topic())
}

// Preview builds the request for a message, as it would be sent now, and sends
// nothing.
func (o *Operations) Preview(ctx context.Context, nameOrID string, m schemas.Message) (*Preview, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	p, err := PayloadOf(m)
	if err != nil {
		return nil, &InvalidError{Field: "record", Message: err.Error()}
	}
	view := o.deliverer.preview(ctx, d, p)
	sub, _ := schemas.ParseSubscription(d.EventTypes) // valid when it was stored
	view.Subscribed = sub.Matches(m.Meta().Type)
	return view, nil
}

func (d *Deliverer) preview(ctx context.Context, dest *storage.Destination, p *Payload) *Preview {
	o := newOpened(dest, d.guard)
	if o.err != nil {
		return &Preview{Result: "refused", Error: o.err.Error()}
	}
	p, err := o.shaper.shape(ctx, p)
	if err != nil {
		return &Preview{Result: "rejected", Error: err.Error()}
	}
	if p == nil {
		return &Preview{Result: "skipped"}
	}
	a := &Attempt{Now: time.Now(), Payloads: []*Payload{p}}
	req, err := o.sink.Build(a)
	if err != nil {
		return &Preview{Result: "rejected", Error: err.Error()}
	}
	return maskRequest(d.httpRequest(ctx, req, a), req, dest)
}

// maskRequest hides secrets by name (headers) and by value (what the config
// calls secret, wherever it stands in the request).
func maskRequest(r *http.Request, req *Request, dest *storage.Destination) *Preview {
	kind, _ := kindOf(dest.Kind)
	var config any
	_ = json.Unmarshal(dest.Config, &config) // nothing to hide in what is no JSON
	var hide []string
	for _, secret := range secretValues("", config, kind) {
		hide = append(hide, secret, redacted, string(appendStringInner(nil, secret)), redacted)
	}
	mask := strings.NewReplacer(hide...)
	v := &Preview{
		Result: "sent", Method: r.Method, URL: mask.Replace(redactURL(req.URL.String(), kind)),
		Body: mask.Replace(string(req.Body)), Headers: map[string]string{},
	}
	for name, values := range r.Header {
		value := mask.Replace(strings.Join(values, ", "))
		if secretName.MatchString(name) {
			value = redacted
		}
		v.Headers[name] = value
	}
	return v
}

// secretValues are the secret strings of a config.
func secretValues(parent string, config any, kind *Kind) (found []string) {
	switch v := config.(type) {
	case map[string]any:
		for name, member := range v {
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

package sinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/program"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Preview is the request that a destination would be sent, with its secrets
// hidden.
type Preview struct {
	// Result says what would happen: sent, skipped (the filter or the transform
	// leaves it out), rejected (Error says why), refused (the settings cannot be
	// used), or erased (the person was: nothing of theirs is shown).
	Result  string            `json:"result" enum:"sent,skipped,rejected,refused,erased"`
	Error   string            `json:"error,omitempty"`
	Method  string            `json:"method,omitempty"`
	URL     string            `json:"url,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`
	// Compressed says that the body is sent compressed, as the header
	// Content-Encoding tells; Body is what it is before that.
	Compressed bool `json:"compressed,omitempty"`
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

// Preview builds the request for a sample, as it would be sent now, and sends
// nothing.
func (o *Operations) Preview(ctx context.Context, nameOrID string, s Sample) (*Preview, error) {
	d, err := o.find(ctx, nameOrID)
	if err != nil {
		return nil, err
	}
	t, err := o.try(ctx, d, s, false)
	if err != nil {
		return nil, err
	}
	defer t.opened.close()
	return t.preview, nil
}

// try is [Deliverer.try], but for a sample of somebody who was erased.
func (o *Operations) try(ctx context.Context, d *storage.Destination, s Sample, test bool) (*trial, error) {
	t, err := o.deliverer.try(ctx, d, s, test)
	if err != nil {
		return nil, err
	}
	about := []string{t.payload.Person.ContactID}
	if s.Record != nil {
		about = append(about, string(s.Record.Key))
	}
	erased, err := storage.Erased(ctx, o.db, about...)
	if err != nil {
		t.opened.close()
		return nil, err
	}
	if len(erased) > 0 {
		t.attempt, t.preview = nil, &Preview{Result: "erased", Error: "the person was erased", Subscribed: t.preview.Subscribed}
	}
	return t, nil
}

// A trial is a sample on its way: the attempt is nil when nothing is sent.
type trial struct {
	opened  *opened
	payload *Payload // before filter and transform
	attempt *Attempt
	preview *Preview
}

// try makes a sample ready for a destination, as it would be sent; as a test,
// marked and under an id of its own.
func (d *Deliverer) try(ctx context.Context, dest *storage.Destination, s Sample, test bool) (*trial, error) {
	p, shaped, err := d.sample(s, dest.ID, time.Now())
	if err != nil {
		return nil, err
	}
	if test && shaped {
		p = underNewID(p, uuid.Must(uuid.NewV7()).String())
	}
	t := &trial{opened: d.ready(dest), payload: p}
	if t.opened.err != nil {
		t.preview = &Preview{Result: "refused", Error: t.opened.err.Error()}
	} else {
		t.attempt, t.preview = d.trial(ctx, dest, t.opened, p, shaped, test)
	}
	sub, _ := schemas.ParseSubscription(dest.EventTypes) // valid when it was stored
	t.preview.Subscribed = !shaped || wants(sub, p)
	return t, nil
}

// wants says whether a destination subscribes to what a payload was made of.
func wants(sub schemas.Subscription, p *Payload) bool {
	if p.Event != nil {
		return sub.Matches(schemas.TypeEventTracked + ":" + p.Event.Name)
	}
	return sub.Matches(p.Type)
}

// outcome is that of a sample that is not sent.
func (t *trial) outcome() delivery.Outcome {
	verdict := map[string]delivery.Verdict{"skipped": delivery.Skipped, "rejected": delivery.Reject, "erased": delivery.Erased}[t.preview.Result]
	if t.preview.Result == "refused" {
		verdict = delivery.Refuse
	}
	return delivery.Outcome{Verdict: verdict, Err: t.preview.Error}
}

func (d *Deliverer) trial(ctx context.Context, dest *storage.Destination, o *opened, p *Payload, shaped, test bool) (*Attempt, *Preview) {
	if shaped {
		out, err := o.shapeOne(ctx, p)
		var source *program.SourceError
		switch {
		case errors.As(err, &source):
			return nil, &Preview{Result: "refused", Error: err.Error()}
		case err != nil:
			return nil, &Preview{Result: "rejected", Error: err.Error()}
		case out == nil:
			return nil, &Preview{Result: "skipped", Error: "the filter or the transform of the destination leaves it out"}
		}
		p = out
	}
	a := &Attempt{Now: time.Now(), Payloads: []*Payload{p}, Test: test}
	req, err := o.sink.Build(a)
	if err != nil {
		return nil, &Preview{Result: "rejected", Error: err.Error()}
	}
	d.complete(ctx, req, a)
	plain := req.Body
	req.Compress()
	shown := d.maskRequest(req, plain, dest)
	shown.Compressed = req.Header["Content-Encoding"] != nil
	return a, shown
}

// maskRequest shows a request with this body, and hides secrets by name (headers, those
// of the config among them) and by value (what else the config calls secret, wherever it
// stands in the request; of two that begin alike the longer one first).
func (d *Deliverer) maskRequest(req *transport.Request, body []byte, dest *storage.Destination) *Preview {
	kind, _ := d.kinds.find(dest.Kind)
	var config any
	_ = json.Unmarshal(dest.Config, &config) // nothing to hide in what is no JSON
	var hide []string
	secrets := secretValues("", config, kind)
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, secret := range secrets {
		hide = append(hide, secret, redacted, string(appendStringInner(nil, secret)), redacted)
	}
	mask := strings.NewReplacer(hide...)
	v := &Preview{
		Result: "sent", Method: http.MethodPost, URL: mask.Replace(redactURL(req.URL.String(), kind)),
		Body: mask.Replace(string(body)), Headers: map[string]string{},
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
func secretValues(parent string, config any, kind *Kind) (found []string) {
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

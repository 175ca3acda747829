package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
)

type eventsCmd struct {
	Ls     eventsLsCmd     `cmd:"" help:"List the stored events of a contact, newest first."`
	Send   eventsSendCmd   `cmd:"" help:"Send one event."`
	Import eventsImportCmd `cmd:"" help:"Send the events of a CSV or NDJSON file."`
}

type eventsLsCmd struct {
	apiFlags
	Contact string `arg:"" help:"The contact's id, or its user id."`
	Event   string `help:"Only those of this name."`
	From    string `help:"Only those that happened from this time on: a time, a date, or how long ago (7d)."`
	To      string `help:"Only those that happened before this time."`
	Limit   int    `short:"n" help:"At most so many." default:"50"`
}

// storedEvent is an event as the admin API shows it.
type storedEvent struct {
	ID         string          `json:"id"`
	ContactID  string          `json:"contactId"`
	Event      string          `json:"event"`
	Properties json.RawMessage `json:"properties"`
	OccurredAt string          `json:"occurredAt"`
	ReceivedAt string          `json:"receivedAt"`
	Source     string          `json:"source"`
	Seq        int64           `json:"seq"`
	Era        int64           `json:"era"`
}

// Run lists events.
func (c *eventsLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{}
	setQuery(query, "event", c.Event, "from", c.From, "to", c.To)
	found, err := pages[storedEvent](ctx, api, "/v1/admin/contacts/"+url.PathEscape(c.Contact)+"/events", "events", query, c.Limit, 500)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, e := range found {
			rows = append(rows, []string{e.OccurredAt, e.Event, string(e.Properties), e.Source, e.ID})
		}
		table(w, []string{"occurred", "event", "properties", "source", "id"}, rows)
	})
}

type eventsSendCmd struct {
	apiFlags
	Name           string            `arg:"" help:"Name of the event."`
	Email          string            `help:"Email address of the subject."`
	UserID         string            `help:"User id of the subject."`
	AnonymousID    string            `help:"Anonymous id of the subject."`
	Prop           map[string]string `help:"Event property, name=value; the value is JSON, else a string. Repeatable." mapsep:"none"`
	Props          string            `help:"Event properties as a JSON object."`
	ContactProp    map[string]string `help:"Contact property, name=value. Repeatable." mapsep:"none"`
	ContactProps   string            `help:"Contact properties as a JSON object."`
	IdempotencyKey string            `help:"Sending again under the same key stores nothing again."`
	Timestamp      string            `help:"When it happened, e.g. 2026-01-02T03:04:05Z; now when not given."`
}

// eventBody is an event as the API takes it.
type eventBody struct {
	Name              string                     `json:"name"`
	Email             string                     `json:"email,omitempty"`
	UserID            string                     `json:"userId,omitempty"`
	AnonymousID       string                     `json:"anonymousId,omitempty"`
	EventProperties   map[string]json.RawMessage `json:"eventProperties,omitempty"`
	ContactProperties map[string]json.RawMessage `json:"contactProperties,omitempty"`
	IdempotencyKey    string                     `json:"idempotencyKey,omitempty"`
	Timestamp         string                     `json:"timestamp,omitempty"`
}

// Run sends the event.
func (c *eventsSendCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	body := eventBody{Name: c.Name, Email: c.Email, UserID: c.UserID, AnonymousID: c.AnonymousID, IdempotencyKey: c.IdempotencyKey, Timestamp: c.Timestamp}
	if body.EventProperties, err = properties("props", c.Props, c.Prop); err != nil {
		return err
	}
	if body.ContactProperties, err = properties("contact-props", c.ContactProps, c.ContactProp); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := api.call(ctx, "POST", "/v1/events", nil, body, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) {
		fmt.Fprintf(w, "accepted: %s\n", answer)
		if c.UserID != "" {
			next(w, "what became of it", "contacts show "+c.UserID)
		}
	})
}

// properties makes an object of a JSON object and single pairs, which win.
func properties(flag, object string, pairs map[string]string) (map[string]json.RawMessage, error) {
	props := map[string]json.RawMessage{}
	if object != "" {
		if err := json.Unmarshal([]byte(object), &props); err != nil {
			return nil, fmt.Errorf("--%s: not a JSON object: %w", flag, err)
		}
	}
	for name, value := range pairs {
		props[name] = jsonOrString(value)
	}
	return props, nil
}

func jsonOrString(s string) json.RawMessage {
	if json.Valid([]byte(s)) {
		return json.RawMessage(s)
	}
	b, _ := json.Marshal(s)
	return b
}

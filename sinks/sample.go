package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Sample is what a preview or a test is made with: a record of the log; or a
// message as JSON, in the form in which webhooks get it or in which records are
// shown; or, without both, a webhook.test.
type Sample struct {
	Record  *stream.Record
	Message json.RawMessage
}

// sample is a sample as destinations see it. shaped says that filter and
// transform apply to it: not to a webhook.test.
func (d *Deliverer) sample(s Sample, destinationID string, now time.Time) (p *Payload, shaped bool, err error) {
	switch {
	case s.Record != nil:
		p, err = d.payload(s.Record)
	case len(s.Message) > 0:
		p, err = pasted(s.Message, now)
	default:
		return testPayload(uuid.Must(uuid.NewV7()).String(), destinationID, now), false, nil
	}
	if err != nil && !errors.Is(err, schemas.ErrRegistryUnavailable) {
		err = &InvalidError{Field: "message", Message: err.Error()}
	}
	return p, true, err
}

// pasted reads a message: {"id", "type", "timestamp", "data"}, or a record as
// `topics tail --json` shows it, or the value of one.
func pasted(message json.RawMessage, now time.Time) (*Payload, error) {
	var m struct {
		Topic     schemas.Topic   `json:"topic"`
		Value     json.RawMessage `json:"value"`
		ID        string          `json:"id"`
		Type      string          `json:"type"`
		Timestamp *time.Time      `json:"timestamp"`
		Data      json.RawMessage `json:"data"`
		Name      string          `json:"name"` // of an event's value
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("is not a message: %w", err)
	}
	if err := onlyKnown(message, len(m.Data) > 0, len(m.Value) > 0); err != nil {
		return nil, err
	}
	if len(m.Data) > 0 {
		if m.Timestamp == nil {
			m.Timestamp = &now
		}
		return pastedEnvelope(m.ID, m.Type, *m.Timestamp, m.Data)
	}
	value := message
	if len(m.Value) > 0 {
		value = m.Value
	}
	topic := m.Topic
	switch {
	case topic == "" && m.Name != "":
		topic = schemas.TopicEvents
	case topic == "" && m.Type != "":
		topic = schemas.TopicLifecycle
	case topic == "":
		return nil, errors.New(`has neither "type" and "data", as webhooks get it, nor "topic" and "value", as records are shown`)
	}
	read, err := schemas.MessageFromJSON(topic, value)
	if err != nil {
		return nil, err
	}
	return PayloadOf(read)
}

// onlyKnown refuses a field that is in neither form of a message: one that is misspelt
// and passed over is found out too late.
func onlyKnown(message json.RawMessage, envelope, shown bool) error {
	known := []string{"topic", "partition", "offset", "appendTime", "key", "id", "type", "value"}
	switch {
	case envelope:
		known = []string{"id", "type", "timestamp", "data"}
	case !shown:
		return nil // the value of a record
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(message, &members); err != nil {
		return fmt.Errorf("is not a message: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("has the unknown field %q: use %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

// pastedEnvelope keeps the data byte for byte. What kinds other than webhook read
// beside it is taken from where the data of each type has it.
func pastedEnvelope(id, typ string, at time.Time, data json.RawMessage) (*Payload, error) {
	var d struct {
		Event       string          `json:"event"`
		ContactID   string          `json:"contactId"`
		ID          string          `json:"id"`
		UserID      *string         `json:"userId"`
		ExternalID  *string         `json:"externalId"`
		Email       *string         `json:"email"`
		UserEmail   *string         `json:"userEmail"`
		To          string          `json:"to"`
		AnonymousID *string         `json:"anonymousId"`
		Properties  json.RawMessage `json:"properties"`
		BucketID    string          `json:"bucketId"`
		BucketName  string          `json:"bucketName"`
		TemplateKey *string         `json:"templateKey"`
	}
	if data[0] != '{' || json.Unmarshal(data, &d) != nil {
		return nil, errors.New("data: is not an object such as destinations are sent")
	}
	if typ == "" {
		return nil, errors.New("type: is missing")
	}
	id = strings.TrimPrefix(id, "msg_")
	if uuid.Validate(id) != nil {
		id = uuid.Must(uuid.NewV7()).String()
	}
	p := &Payload{ID: id, Type: typ, OccurredAt: at, Person: Person{ContactID: d.ContactID, UserID: d.UserID, Email: d.Email, AnonymousID: d.AnonymousID}}
	if p.Person.ContactID == "" {
		p.Person.ContactID = d.ID
	}
	if p.Person.UserID == nil {
		p.Person.UserID = d.ExternalID
	}
	if p.Person.Email == nil {
		p.Person.Email = d.UserEmail
	}
	if typ == schemas.TypeEventTracked {
		p.Event = &schemas.Event{ID: id, Name: d.Event, Properties: string(d.Properties)}
	} else {
		p.Fact = &schemas.Fact{ID: id, Type: typ}
		switch typ {
		case schemas.FactContactCreated, schemas.FactContactUpdated:
			p.Fact.Contact = &schemas.ContactFact{Properties: string(d.Properties)}
		case schemas.FactContactMerged:
			p.Fact.Merged = &schemas.ContactMerged{Properties: string(d.Properties)}
		}
		if d.BucketID != "" {
			p.Fact.Bucket = &schemas.BucketTransition{BucketID: d.BucketID, BucketName: d.BucketName}
		}
		if d.To != "" {
			p.Fact.EmailFact = &schemas.EmailFact{To: d.To, TemplateKey: d.TemplateKey}
		}
	}
	if err := embeddable(string(d.Properties)); err != nil {
		return nil, err
	}
	o := begin(nil)
	o.str("id", p.MessageID())
	o.str("type", typ)
	o.time("timestamp", at)
	o.raw("data", string(data))
	p.Envelope, p.Data = o.end(), data
	return p, nil
}

// underNewID is a payload under an id of its own: a receiver that drops repeats
// must not take a test for the record, nor the record for its test.
func underNewID(p *Payload, id string) *Payload {
	own := *p
	own.ID = id
	own.Envelope = bytes.Replace(p.Envelope, []byte(`"`+p.MessageID()+`"`), []byte(`"`+own.MessageID()+`"`), 1)
	return &own
}

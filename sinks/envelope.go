package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
)

// EnvelopePayload is the payload of an envelope that was sent before. The data is kept
// byte for byte; what kinds other than webhook read beside it is taken from where the
// data of each type has it.
func EnvelopePayload(id, typ string, at time.Time, data json.RawMessage) (*Payload, error) {
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
		Seq         int64           `json:"seq"`
		Era         int64           `json:"era"`
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
	p := &Payload{ID: id, Type: typ, OccurredAt: at, Seq: d.Seq, Era: d.Era, Person: Person{ContactID: d.ContactID, UserID: d.UserID, Email: d.Email, AnonymousID: d.AnonymousID}}
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

// WithID is the payload under an id of its own: a receiver that drops repeats must not
// take a test for the record, nor the record for its test.
func (p *Payload) WithID(id string) *Payload {
	own := *p
	own.ID = id
	own.Envelope = bytes.Replace(p.Envelope, []byte(`"`+p.MessageID()+`"`), []byte(`"`+own.MessageID()+`"`), 1)
	return &own
}

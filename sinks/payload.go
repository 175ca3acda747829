package sinks

import (
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

// Payload is a record as destinations see it. It is read-only.
type Payload struct {
	// ID is the record's UUID; MessageID adds the prefix of envelopes.
	ID         string
	Type       string // a catalog name, or webhook.test
	OccurredAt time.Time
	// Seq and Era are its place in the order of its contact; Seq is 0 without one.
	Seq, Era int64
	// Envelope is {"id","type","timestamp","data"} in this order; Data is the
	// part of it that is the data.
	Envelope, Data []byte

	// Person is who it is about.
	Person Person
	// Event, Fact and Call: one of them is set, except for webhook.test.
	Event *schemas.Event
	Fact  *schemas.Fact
	// Call is what a processor asks the destination for: Envelope is its body, as it is. Neither
	// filter nor transform is applied to it.
	Call *schemas.Outbox

	// Transformed says that a transform of the destination wrote Type, Envelope
	// and Data.
	Transformed bool
	traits      []byte // of the transformed data
}

// Person is who a payload is about.
type Person struct {
	ContactID                  string
	UserID, Email, AnonymousID *string
}

// DistinctID is the name under which other systems know the person: the
// external id, or the contact id. It is the same for every payload of a contact
// with the same identifiers, so that no system splits one person in two.
func (p Person) DistinctID() string {
	if p.UserID != nil && *p.UserID != "" {
		return *p.UserID
	}
	return p.ContactID
}

// MessageID is the envelope's id.
func (p *Payload) MessageID() string {
	return "msg_" + p.ID
}

// Payload is what destinations see of a record.
func (d *Deliverer) Payload(r *stream.Record) (*Payload, error) {
	return d.memo.payload(r, d.decode)
}

// decode decodes a record and writes its envelope.
func (d *Deliverer) decode(r *stream.Record) (*Payload, error) {
	m, err := d.codec.DecodeSent(r.Topic, r.Value)
	if err != nil {
		return nil, fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return PayloadOf(m)
}

// PayloadOf is a message as destinations see it: an [*schemas.Event], an [*schemas.Fact] or
// an [*schemas.Outbox].
func PayloadOf(m schemas.Message) (*Payload, error) {
	switch m := m.(type) {
	case *schemas.Event:
		return eventPayload(m)
	case *schemas.Fact:
		return factPayload(m)
	case *schemas.Outbox:
		return callPayload(m)
	}
	return nil, fmt.Errorf("topic %s holds nothing for destinations", m.Topic())
}

// callPayload is what a processor asks for, as it is.
func callPayload(o *schemas.Outbox) (*Payload, error) {
	if o.Kind != schemas.OutboxCall {
		return nil, fmt.Errorf(delivery.FailureNoOutbox+": of kind %q, while this release knows %q alone", o.Kind, schemas.OutboxCall)
	}
	return &Payload{
		ID: o.ID, Type: o.Kind, OccurredAt: o.OccurredAt, Envelope: []byte(o.Body), Data: []byte(o.Body),
		Person: Person{ContactID: o.ContactID}, Call: o,
	}, nil
}

// eventPayload is a product event as type event.tracked.
func eventPayload(e *schemas.Event) (*Payload, error) {
	if err := embeddable(e.Properties); err != nil {
		return nil, fmt.Errorf("event %s: %w", e.ID, err)
	}
	p := &Payload{
		ID: e.ID, Type: schemas.TypeEventTracked, OccurredAt: e.OccurredAt, Seq: e.Seq, Era: e.Era, Event: e,
		Person: Person{ContactID: e.ContactID, UserID: e.UserID, Email: e.Email, AnonymousID: e.AnonymousID},
	}
	p.write(512+len(e.Properties), func(o *object) {
		o.str("event", e.Name)
		o.str("contactId", e.ContactID)
		o.strOrNull("userId", e.UserID)
		o.strOrNull("email", e.Email)
		o.strOrNull("anonymousId", e.AnonymousID)
		o.raw("properties", e.Properties)
		o.time("occurredAt", e.OccurredAt)
		o.time("receivedAt", e.ReceivedAt)
		o.str("source", e.Source)
	})
	return p, nil
}

// factPayload is a fact under its own type.
func factPayload(f *schemas.Fact) (*Payload, error) {
	write, size, err := factWriter(f)
	if err != nil {
		return nil, fmt.Errorf("fact %s: %w", f.ID, err)
	}
	p := &Payload{
		ID: f.ID, Type: f.Type, OccurredAt: f.OccurredAt, Seq: f.Seq, Era: f.Era, Fact: f,
		Person: Person{ContactID: f.ContactID, UserID: f.UserID, Email: f.Email, AnonymousID: f.AnonymousID},
	}
	p.write(512+size, write)
	return p, nil
}

// write makes the envelope, of about that size, with the data that fields writes.
func (p *Payload) write(size int, fields func(*object)) {
	o := begin(make([]byte, 0, size))
	o.key("id")
	o.b = append(o.b, `"msg`...)
	quote := len(o.b)
	o.b = appendString(o.b, p.ID)
	o.b[quote] = '_' // MessageID, without making a string of it
	o.str("type", p.Type)
	o.time("timestamp", p.OccurredAt)
	o.key("data")
	start := len(o.b)
	data := begin(o.b)
	fields(&data)
	if p.Seq > 0 {
		data.int("seq", p.Seq)
		data.int("era", p.Era)
	}
	o.b = data.end()
	end := len(o.b)
	p.Envelope = o.end()
	p.Data = p.Envelope[start:end:end]
}

// embeddable checks that properties are an object. What stands within was
// checked when it was accepted; to parse it again for each destination would
// double the cost of a delivery.
func embeddable(document string) error {
	if document == "" || document[0] == '{' && document[len(document)-1] == '}' {
		return nil
	}
	return fmt.Errorf("properties are not a JSON object: %.20q", document)
}

// factWriter picks what writes the data of a fact, and a guess at its size. A
// fact whose type and fields do not belong together is refused.
func factWriter(f *schemas.Fact) (write func(*object), size int, err error) {
	switch {
	case (f.Type == schemas.FactContactCreated || f.Type == schemas.FactContactUpdated) && f.Contact != nil:
		return func(o *object) { writeContact(o, f) }, len(f.Contact.Properties), embeddable(f.Contact.Properties)
	case f.Type == schemas.FactContactDeleted:
		return func(o *object) { writeDeleted(o, f) }, 0, nil
	case f.Type == schemas.FactContactMerged && f.Merged != nil:
		return func(o *object) { writeMerged(o, f) }, len(f.Merged.Properties), embeddable(f.Merged.Properties)
	case f.Type == schemas.FactContactConflict && f.Conflict != nil:
		return func(o *object) { writeConflict(o, f) }, 256, nil
	case f.Type == schemas.FactContactUnsubscribed && f.Unsubscribed != nil:
		return func(o *object) { writeUnsubscribed(o, f) }, 0, nil
	case f.EmailFact != nil:
		return func(o *object) { writeEmail(o, f) }, 256, nil
	case f.Journey != nil:
		return func(o *object) { writeJourney(o, f) }, 0, nil
	case f.Bucket != nil:
		return func(o *object) { writeBucket(o, f) }, 0, nil
	}
	return nil, 0, fmt.Errorf("a fact of type %q without its payload", f.Type)
}

// writeContact is spec's SerializedContact, then what we add: contactId and, for
// an update, what changed.
func writeContact(o *object, f *schemas.Fact) {
	c := f.Contact
	o.str("id", f.ContactID)
	o.strOrNull("externalId", f.UserID)
	o.strOrNull("email", f.Email)
	o.raw("properties", c.Properties)
	o.time("firstSeenAt", c.FirstSeenAt)
	o.time("lastSeenAt", c.LastSeenAt)
	o.time("createdAt", c.CreatedAt)
	o.time("updatedAt", c.UpdatedAt)
	o.str("contactId", f.ContactID)
	if f.Type == schemas.FactContactUpdated {
		o.strings("changed", c.Changed)
	}
}

func writeDeleted(o *object, f *schemas.Fact) {
	o.str("id", f.ContactID)
	o.strOrNull("externalId", f.UserID)
	o.strOrNull("email", f.Email)
	o.str("contactId", f.ContactID)
}

func writeMerged(o *object, f *schemas.Fact) {
	o.str("contactId", f.ContactID)
	o.str("loserId", f.Merged.LoserID)
	o.strOrNull("externalId", f.UserID)
	o.strOrNull("email", f.Email)
	o.raw("properties", f.Merged.Properties)
	o.key("gained")
	o.b = append(o.b, '[')
	for i, id := range f.Merged.Gained {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		item := begin(o.b)
		item.str("kind", id.Kind)
		item.str("value", id.Value)
		o.b = item.end()
	}
	o.b = append(o.b, ']')
}

func writeConflict(o *object, f *schemas.Fact) {
	o.str("contactId", f.ContactID)
	o.strOrNull("externalId", f.UserID)
	o.strOrNull("email", f.Email)
	o.key("conflicts")
	o.b = append(o.b, '[')
	for i, c := range f.Conflict.Conflicts {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		item := begin(o.b)
		item.str("kind", c.Kind)
		item.str("value", c.Value)
		item.str("reason", c.Reason)
		item.strOrNull("otherContactId", c.OtherContactID)
		o.b = item.end()
	}
	o.b = append(o.b, ']')
	o.str("inputId", f.Conflict.InputID)
}

// writeUnsubscribed names the external id or null: the reference put a contact
// id or an address there, and nobody could tell which.
func writeUnsubscribed(o *object, f *schemas.Fact) {
	o.strOrNull("externalId", f.UserID)
	if f.Unsubscribed.Address != "" {
		o.str("email", f.Unsubscribed.Address)
	} else {
		o.strOrNull("email", f.Email)
	}
	o.strOrNull("category", f.Unsubscribed.Category)
	o.str("scope", f.Unsubscribed.Scope)
	o.str("contactId", f.ContactID)
}

// writeEmail follows the two shapes of the reference: that of email.sent, and
// the common one. The user id is found in one way for all of them.
func writeEmail(o *object, f *schemas.Fact) {
	e := f.EmailFact
	userID := personOf(f).DistinctID()
	o.str("emailSendId", e.EmailSendID)
	o.strOrNull("resendId", e.ProviderMessageID)
	o.strOrNull("templateKey", e.TemplateKey)
	if f.Type == schemas.FactEmailSent {
		o.str("to", e.To)
		o.str("userId", userID)
		o.strOrNull("category", e.Category)
		o.strOrNull("journeyStateId", e.JourneyStateID)
		o.str("subject", deref(e.Subject))
		sentAt := f.OccurredAt
		if e.SentAt != nil {
			sentAt = *e.SentAt
		}
		o.time("sentAt", sentAt)
	} else {
		o.str("userId", userID)
		o.str("to", e.To)
		o.time("at", f.OccurredAt)
		o.strIfSet("category", e.Category)
		o.strIfSet("subject", e.Subject)
		o.strIfSet("linkUrl", e.LinkURL)
		o.strIfSet("linkId", e.LinkID)
		o.strIfSet("bounceType", e.BounceType)
		o.strIfSet("bounceReason", e.BounceReason)
		o.strIfSet("complaintType", e.ComplaintType)
	}
	o.str("contactId", f.ContactID)
}

// writeJourney is spec's journey.completed, and for the others what the run's story says.
func writeJourney(o *object, f *schemas.Fact) {
	j := f.Journey
	o.str("journeyId", j.JourneyID)
	o.str("journeyName", j.JourneyName)
	if j.StateID != "" {
		o.str("stateId", j.StateID)
	}
	o.str("userId", personOf(f).DistinctID())
	o.str("userEmail", deref(f.Email))
	if at := f.OccurredAt; f.Type == schemas.FactJourneyCompleted {
		if j.CompletedAt != nil {
			at = *j.CompletedAt
		}
		o.time("completedAt", at)
	} else {
		o.time("at", at)
	}
	o.strIfSet("reason", j.Reason)
	o.strIfSet("version", j.Version)
	o.strIfSet("key", j.Key)
	o.strIfSet("arm", j.Arm)
	if j.Entry != nil {
		o.int("entryCount", *j.Entry)
	}
	o.strIfSet("step", j.Step)
	o.strIfSet("outcome", j.Outcome)
	o.strIfSet("error", j.Error)
	if j.Since != nil {
		o.time("since", *j.Since)
	}
	o.str("contactId", f.ContactID)
}

func writeBucket(o *object, f *schemas.Fact) {
	b := f.Bucket
	o.str("bucketId", b.BucketID)
	o.str("bucketName", b.BucketName)
	o.str("userId", personOf(f).DistinctID())
	o.strOrNull("userEmail", f.Email)
	o.str("transition", b.Transition)
	o.int("entryCount", b.EntryCount)
	o.str("source", b.Source)
	o.strIfSet("reason", b.Reason)
	if b.DwellCount != nil {
		o.int("dwellCount", *b.DwellCount)
	}
	o.strIfSet("label", b.Label)
	o.str("contactId", f.ContactID)
}

// TestPayload is a webhook.test for a destination, about a person that no system knows.
func TestPayload(id, destinationID string, now time.Time) *Payload {
	userID, email := "test_"+destinationID, "test@hogstream.example"
	p := &Payload{
		ID: id, Type: schemas.TypeWebhookTest, OccurredAt: now,
		Person: Person{ContactID: userID, UserID: &userID, Email: &email},
	}
	p.write(512, func(o *object) {
		o.str("message", "Hogstream test event")
		o.str("endpointId", destinationID)
		o.time("sentAt", now)
		o.str("userId", userID)
		o.str("to", email)
	})
	return p
}

func personOf(f *schemas.Fact) Person {
	return Person{ContactID: f.ContactID, UserID: f.UserID, Email: f.Email, AnonymousID: f.AnonymousID}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

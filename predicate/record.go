package predicate

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
)

// Record is what a record says of a contact: something happened, the contact is now like
// this, or both.
type Record struct {
	// ID counts once: records of one id are the same record.
	ID uuid.UUID
	// Name is the event's name, or the fact's type; empty when nothing happened.
	Name string
	// At is when it happened; conditions count in microseconds.
	At time.Time
	// Properties are the event's, a JSON object.
	Properties string

	// HasUserID and HasEmail say whether these are known of the contact. Once known they
	// stay known.
	HasUserID, HasEmail bool
	// FirstSeen and LastSeen widen what is known; zero says nothing.
	FirstSeen, LastSeen time.Time
	// Contact are the contact's properties, all of them, as a JSON object; empty when the
	// record does not say.
	Contact string

	fact *schemas.Fact // Properties are made of it when somebody looks
}

// FromEvent is what a product event says. One under the name of a fact is no event: facts
// are ours to tell. The error says that the id is none.
func FromEvent(e *schemas.Event) (Record, error) {
	id, err := uuid.Parse(e.ID)
	if err != nil {
		return Record{}, fmt.Errorf("event %q: %w", e.ID, err)
	}
	r := Record{
		ID: id, Name: e.Name, At: e.OccurredAt, Properties: e.Properties,
		HasUserID: e.UserID != nil, HasEmail: e.Email != nil,
		FirstSeen: e.ReceivedAt, LastSeen: e.ReceivedAt,
	}
	if isFact(e.Name) {
		r.Name = ""
	}
	return r, nil
}

// FromFact is what a fact says. Errors as [FromEvent].
func FromFact(f *schemas.Fact) (Record, error) {
	id, err := uuid.Parse(f.ID)
	if err != nil {
		return Record{}, fmt.Errorf("fact %q: %w", f.ID, err)
	}
	r := Record{
		ID: id, Name: f.Type, At: f.OccurredAt, fact: f,
		HasUserID: f.UserID != nil, HasEmail: f.Email != nil,
	}
	switch {
	case f.Contact != nil:
		r.Contact, r.FirstSeen, r.LastSeen = f.Contact.Properties, f.Contact.FirstSeenAt, f.Contact.LastSeenAt
	case f.Merged != nil:
		r.Contact = f.Merged.Properties
	}
	return r, nil
}

// Document is the properties of what happened, a JSON object. Those of a fact that carries
// the contact are the contact's; of others they are made from the payload, under the names
// of the catalog.
func (r *Record) Document() string {
	switch {
	case r.fact == nil:
		return r.Properties
	case r.Contact != "":
		return r.Contact
	}
	text, err := json.Marshal(payload(r.fact))
	if err != nil {
		return "{}" // maps of text and numbers always marshal
	}
	return string(text)
}

// payload names what conditions can ask of a fact.
func payload(f *schemas.Fact) map[string]any {
	out := map[string]any{}
	put := func(name string, v *string) {
		if v != nil {
			out[name] = *v
		}
	}
	if e := f.EmailFact; e != nil {
		out["emailSendId"], out["to"] = e.EmailSendID, e.To
		put("templateKey", e.TemplateKey)
		put("category", e.Category)
		put("subject", e.Subject)
		put("linkUrl", e.LinkURL)
		put("linkId", e.LinkID)
		put("bounceType", e.BounceType)
		put("bounceReason", e.BounceReason)
		put("complaintType", e.ComplaintType)
	}
	if j := f.Journey; j != nil {
		out["journeyId"], out["journeyName"] = j.JourneyID, j.JourneyName
		put("reason", j.Reason)
		put("version", j.Version)
		put("key", j.Key)
		put("arm", j.Arm)
		put("step", j.Step)
		put("outcome", j.Outcome)
		put("error", j.Error)
	}
	if b := f.Bucket; b != nil {
		out["bucketId"], out["bucketName"], out["transition"] = b.BucketID, b.BucketName, b.Transition
		out["entryCount"], out["source"] = b.EntryCount, b.Source
		put("reason", b.Reason)
		put("label", b.Label)
		if b.DwellCount != nil {
			out["dwellCount"] = *b.DwellCount
		}
	}
	if u := f.Unsubscribed; u != nil {
		out["scope"] = u.Scope
		put("category", u.Category)
	}
	return out
}

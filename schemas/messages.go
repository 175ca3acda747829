package schemas

import (
	"crypto/sha1" //nolint:gosec // UUIDv5 is made of it
	"strconv"

	"github.com/google/uuid"
)

// Topic implements Message.
func (*Input) Topic() Topic { return TopicIngest }

// Key is `u:<userId>`, else `e:<email>`, else `a:<anonymousId>`, passing over ids that
// are a mistake; without any of them `i:<id>`. From inside only, `c:<contact id>`.
func (m *Input) Key() string {
	switch {
	case m.ContactID != nil:
		return "c:" + *m.ContactID
	case usable(m.UserID):
		return "u:" + *m.UserID
	case m.Email != nil:
		return "e:" + *m.Email
	case usable(m.AnonymousID):
		return "a:" + *m.AnonymousID
	}
	return "i:" + m.ID
}

// Meta implements Message.
func (m *Input) Meta() Meta { return Meta{ID: m.ID, Type: m.Type, OccurredAt: m.OccurredAt} }

// Topic implements Message.
func (*Resolved) Topic() Topic { return TopicResolved }

// Key implements Message.
func (m *Resolved) Key() string { return m.ContactID }

// Meta implements Message.
func (m *Resolved) Meta() Meta { return Meta{ID: m.ID, Type: m.Type, OccurredAt: m.OccurredAt} }

// Topic implements Message.
func (*Event) Topic() Topic { return TopicEvents }

// Key implements Message.
func (m *Event) Key() string { return m.ContactID }

// Meta has the type `event.tracked:<name>`, so that a destination subscribed to
// one event name filters without decoding.
func (m *Event) Meta() Meta {
	return Meta{ID: m.ID, Type: TypeEventTracked + ":" + m.Name, OccurredAt: m.OccurredAt, Seq: m.Seq, Era: m.Era}
}

// Topic implements Message.
func (*Fact) Topic() Topic { return TopicLifecycle }

// Key implements Message.
func (m *Fact) Key() string { return m.ContactID }

// Meta implements Message.
func (m *Fact) Meta() Meta {
	return Meta{ID: m.ID, Type: m.Type, OccurredAt: m.OccurredAt, Seq: m.Seq, Era: m.Era}
}

// Topic implements Message.
func (*Contact) Topic() Topic { return TopicContacts }

// Key implements Message.
func (m *Contact) Key() string { return m.ID }

// Meta implements Message. A snapshot has no identity of its own: its id is the
// contact's. Nor has it a place in the order: its Seq is that of a record before it.
func (m *Contact) Meta() Meta { return Meta{ID: m.ID, Type: "contact", OccurredAt: m.UpdatedAt} }

// Tombstone removes a contact from topic contacts: a key without a value.
type Tombstone struct {
	ContactID string
	Cause     Meta // of the record that ended the contact
}

// Topic implements Message.
func (*Tombstone) Topic() Topic { return TopicContacts }

// Key implements Message.
func (m *Tombstone) Key() string { return m.ContactID }

// Meta implements Message.
func (m *Tombstone) Meta() Meta {
	return Meta{ID: m.ContactID, Type: "tombstone", OccurredAt: m.Cause.OccurredAt}
}

// Topic implements Message.
func (*Signal) Topic() Topic { return TopicSignals }

// Key implements Message.
func (m *Signal) Key() string { return m.ContactID }

// Meta has the type `<type>:<for>`, so that a processor skips what is not for it.
func (m *Signal) Meta() Meta {
	return Meta{ID: m.ID, Type: m.Type + ":" + m.For, OccurredAt: m.OccurredAt}
}

// Topic implements Message.
func (*EmailRequest) Topic() Topic { return TopicEmailRequests }

// Key implements Message.
func (m *EmailRequest) Key() string { return m.ContactID }

// Meta implements Message.
func (m *EmailRequest) Meta() Meta {
	return Meta{ID: m.ID, Type: "email.request", OccurredAt: m.OccurredAt}
}

// Topic implements Message.
func (*Outbox) Topic() Topic { return TopicOutbox }

// Key implements Message.
func (m *Outbox) Key() string { return m.ContactID }

// Meta has the type `<kind>:<destination>`, so that a destination finds what is addressed
// to it without decoding.
func (m *Outbox) Meta() Meta {
	return Meta{ID: m.ID, Type: m.Kind + ":" + m.Destination, OccurredAt: m.OccurredAt}
}

// Topic implements Message.
func (*DeadLetter) Topic() Topic { return TopicDeadLetters }

// Key is the key of the source record, as it was.
func (m *DeadLetter) Key() string { return string(m.RecordKey) }

// Meta implements Message.
func (m *DeadLetter) Meta() Meta {
	return Meta{ID: m.ID, Type: "dead-letter." + m.Reason, OccurredAt: m.OccurredAt}
}

// Derive returns the id of the ordinal-th record of a type derived from a cause:
// UUIDv5 over the cause's id, the type and the ordinal. The same
// on every retry, replay and rebuild.
func Derive(causeID, typ string, ordinal int) string {
	ns, err := uuid.Parse(causeID)
	if err != nil {
		ns = uuid.NewSHA1(uuid.NameSpaceOID, []byte(causeID))
	}
	// As uuid.NewSHA1, without its allocations: three ids are derived for an event.
	var buf [128]byte
	text := append(buf[:0], ns[:]...)
	text = append(text, typ...)
	text = append(text, ':')
	text = strconv.AppendInt(text, int64(ordinal), 10)
	sum := sha1.Sum(text) //nolint:gosec // a name, not a secret
	id := uuid.UUID(sum[:16])
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return id.String()
}

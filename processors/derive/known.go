package derive

import (
	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// StoredEvent is a stored event as a product event.
func StoredEvent(e *storage.StoredEvent) *schemas.Event {
	return &schemas.Event{ID: e.ID, Name: e.Name, Properties: e.Properties, OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt}
}

// EventRecord is what a stored event says to conditions. Its id is one: it was decoded before.
func EventRecord(e *storage.StoredEvent) predicate.Record {
	said, err := predicate.FromEvent(StoredEvent(e))
	if err != nil {
		said.ID = uuid.NewSHA1(uuid.NameSpaceOID, []byte(e.ID))
	}
	return said
}

// ContactRecord is what the row of a contact says to conditions.
func ContactRecord(c *storage.Contact) predicate.Record {
	return predicate.Record{
		Contact: c.Properties, HasUserID: c.ExternalID != "", HasEmail: c.Email != "", FirstSeen: c.FirstSeenAt, LastSeen: c.LastSeenAt,
	}
}

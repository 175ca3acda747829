package definitiontest

import (
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
)

// contact is what processor contacts would know of one, and says of it as that does.
type contact struct {
	id                         string
	userID, email, anonymousID string   // that it is shown by
	identifiers                []string // all that it is known by
	properties                 string
	version                    int64
	created, firstSeen         time.Time
	lastSeen, updated          time.Time
}

func newContact(id string, now time.Time) *contact {
	return &contact{id: id, properties: "{}", created: now, firstSeen: now, lastSeen: now, updated: now}
}

func (c *contact) seen(now time.Time) { c.lastSeen = now }

// take takes in what becomes known, and returns what of it is new.
func (c *contact) take(change *definition.TestChange) (changed []string, err error) {
	if change == nil {
		return nil, nil
	}
	for _, id := range []struct {
		field string
		known *string
		value string
	}{{"userId", &c.userID, change.UserID}, {"email", &c.email, change.Email}, {"anonymousId", &c.anonymousID, change.AnonymousID}} {
		if id.value == "" || slices.Contains(c.identifiers, id.field+" "+id.value) {
			continue
		}
		c.identifiers, changed = append(c.identifiers, id.field+" "+id.value), append(changed, id.field)
		if *id.known == "" {
			*id.known = id.value
		}
	}
	if change.Properties == "" {
		return changed, nil
	}
	properties, patched, err := document.Patch(c.properties, change.Properties)
	if err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	c.properties = properties
	return append(changed, patched...), nil
}

// fold takes in what another contact had: what this one has wins.
func (c *contact) fold(loser *contact) error {
	properties, err := document.Overlay(loser.properties, c.properties)
	if err != nil {
		return fmt.Errorf("properties: %w", err)
	}
	c.properties = properties
	for _, id := range []struct {
		mine  *string
		other string
	}{{&c.userID, loser.userID}, {&c.email, loser.email}, {&c.anonymousID, loser.anonymousID}} {
		if *id.mine == "" {
			*id.mine = id.other
		}
	}
	c.identifiers = append(c.identifiers, loser.identifiers...)
	c.firstSeen = slices.MinFunc([]time.Time{c.firstSeen, loser.firstSeen}, time.Time.Compare)
	c.lastSeen = slices.MaxFunc([]time.Time{c.lastSeen, loser.lastSeen}, time.Time.Compare)
	return nil
}

// changed is contact.created or contact.updated.
func (c *contact) changed(typ string, names []string, now time.Time) *schemas.Fact {
	c.version++
	c.updated = now
	f := c.fact(typ)
	f.Contact = &schemas.ContactFact{
		Version: c.version, Properties: c.properties, Changed: names,
		FirstSeenAt: c.firstSeen, LastSeenAt: c.lastSeen, CreatedAt: c.created, UpdatedAt: c.updated,
	}
	return f
}

// merged is contact.merged.
func (c *contact) merged(loser *contact) *schemas.Fact {
	c.version++
	f := c.fact(schemas.FactContactMerged)
	f.Merged = &schemas.ContactMerged{LoserID: loser.id, Version: c.version, Properties: c.properties}
	return f
}

func (c *contact) fact(typ string) *schemas.Fact {
	return &schemas.Fact{Type: typ, ContactID: c.id, UserID: pointer(c.userID), Email: pointer(c.email), AnonymousID: pointer(c.anonymousID)}
}

func (c *contact) event(e *definition.TestEvent, occurred, received time.Time) *schemas.Event {
	return &schemas.Event{
		ContactID: c.id, Name: e.Name, Properties: e.Properties, OccurredAt: occurred, ReceivedAt: received,
		UserID: pointer(c.userID), Email: pointer(c.email), AnonymousID: pointer(c.anonymousID),
	}
}

func pointer(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

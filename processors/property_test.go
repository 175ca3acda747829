package processors_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// Whatever the inputs over a few identifiers, the interleaving of the partitions
// of ingest and resolved, and the ends of batches: the state is the model's, and
// what stands on the topics keeps its promises.
func TestAnyInterleavingEndsInTheStateOfTheModel(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		clearTables(t.Context(), rt, db) // the same draws give the same ids, so that a failure shrinks
		p := newPumpOn(t.Context(), rt, db, contacts.Config{})
		m := newModel()
		m.sameTimes = true
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			randomStep(rt, p, m)
		}
		for p.busy() {
			stepIdentity(rt, p, m)
			stepContacts(rt, p)
		}
		requireModel(rt, p, m)
		requirePromises(rt, p)
	})
}

// Members publish what they applied when they come to it, so what reaches a contact
// may stand in another order than identity decided it, also within a partition.
func TestAnyOrderOfPublishingEndsInTheStateOfTheModel(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		clearTables(t.Context(), rt, db)
		p := newPumpOn(t.Context(), rt, db, contacts.Config{})
		p.late = true
		m := newModel()
		m.sameTimes = true
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			randomStep(rt, p, m)
			if rapid.Bool().Draw(rt, "publish") {
				publishSome(rt, p)
			}
		}
		for p.busy() {
			stepIdentity(rt, p, m)
			stepContacts(rt, p)
			publishSome(rt, p)
		}
		requireModel(rt, p, m)
		requirePromises(rt, p)
	})
}

// publishSome publishes what one partition's owner holds back.
func publishSome(rt *rapid.T, p *pump) {
	lanes := &p.ingest
	if rapid.Bool().Draw(rt, "of resolved") {
		lanes = &p.resolved
	}
	p.release(&lanes[rapid.IntRange(0, partitions-1).Draw(rt, "held")])
}

func randomStep(rt *rapid.T, p *pump, m *model) {
	switch rapid.IntRange(0, 9).Draw(rt, "do") {
	case 0, 1, 2, 3, 4:
		if in := randomInput(rt, m, len(p.sent)); in != nil {
			p.send(in)
		}
		if m.sameTimes && rapid.Bool().Draw(rt, "same millisecond") {
			p.clock = p.clock.Add(-1e6)
		}
	case 5, 6:
		stepIdentity(rt, p, m)
	default:
		stepContacts(rt, p)
	}
}

func stepIdentity(rt *rapid.T, p *pump, m *model) {
	l := &p.ingest[rapid.IntRange(0, partitions-1).Draw(rt, "ingest")]
	n := rapid.IntRange(1, 5).Draw(rt, "batch")
	for _, r := range l.records[l.next:min(l.next+n, len(l.records))] {
		in, err := p.codec.DecodeInput(r.Value)
		require.NoError(rt, err)
		m.apply(in, r)
	}
	p.step(p.identity, l, n)
}

func stepContacts(rt *rapid.T, p *pump) {
	p.step(p.contacts, &p.resolved[rapid.IntRange(0, partitions-1).Draw(rt, "resolved")], rapid.IntRange(1, 5).Draw(rt, "batch"))
}

func randomInput(rt *rapid.T, m *model, n int) *schemas.Input {
	in := &schemas.Input{ID: schemas.Derive("input", "test", n), Type: schemas.InputEvent, Event: text("x")}
	pick := func(kind string, field **string) {
		if n := rapid.IntRange(0, 5).Draw(rt, kind); n < 3 {
			*field = text(fmt.Sprintf("%s%d@b.co", kind, n))
		}
	}
	switch rapid.IntRange(0, 9).Draw(rt, "type") {
	case 0, 1:
		in.Type, in.Event, in.Wait = schemas.InputDelete, nil, true
	case 2, 3, 4:
		in.Type, in.Event, in.Wait = schemas.InputContact, nil, true
	case 5:
		known := make([]string, 0, len(m.alive))
		for id := range m.alive {
			known = append(known, id)
		}
		if slices.Sort(known); len(known) > 0 {
			in.ContactID = text(rapid.SampledFrom(known).Draw(rt, "contact"))
		}
	case 6:
		in.IdempotencyKey, in.Scope, in.Wait = text(fmt.Sprintf("k%d", rapid.IntRange(0, 2).Draw(rt, "key"))), text("s"), true
	}
	if in.Type != schemas.InputDelete {
		in.ContactProperties = propertiesOf(in)
	}
	if in.ContactID != nil {
		return in
	}
	pick("u", &in.UserID)
	pick("e", &in.Email)
	if in.Type != schemas.InputDelete {
		pick("a", &in.AnonymousID)
	}
	if in.UserID == nil && in.Email == nil && in.AnonymousID == nil { // about nobody
		return nil
	}
	return in
}

// requireModel compares every person of the model with the contact's row, its
// snapshot and its stored events.
func requireModel(rt *rapid.T, p *pump, m *model) {
	for _, person := range m.people {
		if person.gone {
			require.Zero(rt, p.count("contacts", "id = $1::text::uuid", person.contact), "row of ended contact %s", person.contact)
			require.Nil(rt, p.snapshots[person.contact], "snapshot of ended contact %s", person.contact)
			continue
		}
		c, err := p.db.GetContact(p.ctx, person.contact)
		require.NoError(rt, err)
		require.Equal(rt, person.contact, c.ID)
		require.Len(rt, c.Identifiers, len(person.ids))
		for _, id := range c.Identifiers {
			require.True(rt, person.ids[id], "identifier %v", id)
			require.Equal(rt, c.ID, p.find(id.Kind, id.Value).ID)
		}
		var properties map[string]bool
		require.NoError(rt, json.Unmarshal([]byte(c.Properties), &properties))
		require.Equal(rt, person.properties, properties)

		s := p.snapshots[c.ID]
		require.NotNil(rt, s)
		require.Equal(rt, c.Version, s.Version)
		require.Equal(rt, c.Properties, s.Properties)
		require.Equal(rt, c.Identifiers, s.Identifiers)
		require.ElementsMatch(rt, c.Merged, s.Merged)
		require.Equal(rt, c.ExternalID+"|"+c.Email+"|"+c.AnonymousID, deref(s.UserID)+"|"+deref(s.Email)+"|"+deref(s.AnonymousID))

		stored := p.count("events", "contact_id = ANY ($1::text[]::uuid[])", append([]string{c.ID}, c.Merged...))
		require.Equal(rt, len(person.events), stored, "events of contact %s", c.ID)
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// requirePromises checks what every reader of the topics may rely on.
func requirePromises(rt *rapid.T, p *pump) {
	require.Empty(rt, p.dead)
	judgeNumbers(rt, p)
	versions := map[string]int64{}
	ended := map[string]bool{}
	for _, s := range p.history {
		require.False(rt, ended[s.key], "a snapshot of %s after its tombstone", s.key)
		if s.value == nil {
			ended[s.key] = true
			continue
		}
		require.Equal(rt, versions[s.key]+1, s.value.Version, "version of %s", s.key)
		versions[s.key]++
	}
	created, ids := map[string]bool{}, map[string]bool{}
	for _, f := range p.facts {
		require.False(rt, ids[f.ID], "fact %s twice", f.ID)
		ids[f.ID] = true
		if f.Type == schemas.FactContactCreated {
			require.False(rt, created[f.ContactID], "created twice")
			created[f.ContactID] = true
		}
		require.True(rt, created[f.ContactID], "%s before contact.created", f.Type)
	}
	awaited := map[string]bool{}
	for _, in := range p.sent {
		awaited[schemas.EventID(in.ID)] = in.Wait
	}
	events := map[string]bool{}
	for _, e := range p.events {
		require.Equal(rt, awaited[e.ID], e.Wait, "whose sender waits is known of the event, whoever it came to")
		require.False(rt, events[e.ID], "event %s twice", e.ID)
		require.True(rt, created[e.ContactID] || p.count("contact_marks", "contact_id = $1::text::uuid", e.ContactID) > 0)
		events[e.ID] = true
	}
	for id := range ended {
		require.Equal(rt, 1, p.count("contact_marks", "contact_id = $1::text::uuid", id))
	}
	require.Zero(rt, p.count("pending_answers", "true"))
	for _, in := range p.sent {
		if in.Wait {
			require.NotNil(rt, p.answer(in), "answer to %s", in.Type)
		}
	}
	if t := strings.Join(p.factTypes(), ","); len(p.sent) > 0 && t == "" {
		require.Empty(rt, p.events)
	}
}

package processors_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
)

func TestAPutWithAnEmailCreatesAContact(t *testing.T) {
	p := newPump(t, contacts.Config{})
	in := put(email("Ann@Example.com "), props(`{"plan":"free"}`), waits)
	p.do(in)

	c := p.find(schemas.KindEmail, "ann@example.com")
	require.NotNil(t, c)
	require.JSONEq(t, `{"plan":"free"}`, c.Properties)
	require.Empty(t, c.ExternalID)
	require.Equal(t, []string{schemas.FactContactCreated}, p.factTypes())
	require.Equal(t, &schemas.Answer{ContactID: c.ID, Created: true}, p.answer(in))
	require.Equal(t, int64(1), p.snapshots[c.ID].Version)
}

func TestAPutByUserIDKeepsWhatIsKnown(t *testing.T) {
	p := newPump(t, contacts.Config{})
	second := put(user("U1"), props(`{"tier":2}`), waits)
	p.do(put(user("U1"), email("ann@example.com"), props(`{"plan":"free"}`)), second)

	c := p.find(schemas.KindExternal, "U1")
	require.JSONEq(t, `{"plan":"free","tier":2}`, c.Properties)
	require.Equal(t, &schemas.Answer{ContactID: c.ID, Linked: true}, p.answer(second))
	require.Equal(t, []string{schemas.FactContactCreated, schemas.FactContactUpdated}, p.factTypes())
	require.Equal(t, []string{"tier"}, p.facts[1].Contact.Changed)
}

func TestAUserIDIsLinkedToTheContactOfTheEmail(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(email("ann@example.com")), put(email("ann@example.com"), user("U1")))

	c := p.find(schemas.KindExternal, "U1")
	require.Equal(t, p.find(schemas.KindEmail, "ann@example.com").ID, c.ID)
	require.Equal(t, "U1", c.ExternalID)
	require.Equal(t, []string{"userId"}, p.facts[1].Contact.Changed)
}

func TestUserIDsAreCaseSensitive(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("abc")), put(user(" ABC ")))
	require.NotEqual(t, p.find(schemas.KindExternal, "abc").ID, p.find(schemas.KindExternal, "ABC").ID)
}

func TestAnIdenticalWriteChangesNothing(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U1"), props(`{"a": {"b":1}}`)))
	before := p.find(schemas.KindExternal, "U1")
	p.do(put(user("U1"), props(`{"a":{"b": 1},"gone":null}`)))
	after := p.find(schemas.KindExternal, "U1")

	require.Len(t, p.facts, 1)
	require.Len(t, p.history, 1)
	require.True(t, after.LastSeenAt.After(before.LastSeenAt))
	after.LastSeenAt = before.LastSeenAt
	require.Equal(t, before, after)
}

func TestAnEventIsStoredOnceAndCarriesItsContact(t *testing.T) {
	p := newPump(t, contacts.Config{})
	first, again := event("order.paid", user("U1"), email("a@b.co"), props(`{"n":1}`), key("k"), waits),
		event("order.paid", user("U1"), props(`{"n":2}`), key("k"), waits, lists(map[string]bool{"news": false}))
	p.do(first, again)

	c := p.find(schemas.KindExternal, "U1")
	require.Len(t, p.events, 1)
	require.Equal(t, text("a@b.co"), p.events[0].Email)
	require.Equal(t, 1, p.count("events", "contact_id = $1::text::uuid", c.ID))
	require.Equal(t, &schemas.Answer{ContactID: c.ID, Stored: true}, p.answer(first))
	require.Equal(t, &schemas.Answer{ContactID: c.ID, First: first.ID}, p.answer(again))
	require.True(t, p.events[0].Wait)
	require.JSONEq(t, `{"n":1}`, c.Properties, "a duplicate patches nothing")
	require.Equal(t, []string{schemas.FactContactCreated, schemas.FactContactUnsubscribed}, p.factTypes(), "its lists are applied")
}

func TestTheSameInputAgainIsNoDuplicateOfItself(t *testing.T) {
	p := newPump(t, contacts.Config{})
	in := event("order.paid", user("U1"), key("k"), waits)
	p.do(in)
	again := *in
	p.do(&again)
	require.Len(t, p.events, 2)
	require.Equal(t, p.events[0].ID, p.events[1].ID)
}

func TestAnIdempotencyKeyIsFreeAgainAfterItsWindow(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", user("U1"), key("k")))
	p.clock = p.clock.AddDate(0, 0, 1)
	p.do(event("x", user("U1"), key("k")), event("x", user("U1"), key("k")))
	require.Len(t, p.events, 2)
}

func TestManyInputsOfOneSubjectInOneBatch(t *testing.T) {
	p := newPump(t, contacts.Config{})
	for range 50 {
		p.send(event("x", user("U1"), anon("A1")))
	}
	p.drain()
	require.Equal(t, 1, p.count("identities", "true"))
	require.Len(t, p.events, 50)
	require.Equal(t, []string{schemas.FactContactCreated}, p.factTypes())
}

func TestTwoUserIDsNeverMerge(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U1"), email("e1@b.co")), put(user("U2"), email("e2@b.co")))
	one, two := p.find(schemas.KindExternal, "U1"), p.find(schemas.KindExternal, "U2")
	in := put(user("U1"), email("e2@b.co"), props(`{"x":1}`), waits)
	p.do(in)

	a := p.answer(in)
	require.Equal(t, one.ID, a.ContactID)
	require.Len(t, a.Conflicts, 1)
	require.Equal(t, schemas.KindEmail, a.Conflicts[0].Kind)
	require.Equal(t, text(two.ID), a.Conflicts[0].OtherContactID)
	require.Contains(t, p.factTypes(), schemas.FactContactConflict)
	require.Equal(t, "e1@b.co", p.find(schemas.KindExternal, "U1").Email)
	require.Equal(t, two.ID, p.find(schemas.KindEmail, "e2@b.co").ID)
}

func TestAnUnknownUserIDWithTheEmailOfAnotherUserGetsItsOwnContact(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U1"), email("e@b.co")), event("x", user("U2"), email("e@b.co")))
	require.NotEqual(t, p.find(schemas.KindExternal, "U1").ID, p.find(schemas.KindExternal, "U2").ID)
	require.Empty(t, p.find(schemas.KindExternal, "U2").Email)
	require.Contains(t, p.factTypes(), schemas.FactContactConflict)
}

func TestANewEmailInAPutBecomesThePrimaryOne(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U1"), email("old@b.co")), put(user("U1"), email("new@b.co")))
	c := p.find(schemas.KindEmail, "new@b.co")
	require.Equal(t, "new@b.co", c.Email)
	require.Equal(t, c.ID, p.find(schemas.KindEmail, "old@b.co").ID, "the old one stays an alias")

	p.do(event("x", user("U1"), email("third@b.co")), put(email("old@b.co")))
	require.Equal(t, "new@b.co", p.find(schemas.KindEmail, "third@b.co").Email, "an event only attaches it")
}

func TestADeviceSharedByTwoUsersStaysWithTheFirst(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", anon("A")), event("x", user("U1"), anon("A")), event("x", user("U2"), anon("A")))
	one, two := p.find(schemas.KindExternal, "U1"), p.find(schemas.KindExternal, "U2")
	require.NotEqual(t, one.ID, two.ID)
	require.Equal(t, one.ID, p.find(schemas.KindAnonymous, "A").ID)
	require.Equal(t, two.ID, p.events[2].ContactID)
}

func TestADeviceSharedByTwoEmailsDoesNotMergeThem(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(email("e1@b.co"), anon("A")), put(email("e2@b.co"), anon("A")))
	require.NotEqual(t, p.find(schemas.KindEmail, "e1@b.co").ID, p.find(schemas.KindEmail, "e2@b.co").ID)
}

func TestWhatIsNoInputBecomesADeadLetter(t *testing.T) {
	p := newPump(t, contacts.Config{})
	in := p.send(event("x", user("U1")))
	l := &p.ingest[partitionOf(in.Key())]
	garbage := *l.records[0]
	garbage.Value, garbage.Offset = []byte("garbage"), 1
	l.records = append(l.records, &garbage)
	p.send(event("y", user("U1")))
	p.drain()
	require.Len(t, p.events, 2)
	require.Len(t, p.dead, 1)
	require.Equal(t, "undecodable", p.dead[0].Reason)
}

func TestWhatCanBeNoInputBecomesADeadLetterInWordsAndTheOthersAreApplied(t *testing.T) {
	p := newPump(t, contacts.Config{})
	spoilt := []*schemas.Input{
		event("x", user("typed")), event("x", email("nobody")), event("x", user("broken")), event("x", email(strings.Repeat("u", 330)+"@b.co")), event("x", user("a\x00b")),
	}
	spoilt[0].Type = "surprise"
	spoilt[2].EventProperties = text("{")
	for _, in := range spoilt {
		p.send(in)
	}
	p.send(event("x", user("fine"), props(`{"a":1}`)))
	p.drain()
	require.Len(t, p.dead, len(spoilt))
	for i, l := range p.dead {
		require.Equal(t, "failed", l.Reason, i)
		require.NotContains(t, l.Error, "SQLSTATE")
		require.NotEmpty(t, l.RecordValue)
	}
	require.Equal(t, 1, p.count("contacts", "true"))
}

func TestAnIDSentByMistakeNamesNobodyAndItsEventGoesToTheOthersNames(t *testing.T) {
	p := newPump(t, contacts.Config{})
	in := event("x", user("undefined"), email("a@b.co"), anon("null"), key("k"), waits)
	p.do(in, event("x", user("[object Object]"), email("a@b.co")), put(user("U1"), email("a@b.co"), anon(`"guest"`), waits))

	c := p.find(schemas.KindEmail, "a@b.co")
	require.Equal(t, "U1", c.ExternalID)
	require.Empty(t, c.AnonymousID)
	require.Len(t, p.events, 2)
	require.Equal(t, 1, p.count("identities", "true"))
	require.Equal(t, 2, p.count("identifiers", "true"), "the email and the user id")
	a := p.answer(in)
	require.Equal(t, c.ID, a.ContactID)
	require.Len(t, a.Conflicts, 2)
	require.Equal(t, schemas.Conflict{Kind: schemas.KindExternal, Value: "undefined", Reason: schemas.MistakenID("undefined")}, a.Conflicts[0])
	conflicts := 0
	for _, f := range p.facts {
		if f.Type == schemas.FactContactConflict {
			conflicts++
		}
	}
	require.Equal(t, 3, conflicts, "one for each input that had such an id")
	require.Empty(t, p.dead)
}

func TestEventsWithNothingButMistakenIDsAreKeptAndNeverBecomeOnePerson(t *testing.T) {
	p := newPump(t, contacts.Config{})
	first := p.send(event("x", user("undefined")))
	for _, id := range []string{"undefined", "Anonymous", "0", strings.Repeat("x", 500)} {
		p.send(event("x", user(id)))
		p.send(event("x", anon(id)))
	}
	p.drain()
	again := *first
	p.do(&again)
	require.Len(t, p.events, 10)
	require.Equal(t, 9, p.count("identities", "true"), "a contact for each input, and the same one for the same input")
	require.Zero(t, p.count("identifiers", "true"))
	require.Equal(t, 2, p.count("events", "contact_id = $1::text::uuid", schemas.Derive(first.ID, "contact", 0)))
	require.Empty(t, p.dead)

	p.do(put(user("undefined"), props(`{"a":1}`)), remove(anon("null")))
	require.Len(t, p.dead, 2, "a change or a deletion of nobody is none")
	require.Equal(t, 9, p.count("contacts", "true"))
}

package processors_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
)

func TestAnUnidentifiedContactMergesIntoTheIdentifiedOne(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets", "journeys"}})
	p.do(
		event("seen", email("b@b.co"), props(`{"plan":"free","only":"keep-me"}`), lists(map[string]bool{"news": false})),
		put(user("U1"), email("a@b.co"), props(`{"plan":"pro"}`)),
	)
	loser, survivor := p.find(schemas.KindEmail, "b@b.co"), p.find(schemas.KindExternal, "U1")
	in := put(user("U1"), email("b@b.co"), props(`{"x":1}`), waits)
	p.do(in)

	c := p.find(schemas.KindExternal, "U1")
	require.Equal(t, survivor.ID, c.ID, "the user id wins, though the other was seen first")
	require.JSONEq(t, `{"plan":"pro","only":"keep-me","x":1}`, c.Properties)
	require.Equal(t, []string{loser.ID}, c.Merged)
	require.Equal(t, loser.FirstSeenAt, c.FirstSeenAt)
	require.Equal(t, "b@b.co", c.Email, "asked for by a put with the user id")
	require.Equal(t, c.ID, p.find(schemas.KindEmail, "b@b.co").ID)
	require.Equal(t, &schemas.Answer{ContactID: c.ID, Linked: true, Merged: []string{loser.ID}}, p.answer(in))
	require.Zero(t, p.count("pending_answers", "true"))

	last := p.facts[len(p.facts)-1]
	require.Equal(t, schemas.FactContactMerged, last.Type)
	require.Equal(t, loser.ID, last.Merged.LoserID)
	require.Equal(t, in.ID, last.CauseID)

	require.Nil(t, p.snapshots[loser.ID])
	require.Equal(t, c.Version, p.snapshots[c.ID].Version)
	require.Equal(t, []schemas.Preference{{Email: "b@b.co", Categories: map[string]bool{"news": false}}}, p.snapshots[c.ID].Preferences)
	require.Zero(t, p.count("email_preferences", "contact_id = $1::text::uuid", loser.ID))

	require.Len(t, p.signals, 2)
	for _, s := range p.signals {
		require.Equal(t, loser.ID, s.ContactID)
		require.Equal(t, c.ID, s.Merged.Survivor)
	}
}

func TestALateRecordOfAMergedContactReachesTheSurvivor(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(email("b@b.co")), put(user("U1")))
	loser, survivor := p.find(schemas.KindEmail, "b@b.co"), p.find(schemas.KindExternal, "U1")
	p.do(event("merge", user("U1"), email("b@b.co")))
	for _, in := range []*schemas.Input{event("late", email("b@b.co"), props(`{"late":true}`)), put(email("b@b.co"), props(`{"put":1}`), waits)} {
		in.ID, in.ReceivedAt, in.OccurredAt = schemas.Derive(in.Type, "test", 0), p.clock, p.clock
		p.resolve(&schemas.Resolved{
			ID: schemas.Derive(in.ID, "resolved", 0), Type: schemas.ResolvedInput, ContactID: loser.ID, OccurredAt: p.clock, Input: in,
			Email: in.Email,
		})
		p.drain()
		if in.Wait {
			require.Equal(t, survivor.ID, p.answer(in).ContactID)
		}
	}
	c := p.find(schemas.KindExternal, "U1")
	require.JSONEq(t, `{"late":true,"put":1}`, c.Properties)
	require.Equal(t, survivor.ID, p.events[len(p.events)-1].ContactID)
	require.Nil(t, p.snapshots[loser.ID])
}

// resolve appends a record to topic resolved that identity never made.
func (p *pump) resolve(m *schemas.Resolved) {
	value, err := p.codec.Encode(m)
	require.NoError(p.t, err)
	p.publishResolved(m, value)
}

func TestChainedMergesKeepAllAliases(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", anon("A")), event("x", email("e@b.co")), event("x", email("e@b.co"), anon("A")), put(user("U")), put(user("U"), email("e@b.co")))
	c := p.find(schemas.KindExternal, "U")
	require.Equal(t, c.ID, p.find(schemas.KindAnonymous, "A").ID)
	require.Equal(t, c.ID, p.find(schemas.KindEmail, "e@b.co").ID)
	require.Len(t, c.Merged, 2)
	created := strings.Count(strings.Join(p.factTypes(), " "), schemas.FactContactCreated)
	p.do(event("x", anon("A")))
	require.Equal(t, c.ID, p.events[len(p.events)-1].ContactID)
	require.Equal(t, created, strings.Count(strings.Join(p.factTypes(), " "), schemas.FactContactCreated))
}

func TestThreeContactsMergeByOneInput(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", anon("A"), props(`{"a":1}`)), event("x", email("e@b.co"), props(`{"e":1}`)), event("x", user("U"), props(`{"u":1}`)))
	in := put(user("U"), email("e@b.co"), anon("A"), waits)
	p.do(in)
	c := p.find(schemas.KindAnonymous, "A")
	require.Equal(t, "U", c.ExternalID)
	require.JSONEq(t, `{"a":1,"e":1,"u":1}`, c.Properties)
	require.Len(t, p.answer(in).Merged, 2)
}

func TestAPropertyRemovedByTheInputOfAMergeDoesNotComeBackWithTheLoser(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(
		put(email("e@b.co"), props(`{"plan":"free","kept":1}`)), put(user("U"), props(`{"plan":"pro"}`)),
		event("x", user("U"), email("e@b.co"), props(`{"plan":null}`)),
	)
	require.JSONEq(t, `{"kept":1}`, p.find(schemas.KindExternal, "U").Properties)
	require.Zero(t, p.count("pending_answers", "true"))
}

func TestAPutThatMergesIsAnsweredOnlyAfterTheLastLoserArrived(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", email("e@b.co")), event("x", anon("A")), event("x", user("U")))
	in := put(user("U"), email("e@b.co"), anon("A"), waits)
	p.send(in)
	for i := range p.ingest {
		p.step(p.identity, &p.ingest[i], 1000)
	}
	answered := 0
	for p.busy() {
		for i := range p.resolved {
			p.step(p.contacts, &p.resolved[i], 1)
			c := p.find(schemas.KindExternal, "U")
			if p.answer(in) != nil {
				answered++
				require.Len(t, c.Merged, 2)
			}
		}
	}
	require.NotZero(t, answered)
}

func TestADeletedContactIsGoneEverywhere(t *testing.T) {
	p := newPump(t, contacts.Config{Followers: []string{"buckets"}})
	p.do(
		event("x", email("b@b.co"), lists(map[string]bool{"news": true})), event("x", user("U"), email("a@b.co")),
		event("x", user("U"), email("b@b.co")),
	)
	c := p.find(schemas.KindExternal, "U")
	require.Equal(t, 3, p.count("events", "true"))
	in := remove(email("b@b.co"), waits)
	p.do(in)

	require.Equal(t, &schemas.Answer{ContactID: c.ID, Deleted: true}, p.answer(in))
	last := p.facts[len(p.facts)-1]
	require.Equal(t, schemas.FactContactDeleted, last.Type)
	require.Equal(t, text("U"), last.UserID)
	require.Nil(t, p.snapshots[c.ID])
	require.Nil(t, p.find(schemas.KindExternal, "U"))
	for _, table := range []string{"contacts", "events", "identifiers", "email_preferences"} {
		require.Zero(t, p.count(table, "true"), table)
	}
	require.Equal(t, 3, p.count("erased_identifiers", "true"))
	require.Zero(t, p.count("identities", "external_id IS NOT NULL OR email IS NOT NULL OR deleted_at IS NULL"))
	require.Equal(t, "deleted", p.signals[len(p.signals)-1].Type)
}

func TestAPersonWhoComesBackAfterTheirDeletionIsANewContact(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U"), props(`{"old":1}`)))
	old := p.find(schemas.KindExternal, "U").ID
	p.send(remove(user("U")))
	p.send(put(user("U"), props(`{"new":1}`)))
	p.drain()
	c := p.find(schemas.KindExternal, "U")
	require.NotEqual(t, old, c.ID)
	require.JSONEq(t, `{"new":1}`, c.Properties)
}

func TestAnInputAppendedBeforeTheDeletionDoesNotBringThePersonBack(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U"), email("g@b.co"), anon("A")))
	// These stand in other partitions than the deletion and are read after it.
	early := []*schemas.Input{p.send(event("x", email("g@b.co"))), p.send(event("x", anon("A"))), p.send(put(email("g@b.co"), waits))}
	del := p.send(remove(user("U")))
	p.step(p.identity, &p.ingest[partitionOf(del.Key())], 10)
	require.NotEqual(t, partitionOf(del.Key()), partitionOf(early[0].Key()))
	p.drain()
	require.Nil(t, p.find(schemas.KindEmail, "g@b.co"))
	require.Zero(t, p.count("identifiers", "true"))
	require.Equal(t, schemas.AnswerErased, p.answer(early[2]).Error)
	p.do(event("x", email("g@b.co")))
	require.NotNil(t, p.find(schemas.KindEmail, "g@b.co"), "what comes after it is a new contact")
}

// The example of docs/guarantees.md, with both orders in which the partitions of topic
// ingest may be worked on.
func TestWhatADeletionWinsOver(t *testing.T) {
	for name, deletionFirst := range map[string]bool{"the deletion is worked on first": true, "what names the email is worked on first": false} {
		t.Run(name, func(t *testing.T) {
			p := newPump(t, contacts.Config{})
			p.do(put(user("ada"), email("ada@b.co")), put(user("bob")))
			ada := p.find(schemas.KindExternal, "ada").ID

			p.send(event("1", email("ada@b.co")))
			p.send(event("2", user("bob"), email("ada@b.co")))
			p.send(event("3", email("ada@b.co"), anon("phone")))
			deletion := p.send(remove(user("ada")))
			p.send(event("4", email("ada@b.co")))
			byName, byEmail := partitionOf("u:ada"), partitionOf("e:ada@b.co")
			require.NotEqual(t, byName, byEmail)
			require.NotEqual(t, byEmail, partitionOf("u:bob"))
			require.Equal(t, byName, partitionOf(deletion.Key()))
			if deletionFirst {
				p.step(p.identity, &p.ingest[byName], 10)
			} else {
				p.step(p.identity, &p.ingest[byEmail], 10)
			}
			p.drain()
			p.do(event("5", email("ada@b.co")))

			names := map[string]string{} // of whom each event is
			for _, e := range p.events {
				names[e.Name] = e.ContactID
			}
			stored := func(name string) int { return p.count("events", "name = $1", name) }
			require.Nil(t, p.find(schemas.KindExternal, "ada"))
			require.Zero(t, stored("1")+stored("3"), "sent before the deletion")
			require.Nil(t, p.find(schemas.KindAnonymous, "phone"))
			bob := p.find(schemas.KindExternal, "bob")
			require.Equal(t, 1, stored("2"), "it is about somebody else")
			require.Equal(t, bob.ID, names["2"])
			require.Empty(t, bob.Email)
			again := p.find(schemas.KindEmail, "ada@b.co")
			require.NotEqual(t, ada, again.ID, "sent after the deletion was answered: a new contact")
			require.Equal(t, again.ID, names["5"])
			if deletionFirst {
				require.Equal(t, 1, stored("4"))
				require.Equal(t, again.ID, names["4"])
			} else {
				require.Zero(t, stored("4"), "it reached her contact before the deletion, and is erased with it")
			}
			require.Empty(t, p.dead)
		})
	}
}

// redrive appends an input as a redrive of its dead letter does.
func (p *pump) redrive(in *schemas.Input, first time.Time) {
	p.clock = p.clock.Add(time.Millisecond)
	value, err := p.codec.Encode(in)
	require.NoError(p.t, err)
	p.append(&p.ingest, &stream.Record{Topic: schemas.TopicIngest, Key: []byte(in.Key()), Value: value, ID: in.ID, Type: in.Type, FirstAppended: first})
	p.drain()
}

func TestARedrivenInputDoesNotBringAnErasedPersonBack(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("u"), email("a@b.co")))
	given := event("late", user("u"), email("a@b.co"))
	given.ID, given.ReceivedAt, given.Source = uuid.NewString(), p.clock, "test"
	first := p.clock
	p.do(remove(user("u")))
	p.redrive(given, first)
	require.Nil(t, p.find(schemas.KindExternal, "u"))
	require.Nil(t, p.find(schemas.KindEmail, "a@b.co"))
	require.Empty(t, p.events)

	p.do(event("back", user("u")))
	p.redrive(given, first)
	require.Len(t, p.events, 1, "nor does it reach who came back under the same name")
}

func TestAnInputThatIsRedrivenTwiceIsHandledOnce(t *testing.T) {
	p := newPump(t, contacts.Config{})
	given := event("late", user("u"))
	given.ID, given.ReceivedAt, given.Source = uuid.NewString(), p.clock, "test"
	first := p.clock
	p.redrive(given, first)
	p.redrive(given, first)
	require.Len(t, p.events, 1)
	require.Len(t, p.factTypes(), 1)
}

func TestDeletingTwoPeopleAtOnceIsRefused(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U")), put(email("e@b.co")))
	in := remove(user("U"), email("e@b.co"), waits)
	p.do(in)
	require.Equal(t, schemas.AnswerConflict, p.answer(in).Error)
	require.NotNil(t, p.find(schemas.KindExternal, "U"))
	require.NotNil(t, p.find(schemas.KindEmail, "e@b.co"))
}

func TestDeletingAStrangerIsAnsweredNotFound(t *testing.T) {
	p := newPump(t, contacts.Config{})
	in := remove(user("U"), waits)
	p.do(in)
	require.Equal(t, &schemas.Answer{Error: schemas.AnswerNotFound}, p.answer(in))
}

func TestADeletionThatArrivesFirstKeepsItsContactAway(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(user("U"), waits))
	// The deletion overtakes: another member resolved an input of the same
	// contact before, and its record is appended later.
	id := schemas.Derive("x", "contact", 0)
	del := remove(user("V"))
	del.ID, del.ReceivedAt, del.OccurredAt = schemas.Derive("d", "test", 0), p.clock, p.clock
	p.resolve(&schemas.Resolved{ID: "d", Type: schemas.ResolvedInput, ContactID: id, OccurredAt: p.clock, Input: del})
	late := put(user("V"), waits)
	late.ID, late.ReceivedAt, late.OccurredAt = schemas.Derive("l", "test", 0), p.clock, p.clock
	p.resolve(&schemas.Resolved{ID: "l", Type: schemas.ResolvedInput, ContactID: id, OccurredAt: p.clock, Input: late, Created: true})
	p.drain()
	require.Equal(t, []string{schemas.FactContactCreated}, p.factTypes(), "of U alone")
	require.Equal(t, schemas.AnswerErased, p.answer(late).Error)
}

func TestAPatchBeyondTheLimitIsRefusedAndThePartitionGoesOn(t *testing.T) {
	p := newPump(t, contacts.Config{})
	big := `{"big":"` + strings.Repeat("x", 300<<10) + `"}`
	more := `{"more":"` + strings.Repeat("x", 300<<10) + `"}`
	in := put(user("U"), props(more), waits)
	p.do(put(user("U"), props(big)), in, put(user("U"), props(`{"n":1}`)))
	c := p.find(schemas.KindExternal, "U")
	require.Equal(t, `{"big":"`+strings.Repeat("x", 300<<10)+`","n":1}`, c.Properties)
	require.Equal(t, []string{schemas.FactContactCreated, schemas.FactContactConflict, schemas.FactContactUpdated}, p.factTypes())
	require.Equal(t, "size", p.answer(in).Conflicts[0].Kind)
	require.Contains(t, p.answer(in).Conflicts[0].Reason, "null")
	require.Empty(t, p.dead)
}

func TestAMergeBeyondTheLimitKeepsTheSurvivorsProperties(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(
		put(user("U"), props(`{"big":"`+strings.Repeat("x", 300<<10)+`"}`)),
		put(email("e@b.co"), props(`{"more":"`+strings.Repeat("x", 300<<10)+`"}`)),
		put(user("U"), email("e@b.co")),
	)
	c := p.find(schemas.KindEmail, "e@b.co")
	require.Equal(t, "U", c.ExternalID)
	require.NotContains(t, c.Properties, "more")
	require.Equal(t, []string{schemas.FactContactMerged, schemas.FactContactConflict}, p.factTypes()[len(p.facts)-2:])
}

func TestUnsubscribingIsAFactOnlyWhenItIsATransition(t *testing.T) {
	p := newPump(t, contacts.Config{})
	leave := lists(map[string]bool{"news": false, "beta": false})
	p.do(put(email("e@b.co"), leave), put(email("e@b.co"), leave), put(email("e@b.co"), lists(map[string]bool{"beta": true})), put(email("e@b.co"), leave))
	var left []string
	for _, f := range p.facts {
		if f.Type == schemas.FactContactUnsubscribed {
			require.Equal(t, "e@b.co", f.Unsubscribed.Address)
			left = append(left, *f.Unsubscribed.Category)
		}
	}
	require.Equal(t, []string{"beta", "news", "beta"}, left)
	c := p.find(schemas.KindEmail, "e@b.co")
	require.Equal(t, int64(3), c.Version)
	require.Equal(t, map[string]bool{"news": false, "beta": false}, p.snapshots[c.ID].Preferences[0].Categories)
}

func TestListsNeedAnEmail(t *testing.T) {
	p := newPump(t, contacts.Config{})
	put, ev := put(user("U"), lists(map[string]bool{"news": true}), waits), event("x", user("U"), key("k"), waits, lists(map[string]bool{"news": true}))
	p.do(put, ev)
	require.Equal(t, schemas.NoEmailForLists, p.answer(put).ListsError)
	require.Equal(t, schemas.NoEmailForLists, p.answer(ev).ListsError)
}

func TestEventsAreKeptAsConfigured(t *testing.T) {
	for mode, want := range map[string]int{contacts.EventsAll: 2, contacts.EventsReferenced: 1, contacts.EventsNone: 0} {
		t.Run(mode, func(t *testing.T) {
			p := newPump(t, contacts.Config{Events: mode, Referenced: func(context.Context, *storage.Tx) (func(string) bool, error) {
				return func(name string) bool { return name == "wanted" }, nil
			}})
			p.do(event("wanted", user("U")), event("other", user("U")))
			require.Equal(t, want, p.count("events", "true"))
			require.Len(t, p.events, 2)
		})
	}
}

func TestAnEventThatABucketLooksAtIsKeptFromTheMomentTheBucketIsInUse(t *testing.T) {
	db := storagetest.New(t)
	// Nobody tells this one what is applied: it asks in the transaction.
	definitions := definition.NewWatcher(db)
	p := newPumpOn(t.Context(), t, db, contacts.Config{Events: contacts.EventsReferenced, Referenced: definitions.Referenced})
	opts := definition.Options{Limits: predicate.DefaultLimits()}
	use := func(buckets ...definition.Bucket) {
		files, err := definition.Built(buckets, opts)
		require.NoError(t, err)
		_, err = definition.Apply(t.Context(), db, files, opts, "test")
		require.NoError(t, err)
	}
	bought := definition.Bucket{ID: "b", Name: "B", Criteria: predicate.All(
		predicate.Event("bought").Exists(), predicate.Event("left").Then(predicate.Event("came")).Ever())}
	send := func() { p.do(event("bought", user("U")), event("came", user("U")), event("other", user("U"))) }

	send()
	require.Zero(t, p.count("events", "true"))
	use(bought)
	send()
	require.Equal(t, 2, p.count("events", "true"), "also for a bucket that is not enabled: once it is, it is filled from what is stored")
	require.Zero(t, p.count("events", "name = 'other'"))
	use()
	send()
	require.Equal(t, 2, p.count("events", "true"))
}

func TestAnInputFromInsideFollowsMergesAndStopsAtADeletion(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(put(email("e@b.co")), put(user("U")))
	loser := p.find(schemas.KindEmail, "e@b.co").ID
	inside := func(in *schemas.Input) { in.ContactID = &loser }
	p.do(put(user("U"), email("e@b.co")), event("inside", inside))
	require.Equal(t, p.find(schemas.KindExternal, "U").ID, p.events[0].ContactID)
	p.do(remove(user("U")), event("inside", inside))
	require.Len(t, p.events, 1)
	require.Empty(t, p.dead)
}

func TestAFactThatGivesAUserIDNamesWhatTheContactWasKnownByUntilThen(t *testing.T) {
	p := newPump(t, contacts.Config{})
	p.do(event("x", anon("A")), event("x", email("e@b.co"), anon("B")), event("x", email("e@b.co"), anon("A")))
	first := p.find(schemas.KindAnonymous, "A")
	require.Len(t, first.Merged, 1)
	p.do(put(email("e@b.co"), user("U")))
	fact := p.facts[len(p.facts)-1]
	require.Equal(t, schemas.FactContactUpdated, fact.Type)
	require.Contains(t, fact.Contact.Changed, "userId")
	require.Equal(t, first.Merged, fact.Contact.Merged)
	require.ElementsMatch(t, []string{"A", "B"}, fact.Contact.AnonymousIDs)

	p.do(put(email("e@b.co"), props(`{"x":1}`)))
	require.Empty(t, p.facts[len(p.facts)-1].Contact.Merged, "said once")

	p.do(event("x", email("f@b.co")), event("x", anon("C")), event("x", email("f@b.co"), anon("C")))
	second := p.find(schemas.KindAnonymous, "C")
	require.Len(t, second.Merged, 1)
	p.do(put(user("U"), email("f@b.co")))
	fact = p.facts[len(p.facts)-1]
	require.Equal(t, schemas.FactContactMerged, fact.Type)
	require.Equal(t, second.ID, fact.Merged.LoserID)
	require.Equal(t, second.Merged, fact.Merged.LoserMerged)
	require.Empty(t, fact.Merged.Merged, "the survivor had its user id before")
	require.Empty(t, fact.Merged.AnonymousIDs)
}

package predicate_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// The acceptance cases of the buckets' spec that are about conditions alone; the others
// need memberships.

func TestAcceptanceCase1(t *testing.T) {
	const contact = `{"plan":"pro","score":42,"empty":null}`
	for want, list := range map[bool][]p.Condition{
		true: {
			p.Prop("plan").Eq("pro"), p.Prop("score").Gt(40), p.Prop("score").Gte(42), p.Prop("score").Lte(42),
			p.Prop("missing").NotExists(),
		},
		false: {p.Prop("score").Gt(42), p.Prop("empty").Exists()},
	} {
		for _, c := range list {
			assert.Equal(t, want, holdsFor(t, c, contact), c.Canonical())
		}
	}
}

func TestAcceptanceCase2(t *testing.T) {
	const contact = `{"score":42,"name":"Alice"}`
	assert.False(t, holdsFor(t, p.Prop("score").Contains("42"), contact))
	assert.True(t, holdsFor(t, p.Prop("name").Contains("lic"), contact))
	assert.True(t, holdsFor(t, p.All(), contact), "no condition is true, where a program builds it; files refuse it")
	assert.False(t, holdsFor(t, p.All(p.Prop("name").Exists(), p.Prop("score").Gt(50)), contact))
}

// Cases 15 and 16: the payload of an event takes no part in what is asked of properties.
func TestPropertiesAreThoseOfTheContactAndNotOfTheEvent(t *testing.T) {
	a := ask(t, p.Prop("plan").Eq("pro"))
	a.tell(p.Record{Contact: `{"plan":"pro"}`})
	assert.False(t, a.happens("plan.changed", aNow, `{"plan":"free"}`))
	assert.True(t, a.at(aNow).Holds)
	assert.True(t, a.tell(p.Record{Contact: `{"plan":"free"}`}))
	assert.False(t, a.at(aNow).Holds)
}

// Case 24, without the candidates of a sweep.
func TestAnyOfTwoAbsences(t *testing.T) {
	absent := func(name string) p.Condition { return p.Event(name).Within(p.Days(7)).NotExists() }
	a := ask(t, p.All(p.Any(p.Event("a").Exists(), p.Event("b").Exists()), p.Any(absent("a"), absent("b"))))
	assert.False(t, a.at(aNow).Holds)
	a.happens("b", aNow.Add(-p.Days(30)), "{}")
	assert.True(t, a.at(aNow).Holds)
	a.happens("a", aNow, "{}")
	assert.True(t, a.at(aNow).Holds)
	a.happens("b", aNow, "{}")
	v := a.at(aNow)
	assert.Equal(t, p.Verdict{Holds: false, Next: aNow.Add(p.Days(7) + micro)}, v)
	assert.True(t, a.at(v.Next).Holds)
}

// The sample buckets of the reference.
func TestTheSampleBucketsOfTheReferenceAreRead(t *testing.T) {
	power := ask(t, fromYAML(t, "{type: event, eventName: key.action, check: count, operator: gte, value: 10, within: {hours: 720}}"))
	trial := fromJSON(t, `{"type":"composite","operator":"and","conditions":[
		{"type":"property","property":"plan","operator":"eq","value":"trial"},
		{"type":"property","property":"trial_days_left","operator":"lte","value":3},
		{"type":"property","property":"converted","operator":"neq","value":true}]}`)
	dormant := ask(t, p.All(p.Event("app.active").Exists(), p.Event("app.active").Within(p.Days(7)).NotExists()))

	for i := range 10 {
		assert.False(t, power.at(aNow).Holds, i)
		power.happens("key.action", aNow.Add(time.Duration(i)*time.Minute), "{}")
	}
	assert.Equal(t, p.Verdict{Holds: true, Next: aNow.Add(p.Days(30) + micro)}, power.at(aNow))
	assert.True(t, holdsFor(t, trial, `{"plan":"trial","trial_days_left":2}`))
	assert.False(t, holdsFor(t, trial, `{"plan":"trial","trial_days_left":2,"converted":true}`))
	assert.Equal(t, p.Verdict{}, dormant.at(aNow), "who was never active is not dormant")
	dormant.happens("app.active", aNow, "{}")
	assert.Equal(t, p.Verdict{Holds: false, Next: aNow.Add(p.Days(7) + micro)}, dormant.at(aNow))
	assert.Equal(t, p.Verdict{Holds: true}, dormant.at(aNow.Add(p.Days(7)+micro)))
}

// W1: names that a language gives to every object are properties like others.
func TestNoPropertyIsThereByNature(t *testing.T) {
	for _, name := range []string{"toString", "constructor", "__proto__", "hasOwnProperty"} {
		assert.False(t, holdsFor(t, p.Prop(name).Exists(), `{}`))
		assert.True(t, holdsFor(t, p.Prop(name).Eq(1), `{"`+name+`":1}`))
	}
}

func TestDotsAreAPartOfANameAndAListLeadsIntoANestedProperty(t *testing.T) {
	assert.True(t, holdsFor(t, p.Prop("address.city").Eq("Rome"), `{"address.city":"Rome","address":{"city":"Paris"}}`))
	assert.True(t, holdsFor(t, p.Prop("address", "city").Eq("Paris"), `{"address.city":"Rome","address":{"city":"Paris"}}`))
	assert.False(t, holdsFor(t, p.Prop("address", "city").Exists(), `{"address":["city"]}`))
	assert.False(t, holdsFor(t, p.Prop("address", "city").Exists(), `{"address":{"city":"Paris"},"address":{}}`), "the last of a repeated name counts")
	both := p.All(p.Prop("address", "city").Eq("Rome"), p.Prop("billing", "city").Eq("Paris"))
	assert.True(t, holdsFor(t, both, `{"billing":{"city":"Paris"},"address":{"city":"Rome"}}`))
	assert.True(t, holdsFor(t, both, `{"address":{"city":"Rome"},"billing":{"city":"Paris"}}`))
	assert.True(t, holdsFor(t, p.All(p.Prop("address").Exists(), p.Prop("address", "geo", "lat").Gt(1), p.Prop("address", "geo", "lon").Lt(1)),
		`{"address":{"geo":{"lat":1.5,"lon":-2}}}`))
}

func TestTextOfAnySpellingInTheDocumentIsTheSame(t *testing.T) {
	assert.True(t, holdsFor(t, p.Prop("n").Eq("ü"), `{ "\u006e" : "\u00fc" }`))
	assert.True(t, holdsFor(t, p.Prop("n").Eq(100), `{"n":1e2}`))
	assert.True(t, holdsFor(t, p.Prop("n").ListContains("a b"), `{"n": [ 1 , [ "x" ] , "a b" ]}`))
	assert.True(t, holdsFor(t, p.Prop("n").IgnoreCase().Eq("STRASSE É"), `{"n":"Strasse é"}`))
}

func TestALongValueIsOnlyKnownToExist(t *testing.T) {
	long := make([]byte, 5000)
	for i := range long {
		long[i] = 'x'
	}
	contact := `{"n":"` + string(long) + `"}`
	assert.True(t, holdsFor(t, p.Prop("n").Exists(), contact))
	assert.False(t, holdsFor(t, p.Prop("n").Prefix("x"), contact))
	assert.False(t, holdsFor(t, p.Prop("n").Eq(string(long)), contact))
}

// 20.3 and the promise of this room: nothing is evaluated when nothing it looks at has changed.
func TestARecordNamesTheConditionsThatLookAtWhatChangedAndNoOthers(t *testing.T) {
	set, err := p.Compile([]p.Named{
		{ID: "a", Bucket: true, Condition: p.Event("a").AtLeast(2)},
		{ID: "a-large", Condition: p.Event("a").Where(p.Prop("amount").Gt(100)).Exists()},
		{ID: "plan", Condition: p.All(p.Prop("plan").Eq("pro"), p.Event("b").Exists())},
		{ID: "city", Condition: p.Prop("address", "city").Eq("Rome")},
		{ID: "known", Condition: p.Identified()},
		{ID: "recent", Condition: p.LastSeen().After(p.Now(-p.Days(1)))},
		{ID: "today", Condition: p.Prop("day").OnDate(p.Today(0))},
		{ID: "since", Condition: p.FirstSeen().Before(p.Now(-p.Days(1)))},
		{ID: "both", Condition: p.All(p.InBucket("a"), p.Prop("plan").Exists())},
	}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	var s p.State
	names := func(r p.Record) []string {
		out := []string{}
		for _, i := range set.Apply(&s, &r, nil) {
			out = append(out, set.ID(i))
		}
		return out
	}
	first := p.Record{ID: uuid.New(), Name: "a", At: aNow, Properties: `{"amount":5}`}
	assert.Equal(t, []string{"a"}, names(first))
	assert.Empty(t, names(first), "a repeat")
	assert.Equal(t, []string{"a", "a-large"}, names(p.Record{ID: uuid.New(), Name: "a", At: aNow, Properties: `{"amount":500}`}))
	assert.Empty(t, names(p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(-time.Hour), Properties: "{}"}), "older than the two newest")
	assert.Empty(t, names(p.Record{ID: uuid.New(), Name: "c", At: aNow, Properties: `{"plan":"pro"}`}))
	assert.Equal(t, []string{"plan", "both"}, names(p.Record{Contact: `{"plan":"pro","other":1}`}))
	assert.Empty(t, names(p.Record{Contact: ` { "other":2, "plan":"pro" }`}))
	assert.Equal(t, []string{"city"}, names(p.Record{Contact: `{"plan":"pro","address":{"city":"Rome"}}`}))
	assert.Empty(t, names(p.Record{Contact: `{"plan":"pro","address":{"city" : "Rome","street":"x"}}`}))
	assert.Equal(t, []string{"today"}, names(p.Record{Contact: `{"plan":"pro","address":{"city":"Rome"},"timezone":"Europe/Rome"}`}))
	assert.Equal(t, []string{"known"}, names(p.Record{HasEmail: true}))
	assert.Empty(t, names(p.Record{HasEmail: true}))
	assert.Equal(t, []string{"since"}, names(p.Record{FirstSeen: aNow}))
	assert.Empty(t, names(p.Record{FirstSeen: aNow}))
	assert.Empty(t, names(p.Record{FirstSeen: aNow.Add(time.Hour)}))
	assert.Equal(t, []string{"recent"}, names(p.Record{LastSeen: aNow}))
	assert.Equal(t, []string{"plan", "city", "today", "both"}, names(p.Record{Contact: `{}`}))
	assert.Equal(t, []int{set.Index("both")}, set.OnBucket("a", nil), "B10")
}

func TestAPropertyThatIsGoneTouchesThoseThatLookAtItAlone(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	var list []p.Named
	for _, name := range names {
		list = append(list, p.Named{ID: name, Condition: p.Prop("o", name).Exists()})
	}
	set, err := p.Compile(list, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	contact := func(without int) *p.Record {
		doc := object{}
		for i, name := range names {
			if i != without {
				doc[name] = i
			}
		}
		return &p.Record{Contact: marshal(object{"o": doc})}
	}
	var s p.State
	for i := range names {
		set.Apply(&s, contact(-1), nil)
		assert.Equal(t, []int{i}, set.Apply(&s, contact(i), nil))
		assert.Empty(t, set.Apply(&s, contact(i), nil))
	}
	set.Apply(&s, &p.Record{Contact: `{"o":{"a":1},"o":{}}`}, nil)
	assert.Empty(t, set.Apply(&s, &p.Record{Contact: `{}`}, nil), "the last of a repeated name counts")
}

func TestASetSaysWhatEachConditionLooksAt(t *testing.T) {
	set, err := p.Compile([]p.Named{{ID: "x", Condition: p.All(
		p.Prop("plan").Eq("pro"), p.Prop("plan").Neq("team"), p.Prop("address", "city").Exists(), p.Prop("day").OnDate(p.Today(0)),
		p.Event("a").Where(p.Prop("amount").Gt(1)).Exists(), p.Event("a").Then(p.Event("b")).Ever(), p.Mail("t", "opened"),
		p.FirstSeen().Before(p.Now(0)), p.InBucket("b"), p.Identified(),
	)}}, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"b"}})
	require.NoError(t, err)
	template := `{"operator":"eq","property":"templateKey","type":"property","value":"t"}`
	assert.Equal(t, p.Inputs{
		Properties: []p.Path{{"plan"}, {"address", "city"}, {"day"}, {"$timezone"}, {"$geoip_time_zone"}, {"timezone"}},
		Events: []p.EventInput{
			{Name: "a", Where: `{"operator":"gt","property":"amount","type":"property","value":1}`}, {Name: "b"}, {Name: "a"},
			{Name: "email.opened", Where: template}, {Name: "email.sent", Where: template},
		},
		Buckets: []string{"b"}, Identity: true, FirstSeen: true,
	}, set.Inputs(0))
}

func pointer(s string) *string { return &s }

func TestFactsAndEventsOfTheTopicsAreRecords(t *testing.T) {
	id := uuid.NewString()
	opened, err := p.FromFact(&schemas.Fact{
		ID: id, Type: schemas.FactEmailOpened, OccurredAt: aNow, Email: pointer("a@b.c"),
		EmailFact: &schemas.EmailFact{EmailSendID: "s", To: "a@b.c", TemplateKey: pointer("welcome")},
	})
	require.NoError(t, err)
	a := ask(t, p.All(p.Event("email.opened").Where(p.Prop("templateKey").Eq("welcome")).Exists(), p.HasEmail(), p.Not(p.HasUserID())))
	assert.True(t, a.tell(opened))
	assert.True(t, a.at(aNow).Holds)

	entered, err := p.FromFact(&schemas.Fact{ID: id, Type: schemas.FactBucketEntered, OccurredAt: aNow,
		Bucket: &schemas.BucketTransition{BucketID: "vip", BucketName: "VIP", Transition: "entered", EntryCount: 2, Source: "event"}})
	require.NoError(t, err)
	a = ask(t, p.Event("bucket:entered:vip").Where(p.Prop("entryCount").Gte(2)).Exists())
	a.tell(entered)
	assert.True(t, a.at(aNow).Holds)

	updated, err := p.FromFact(&schemas.Fact{ID: id, Type: schemas.FactContactUpdated, OccurredAt: aNow, UserID: pointer("u"),
		Contact: &schemas.ContactFact{Properties: `{"plan":"pro"}`, FirstSeenAt: aNow.Add(-time.Hour), LastSeenAt: aNow}})
	require.NoError(t, err)
	a = ask(t, p.All(p.Prop("plan").Eq("pro"), p.HasUserID(), p.FirstSeen().Before(p.Now(-p.Minutes(59))), p.Event("contact.updated").Exists()))
	a.tell(updated)
	assert.True(t, a.at(aNow).Holds)

	merged, err := p.FromFact(&schemas.Fact{ID: id, Type: schemas.FactContactMerged, OccurredAt: aNow, Merged: &schemas.ContactMerged{Properties: `{"plan":"team"}`}})
	require.NoError(t, err)
	a = ask(t, p.Prop("plan").Eq("team"))
	a.tell(merged)
	assert.True(t, a.at(aNow).Holds)

	event, err := p.FromEvent(&schemas.Event{ID: id, Name: "order.completed", UserID: pointer("u"), Properties: `{"amount":5}`, OccurredAt: aNow, ReceivedAt: aNow.Add(time.Hour)})
	require.NoError(t, err)
	a = ask(t, p.All(p.Event("order.completed").Total("amount").Eq(5), p.HasUserID(), p.LastSeen().After(p.At(aNow))))
	a.tell(event)
	assert.True(t, a.at(aNow).Holds)

	_, err = p.FromEvent(&schemas.Event{ID: "1"})
	require.ErrorContains(t, err, `event "1"`)
	_, err = p.FromFact(&schemas.Fact{ID: "1"})
	require.ErrorContains(t, err, `fact "1"`)
}

// W8: a client that sends the name of a fact fakes none.
func TestAProductEventUnderTheNameOfAFactIsNone(t *testing.T) {
	fake, err := p.FromEvent(&schemas.Event{ID: uuid.NewString(), Name: "email.opened", Properties: "{}", OccurredAt: aNow})
	require.NoError(t, err)
	a := ask(t, p.Event("email.opened").Exists())
	assert.False(t, a.tell(fake))
	assert.False(t, a.at(aNow).Holds)
}

func TestAMailIsAskedAboutSinceTheNewestOfItsTemplate(t *testing.T) {
	template := func(key string) string { return `{"templateKey":"` + key + `"}` }
	for _, check := range []string{"opened", "clicked"} {
		yes, no := ask(t, p.Mail("welcome", check)), ask(t, p.Mail("welcome", "not_"+check))
		expect := func(isYes, isNo bool) {
			assert.Equal(t, isYes, yes.at(aNow).Holds)
			assert.Equal(t, isNo, no.at(aNow).Holds)
		}
		happens := func(name, key string, after time.Duration) {
			yes.happens(name, aNow.Add(after), template(key))
			no.happens(name, aNow.Add(after), template(key))
		}
		expect(false, false) // no mail: false for all
		happens("email.sent", "other", 0)
		expect(false, false)
		happens("email.sent", "welcome", 0)
		expect(false, true)
		happens("email."+check, "other", time.Minute)
		expect(false, true)
		happens("email."+check, "welcome", time.Minute)
		expect(true, false)
		happens("email.sent", "welcome", time.Hour)
		expect(false, true)
	}
}

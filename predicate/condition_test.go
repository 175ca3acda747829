package predicate_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

func fromJSON(t *testing.T, text string) p.Condition {
	t.Helper()
	c, err := p.ParseJSON("c.json", []byte(text))
	require.NoError(t, err)
	return c
}

func fromYAML(t *testing.T, text string) p.Condition {
	t.Helper()
	c, err := p.ParseYAML("c.yaml", []byte(text))
	require.NoError(t, err)
	return c
}

// Acceptance case 3 of the buckets' spec.
func TestTheBuilderMakesTheDeclarativeFormWithoutStrayKeys(t *testing.T) {
	built := p.Event("key.action").Within(p.Days(30)).AtLeast(10)
	assert.Equal(t, `{"check":"count","eventName":"key.action","operator":"gte","type":"event","value":10,"within":{"hours":720}}`, built.Canonical())
}

func TestYAMLAndJSONAndBuilderMakeOneForm(t *testing.T) {
	for name, form := range map[string]struct {
		yaml  string
		json  string
		built p.Condition
	}{
		"property": {
			"type: property\nproperty: plan\noperator: in\nvalue: [pro, team]\nignoreCase: true",
			`{"type":"property","property":["plan"],"operator":"in","value":["pro","team"],"ignoreCase":true}`,
			p.Prop("plan").IgnoreCase().In("pro", "team"),
		},
		"nested property and dates": {
			"type: property\nproperty: [address, since]\noperator: between\nvalue: [today-7d, today]\nzone: Europe/Berlin",
			`{"type":"property","property":["address","since"],"operator":"between","value":["today-1w","today"],"zone":"Europe/Berlin"}`,
			p.Prop("address", "since").Zone("Europe/Berlin").Between(p.Today(-7), p.Today(0)),
		},
		"count with a filter": {
			"type: event\neventName: order.completed\ncheck: count\noperator: gte\nvalue: 3\nwithin: 30d\nwhere: {type: property, property: amount, operator: gt, value: 100}",
			`{"type":"event","eventName":"order.completed","check":"count","operator":"gte","value":3.0,"within":{"days":30},"where":[{"type":"property","property":"amount","operator":"gt","value":1e2}]}`,
			p.Event("order.completed").Where(p.Prop("amount").Gt(100)).Within(p.Days(30)).AtLeast(3),
		},
		"total": {
			"{type: event, eventName: order.completed, check: total, of: amount, operator: gte, value: 1000, within: 90m}",
			`{"type":"event","eventName":"order.completed","check":"total","of":"amount","operator":"gte","value":1000,"within":{"hours":1,"minutes":30}}`,
			p.Event("order.completed").Within(p.Minutes(90)).Total("amount").Gte(1000),
		},
		"last value": {
			"{type: event, eventName: plan.changed, check: last, of: [to, name], operator: eq, value: pro}",
			`{"type":"event","eventName":"plan.changed","check":"last","of":["to","name"],"operator":"eq","value":"pro"}`,
			p.Event("plan.changed").Last("to", "name").Eq("pro"),
		},
		"first seen": {
			"{type: seen, check: first, operator: before, value: now-72h}",
			`{"type":"seen","check":"first","operator":"before","value":"now-3d"}`,
			p.FirstSeen().Before(p.Now(-p.Days(3))),
		},
		"an event last seen": {
			"{type: seen, check: last, eventName: a, operator: on_or_after, value: '2026-01-31T01:00:00+01:00'}",
			`{"type":"seen","check":"last","eventName":"a","operator":"on_or_after","value":"2026-01-31T00:00:00Z"}`,
			p.Event("a").LastSeen().OnOrAfter(p.At(time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC))),
		},
		"sequence": {
			"{type: sequence, first: {eventName: a}, then: {eventName: b, where: {type: property, property: x, operator: exists}}, check: not_followed, within: 1d, lookback: 7d, occurrence: last}",
			`{"type":"sequence","first":{"eventName":"a"},"then":{"eventName":"b","where":{"type":"property","property":"x","operator":"exists"}},"check":"not_followed","within":{"hours":24},"lookback":{"weeks":1},"occurrence":"last"}`,
			p.Event("a").Then(p.Event("b").Where(p.Prop("x").Exists())).Newest().Lookback(p.Days(7)).NotWithin(p.Days(1)),
		},
		"defaults are left out": {
			"{type: sequence, first: {eventName: a}, then: {eventName: b}, check: followed, occurrence: any}",
			`{"type":"sequence","first":{"eventName":"a"},"then":{"eventName":"b"}}`,
			p.Event("a").Then(p.Event("b")).Ever(),
		},
		"composite": {
			"type: composite\noperator: and\nconditions:\n- {type: bucket, bucketId: buyers}\n- {type: not, condition: {type: identified}}\n- {type: identified, by: email}",
			`{"type":"composite","operator":"and","conditions":[{"type":"bucket","bucketId":"buyers"},{"type":"not","condition":{"type":"identified","by":"any"}},{"type":"identified","by":"email"}]}`,
			p.All(p.InBucket("buyers"), p.Not(p.Identified()), p.HasEmail()),
		},
		"mail": {
			"{type: email_engagement, templateKey: welcome, check: not_opened}",
			`{"type":"email_engagement","templateKey":"welcome","check":"not_opened"}`,
			p.Mail("welcome", "not_opened"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := form.built.Canonical()
			assert.Equal(t, want, fromYAML(t, form.yaml).Canonical())
			assert.Equal(t, want, fromJSON(t, form.json).Canonical())
			assert.Equal(t, form.built.Hash(), fromYAML(t, form.yaml).Hash())
			assert.True(t, form.built.Equal(fromJSON(t, form.json)))
			assert.False(t, form.built.Equal(p.Event("another").Exists()))
			_, err := p.Compile([]p.Named{{ID: "x", Condition: form.built}}, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"buyers"}})
			assert.NoError(t, err)
		})
	}
}

// The words of the reference stand for facts.
func TestTheWordsOfOlderDefinitionsAreAliasesOfFacts(t *testing.T) {
	bucket := func(fact string) p.EventBuilder { return p.Event(fact).Where(p.Prop("bucketId").Eq("vip:1")) }
	for alias, want := range map[string]p.Condition{
		"bucket:entered:vip:1":      bucket("bucket.entered").Exists(),
		"bucket:left:vip:1":         bucket("bucket.left").Exists(),
		"bucket:entered":            p.Event("bucket.entered").Exists(),
		"bucket:dwell:vip:after-60": p.Event("bucket.dwell").Where(p.Prop("bucketId").Eq("vip"), p.Prop("label").Eq("after-60")).Exists(),
		"email.link_clicked":        p.Event("email.clicked").Exists(),
		"journey:completed":         p.Event("journey.completed").Exists(),
	} {
		assert.Equal(t, want.Canonical(), p.Event(alias).Exists().Canonical())
		assert.Equal(t, want.Canonical(), fromYAML(t, "type: event\neventName: "+alias+"\ncheck: exists").Canonical())
	}
	filtered := p.Event("bucket:entered:x").Where(p.Prop("entryCount").Gt(1)).Exists()
	assert.Equal(t, p.Event("bucket.entered").Where(p.All(p.Prop("bucketId").Eq("x"), p.Prop("entryCount").Gt(1))).Exists().Canonical(), filtered.Canonical())
}

func TestEveryFormSurvivesBeingWrittenAndReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &language{T: t, Base: draw(t, "base", bases).At, Buckets: []string{"b"}}
		c := readForm(t, l.Condition(3))

		text, err := json.Marshal(c)
		require.NoError(t, err)
		var again p.Condition
		require.NoError(t, json.Unmarshal(text, &again))
		require.Equal(t, c.Canonical(), again.Canonical())

		written, err := yaml.Marshal(c)
		require.NoError(t, err)
		fromFile, err := p.ParseYAML("c.yaml", written)
		if err == nil { // what is always or never true is refused in a file
			require.Equal(t, c.Canonical(), fromFile.Canonical(), "%s", written)
		}
	})
}

func TestTheZeroConditionIsNone(t *testing.T) {
	var c p.Condition
	assert.True(t, c.IsZero())
	assert.Equal(t, "null", c.Canonical())
	require.NoError(t, json.Unmarshal([]byte("null"), &c))
	assert.True(t, c.IsZero())
	assert.False(t, c.OnlyNegative())
	_, err := p.Compile([]p.Named{{ID: "x", Path: "criteria"}}, p.Options{Limits: p.DefaultLimits()})
	assert.EqualError(t, err, "criteria: is missing: a condition is needed")
}

// Rule 4 of the reference's registration, with not.
func TestOnlyNegativeSaysThatNothingNeedsToBeThere(t *testing.T) {
	for _, c := range []p.Condition{
		p.Prop("plan").Neq("pro"), p.Prop("plan").NotExists(), p.Event("a").NotExists(),
		p.Not(p.Prop("plan").Eq("pro")), p.Mail("t", "not_opened"), p.Not(p.InBucket("b")),
		p.All(p.Event("a").NotExists(), p.Not(p.Any(p.Event("b").Exists(), p.Prop("x").Gt(1)))),
	} {
		assert.True(t, c.OnlyNegative(), c.Canonical())
	}
	for _, c := range []p.Condition{
		p.Prop("plan").Eq("pro"), p.Event("a").Within(p.Days(1)).NotExists(), p.Event("a").AtMost(0),
		p.Not(p.Prop("plan").Neq("pro")), p.All(p.Event("a").NotExists(), p.Identified()),
		p.Event("a").Then(p.Event("b")).NotWithin(p.Days(1)),
	} {
		assert.False(t, c.OnlyNegative(), c.Canonical())
	}
}

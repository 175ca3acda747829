package predicate_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	p "github.com/hogstream/hogstream/predicate"
)

func TestEveryFaultIsNamedByFileLineAndPath(t *testing.T) {
	_, err := p.ParseYAML("vip.yaml", []byte(`type: composite
operator: and
conditions:
  - type: property
    property: plan
    opertor: eq
    value: pro
  - type: evnt
    eventName: a
  - type: event
    eventName: ""
    check: count
    operator: gte
    value: many
    within: {dys: 7}
  - type: not
    condition: {type: event, eventName: a, check: exists, within: 7 days}
`))
	assert.EqualError(t, err, `vip.yaml:4:9: conditions[0]: operator is missing: a condition of type property has property, operator
vip.yaml:6:5: conditions[0].opertor: "opertor" is not known: did you mean "operator"?
vip.yaml:8:11: conditions[1].type: "evnt" is not known: did you mean "event"?
vip.yaml:11:16: conditions[2].eventName: is empty: write a name
vip.yaml:15:14: conditions[2].within.dys: "dys" is not known: did you mean "days"?
vip.yaml:17:67: conditions[3].condition.within: "7 days" is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m`)
	var faults p.Faults
	require.ErrorAs(t, err, &faults)
	assert.Len(t, faults, 6)
}

func TestFaultsOfJSONHaveLinesToo(t *testing.T) {
	_, err := p.ParseJSON("vip.json", []byte("{\n  \"type\": \"property\",\n  \"property\": \"plan\",\n  \"operator\": \"gt\",\n  \"value\": \"5\"\n}"))
	assert.EqualError(t, err, "vip.json:5:12: value: is not what the operator wants: write a number")
	_, err = p.ParseJSON("vip.json", []byte("{\n  \"type\": }"))
	assert.ErrorContains(t, err, "vip.json:2:11: is no JSON: ")
	_, err = p.ParseJSON("vip.json", []byte(`{"type":"identified","type":"bucket"}`))
	assert.ErrorContains(t, err, `key "type" stands twice`)
	_, err = p.ParseJSON("vip.json", []byte(`{"type":"identified"} {}`))
	assert.ErrorContains(t, err, "something follows")
}

// A definition hands over a part of its file.
func TestAPartOfAFileKeepsItsPlaceInTheFile(t *testing.T) {
	file, err := parser.ParseBytes([]byte("id: vip\ncriteria:\n  type: property\n  property: plan\n  operator: lke\n  value: x\n"), 0)
	require.NoError(t, err)
	criteria := file.Docs[0].Body.(*ast.MappingNode).Values[1].Value
	_, err = p.FromNode("vip.yaml", "criteria", criteria)
	assert.EqualError(t, err, `vip.yaml:5:13: criteria.operator: "lke" is not known: did you mean "lte"?`)
}

func TestWhatIsWrittenWrongIsRefusedWithTheFix(t *testing.T) {
	for text, want := range map[string]string{
		// Values that an operator cannot use evaluated to constants once (W2).
		`{type: property, property: a, operator: eq}`:                                                                      "value: is missing: write text, a number, true or false",
		`{type: property, property: a, operator: eq, value: null}`:                                                         "value: is null: write text",
		`{type: property, property: a, operator: eq, value: [1]}`:                                                          "value: is not what the operator wants: write text, a number, true or false",
		`{type: property, property: a, operator: contains, value: 5}`:                                                      "write text",
		`{type: property, property: a, operator: in, value: []}`:                                                           "write a list of",
		`{type: property, property: a, operator: between, value: [1]}`:                                                     "write a list of two numbers or two dates",
		`{type: property, property: a, operator: between, value: [1, today]}`:                                              "write a list of two numbers or two dates",
		`{type: property, property: a, operator: between, value: [now, today]}`:                                            "mixes an instant and a calendar date",
		`{type: property, property: a, operator: exists, value: 1}`:                                                        "value: has no meaning with this operator",
		`{type: property, property: a, operator: gt, value: 1, ignoreCase: true}`:                                          "ignoreCase: has no meaning with operator gt",
		`{type: property, property: a, operator: eq, value: x, ignoreCase: maybe}`:                                         "ignoreCase: is text: write true or false",
		`{type: property, property: [], operator: exists}`:                                                                 "property: is a list: write the name of a property",
		`{type: property, property: [a, ""], operator: exists}`:                                                            "property[1]: is empty",
		`{type: property, property: a, operator: before, value: tomorrow}`:                                                 `"tomorrow" is no date: write an instant`,
		`{type: property, property: a, operator: before, value: "2026-01-31T10:00:00"}`:                                    "is no date",
		`{type: property, property: a, operator: before, value: today-1h}`:                                                 "shifted by whole days",
		`{type: property, property: a, operator: before, value: now3d}`:                                                    "write + or -",
		`{type: property, property: a, operator: on_date, value: now}`:                                                     "is an instant: write a calendar date",
		`{type: property, property: a, operator: before, value: now, zone: Europe/Berlin}`:                                 "zone: belongs to calendar dates",
		`{type: property, property: a, operator: before, value: today, zone: Europe/Berln}`:                                `"Europe/Berln" is no time zone`,
		`{type: property, property: a, operator: before, value: today, zone: Local}`:                                       "is no time zone",
		`{type: event, eventName: a, check: exists, operator: gte, value: 3}`:                                              "operator: has no meaning with check exists",
		`{type: event, eventName: a, check: count, operator: neq, value: 3}`:                                               `operator: "neq" is not known`,
		`{type: event, eventName: a, check: count, value: 3}`:                                                              "operator: is missing",
		`{type: event, eventName: a, check: total, operator: gte, value: 3}`:                                               "of: is missing: check total needs it",
		`{type: event, eventName: a, check: total, of: x, operator: gte, value: 1e14}`:                                     "value",
		`{type: event, eventName: a, check: exists, within: {}}`:                                                           "within: a duration must be longer than zero",
		`{type: event, eventName: a, check: exists, within: 0d}`:                                                           "within: a duration must be longer than zero",
		`{type: event, eventName: a, check: exists, within: {hours: -1}}`:                                                  "within.hours: is negative",
		`{type: event, eventName: a, check: exists, within: {seconds: 0.0000001}}`:                                         "within: a duration must be whole microseconds",
		`{type: event, eventName: a, check: exists, within: 9999w}`:                                                        "at most 100 years",
		`{type: event, eventName: a, check: exists, within: 30}`:                                                           "within: is a number: write a duration such as 30d",
		`{type: event, eventName: a, check: exists, where: {type: event, eventName: b, check: exists}}`:                    "event cannot filter events",
		`{type: event, eventName: a, check: exists, where: {type: property, property: x, operator: before, value: now}}`:   "where.value: is relative to the time of the evaluation",
		`{type: seen, check: first, operator: eq, value: 3}`:                                                               `operator: "eq" is not known`,
		`{type: seen, check: first, operator: before, value: now, where: {type: property, property: x, operator: exists}}`: "where: belongs to an event",
		`{type: sequence, first: {eventName: a}, then: {eventName: b}, check: not_followed}`:                               "within: is missing",
		`{type: sequence, first: {eventName: a}, then: {eventName: b}, check: not_followed, within: 7d, lookback: 7d}`:     "lookback: must be longer than within",
		`{type: sequence, first: {eventName: a, within: 3d}, then: {eventName: b}}`:                                        `first.within: "within" is not known`,
		`{type: sequence, first: {eventName: a, where: {type: identified}}, then: {eventName: b}}`:                         "first.where.type: identified cannot filter events",
		`{type: property, property: a}`:                                                                                    "operator is missing",
		`{operator: and}`:                                                                                                  "type is missing: use one of property",
		`[]`:                                                                                                               "is a list: write a map",
		`{type: not, condition: 5}`:                                                                                        "condition: is a number: write a map",
		`{type: composite, operator: and, conditions: {a: 1}}`:                                                             "conditions: is a map: write a list",
		`{type: bucket, bucketId: &x vip}`:                                                                                 "is anchor of YAML",
		"":                                                                                                                 "holds 0 documents",
		"a: 1\na: 2":                                                                                                       `c.yaml:2:1: is no YAML: mapping key "a" already defined`,
		"{type: property, property: a, operator: eq, value: .inf}":                                                         "is infinity of YAML",
		strings.Repeat("{type: not, condition: ", 80) + "{type: identified}" + strings.Repeat("}", 80):                     "nests deeper than 64 levels",
	} {
		_, err := p.ParseYAML("c.yaml", []byte(text))
		if assert.Error(t, err, text) {
			assert.Contains(t, err.Error(), want, text)
		}
	}
}

func TestWhatCanNeverBeTrueOrNeverBeFalseIsToldAtLoad(t *testing.T) {
	const never, always = "can never be true", "can never be false"
	a := `{type: event, eventName: a, check: `
	plan := `{type: property, property: plan, operator: `
	both := func(operator string, conditions ...string) string {
		return fmt.Sprintf("{type: composite, operator: %s, conditions: [%s]}", operator, strings.Join(conditions, ", "))
	}
	for text, want := range map[string]string{
		both("and"):                                                                                         always, // W6
		both("or"):                                                                                          never,
		a + `count, operator: gte, value: 0}`:                                                               always,
		a + `count, operator: gt, value: -1}`:                                                               always,
		a + `count, operator: lt, value: 0}`:                                                                never,
		a + `count, operator: eq, value: 2.5}`:                                                              never,
		a + `count, operator: eq, value: -1}`:                                                               never,
		plan + `between, value: [5, 3]}`:                                                                    never,
		plan + `between, value: [today, today-1d]}`:                                                         never,
		both("and", plan+`eq, value: a}`, plan+`eq, value: b}`):                                             never,
		both("and", plan+`eq, value: a}`, plan+`neq, value: a}`):                                            never,
		both("or", plan+`eq, value: a}`, plan+`neq, value: a}`):                                             always,
		both("or", plan+`exists}`, plan+`not_exists}`):                                                      always,
		both("and", plan+`gt, value: 5}`, plan+`lte, value: 5}`):                                            never,
		both("and", plan+`in, value: [a, 5]}`, plan+`gt, value: 5}`):                                        never,
		both("and", plan+`not_exists}`, plan+`prefix, value: x}`):                                           never,
		both("and", a+`exists}`, a+`not_exists}`):                                                           never,
		both("and", a+`exists, within: 7d}`, a+`not_exists}`):                                               never,
		both("and", a+`not_exists, within: 7d}`, a+`exists, within: 3d}`):                                   never,
		both("or", a+`count, operator: gte, value: 3}`, a+`count, operator: lt, value: 5}`):                 always,
		both("and", a+`exists}`, both("and", `{type: identified}`, `{type: not, condition: `+a+`exists}}`)): never,
		both("or", plan+`exists}`, `{type: not, condition: `+both("and", plan+`exists}`, a+`exists}`)+`}`):  always,
		a + `exists, where: ` + plan + `between, value: [5, 3]}}`:                                           never,
	} {
		_, err := p.ParseYAML("c.yaml", []byte(text))
		if assert.Error(t, err, text) {
			assert.Contains(t, err.Error(), want, text)
			assert.Contains(t, err.Error(), "c.yaml:1:", text)
		}
	}
	for _, text := range []string{
		both("and", a+`exists}`, a+`not_exists, within: 7d}`), // lapsed
		both("or", a+`exists, within: 7d}`, a+`not_exists}`),
		both("or", plan+`gt, value: 5}`, plan+`lte, value: 5}`), // without a plan neither
		both("and", a+`count, operator: gte, value: 2}`, a+`count, operator: lte, value: 2}`),
		both("and", plan+`gte, value: 5}`, plan+`lte, value: 5}`),
		both("and", plan+`eq, value: a}`, plan+`in, value: [a, b]}`),
		both("and", plan+`eq, value: A}`, plan+`eq, value: a, ignoreCase: true}`),
		both("and", plan+`eq, value: "2026-01-01"}`, plan+`before, value: today}`),
		both("and", plan+`neq, value: a}`, plan+`neq, value: b}`),
		both("and", a+`count, operator: gte, value: 3, within: 30d}`, a+`count, operator: lt, value: 2, within: 7d}`),
	} {
		_, err := p.ParseYAML("c.yaml", []byte(text))
		assert.NoError(t, err, text)
	}
}

func compileOne(c p.Condition, limits p.Limits) error {
	_, err := p.Compile([]p.Named{{ID: "x", Condition: c, File: "x.yaml", Path: "criteria"}}, p.Options{Limits: limits})
	return err
}

func TestAWindowLongerThanEventsAreKeptIsRefused(t *testing.T) {
	limits := p.DefaultLimits()
	limits.Retention = p.Days(30)
	const kept = "is longer than events are kept: use at most 4w2d"
	assert.NoError(t, compileOne(p.Event("a").Within(p.Days(30)).Exists(), limits))
	assert.EqualError(t, compileOne(p.Event("a").Within(p.Days(30)+1000).Exists(), limits), "x.yaml: criteria.within: "+kept)
	assert.ErrorContains(t, compileOne(p.Not(p.Event("a").Then(p.Event("b")).Within(p.Days(31))), limits), "criteria.condition.within: "+kept)
	assert.ErrorContains(t, compileOne(p.Event("a").Then(p.Event("b")).Lookback(p.Days(31)).Within(p.Days(1)), limits), "criteria.lookback: "+kept)
	limits.Retention = 0
	assert.NoError(t, compileOne(p.Event("a").Within(p.Days(3000)).Exists(), limits))
}

func TestThresholdsAreBoundedByTheLimits(t *testing.T) {
	limits := p.Limits{Count: 10, Sequence: 10, Total: 10}
	for _, operator := range []string{"gte", "gt", "lte", "lt", "eq"} {
		assert.NoError(t, compileOne(p.Event("a").Count(operator, 10), limits))
		assert.ErrorContains(t, compileOne(p.Event("a").Count(operator, 11), limits), "criteria.value: is beyond what is counted: use at most 10")
	}
	limits.Sequence = 0
	assert.EqualError(t, compileOne(p.Event("a").Exists(), limits), "limits: Sequence is 0: use 1 to 100,000")
	assert.ErrorContains(t, compileOne(p.Event("a").Exists(), p.Limits{Count: 1, Sequence: 1, Total: 1, Retention: -1}), "Retention")
}

func TestWhatIsWrongWithABuiltConditionIsSaidByCompile(t *testing.T) {
	for want, c := range map[string]p.Condition{
		"criteria: eventName is missing":      p.Event("").Exists(),
		"criteria.value: is missing":          p.Prop("a").Eq(struct{}{}),
		"criteria.conditions[1].value":        p.All(p.Identified(), p.Prop("a").In()),
		"criteria: bucketId is missing":       p.InBucket(""),
		"criteria.operator: is missing":       p.Prop("a").Is("", 1),
		`criteria.operator: "like" is not`:    p.Prop("a").Is("like", 1),
		"criteria.where.value: is relative":   p.Event("a").Where(p.Prop("x").Before(p.Now(0))).Exists(),
		"criteria.operator: \"eq\" is not kn": p.FirstSeen().Eq(3),
		"criteria.within: has no meaning":     p.Event("a").Within(p.Days(1)).FirstSeen().Before(p.Now(0)),
		"criteria.then.within: has no mean":   p.Event("a").Then(p.Event("b").Within(p.Days(1))).Ever(),
	} {
		assert.ErrorContains(t, compileOne(c, p.DefaultLimits()), want)
	}
}

func TestBucketsThatAreUnknownOrAskInACircleAreRefused(t *testing.T) {
	compile := func(list ...p.Named) error {
		_, err := p.Compile(list, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"elsewhere"}})
		return err
	}
	bucket := func(id string, c p.Condition) p.Named {
		return p.Named{ID: id, Bucket: true, Condition: c, File: id + ".yaml", Path: "criteria"}
	}
	assert.EqualError(t, compile(bucket("buyers", p.Identified()), bucket("vip", p.Any(p.InBucket("buyer"), p.InBucket("elsewhere")))),
		`vip.yaml: criteria.conditions[0].bucketId: "buyer" is not known: did you mean "buyers"?`)
	assert.EqualError(t, compile(bucket("a", p.InBucket("b")), bucket("b", p.Not(p.InBucket("c"))), bucket("c", p.InBucket("a"))),
		"a.yaml: criteria: asks for its own membership: a → b → c → a")
	assert.EqualError(t, compile(bucket("a", p.Identified()), bucket("a", p.HasEmail())), `a.yaml: criteria: id "a" stands twice: ids are unique`)
	assert.ErrorContains(t, compile(bucket("a", p.Identified()), p.Named{ID: "b", Condition: p.InBucket("b")}), "is not known", "b is no bucket")
}

func TestConditionsComeAfterThoseWhoseMembershipTheyAskFor(t *testing.T) {
	set, err := p.Compile([]p.Named{
		{ID: "both", Bucket: true, Condition: p.All(p.InBucket("one"), p.InBucket("two"))},
		{ID: "two", Bucket: true, Condition: p.InBucket("one")},
		{ID: "one", Bucket: true, Condition: p.Identified()},
	}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	assert.Equal(t, []string{"one", "two", "both"}, []string{set.ID(0), set.ID(1), set.ID(2)})
	assert.Equal(t, []int{1, 2}, set.OnBucket("one", nil))
	assert.Equal(t, []int{2}, set.OnBucket("two", nil))
	assert.Equal(t, -1, set.Index("none"))
	assert.Equal(t, 3, set.Len())
}

func FuzzParse(f *testing.F) {
	f.Add("type: composite\noperator: and\nconditions:\n- {type: bucket, bucketId: b}\n- type: event\n  eventName: a\n  check: count\n  operator: gte\n  value: 3\n  within: 30d\n")
	f.Add(`{"type":"property","property":["a","b"],"operator":"between","value":["today-7d","2026-01-01"],"zone":"UTC"}`)
	f.Add(`{type: sequence, first: {eventName: bucket:entered:x}, then: {eventName: b}, check: not_followed, within: {hours: 1}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func(string, []byte) (p.Condition, error){p.ParseYAML, p.ParseJSON} {
			c, err := parse("f", []byte(text))
			if err != nil {
				var faults p.Faults
				require.True(t, errors.As(err, &faults) && len(faults) > 0)
				continue
			}
			again, err := p.ParseJSON("f", []byte(c.Canonical()))
			require.NoError(t, err)
			require.Equal(t, c.Canonical(), again.Canonical())
			_, _ = p.Compile([]p.Named{{ID: "x", Bucket: true, Condition: c}}, p.Options{Limits: p.DefaultLimits()})
		}
	})
}

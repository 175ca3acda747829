package predicate_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// memberOf are the buckets that a contact is a member of.
type memberOf []string

func (m memberOf) Has(id string) bool { return slices.Contains(m, id) }

func filterOf(t require.TestingT, text string) *p.Filter {
	s, err := p.ParseSelectorYAML("f.yaml", []byte(text))
	require.NoError(t, err, text)
	f, err := p.CompileFilter(s, p.FilterOptions{})
	require.NoError(t, err, text)
	return f
}

func TestAFilterTakesRecordsByEventAndPropertiesAndMembership(t *testing.T) {
	order := p.Record{Name: "order.completed", Properties: `{"amount":150,"currency":"EUR","type":"b2b","address":{"city":"Rome"},"at":"2026-07-01T23:30:00Z"}`}
	for text, want := range map[string]bool{
		`{event: order.completed}`:                         true,
		`{event: order.complete}`:                          false,
		`{event: order.*}`:                                 true,
		`{event: event.tracked}`:                           true,
		`{event: "event.tracked:order.*"}`:                 true,
		`{event: "event.tracked:order.completed"}`:         true,
		`{event: "event.tracked:cart.*"}`:                  false,
		`{event: "event.tracked.v2"}`:                      false,
		`{where: {amount: {gt: 100}}}`:                     true,
		`{where: {amount: {gt: 100, lte: 149}}}`:           false,
		`{where: {amount: 150, currency: [EUR, CHF]}}`:     true,
		`{where: {currency: {eq: eur, ignoreCase: true}}}`: true,
		`{where: {currency: eur}}`:                         false,
		`{where: {type: {eq: b2b}}}`:                       true,
		`{where: {coupon: {exists: false}}}`:               true,
		`{where: {coupon: {not_exists: false}}}`:           false,
		`{where: {type: property, property: [address, city], operator: eq, value: Rome}}`:                                        true,
		`{where: [{amount: {gt: 100}}, {type: not, condition: {type: property, property: currency, operator: eq, value: EUR}}]}`: false,
		`{where: {at: {on_date: "2026-07-01"}}}`:                                                                                 true,
		`{where: {at: {on_date: "2026-07-01", zone: Europe/Berlin}}}`:                                                            false,
		`{event: order.completed, bucket: keen}`:                                                                                 true,
		`{event: order.completed, bucket: new}`:                                                                                  false,
		`{notBucket: new}`:                                                                                                       true,
		`{notBucket: keen}`:                                                                                                      false,
		`[{event: cart.added}, {event: order.completed, where: {amount: {gt: 100}}}]`:                                            true,
		`[{event: cart.added}, {event: order.completed, bucket: new}]`:                                                           false,
	} {
		assert.Equal(t, want, filterOf(t, text).Match(&order, memberOf{"keen"}), text)
	}
	assert.False(t, filterOf(t, `{bucket: keen}`).Match(&order, nil), "nothing is known of memberships")
	assert.True(t, filterOf(t, `{notBucket: keen}`).Match(&order, nil))
}

func TestAFilterTakesFactsByTheNamesOfTheirPayload(t *testing.T) {
	fact, err := p.FromFact(&schemas.Fact{ID: uuid.NewString(), Type: "bucket.entered", Bucket: &schemas.BucketTransition{BucketID: "vip", EntryCount: 2}})
	require.NoError(t, err)
	for text, want := range map[string]bool{
		`{event: bucket.entered, where: {bucketId: vip}}`:             true,
		`{event: "bucket:entered:vip"}`:                               true,
		`{event: "bucket:entered:vip", where: {entryCount: {gt: 2}}}`: false,
		`{event: bucket.*}`:                                           true,
		`{event: event.tracked}`:                                      false,
	} {
		assert.Equal(t, want, filterOf(t, text).Match(&fact, nil), text)
	}
	// A product event under the name of a fact is none.
	mimic, err := p.FromEvent(&schemas.Event{ID: uuid.NewString(), Name: "bucket.entered", Properties: `{"bucketId":"vip"}`})
	require.NoError(t, err)
	assert.False(t, filterOf(t, `{event: bucket.entered}`).Match(&mimic, nil))
	assert.False(t, filterOf(t, `{event: event.tracked}`).Match(&mimic, nil))
}

func TestCalendarDatesOfAFilterAreThoseOfTheDeploymentsZone(t *testing.T) {
	s, err := p.ParseSelectorJSON("f.json", []byte(`{"where":{"at":{"on_date":"2026-07-02"}}}`))
	require.NoError(t, err)
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	r := p.Record{Name: "a", Properties: `{"at":"2026-07-01T23:30:00Z"}`}
	for zone, want := range map[*time.Location]bool{nil: false, berlin: true} {
		f, err := p.CompileFilter(s, p.FilterOptions{Zone: zone})
		require.NoError(t, err)
		assert.Equal(t, want, f.Match(&r, nil))
	}
}

func TestTheShortFormOfWhereIsTheLongOne(t *testing.T) {
	for short, long := range map[string]string{
		`{amount: {gt: 100}}`:                   `{type: property, property: amount, operator: gt, value: 100}`,
		`{amount: {gt: 100, lt: 200}}`:          `[{type: property, property: amount, operator: gt, value: 100}, {type: property, property: amount, operator: lt, value: 200}]`,
		`{plan: pro}`:                           `{type: property, property: plan, operator: eq, value: pro}`,
		`{paid: true}`:                          `{type: property, property: paid, operator: eq, value: true}`,
		`{plan: [pro, team]}`:                   `{type: property, property: plan, operator: in, value: [pro, team]}`,
		`{plan: {prefix: P, ignoreCase: true}}`: `{type: property, property: plan, operator: prefix, value: P, ignoreCase: true}`,
		`{at: {between: [2026-01-01, 2026-02-01], zone: UTC}}`: `{type: property, property: at, operator: between, value: ["2026-01-01", "2026-02-01"], zone: UTC}`,
		`{plan: {exists: true}, coupon: {exists: false}}`:      `[{type: property, property: plan, operator: exists}, {type: property, property: coupon, operator: not_exists}]`,
		`{operator: x}`: `{type: property, property: operator, operator: eq, value: x}`,
		`[{plan: pro}]`: `{type: property, property: plan, operator: eq, value: pro}`,
	} {
		for _, form := range []string{`{type: event, eventName: a, check: exists, where: %}`, `{type: sequence, first: {eventName: a, where: %}, then: {eventName: b}}`} {
			assert.Equal(t, fromYAML(t, strings.ReplaceAll(form, "%", long)).Canonical(), fromYAML(t, strings.ReplaceAll(form, "%", short)).Canonical())
		}
	}
}

func TestEveryFaultOfASelectorIsNamedByLineAndPath(t *testing.T) {
	_, err := p.ParseSelectorYAML("d.yaml", []byte(`- event: order.completed
  were: {a: 1}
- where:
    amount: {gtt: 100}
    plan: {gt: pro}
    none: null
    since: {after: 2026-01-01}
    tags: []
    odd: {}
    when: {zone: UTC}
    paid: {exists: 1}
- {}
- event: "order.*.x"
`))
	assert.EqualError(t, err, `d.yaml:2:3: [0].were: "were" is not known: did you mean "where"?
d.yaml:4:14: [1].where.amount.gtt: "gtt" is not known: did you mean "gt"?
d.yaml:5:16: [1].where.plan.gt: is not what the operator wants: write a number
d.yaml:6:11: [1].where.none: is null: write a value, or {not_exists: true} for none
d.yaml:8:11: [1].where.tags: is not what the operator wants: write a list of text, numbers, true or false
d.yaml:9:10: [1].where.odd: has no operator: write one with its value, such as {gt: 100}
d.yaml:10:11: [1].where.when: has no operator: write one with its value, such as {gt: 100}
d.yaml:11:20: [1].where.paid.exists: is a number: write true or false
d.yaml:12:3: [2]: is empty: write one of event, where, bucket, notBucket
d.yaml:13:10: [3].event: "order.*.x" has a * before its end: write a name such as order.completed, or how names begin such as order.*`)
}

func TestASelectorThatIsWrittenWrongIsRefusedWithTheFix(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                  "is empty: write one of event, where, bucket, notBucket",
		`[]`:                                  "can never be true",
		`{event: "*"}`:                        "can never be false: it takes every record",
		`{event: ""}`:                         "event: is empty",
		`{event: 5}`:                          "event: is a number: write text",
		`{event: "a*b"}`:                      "has a * before its end",
		`{event: "event.tracked:"}`:           "names no event after the colon",
		`{bucket: [a]}`:                       "bucket: is a list: write text",
		`{bucket: a, notBucket: a}`:           `can never be true: nobody is a member of "a" and is not`,
		`{where: {}}`:                         "where: is empty",
		`{where: {a: {gt: 5, lt: 3}}}`:        "can never be true: these exclude each other",
		`{where: {a: {since: 1}}}`:            `"since" is not known`,
		`{where: {a: {after: today-7d}}}`:     "f.yaml:1:21: where.a.after: is relative to the time of the evaluation",
		`{where: {a: {after: now-7d}, b: 1}}`: "f.yaml:1:21: where.a.after: is relative to the time of the evaluation",
		`{where: {a: {on_date: "2026-01-01", zone: Nowhere}}}`: `"Nowhere" is no time zone`,
		`{where: {a: {gt: 1, ignoreCase: true}}}`:              "where.a.gt.ignoreCase: has no meaning with operator gt",
		`{where: {a: {eq: [1]}}}`:                              "f.yaml:1:18: where.a.eq: is not what the operator wants",
		`{where: {a: null}}`:                                   "where.a: is null: write a value, or {not_exists: true} for none",
		`{where: {a: []}}`:                                     "where.a: is not what the operator wants: write a list",
		`{where: {a: {}}}`:                                     "where.a: has no operator",
		`{where: {a: {exists: 1}}}`:                            "where.a.exists: is a number: write true or false",
		`{where: {"": 1}}`:                                     "is empty: write the name of a property",
		`{where: {property: a, operator: gt, value: 1}}`:       "type is missing",
		`{where: {type: bucket, bucketId: b}}`:                 "bucket cannot filter events",
		`{where: 5}`:                                           "where: is a number: write a map",
		`{where: {type: order}}`:                               `where.type: "order" is not known`,
		`5`:                                                    "is a number: write a map",
		`a: b: c`:                                              "is no YAML",
	} {
		_, err := p.ParseSelectorYAML("f.yaml", []byte(text))
		if assert.Error(t, err, text) {
			assert.Contains(t, err.Error(), want, text)
		}
	}
	_, err := p.ParseSelectorJSON("f.json", []byte(`{"event":`))
	assert.ErrorContains(t, err, "f.json:1:10: is no JSON")
	_, err = p.CompileFilter(p.Selector{}, p.FilterOptions{})
	assert.ErrorContains(t, err, "a filter is needed")
	s, err := p.ParseSelectorYAML("", []byte(`{bucket: buyer}`))
	require.NoError(t, err)
	_, err = p.CompileFilter(s, p.FilterOptions{Buckets: []string{"buyers"}})
	assert.EqualError(t, err, `bucket: "buyer" is not known: did you mean "buyers"?`)
}

// A destination hands over a part of its file.
func TestAPartOfAFileIsASelector(t *testing.T) {
	file, err := parser.ParseBytes([]byte("id: d\nfilter:\n  event: a\n  bukket: b\n"), 0)
	require.NoError(t, err)
	node := file.Docs[0].Body.(*ast.MappingNode).Values[1].Value
	_, err = p.SelectorFromNode("d.yaml", "filter", node)
	assert.EqualError(t, err, `d.yaml:4:3: filter.bukket: "bukket" is not known: did you mean "bucket"?`)
}

func TestASelectorSurvivesBeingWrittenAndReadAgain(t *testing.T) {
	schema := compiledSchema(t, p.SelectorSchema)
	rapid.Check(t, func(t *rapid.T) {
		form, _ := drawSelector(t)
		text := marshal(form)
		require.NoError(t, schema.Validate(instance(t, text)), text)
		var s p.Selector
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			require.ErrorContains(t, err, "can never be")
			return
		}
		require.NoError(t, schema.Validate(instance(t, s.Canonical())), s.Canonical())
		var again p.Selector
		require.NoError(t, json.Unmarshal([]byte(s.Canonical()), &again))
		require.Equal(t, s.Canonical(), again.Canonical())
		written, err := yaml.Marshal(s)
		require.NoError(t, err)
		fromFile, err := p.ParseSelectorYAML("f.yaml", written)
		require.NoError(t, err, "%s", written)
		require.Equal(t, s.Canonical(), fromFile.Canonical())
	})
	var none p.Selector
	require.NoError(t, json.Unmarshal([]byte("null"), &none))
	assert.True(t, none.IsZero())
	assert.Equal(t, "null", none.Canonical())
}

func drawSelector(t *rapid.T) (any, *language) {
	l := &language{T: t, Base: draw(t, "base", bases).At}
	one := func() object {
		out := object{}
		if rapid.Bool().Draw(t, "names an event") {
			out["event"] = draw(t, "event", append([]string{"order.*", "event.tracked", "event.tracked:order.*"}, eventNames...))
		}
		if rapid.Bool().Draw(t, "asks for properties") {
			out["where"] = l.Where()
		}
		if len(out) == 0 || chance(t, "asks for a bucket") {
			out[draw(t, "membership", []string{"bucket", "notBucket"})] = draw(t, "bucket", []string{"b1", "b2"})
		}
		return out
	}
	if rapid.Bool().Draw(t, "one") {
		return one(), l
	}
	return []any{one(), one()}, l
}

// The law of filters, against the naive evaluator.
func TestAFilterAgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		form, l := drawSelector(t)
		var s p.Selector
		if err := json.Unmarshal([]byte(marshal(form)), &s); err != nil {
			t.Skip(err)
		}
		f, err := p.CompileFilter(s, p.FilterOptions{})
		require.NoError(t, err)
		r := p.Record{Name: draw(t, "name", eventNames), Properties: marshal(l.Properties())}
		members := memberOf(rapid.SliceOf(rapid.SampledFrom([]string{"b1", "b2"})).Draw(t, "members"))
		for _, id := range f.Buckets() {
			require.Contains(t, s.Canonical(), `ucket":"`+id+`"`)
		}
		var rules []object
		if json.Unmarshal([]byte(s.Canonical()), &rules) != nil {
			rules = []object{parsed(s.Canonical())}
		}
		want := slices.ContainsFunc(rules, func(rule object) bool { return ruleTakes(rule, &r, members) })
		require.Equal(t, want, f.Match(&r, members), "%s of %s", s.Canonical(), r.Properties)
	})
}

func ruleTakes(rule object, r *p.Record, members memberOf) bool {
	w := world{Zone: time.UTC}
	text, _ := rule["event"].(string)
	name := strings.TrimPrefix(strings.TrimPrefix(text, "event.tracked"), ":")
	prefix, open := strings.CutSuffix(name, "*")
	named := name == "" || name == r.Name || open && strings.HasPrefix(r.Name, prefix)
	in, asksIn := rule["bucket"].(string)
	out, asksOut := rule["notBucket"].(string)
	return named && w.Passes(rule["where"], parsed(r.Properties)) && (!asksIn || members.Has(in)) && (!asksOut || !members.Has(out))
}

func TestTheSchemaOfSelectorsRefusesWhatTheLoaderRefuses(t *testing.T) {
	schema := compiledSchema(t, p.SelectorSchema)
	for _, text := range []string{
		`{}`, `[]`, `5`, `{"were":1}`, `{"event":""}`, `{"event":5}`, `{"bucket":["a"]}`,
		`{"where":{}}`, `{"where":{"a":null}}`, `{"where":{"a":[]}}`, `{"where":{"a":{}}}`, `{"where":{"a":{"gtt":1}}}`,
		`{"where":{"a":{"gt":"5"}}}`, `{"where":{"a":{"ignoreCase":true}}}`, `{"where":{"a":{"exists":1}}}`, `{"where":{"":1}}`,
		`{"where":{"type":"order"}}`, `{"where":{"type":"bucket","bucketId":"b"}}`, `{"where":{"property":"a","operator":"gt","value":1}}`,
		`{"where":[]}`, `{"where":[[{"a":1}]]}`,
	} {
		require.Error(t, schema.Validate(instance(t, text)), text)
		_, err := p.ParseSelectorJSON("f.json", []byte(text))
		assert.Error(t, err, text)
	}
}

func FuzzParseSelector(f *testing.F) {
	f.Add(`{event: order.completed, where: {amount: {gt: 100}, plan: [a, b]}, bucket: keen}`, `{"amount":150}`)
	f.Add(`[{"event":"event.tracked:order.*"},{"where":{"type":"not","condition":{"type":"property","property":["a","b"],"operator":"exists"}},"notBucket":"b"}]`, `{"a":{"b":null}}`)
	f.Add(`{event: "bucket:entered:x", where: [{at: {on_date: "2026-01-01", zone: Europe/Berlin}}]}`, `{"at":"2026-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, text, properties string) {
		for _, parse := range []func(string, []byte) (p.Selector, error){p.ParseSelectorYAML, p.ParseSelectorJSON} {
			s, err := parse("f", []byte(text))
			if err != nil {
				var faults p.Faults
				require.True(t, errors.As(err, &faults) && len(faults) > 0)
				continue
			}
			again, err := p.ParseSelectorJSON("f", []byte(s.Canonical()))
			require.NoError(t, err)
			require.Equal(t, s.Canonical(), again.Canonical())
			filter, err := p.CompileFilter(s, p.FilterOptions{})
			require.NoError(t, err)
			filter.Match(&p.Record{Name: "order.completed", Properties: properties}, memberOf{"keen"})
		}
	})
}

// ns/op is that of one record.
func BenchmarkFilter(b *testing.B) {
	r := p.Record{Name: "order.completed", Properties: `{"orderId":"o-1","amount":129.5,"currency":"EUR","items":[{"sku":"a","n":1}]}`}
	for name, text := range map[string]string{
		"event":       `{event: order.completed}`,
		"where":       `{event: order.completed, where: {amount: {gt: 100}}}`,
		"bucket":      `{event: order.completed, where: {amount: {gt: 100}}, bucket: keen}`,
		"other event": `{event: cart.added, where: {amount: {gt: 100}}}`,
	} {
		b.Run(name, func(b *testing.B) {
			f := filterOf(b, text)
			var members p.Members = memberOf{"keen"}
			b.ReportAllocs()
			for b.Loop() {
				f.Match(&r, members)
			}
		})
	}
}

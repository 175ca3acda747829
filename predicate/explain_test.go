package predicate_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

// explained is a case of the random language after some steps.
func explained(t *rapid.T) *run {
	r := newRun(t)
	for range rapid.IntRange(0, 10).Draw(t, "steps") {
		var touched []int
		switch draw(t, "step", []string{"record", "record", "record", "time"}) {
		case "record":
			touched = r.apply(&r.contacts[0], r.record())
		case "time":
			r.advance()
		}
		r.evaluate(touched)
	}
	return r
}

func TestAnExplanationSaysWhatEvaluateSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := explained(t)
		before := encoded(t, &r.contacts[0].state)
		for i := range r.set.Len() {
			e := r.set.Explain(i, &r.contacts[0].state, r, r.now)
			want := r.set.Evaluate(i, &r.contacts[0].state, r, r.now)
			require.Equal(t, want, p.Verdict{Holds: e.Holds, Next: e.Next})
			leaves := r.set.AppendLeaves(nil, i, &r.contacts[0].state, r, r.now)
			kept, err := r.conditions[i].Explain(leaves, r.now)
			require.NoError(t, err)
			require.Equal(t, marshal(e), marshal(kept))
			_, err = r.conditions[i].Explain(leaves[:rapid.IntRange(0, len(leaves)-1).Draw(t, "cut")], r.now)
			require.ErrorIs(t, err, p.ErrLeaves)
			followsFromItsParts(t, &e)
			agreesWithTheModel(t, r, r.forms[i], &e)
			drawsOneLineForEach(t, &e)
		}
		require.Equal(t, before, encoded(t, &r.contacts[0].state), "an explanation changes nothing")
	})
}

// followsFromItsParts is the algebra of answers, written down anew: an answer may turn when
// the first of those turns on which it hangs alone, or the last of those that all have to.
func followsFromItsParts(t *rapid.T, e *p.Explanation) {
	hanging, others := []time.Time{}, 0 // of the parts that say what the whole says
	for i := range e.Conditions {
		followsFromItsParts(t, &e.Conditions[i])
		if e.Conditions[i].Holds == e.Holds {
			hanging = append(hanging, e.Conditions[i].Next)
		} else {
			others++
		}
	}
	one := e.Holds == (e.Text == "any of") // one part alone may keep the answer
	switch e.Text {
	case "not":
		require.Equal(t, !e.Conditions[0].Holds, e.Holds)
		require.Equal(t, e.Conditions[0].Next, e.Next)
	case "all of", "any of":
		require.NotEmpty(t, hanging)
		require.True(t, one || others == 0)
		require.Equal(t, turns(hanging, one), e.Next)
	default:
		require.Empty(t, e.Conditions)
		require.NotNil(t, e.Saw)
	}
}

// turns is the first of times, or the last; zero is never.
func turns(times []time.Time, last bool) time.Time {
	out := times[0]
	for _, at := range times[1:] {
		switch {
		case last && (out.IsZero() || at.IsZero()):
			out = time.Time{}
		case at.IsZero():
		case out.IsZero() || at.After(out) == last:
			out = at
		}
	}
	return out
}

// agreesWithTheModel compares each part with the naive evaluator, and what a leaf saw with
// the whole history.
func agreesWithTheModel(t *rapid.T, r *run, form object, e *p.Explanation) {
	w := &r.contacts[0].world
	require.Equal(t, w.Holds(form, r.now.UnixMicro()), e.Holds, "%s", marshal(form))
	require.Equal(t, form["type"], e.Type)
	require.NotEmpty(t, e.Text)
	switch form["type"] {
	case "composite":
		for i, inner := range form["conditions"].([]any) {
			agreesWithTheModel(t, r, inner.(object), &e.Conditions[i])
		}
	case "not":
		agreesWithTheModel(t, r, form["condition"].(object), &e.Conditions[0])
	case "property":
		sawTheValue(t, lookUp(w.Properties, form["property"]), e)
	case "event":
		sawTheEvents(t, r, form, e)
	}
}

func sawTheValue(t *rapid.T, want any, e *p.Explanation) {
	if want == nil {
		require.NotEmpty(t, e.Why, "absent or null")
		return
	}
	require.JSONEq(t, marshal(want), string(e.Saw.Value))
}

func sawTheEvents(t *rapid.T, r *run, form object, e *p.Explanation) {
	w := &r.contacts[0].world
	list := w.Matching(form["eventName"], form["where"])
	for _, seen := range e.Saw.Events {
		require.Condition(t, func() bool {
			for _, h := range list {
				if h.ID == seen.ID.String() && h.At == seen.At.UnixMicro() {
					return true
				}
			}
			return false
		}, "%s is one of the events", seen.ID)
	}
	if form["check"] == "total" || form["check"] == "last" {
		return
	}
	within := list
	if form["within"] != nil {
		within = recent(list, r.now.UnixMicro()-length(form["within"]))
	}
	if e.Saw.More {
		require.LessOrEqual(t, *e.Saw.Count, len(within))
	} else {
		require.Len(t, within, *e.Saw.Count)
	}
	for _, seen := range e.Saw.Events {
		require.Equal(t, list[seen.Nth-1].ID, seen.ID.String(), "the n-th newest")
		if seen.Decides && !e.Next.IsZero() {
			require.Equal(t, seen.At.UnixMicro()+length(form["within"])+1, e.Next.UnixMicro(), "it turns when this one leaves")
		}
	}
}

func drawsOneLineForEach(t *rapid.T, e *p.Explanation) {
	lines, drawn := e.Lines(), e.String()
	require.Equal(t, len(lines), strings.Count(drawn, "\n"))
	for _, r := range strings.ReplaceAll(drawn, "\n", "") {
		require.True(t, unicode.IsPrint(r), "%q in %s", r, drawn)
	}
}

func explainOf(t *testing.T, c p.Condition, now time.Time, records ...p.Record) p.Explanation {
	t.Helper()
	set, err := p.Compile([]p.Named{{ID: "x", Condition: c}}, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"keen"}})
	require.NoError(t, err)
	var s p.State
	for i := range records {
		if records[i].ID == uuid.Nil {
			records[i].ID = uuid.NewSHA1(uuid.Nil, []byte{byte(i)})
		}
		set.Apply(&s, &records[i], nil)
	}
	return set.Explain(0, &s, nil, now)
}

func keenContact() (p.Condition, []p.Record) {
	order := p.Event("order.completed").Where(p.Prop("amount").Gt(100))
	c := p.All(
		p.Event("catalog").Within(p.Days(7)).AtLeast(3),
		p.Any(order.Within(p.Days(30)).Exists(), order.Total("amount").Gte(1000)),
		p.Not(p.Prop("plan").In("free", "trial")),
		p.Prop("trialEndsAt").Zone("Europe/Berlin").OnOrAfter(p.Today(-1)),
		p.Event("cart.added").Then(p.Event("order.completed")).Newest().NotWithin(p.Hours(2)),
		p.Event("plan.changed").Last("to").Eq("pro"),
		p.InBucket("keen"),
	)
	return c, []p.Record{
		{Name: "catalog", At: aNow.Add(-p.Days(8))},
		{Name: "catalog", At: aNow.Add(-p.Days(6))},
		{Name: "catalog", At: aNow.Add(-p.Hours(3))},
		{Name: "order.completed", At: aNow.Add(-p.Days(40)), Properties: `{"amount":812.5}`},
		{Name: "order.completed", At: aNow.Add(-p.Days(31)), Properties: `{"amount":150}`},
		{Name: "cart.added", At: aNow.Add(-p.Hours(1))},
		{Name: "plan.changed", At: aNow.Add(-p.Days(2)), Properties: `{"to":5}`},
		{Contact: `{"plan":null,"trialEndsAt":"2026-06-30T23:30:00Z"}`},
	}
}

func TestAnExplanationIsDrawnAsATree(t *testing.T) {
	c, records := keenContact()
	e := explainOf(t, c, aNow, records...)
	sameAsFile(t, "explain.txt", e.String())
}

func TestAnExplanationHasAStableJSON(t *testing.T) {
	c, records := keenContact()
	text, err := json.MarshalIndent(explainOf(t, c, aNow, records...), "", "  ")
	require.NoError(t, err)
	sameAsFile(t, "explain.json", string(text)+"\n")
	var again p.Explanation
	require.NoError(t, json.Unmarshal(text, &again))
	back, err := json.MarshalIndent(again, "", "  ")
	require.NoError(t, err)
	assert.Equal(t, string(text), string(back))
}

func sameAsFile(t *testing.T, name, got string) {
	t.Helper()
	if flag.Lookup("update").Value.String() == "true" {
		require.NoError(t, os.WriteFile("testdata/"+name, []byte(got), 0o600))
	}
	want, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	assert.Equal(t, string(want), got)
}

func TestEachLeafIsSaidInPlainWords(t *testing.T) {
	order := p.Event("order.completed")
	for want, c := range map[string]p.Condition{
		`catalog at least 10 within 7d`:          p.Event("catalog").Within(p.Days(7)).AtLeast(10),
		`catalog exactly 2`:                      p.Event("catalog").Exactly(2),
		`"my event" did not happen within 1h30m`: p.Event("my event").Within(90 * time.Minute).NotExists(),
		`order.completed (amount more than 2.5 and not (country is "DE")) happened`:   order.Where(p.Prop("amount").Gt(2.5), p.Not(p.Prop("country").Eq("DE"))).Exists(),
		`total of amount of order.completed at least 1000 within 1d`:                  order.Within(p.Days(1)).Total("amount").Gte(1000),
		`newest order.completed within 1d: items.sku begins with "a"`:                 order.Within(p.Days(1)).Last("items", "sku").Prefix("a"),
		`plan is one of "pro", 5, true in any case`:                                   p.Prop("plan").IgnoreCase().In("pro", 5, true),
		`address."zip.code" does not exist`:                                           p.Prop("address", "zip.code").NotExists(),
		`trialEndsAt between today and today+3d in Europe/Berlin`:                     p.Prop("trialEndsAt").Zone("Europe/Berlin").Between(p.Today(0), p.Today(3)),
		`first seen before now-30d`:                                                   p.FirstSeen().Before(p.Now(-p.Days(30))),
		`order.completed last seen on 2026-01-31`:                                     order.LastSeen().OnDate(p.Date(2026, 1, 31)),
		`cart.added followed by order.completed within 2h`:                            p.Event("cart.added").Then(order).Within(p.Hours(2)),
		`newest cart.added not followed by order.completed within 2h, in the last 7d`: p.Event("cart.added").Then(order).Newest().Lookback(p.Days(7)).NotWithin(p.Hours(2)),
		`member of keen`:                 p.InBucket("keen"),
		`user id or email known`:         p.Identified(),
		`email known`:                    p.HasEmail(),
		`newest mail welcome not opened`: p.Mail("welcome", "not_opened"),
	} {
		e := explainOf(t, c, aNow)
		assert.Equal(t, want, e.Text)
	}
}

// B18: somebody does not match, and it can be said why.
func TestALeafSaysWhatIsMissingOrOfAnotherType(t *testing.T) {
	event := func(name string, before time.Duration, properties string) p.Record {
		return p.Record{Name: name, At: aNow.Add(-before), Properties: properties}
	}
	a, plan := p.Event("a"), p.Prop("plan")
	for _, row := range []struct {
		c       p.Condition
		records []p.Record
		why     string
	}{
		{plan.Eq("pro"), nil, "the contact has no property plan"},
		{plan.Neq("pro"), []p.Record{{Contact: `{"plan":null}`}}, "it is null"},
		{plan.Gt(5), []p.Record{{Contact: `{"plan":"5"}`}}, "it is text, and gt compares a number"},
		{plan.Eq("x"), []p.Record{{Contact: `{"plan":["x"]}`}}, "it is a list, and eq compares text, a number, true or false"},
		{plan.ListContains("x"), []p.Record{{Contact: `{"plan":"x"}`}}, "it is text, and list_contains compares a list"},
		{plan.Eq("x"), []p.Record{{Contact: `{"plan":"` + strings.Repeat("x", 5000) + `"}`}}, "it is an empty object, or a value of more than 4 KiB, and eq compares text, a number, true or false"},
		{plan.Eq("x"), []p.Record{{Contact: `{"plan":"y"}`}}, ""},
		{plan.Exists(), []p.Record{{Contact: `{"plan":{}}`}}, ""},
		{plan.Before(p.Now(0)), []p.Record{{Contact: `{"plan":"soon"}`}}, "it is text that is no date"},
		{plan.Before(p.Now(0)), []p.Record{{Contact: `{"plan":true}`}}, "it is true or false, and before compares a date"},
		{plan.Before(p.Now(0)), []p.Record{{Contact: `{"plan":"2026-01-01"}`}}, "it is a calendar date, and compares with no instant"},
		{a.Within(p.Days(7)).AtLeast(2), nil, "no such event was seen"},
		{a.Within(p.Days(7)).AtLeast(2), []p.Record{event("a", p.Days(8), ""), event("a", p.Days(1), "")}, "the 2nd newest left the window at 2026-06-30 12:00:00.000001Z"},
		{a.Within(p.Days(7)).NotExists(), []p.Record{event("a", p.Days(8), "")}, "the newest left the window at 2026-06-30 12:00:00.000001Z"},
		{a.Within(p.Days(7)).Last("x").Eq(1), []p.Record{event("a", p.Days(8), `{"x":1}`)}, "the newest event left the window at 2026-06-30 12:00:00.000001Z"},
		{a.Last("x").Eq(1), []p.Record{event("a", p.Days(8), `{}`)}, "the newest event has no property x"},
		{a.Last("x").Eq(1), nil, "no such event was seen"},
		{a.Total("x").Gt(1), []p.Record{event("a", p.Days(8), `{"x":"1"}`)}, "no such event with a number was seen"},
		{p.FirstSeen().Before(p.Now(0)), nil, "nothing was seen yet"},
		{a.FirstSeen().Before(p.Now(0)), nil, "nothing was seen yet"},
		{a.Then(p.Event("b")).Within(p.Hours(1)), nil, "no such first event was seen"},
		{a.Then(p.Event("b")).Within(p.Hours(1)), []p.Record{event("a", p.Hours(3), "")}, "nothing followed it"},
		{a.Then(p.Event("b")).Within(p.Hours(1)), []p.Record{event("a", p.Hours(3), ""), event("b", p.Hours(1), "")}, "it was followed 2h later, which is too late"},
		{a.Then(p.Event("b")).NotWithin(p.Hours(4)), []p.Record{event("a", p.Hours(3), "")}, "it may be followed until 2026-07-01 13:00:00Z"},
		{a.Then(p.Event("b")).NotWithin(p.Hours(4)), []p.Record{event("a", p.Hours(3), ""), event("b", p.Hours(1), "")}, "it was followed 2h later"},
		{a.Then(p.Event("b")).Lookback(p.Days(1)).NotWithin(p.Hours(4)), []p.Record{event("a", p.Days(3), "")}, "the first event left the time of lookback at 2026-06-29 12:00:00.000001Z"},
		{p.Mail("welcome", "not_opened"), nil, "no such mail was sent"},
	} {
		e := explainOf(t, row.c, aNow, row.records...)
		assert.Equal(t, row.why, e.Why, row.c.Canonical())
	}
}

func TestADrawnTreeHoldsNoControlCharactersOfAProperty(t *testing.T) {
	e := explainOf(t, p.Prop("a\x1b[2J").Eq("x"), aNow, p.Record{Contact: `{"a\u001b[2J":"` + "\u202e" + strings.Repeat("ä", 100) + `"}`})
	assert.Equal(t, "✗ \"a\\x1b[2J\" is \"x\"  \"·"+strings.Repeat("ä", 57)+"…\n", e.String())
}

// Explaining is beside the path of a record, which allocates nothing.
func TestEvaluateAllocatesNothing(t *testing.T) {
	c, records := keenContact()
	set, err := p.Compile([]p.Named{{ID: "x", Condition: c}}, p.Options{Limits: p.DefaultLimits(), Buckets: []string{"keen"}})
	require.NoError(t, err)
	var s p.State
	apply(set, &s, records...)
	assert.Zero(t, testing.AllocsPerRun(100, func() { set.Evaluate(0, &s, nil, aNow) }))
}

func TestAValueThatIsLongIsNotKeptWithALeaf(t *testing.T) {
	c := p.Prop("plan").Exists()
	set, err := p.Compile([]p.Named{{ID: "c", Condition: c}}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	var state p.State
	set.Apply(&state, &p.Record{Contact: `{"plan":"` + strings.Repeat("x", 1000) + `"}`}, nil)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	leaves := set.AppendLeaves(nil, 0, &state, nil, at)
	require.Less(t, len(leaves), 100)
	e, err := c.Explain(leaves, at)
	require.NoError(t, err)
	require.True(t, e.Holds)
	require.Nil(t, e.Saw.Value)
	require.Contains(t, e.Why, "1002 bytes")
}

func FuzzLeavesOfACondition(f *testing.F) {
	c := p.Any(p.Event("bought").Within(time.Hour).AtLeast(2), p.Not(p.Prop("plan").Eq("pro")))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, leaves []byte) {
		if _, err := c.Explain(leaves, time.Unix(0, 0)); err != nil {
			require.ErrorIs(t, err, p.ErrLeaves)
		}
	})
}

package definition_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
)

const hand = "id: hand\nname: Hand\nenabled: true\nkind: manual\n"

// loadTests loads a file of tests beside buckets vip and hand, and returns the faults with
// the directory left out.
func loadTests(t testing.TB, text string) (*d.Tests, string) {
	t.Helper()
	from := fstest.MapFS{
		"buckets/vip.yaml":      {Data: []byte(vip)},
		"buckets/hand.yaml":     {Data: []byte(hand)},
		"buckets/vip_test.yaml": {Data: []byte(text)},
	}
	files, err := d.LoadFS(from, "", options())
	require.NoError(t, err)
	require.Empty(t, files.Faults(), "a test is no bucket")
	tests, err := d.LoadTestsFS(from, "", files)
	require.NoError(t, err)
	require.Equal(t, 1, tests.Files)
	return tests, strings.ReplaceAll(tests.Faults.Error(), "buckets/vip_test.yaml:", "")
}

// oneCase is a file with one case of these steps.
func oneCase(steps string) string { return "cases:\n- name: one\n  steps:\n" + steps }

func TestATestIsReadWithAllItSays(t *testing.T) {
	tests, faults := loadTests(t, `
buckets: [vip]
given:
  at: 2026-03-02T09:00:00+01:00
  steps:
    - {event: signed_up, properties: {plan: pro, seats: 3, price: 1.5, tags: [a, b], of: {x: null}, ok: true, "1": one}, contact: ann}
cases:
  - name: all of it
    steps:
      - {event: look, times: 2, every: 1h, after: 1d, late: 5m, contactProperties: {a: 1}, identify: {userId: u1, email: a@b.c, anonymousId: x}}
      - {properties: {plan: free}, at: 2d}
      - {identify: {userId: u2}, contact: ann}
      - {contact: ann, merge: someone}
      - {add: hand, contact: ann, until: 9d}
      - {remove: hand, contact: ann}
      - advance: {hours: 1}
      - at: 2026-03-09
      - contact: ann
        expect:
          members: [vip]
          not: [hand]
          facts:
            - bucket.entered vip
            - {type: bucket.left, bucket: vip, at: 3d, reason: maxDwell, source: reconcile}
      - delete: ann
`)
	require.Empty(t, faults)
	require.Len(t, tests.Cases, 1)
	c := tests.Cases[0]
	begins := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	at := func(days, hours int) time.Time { return begins.Add(time.Duration(24*days+hours) * time.Hour) }
	assert.Equal(t, []any{"all of it", "buckets/vip_test.yaml", 8, begins, []string{"vip"}}, []any{c.Name, c.File, c.Line, c.Begins, c.Buckets})
	for i := range c.Steps {
		assert.Equal(t, "buckets/vip_test.yaml", c.Steps[i].File)
		assert.NotZero(t, c.Steps[i].Line)
		c.Steps[i].File, c.Steps[i].Line, c.Steps[i].Column = "", 0, 0
	}
	login := &d.TestChange{Properties: `{"a":1}`, UserID: "u1", Email: "a@b.c", AnonymousID: "x"}
	look := &d.TestEvent{Name: "look", Properties: "{}", Late: 5 * time.Minute}
	later := time.Date(2026, 3, 9, 0, 0, 0, 0, time.UTC)
	assert.Equal(t, []d.TestStep{
		{At: begins, Contact: "ann", Event: &d.TestEvent{Name: "signed_up", Properties: `{"1":"one","of":{"x":null},"ok":true,"plan":"pro","price":1.5,"seats":3,"tags":["a","b"]}`}},
		{At: at(1, 0), Contact: "someone", Event: look, Change: login},
		{At: at(1, 1), Contact: "someone", Event: look, Change: login},
		{At: at(2, 0), Contact: "someone", Change: &d.TestChange{Properties: `{"plan":"free"}`}},
		{At: at(2, 0), Contact: "ann", Change: &d.TestChange{UserID: "u2"}},
		{At: at(2, 0), Contact: "ann", Merge: "someone"},
		{At: at(2, 0), Contact: "ann", Add: "hand", Until: at(9, 0)},
		{At: at(2, 0), Contact: "ann", Remove: "hand"},
		{At: at(2, 1)},
		{At: later},
		{At: later, Contact: "ann", Expect: &d.Expectation{Members: []string{"vip"}, Not: []string{"hand"}, Facts: []d.ExpectedFact{
			{Type: "bucket.entered", Bucket: "vip"},
			{Type: "bucket.left", Bucket: "vip", At: at(3, 0), Reason: "maxDwell", Source: "reconcile"},
		}}},
		{At: later, Contact: "ann", Delete: true},
	}, c.Steps)
}

func TestEachCaseBeginsWithWhatIsGiven(t *testing.T) {
	tests, faults := loadTests(t, "given: {steps: [{event: a}, {advance: 1d}]}\ncases:\n- {name: x, steps: [{event: b}]}\n- {name: y, steps: [{event: c, after: 1d}, {expect: {facts: []}}]}\n")
	require.Empty(t, faults)
	require.Len(t, tests.Cases, 2)
	begins := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, want := range []string{"a 0s, passes 24h0m0s, b 24h0m0s", "a 0s, passes 24h0m0s, c 48h0m0s, expect 48h0m0s"} {
		var steps []string
		for _, s := range tests.Cases[i].Steps {
			what := "passes"
			switch {
			case s.Event != nil:
				what = s.Event.Name
			case s.Expect != nil:
				what = "expect"
				assert.NotNil(t, s.Expect.Facts, "none is not the same as nothing said")
			}
			steps = append(steps, fmt.Sprint(what, " ", s.At.Sub(begins)))
		}
		assert.Equal(t, want, strings.Join(steps, ", "))
	}
}

func TestEachFaultOfATestNamesThePlaceAndTheFix(t *testing.T) {
	for text, want := range map[string]string{
		"{}":                                 `1:1: cases: is missing: a file of tests has cases`,
		"- a":                                `1:1: is a list: write a file of tests, with cases`,
		"cases: [{}]\n---\ncases: []":        `1:1: holds 2 documents: write one, with cases`,
		"case: []\ncases: []":                `1:1: case: "case" is not known: did you mean "cases"?`,
		"cases: {name: x}":                   `1:8: cases: is a map: write a list`,
		"cases: [{name: x}]":                 `1:9: cases[0].steps: is missing: a case has name, steps`,
		"cases: []\nbuckets: [vpi]":          `2:11: buckets[0]: bucket "vpi" is not known: did you mean "vip"?`,
		"cases: []\ngiven: {at: 2026-13-01}": `2:13: given.at: "2026-13-01" is no time: write an instant such as 2026-01-31T12:00:00Z, a date, or how long after the case began, such as 3d`,
		"cases: []\ngiven: {at: 1066-10-14}": `2:13: given.at: is no time of whole microseconds between 1970 and 2200`,
		"cases:\n- {name: x, steps: []}\n- {name: x, steps: []}": `3:10: cases[1].name: "x" is another case's name too: names are unique in a file`,

		oneCase("  - evnt: a"):                                                                             `4:5: cases[0].steps[0].evnt: "evnt" is not known: did you mean "event"?`,
		oneCase("  - {event: a, advance: 1d}"):                                                             `4:25: cases[0].steps[0].advance: does not go with event: write it in a step of its own, or leave it out`,
		oneCase("  - {contact: ann}"):                                                                      `4:5: cases[0].steps[0]: does nothing: write one of event, merge, delete, add, remove, expect, properties, identify, advance, at`,
		oneCase("  - {event: contact.created}"):                                                            `4:13: cases[0].steps[0].event: contact.created is a fact, which Hogstream tells by itself: name a product event`,
		oneCase("  - {event: a, times: 0}"):                                                                `4:23: cases[0].steps[0].times: is 0: write a number from 1 to 10000`,
		oneCase("  - {event: a, times: many}"):                                                             `4:23: cases[0].steps[0].times: is text: write a whole number`,
		oneCase("  - {event: a, every: 1h}"):                                                               `4:23: cases[0].steps[0].every: has no meaning without times: write how often the event comes`,
		oneCase("  - {event: a, properties: b}"):                                                           `4:28: cases[0].steps[0].properties: is text: write a map of properties`,
		oneCase("  - {event: a, properties: {1: x}}"):                                                      `4:29: cases[0].steps[0].properties: 1 is no name of a property: write it in quotes`,
		oneCase("  - {event: a, properties: {x: .nan}}"):                                                   `4:32: cases[0].steps[0].properties.x: is a number: write the value itself`,
		oneCase("  - {event: a, at: 3d, after: 1d}"):                                                       `4:31: cases[0].steps[0].after: stands beside at: write one of the two`,
		oneCase("  - {event: a, at: 3d}\n  - {event: a, at: 2d}"):                                          `5:20: cases[0].steps[1].at: is 2026-01-03T00:00:00Z, before the step before, which is at 2026-01-04T00:00:00Z: time does not go back; an event that comes late has late`,
		oneCase("  - advance: soon"):                                                                       `4:14: cases[0].steps[0].advance: "soon" is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m`,
		oneCase("  - {advance: 4000w}\n  - {advance: 5000w}\n  - {advance: 5000w}"):                        `6:5: cases[0].steps[2]: is after the year 2200`,
		oneCase("  - {event: a, contact: ann}\n  - {contact: anm, expect: {not: [vip]}}"):                  `5:15: cases[0].steps[1].contact: contact "anm" is not known: did you mean "ann"?`,
		oneCase("  - expect: {not: [vip]}"):                                                                `4:5: cases[0].steps[0].contact: contact "someone" is not known: no step before this one is about a contact`,
		oneCase("  - event: a\n  - expect: {}"):                                                            `5:13: cases[0].steps[1].expect: expects nothing: write members, not or facts`,
		oneCase("  - event: a\n  - expect: {members: [vio]}"):                                              `5:24: cases[0].steps[1].expect.members[0]: bucket "vio" is not known: did you mean "vip"?`,
		oneCase("  - event: a\n  - expect: {membres: [vip]}"):                                              `5:14: cases[0].steps[1].expect.membres: "membres" is not known: did you mean "members"?`,
		oneCase("  - event: a\n  - expect: {facts: [bucket.enterd vip]}"):                                  `5:22: cases[0].steps[1].expect.facts[0]: "bucket.enterd" is not known: did you mean "bucket.entered"?`,
		oneCase("  - event: a\n  - expect: {facts: [bucket.entered]}"):                                     `5:22: cases[0].steps[1].expect.facts[0]: names no bucket: write bucket.entered and its id`,
		oneCase("  - event: a\n  - expect: {facts: [{type: bucket.left, bucket: vip, reason: criterai}]}"): `5:63: cases[0].steps[1].expect.facts[0].reason: "criterai" is not known: did you mean "criteria"?`,
		oneCase("  - event: a\n  - merge: someone"):                                                        `5:12: cases[0].steps[1].merge: is the contact itself: name the one that is merged into someone`,
		oneCase("  - event: a\n  - {merge: bob, contact: ann}"):                                            `5:13: cases[0].steps[1].merge: contact "bob" is not known: use one of someone`,
		oneCase("  - add: vip"):                                                                            `4:10: cases[0].steps[0].add: bucket "vip" has criteria, which decide who is a member: nobody is put into it by hand`,
		oneCase("  - {add: hand, until: 1d, at: 1d}"):                                                      `4:24: cases[0].steps[0].until: is not after 2026-01-02T00:00:00Z, when the contact is put into it`,
		oneCase("  - delete: ann"):                                                                         `4:13: cases[0].steps[0].delete: contact "ann" is not known: no step before this one is about a contact`,
	} {
		tests, faults := loadTests(t, text)
		assert.Equal(t, want, faults, text)
		assert.Empty(t, tests.Cases, text)
	}
}

func TestTestsStandAnywhereBelowTheDirectoryAndOneBadFileStopsNoOther(t *testing.T) {
	good := []byte("cases: [{name: x, steps: [{event: a}]}]")
	from := fstest.MapFS{
		"a_test.yaml":              {Data: good},
		"buckets/b_test.yml":       {Data: good},
		"deep/er/c_test.yaml":      {Data: good},
		"buckets/bad_test.yaml":    {Data: []byte("cases: {")},
		".git/d_test.yaml":         {Data: good},
		"buckets/.e_test.yaml":     {Data: good},
		"buckets/test.yaml.orig":   {Data: good},
		"buckets/another-bad.yaml": {Data: []byte("id: {")},
	}
	files, err := d.LoadFS(from, "", options())
	require.NoError(t, err)
	tests, err := d.LoadTestsFS(from, "", files)
	require.NoError(t, err)
	require.Len(t, tests.Faults, 1)
	require.Equal(t, "buckets/bad_test.yaml", tests.Faults[0].File)
	var names []string
	for _, c := range tests.Cases {
		names = append(names, c.File)
	}
	require.Equal(t, []string{"a_test.yaml", "buckets/b_test.yml", "deep/er/c_test.yaml"}, names)
}

func FuzzLoadTests(f *testing.F) {
	f.Add(oneCase("  - {event: a, times: 3, every: 1h, late: 1d, properties: {a: {b: [1]}}}\n  - {expect: {members: [vip], facts: [bucket.left vip]}}"))
	f.Add("given: {at: 2026-03-02, steps: [{add: hand, until: 3d}]}\ncases:\n- {name: x, steps: [{remove: hand}, {delete: someone}]}")
	f.Add("cases: [{name: x, steps: [{contact: a, identify: {userId: u}}, {contact: b, merge: a}, {advance: 100w}]}]")
	f.Add("cases: &a [*a]")
	f.Fuzz(func(t *testing.T, text string) {
		tests, _ := loadTests(t, text)
		for _, fault := range tests.Faults {
			assert.Positive(t, fault.Line, fault.String())
			assert.NotEmpty(t, fault.Message)
		}
		for _, c := range tests.Cases {
			assert.Empty(t, tests.Faults)
			assert.NotEmpty(t, c.Name)
			now := c.Begins
			for i := range c.Steps {
				assert.False(t, c.Steps[i].At.Before(now), "time goes back")
				now = c.Steps[i].At
			}
		}
	})
}

package journeys_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

var columns = regexp.MustCompile(`(?m)^(j\.yaml:\d+):\d+`)

// What is wrong is said with its place and what to write instead.
func TestFaultsNameThePlaceAndTheFix(t *testing.T) {
	for text, want := range map[string]string{
		"name: X\nsteps: [{wait: 1d}]": "j.yaml:1: id: is missing: write a journey with id, name, enabled, trigger, steps\n" +
			"j.yaml:1: enabled: is missing: write a journey with id, name, enabled, trigger, steps\n" +
			"j.yaml:1: trigger: is missing: write a journey with id, name, enabled, trigger, steps",
		"[]":                                                   "j.yaml:1: is a list: write a journey with id, name, enabled, trigger, steps",
		"a: 1\n---\nb: 2":                                      "j.yaml:1: holds 2 documents: write one journey",
		steps("stpes: [{wait: 1d}]"):                           `j.yaml:6: stpes: "stpes" is not known: did you mean "steps"?`,
		steps("steps: [{wiat: 1d}]"):                           `j.yaml:6: steps[0].wiat: "wiat" is not known: did you mean "wait"?`,
		steps("steps: [{wait: 1x}]"):                           `j.yaml:6: steps[0].wait: "1x" is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m`,
		steps("steps: [{wait: {at: 25:00}}]"):                  `j.yaml:6: steps[0].wait.at: "25:00" is no time of day: write hours and minutes from 00:00 to 23:59, such as 09:30`,
		steps("steps: [{exit: a}, {wait: 1d}]"):                `j.yaml:6: steps[1]: stands behind an exit: nobody gets there`,
		steps("steps: [{wait: 1d, email: {template: a}}]"):     `j.yaml:6: steps[0]: has wait and email: a step is one of wait, waitUntil, waitFor, branch, split, set, trigger, bucket, email, call, exit`,
		steps("steps: [{id: a, wait: 1d}, {id: a, wait: 1d}]"): `j.yaml:6: steps[1]: has the id "a", as steps[0] has: give one of them another id`,
		steps("steps: [{waitFor: {any: [{event: a}, {event: a}], timeout: 1d}}]"):                            `j.yaml:6: steps[0].waitFor.any[1]: is the second that is called "a": name it with as`,
		steps("steps: [{waitFor: {any: [{event: paid}], timeout: 1d}, then: {piad: [{exit: x}]}}]"):          `j.yaml:6: steps[0].then.piad: "piad" is not known: did you mean "paid"?`,
		steps("steps: [{wait: 1d, then: {next: [{exit: x}]}}]"):                                              `j.yaml:6: steps[0].then: is for waitFor, waitUntil and call: leave it out`,
		steps("steps: [{split: [{percent: 50}, {percent: 40}]}]"):                                            `j.yaml:6: steps[0].split: is of 90 per cent: the parts make 100`,
		steps("steps: [{set: {a: {step: asl, path: x}}}, {id: ask, call: {destination: d}}]"):                `j.yaml:6: steps[0].set: "asl" is no call of this journey: "asl" is not known: did you mean "ask"?`,
		steps("steps: [{set: {a: {run: kye}}}]"):                                                             `j.yaml:6: steps[0].set.a.run: "kye" is not known: did you mean "key"?`,
		steps("steps: [{trigger: {event: \"bucket.entered\"}}]"):                                             `j.yaml:6: steps[0].trigger.event: "bucket.entered" begins as a fact, which is not for journeys to tell: use another`,
		steps("steps: [{bucket: {add: a, remove: b}}]"):                                                      `j.yaml:6: steps[0].bucket: write one of add, remove`,
		steps("exitOn: [{event: a, settle: 1h}]\nsteps: [{wait: 1d}]"):                                       `j.yaml:6: exitOn[0].settle: is for a bucket that is left: write leftBucket, or leave settle out`,
		steps("exitOn: [{event: \"bucket.etnered:vip\"}]\nsteps: [{wait: 1d}]"):                              `j.yaml:6: exitOn[0].event: "bucket.etnered" is not known: did you mean "bucket.entered"?`,
		steps("goal: {event: a}\nsteps: [{wait: 1d}]"):                                                       `j.yaml:6: goal.within: is missing: write {event: order.paid, within: 7d}`,
		steps("live: queue\nsteps: [{wait: 1d}]\nentryPeriod: 1h"):                                           `j.yaml:8: entryPeriod: is for entryLimit once_per_period: leave it out`,
		steps("holdout: 101\nsteps: [{wait: 1d}]"):                                                           `j.yaml:6: holdout: is 101: write a number above 0, up to 100`,
		steps("zone: Berlin\nsteps: [{wait: 1d}]"):                                                           `j.yaml:6: zone: "Berlin" is no time zone: write an IANA name such as Europe/Berlin`,
		"id: j\nname: J\nenabled: true\ntrigger: {event: a, where: {x: {run: key}}}\nsteps: [{wait: 1d}]":    `j.yaml:4: trigger[0].where.x: looks at run, which is not known here: use contact`,
		"id: j\nname: J\nenabled: true\ntrigger: {repeat: {at: \"9:00\"}, bucket: vip}\nsteps: [{wait: 1d}]": `j.yaml:1: entryLimit: is once, but the trigger comes again: write unlimited or once_per_period`,
	} {
		_, err := journeys.ParseYAML("j.yaml", []byte(text))
		if assert.Error(t, err, text) {
			assert.Equal(t, want, columns.ReplaceAllString(err.Error(), "$1"), text)
		}
	}
}

func TestStepsStandWithinSixteenOthersAtMost(t *testing.T) {
	nested := func(n int) string {
		return steps("steps: " + strings.Repeat("[{split: [{percent: 100, do: ", n) + "[{exit: x}]" + strings.Repeat("}]}]", n))
	}
	_, err := journeys.ParseYAML("j.yaml", []byte(nested(15)))
	require.NoError(t, err)
	_, err = journeys.ParseYAML("j.yaml", []byte(nested(16)))
	require.ErrorContains(t, err, "stands within more than 15 others")
}

// A journey that is built in Go is checked as one that is read.
func TestABuiltJourneyIsChecked(t *testing.T) {
	j := journeys.Journey{
		ID: "j", Name: "J", Enabled: true, Trigger: journeys.Trigger{Records: []journeys.Match{{Event: "start"}}}, Key: predicate.Path{"k"},
		ExitOn: []journeys.Exit{{Match: journeys.Match{Event: "paid", Same: []journeys.Same{{Property: "k", Value: journeys.RunKey()}}}}},
		Steps: []journeys.Step{
			{ID: "ask", Call: &journeys.Call{Destination: "crm", Body: new(journeys.Object(map[string]journeys.Value{"total": journeys.FromTrigger("total")}))}},
			{Set: new(journeys.Object(map[string]journeys.Value{"score": journeys.FromStep("ask", "body", "score"), "plan": journeys.FromContact("plan"), "n": journeys.Literal(1), "via": journeys.FromLast("via")}))},
		},
	}
	require.NoError(t, j.Check())
	read := parse(t, j.Canonical())
	require.Equal(t, j.Canonical(), read.Canonical())

	j.Steps = append(j.Steps, journeys.Step{Set: new(journeys.Literal(7))}, journeys.Step{})
	j.ID = "a@b"
	err := j.Check()
	var faults predicate.Faults
	require.ErrorAs(t, err, &faults)
	require.Equal(t, "id: holds a control character or @: leave it out\nsteps[2].set: is no object: use Object, or Literal of a map\n"+
		"steps[3]: has no kind: a step is one of wait, waitUntil, waitFor, branch, split, set, trigger, bucket, email, call, exit", err.Error())
	_, err = journeys.Compile(j, journeys.Options{})
	require.Error(t, err)
}

package journeys_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

func reactions(t tester, text string) (journeys.Reactions, error) {
	t.Helper()
	documents, err := predicate.Documents("b.yaml", []byte(text))
	require.NoError(t, err)
	list, _, err := journeys.ReadReactions("b.yaml", "on", documents[0])
	return list, err
}

// Acceptance case 32: steps for the first entry alone, for some reasons of leaving, and for
// a dwell. Each is a journey of its own.
func TestReactionsOfABucketAreJourneys(t *testing.T) {
	list, err := reactions(t, `
- enter: [{email: {template: first, props: {n: {trigger: entryCount}}}}]
  firstEntryOnly: true
- leave: [{email: {template: left, props: {why: {trigger: reason}}}}]
  reason: [criteria, maxDwell]
- dwell: {after: 7d}
  do: [{email: {template: stays}}]
`)
	require.NoError(t, err)
	var in []journeys.InUse
	var ids []string
	for i := range list {
		j := list[i].Journey("vip", "VIPs", true)
		ids = append(ids, j.ID)
		require.True(t, journeys.IsReaction(j.ID))
		p, err := journeys.Compile(parse(t, j.Canonical()), journeys.Options{})
		require.NoError(t, err)
		in = append(in, journeys.InUse{Program: p})
	}
	require.Equal(t, []string{"bucket-vip-on-enter", "bucket-vip-on-leave", "bucket-vip-on-dwell-after-604800000"}, ids)
	require.Equal(t, "VIPs — on enter", list[0].Journey("vip", "VIPs", true).Name)
	s := &stage{t: t, contact: someone, now: monday}
	s.use(in, nil)
	s.enters("vip", 2)
	s.enters("vip", 1)
	s.enters("other", 1)
	s.leaves("vip", "manual")
	s.leaves("vip", "maxDwell")
	label, other, count := "after-604800000", "every-3600000", int64(1)
	for _, l := range []*string{&other, &label} {
		s.fact(&schemas.Fact{Type: schemas.FactBucketDwell, Bucket: &schemas.BucketTransition{BucketID: "vip", Transition: "dwell", Label: l, DwellCount: &count}})
	}
	var sentMails []string
	for _, m := range sent[*schemas.EmailRequest](s) {
		sentMails = append(sentMails, m.Template+m.Props)
	}
	require.Equal(t, []string{`first{"n":1}`, `left{"why":"maxDwell"}`, "stays{}"}, sentMails)

	text, err := json.Marshal(list)
	require.NoError(t, err)
	var again journeys.Reactions
	require.NoError(t, json.Unmarshal(text, &again))
	require.Equal(t, list, again)
}

// Acceptance case 33.
func TestAReactionSaysWhatItIsOn(t *testing.T) {
	for text, want := range map[string]string{
		`{dwell: {after: 1d, every: 1d}, do: [{exit: x}]}`:                   `on[0].dwell: write one of after, every`,
		`{dwell: {}, do: [{exit: x}]}`:                                       `on[0].dwell: write one of after, every`,
		`[{enter: [{exit: x}]}, {enter: [{exit: y}], firstEntryOnly: true}]`: `on[1]: is a collision with the 1. of them, which is on the same: write the steps together`,
		`{do: [{exit: x}]}`:                                                  `on[0]: is on nothing: write one of enter, leave, dwell`,
		`{enter: [{exit: x}], leave: [{exit: x}]}`:                           `on[0]: is on enter and leave: write one of enter, leave, dwell`,
		`{enter: [{exit: x}], do: [{exit: y}]}`:                              `on[0].do: is for dwell: write the steps at enter`,
		`{enter: [{exit: x}], reason: criteria}`:                             `on[0].reason: is for leave: leave it out`,
		`{leave: [{exit: x}], reason: criterai}`:                             `on[0].reason[0]: "criterai" is not known: did you mean "criteria"?`,
		`{leave: [{exit: x}], firstEntryOnly: true}`:                         `on[0].firstEntryOnly: is for enter: leave it out`,
		`{dwell: {after: 1d}}`:                                               `on[0].do: is missing: write what happens`,
		`{enter: [{wait: 1d, exit: x}]}`:                                     `on[0].enter[0]: has wait and exit: a step is one of`,
	} {
		_, err := reactions(t, text)
		if assert.Error(t, err, text) {
			assert.Contains(t, err.Error(), want, text)
		}
	}
	r := journeys.Reaction{On: journeys.OnDwell, Every: time.Hour}
	require.Equal(t, "bucket-a-on-b-on-dwell-every-3600000", r.JourneyID("a-on-b"))
	for id, want := range map[string]bool{"bucket-a-on-enter": true, "bucket-a-on-dwell-every-1": true, "bucket-a-on-entering": false, "bucket-list": false, "welcome": false} {
		require.Equal(t, want, journeys.IsReaction(id), id)
	}
	require.Error(t, journeys.Reactions{{On: "entre", Steps: []journeys.Step{{Exit: "x"}}}}.Check())
	require.NotContains(t, r.Label(), "after")
}

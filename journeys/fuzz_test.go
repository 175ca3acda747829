package journeys_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
)

// What reads a file never panics, says where what is wrong, and reads what it writes.
func FuzzParse(f *testing.F) {
	f.Add(example)
	f.Add(steps("steps: [{set: {a: {literal: {run: key}}, b: {step: x, path: [a, b]}}}]"))
	f.Add(steps("steps: [{wait: {hours: 1}}, {waitFor: {any: {event: a, where: [{a: 1}, {b: {run: key}}]}, timeout: 1h}}]"))
	f.Add("{id: j, name: J, enabled: true, trigger: {repeat: {at: 9:00}, bucket: vip}, entryLimit: unlimited, steps: [{exit: x}]}")
	f.Add("a: *b\nb: &b {}")
	f.Add("steps: [[[[")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := journeys.ParseYAML("f.yaml", []byte(text))
		var faults predicate.Faults
		if err != nil {
			require.ErrorAs(t, err, &faults)
			for _, fault := range faults {
				require.NotEmpty(t, fault.Message)
				require.Positive(t, fault.Line, fault.Message)
			}
			return
		}
		p, err := journeys.Compile(j, journeys.Options{})
		require.NoError(t, err)
		for at, n := range p.Nodes() {
			for _, edge := range n.Next {
				require.True(t, edge.To == -1 || edge.To > at && edge.To < len(p.Nodes()), "nothing leads back")
			}
		}
		again, err := journeys.ParseYAML("g.yaml", []byte(j.Canonical()))
		require.NoError(t, err)
		require.Equal(t, j.Canonical(), again.Canonical())
		var decoded journeys.Journey
		require.NoError(t, decoded.UnmarshalJSON([]byte(j.Canonical())))
		require.Equal(t, j.Identity(), decoded.Identity())
	})
}

// What reads a state never panics or takes memory that the bytes do not have, and what it
// takes is written the same again, and can be stepped.
func FuzzDecode(f *testing.F) {
	s := newStage(f, strings.Replace(example, "holdout: 10\n", "", 1), steps("steps: [{waitFor: {any: [{event: a}], timeout: 1d, lookback: 1h}}]"), weekly2)
	f.Add(bytesOf(f, &s.s))
	s.enters("vip", 1)
	s.event("a", `{}`)
	s.event("start", `{"k":1}`)
	s.event("cart.left", `{"cartId":7,"total":20,"country":"DE","cart":{"items":[1]}}`)
	s.pass(time.Hour)
	f.Add(bytesOf(f, &s.s))
	s.leaves("cart-abandoned", "criteria")
	s.event("cart.left", `{"cartId":8,"total":20,"country":"DE"}`)
	s.pass(20 * day)
	f.Add(bytesOf(f, &s.s))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var read journeys.State
		if err := read.UnmarshalBinary(data); err != nil {
			require.ErrorIs(t, err, journeys.ErrState)
			return
		}
		written := bytesOf(t, &read)
		var again journeys.State
		require.NoError(t, again.UnmarshalBinary(written))
		require.Equal(t, written, bytesOf(t, &again))
		e := &schemas.Event{ID: s.id(), ContactID: someone, Name: "a", Properties: `{}`, OccurredAt: monday, ReceivedAt: monday}
		_, err := s.m.Step(again, &journeys.Input{ID: e.ID, ContactID: someone, OccurredAt: monday, Event: e}, s.facts.clone(t), monday)
		require.NoError(t, err)
	})
}

var weekly2 = strings.Replace(weekly, "id: j", "id: k", 1)

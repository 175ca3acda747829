package journeys_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// ten are ten journeys, of which most begin with events that are rare.
func ten() []string {
	out := []string{steps("steps: [{wait: 7d}, {email: {template: a}}]")}
	for i := range 9 {
		out = append(out, fmt.Sprintf("id: j%d\nname: J\nenabled: true\ntrigger: {event: rare.%d}\nexitOn: [{event: gone}]\nsteps: [{waitFor: {any: [{event: paid}], timeout: 7d}}]", i, i))
	}
	return out
}

func BenchmarkStep(b *testing.B) {
	for _, c := range []struct {
		name, event string
		live        bool
	}{
		{"a record that nobody looks at", "seen", false},
		{"the same of a contact with a live run", "seen", true},
		{"a record that one looks at", "paid", true},
		{"a trigger that does not enrol", "start", true},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newStage(b, ten()...)
			if c.live {
				s.event("start", `{}`)
			}
			e := &schemas.Event{ID: s.id(), ContactID: someone, Name: c.event, Properties: `{"k":"v"}`, OccurredAt: s.now, ReceivedAt: s.now}
			in := &journeys.Input{ID: e.ID, ContactID: someone, OccurredAt: s.now, Event: e}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.m.Step(s.s, in, s.facts, s.now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A run that sleeps is a few hundred bytes of the state of its contact.
func TestASleepingRunIsSmall(t *testing.T) {
	s := newStage(t, strings.Replace(example, "holdout: 10\n", "", 1))
	s.event("cart.left", `{"cartId":"0192f000-0000-7000-8000-00000000c0de","total":20,"country":"DE","cart":{"items":["a","b"]},"other":"`+strings.Repeat("x", 10_000)+`"}`)
	for s.s.Runs()[0].Node < 2 {
		s.pass(time.Hour)
	}
	size := len(bytesOf(t, &s.s))
	require.Less(t, size, 400, "bytes")
}

// Code is run from its beginning for each record that might wake it.
func BenchmarkStepOfCode(b *testing.B) {
	s := codeStage(b, coded("1", func(r *journeys.Run) error {
		for i := range 10 {
			r.Set(fmt.Sprint("step ", i), map[string]any{"i": i})
		}
		r.WaitFor("paid", journeys.WaitFor{Any: []journeys.Alternative{{Match: journeys.Match{Event: "paid"}}}, Timeout: day})
		return nil
	}))
	s.event("start", `{}`)
	e := &schemas.Event{ID: s.id(), ContactID: someone, Name: "seen", Properties: `{"k":"v"}`, OccurredAt: s.now, ReceivedAt: s.now}
	in := &journeys.Input{ID: e.ID, ContactID: someone, OccurredAt: s.now, Event: e}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.m.Step(s.s, in, s.facts, s.now); err != nil {
			b.Fatal(err)
		}
	}
}

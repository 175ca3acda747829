package schemas

import (
	"strings"
	"testing"
)

// benchMessages carry a property document of 1 KiB.
func benchMessages() map[string]Message {
	doc := `{"pad":"` + strings.Repeat("x", 900) + `","plan":"pro","amount":129.90,"currency":"EUR","items":["a","b","c"],"n":{"a":1}}`
	in := &Input{ID: idA, Type: InputEvent, ReceivedAt: later, OccurredAt: at, Source: "api", UserID: ptr("user-1"), Email: ptr("a@example.com"), Event: ptr("order.completed"), EventProperties: &doc, ContactProperties: ptr(`{"n":1}`), IdempotencyKey: ptr("k1")}
	ev := sampleEvent()
	ev.Properties = doc
	co := sampleContact()
	co.Properties = doc
	return map[string]Message{
		"Input": in, "Event": ev, "Contact": co,
		"Resolved": &Resolved{ID: idA, Type: ResolvedInput, ContactID: idB, OccurredAt: at, Input: in, UserID: ptr("user-1"), Email: ptr("a@example.com")},
		"Fact":     &Fact{ID: idA, Type: FactContactUpdated, ContactID: idB, OccurredAt: at, CauseID: idA, Contact: &ContactFact{7, doc, []string{"plan"}, at, later, at, later, nil, nil}},
	}
}

func BenchmarkEncode(b *testing.B) {
	c := NewCodec()
	for name, m := range benchMessages() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Encode(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	c := NewCodec()
	for name, m := range benchMessages() {
		value, err := c.Encode(m)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := decodeAny(c, m.Topic(), value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

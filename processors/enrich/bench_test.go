package enrich

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

// An event that no enrichment looks at, of a contact that ten were asked about; and how
// large such a contact's state is.
func BenchmarkStep(b *testing.B) {
	var list []definition.EnrichmentInUse
	for i := range 10 {
		e := company
		e.ID = fmt.Sprint("company-", i)
		list = append(list, inUse(e, 1))
	}
	l := Compile(&definition.Set{Version: 1, Enrichments: list}, Options{Limits: predicate.DefaultLimits(), Map: mapFields}).asking(nil)
	known := &schemas.Fact{
		ID: uuid.NewString(), Type: schemas.FactContactCreated, ContactID: id("ada"), OccurredAt: t0,
		Contact: &schemas.ContactFact{Properties: `{"domain":"acme.test","plan":"pro"}`, UpdatedAt: t0, FirstSeenAt: t0, LastSeenAt: t0, CreatedAt: t0},
	}
	result, err := l.Step(State{}, &derive.Record[State]{ContactID: id("ada"), OccurredAt: t0, Fact: known}, t0)
	require.NoError(b, err)
	text, err := codec{}.Encode(result.State)
	require.NoError(b, err)
	event := &schemas.Event{ID: uuid.NewString(), ContactID: id("ada"), Name: "looked", Properties: "{}", OccurredAt: t0, ReceivedAt: t0}
	record := &derive.Record[State]{ContactID: id("ada"), OccurredAt: t0, Event: event}
	b.ReportAllocs()
	for b.Loop() {
		again, err := l.Step(result.State, record, t0)
		require.NoError(b, err)
		require.True(b, again.Same)
		result.State = again.State
	}
	b.ReportMetric(float64(len(text)), "B/state")
}

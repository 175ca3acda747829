package schemas_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestATypePatternTakesATypeAPrefixOrAllProductEvents(t *testing.T) {
	types := []string{"contact.created", "contact.updated", "contacts", "event.tracked", "event.tracked:order.paid", "event.tracked:orders", "event.trackedly", "gone.type"}
	for pattern, want := range map[string][]string{
		"":                      types,
		"*":                     types,
		"contact.created":       {"contact.created"},
		"contact.*":             {"contact.created", "contact.updated"},
		"event.tracked":         {"event.tracked", "event.tracked:order.paid", "event.tracked:orders"},
		"event.tracked:order.*": {"event.tracked:order.paid"},
		"event.tracked:orders":  {"event.tracked:orders"},
		"gone.*":                {"gone.type"},
		"contact":               nil,
	} {
		var got []string
		for _, typ := range types {
			if schemas.ParseTypePattern(pattern).Matches(typ) {
				got = append(got, typ)
			}
		}
		require.Equal(t, want, got, pattern)
	}
}

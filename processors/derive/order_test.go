package derive

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEachRecordCountsOnceAndInOrderHoweverTopicsMergesAndTheTakeOverInterleave(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newTallying(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		require.Empty(rt, w.Run(rapid.IntRange(10, 120).Draw(rt, "steps")))
	})
}

// Each rule is switched off here, and then a fault must appear: so it is known that the
// test above tests it.
func TestRulesOfTheOrderOfAContactAreEachNeeded(t *testing.T) {
	for name := range Rules {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, firstFault(name), "no fault appears without the rule")
		})
	}
	t.Run("with all of them nothing is wrong", func(t *testing.T) {
		require.Empty(t, firstFault())
	})
}

// firstFault draws schedules until one goes wrong.
func firstFault(without ...string) string {
	for seed := range uint64(3000) {
		w := newTallying(rand.New(rand.NewPCG(seed, 0)).IntN)
		w.Off(without...)
		if fault := w.Run(100); fault != "" {
			return fault
		}
	}
	return ""
}

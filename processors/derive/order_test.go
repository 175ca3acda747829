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
	for name, without := range map[string]func(*tallying){
		"hold":      func(w *tallying) { w.off = ruleHold },
		"notes":     func(w *tallying) { w.notesLate = true },
		"take over": func(w *tallying) { w.lazy = true },
		"marks":     func(w *tallying) { w.off = ruleMarks },
		"mark hand": func(w *tallying) { w.off = ruleMarkHand },
		"last":      func(w *tallying) { w.off = ruleLast },
		"wait":      func(w *tallying) { w.off = ruleWait },
		"own mark":  func(w *tallying) { w.off = ruleOwnMark },
		"once":      func(w *tallying) { w.off = ruleOnce },
		"equal":     func(w *tallying) { w.off = ruleEqual },
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, firstFault(without), "no fault appears without the rule")
		})
	}
	t.Run("with all of them nothing is wrong", func(t *testing.T) {
		require.Empty(t, firstFault(func(*tallying) {}))
	})
}

// firstFault draws schedules until one goes wrong.
func firstFault(change func(*tallying)) string {
	for seed := range uint64(3000) {
		w := newTallying(rand.New(rand.NewPCG(seed, 0)).IntN)
		change(w)
		if fault := w.Run(100); fault != "" {
			return fault
		}
	}
	return ""
}

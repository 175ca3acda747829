package derive

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEachRecordCountsOnceAndInOrderHoweverTopicsMergesAndTheTakeOverInterleave(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		require.Empty(rt, w.run(rapid.IntRange(10, 120).Draw(rt, "steps")))
	})
}

// Each rule is switched off here, and then a fault must appear: so it is known that the
// test above tests it.
func TestRulesOfTheOrderOfAContactAreEachNeeded(t *testing.T) {
	for name, without := range map[string]func(*world){
		"hold":      func(w *world) { w.off = ruleHold },
		"notes":     func(w *world) { w.notesLate = true },
		"take over": func(w *world) { w.lazy = true },
		"marks":     func(w *world) { w.off = ruleMarks },
		"mark hand": func(w *world) { w.off = ruleMarkHand },
		"last":      func(w *world) { w.off = ruleLast },
		"wait":      func(w *world) { w.off = ruleWait },
		"own mark":  func(w *world) { w.off = ruleOwnMark },
		"once":      func(w *world) { w.off = ruleOnce },
		"equal":     func(w *world) { w.off = ruleEqual },
	} {
		t.Run(name, func(t *testing.T) {
			require.NotEmpty(t, firstFault(without), "no fault appears without the rule")
		})
	}
	t.Run("with all of them nothing is wrong", func(t *testing.T) {
		require.Empty(t, firstFault(func(*world) {}))
	})
}

// firstFault draws schedules until one goes wrong.
func firstFault(change func(*world)) string {
	for seed := range uint64(3000) {
		w := newWorld(rand.New(rand.NewPCG(seed, 0)).IntN)
		change(w)
		if fault := w.run(100); fault != "" {
			return fault
		}
	}
	return ""
}

package seeds_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

func TestTheEnvironmentSaysHowManySeedsRunOrWhichOne(t *testing.T) {
	var ran []uint64
	note := func(_ *testing.T, seed uint64) { ran = append(ran, seed) }
	seen := func(many, one string, run func(t *testing.T)) []uint64 {
		t.Setenv("HOGSTREAM_FAULT_SEEDS", many)
		t.Setenv("HOGSTREAM_FAULT_SEED", one)
		ran = nil
		run(t)
		return ran
	}
	each := func(t *testing.T) { seeds.Each(t, 2, note) }
	tenth := func(t *testing.T) { seeds.Any(t, 2, 10, note) }
	require.Equal(t, []uint64{1, 2}, seen("", "", each))
	require.False(t, seeds.Thorough())
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, seen("5", "", each))
	require.True(t, seeds.Thorough())
	require.Equal(t, []uint64{7}, seen("5", "7", each))
	require.Equal(t, []uint64{7}, seen("", "7", tenth))
	require.Len(t, seen("", "", tenth), 2)
	require.Len(t, seen("40", "", tenth), 4)
	require.Len(t, seen("5", "", tenth), 1, "one at least")
}

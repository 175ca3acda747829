package embedded

import "testing"

func TestBuffersAreASixteenthOfTheMemoryWithinBounds(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	for memory, want := range map[uint64]uint64{0: 128, gib: 128, 2 * gib: 128, 4 * gib: 256, 8 * gib: 512, 16 * gib: 1024, 64 * gib: 1024} {
		if got := bufferMiB(memory); got != want {
			t.Errorf("of %d GiB: %d MiB of buffers, want %d", memory/gib, got, want)
		}
	}
}

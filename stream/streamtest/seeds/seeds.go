// Package seeds says with which seeds fault tests run, for all packages alike. It
// imports none of them, so that tests inside package stream can use it too.
//
// HOGSTREAM_FAULT_SEEDS is how many seeds each test runs; HOGSTREAM_FAULT_SEED is one
// seed to run alone, the one that a failing run printed.
package seeds

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

const (
	manyVariable = "HOGSTREAM_FAULT_SEEDS"
	oneVariable  = "HOGSTREAM_FAULT_SEED"
)

// Thorough says that many seeds are run, as `make faults` does.
func Thorough() bool { return os.Getenv(manyVariable) != "" }

// Each runs a test with the seeds 1 to few, unless the environment says otherwise.
func Each(t *testing.T, few int, run func(t *testing.T, seed uint64)) {
	t.Helper()
	each(t, 1, few, 1, run)
}

// Any is Each with seeds that are others in each run, and with one share-th of those
// that the environment asks for: for tests that take long.
func Any(t *testing.T, few, share int, run func(t *testing.T, seed uint64)) {
	t.Helper()
	each(t, rand.Uint64N(1_000_000), few, share, run)
}

func each(t *testing.T, first uint64, few, share int, run func(t *testing.T, seed uint64)) {
	t.Helper()
	last := first + uint64(few)
	if many, set := read(t, manyVariable); set {
		last = first + max(1, many/uint64(share))
	}
	if one, set := read(t, oneVariable); set {
		first, last = one, one+1
	}
	for seed := first; seed < last; seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("run it again with %s=%d", oneVariable, seed)
				}
			})
			run(t, seed)
		})
	}
}

func read(t *testing.T, variable string) (n uint64, set bool) {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return 0, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n, true
}

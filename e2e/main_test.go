// Package e2e_test runs the real binary: end-to-end tests, and tests of the
// faults that must be survived. By default the broker is kfake in a process of
// its own; with KAFKA_BROKERS and SCHEMA_REGISTRY_URL set (`make e2e`) it is
// that cluster, under topic names of each test's own.
//
// HOGSTREAM_FAULT_SEEDS says how many seeds each fault test runs, and lengthens
// the outages; HOGSTREAM_FAULT_SEED runs one seed, the one that a failing run
// printed.
package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hogstream/hogstream/stream/streamtest"
	"github.com/hogstream/hogstream/stream/streamtest/seeds"
)

// patience is how long a test waits for what must come. It is never a measure of
// speed: the machine may be busy with other things.
var patience = 3 * time.Minute

func TestMain(m *testing.M) {
	streamtest.MaybeServe()
	dir, err := os.MkdirTemp("", "hogstream-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	built.dir = dir
	if short, err := time.ParseDuration(os.Getenv("HOGSTREAM_E2E_PATIENCE")); err == nil {
		patience = short
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// built is the program under test, built once.
var built struct {
	dir  string
	once sync.Once
	path string
	err  error
}

// hogstream returns the path of the binary.
func hogstreamBinary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		built.path = filepath.Join(built.dir, "hogstream")
		// Without its profile (default.pgo), the build shares the packages that
		// the tests were compiled with.
		out, err := exec.Command("go", "build", "-pgo=off", "-o", built.path, "../cmd/hogstream").CombinedOutput()
		if err != nil {
			built.err = fmt.Errorf("build the binary: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// thorough says that `make faults` runs: many seeds and outages of full length.
func thorough() bool { return seeds.Thorough() }

// beside lets a test run beside others: they mostly wait. On a real cluster they
// stop brokers that others need.
func beside(t *testing.T) {
	t.Helper()
	if !realKafka() {
		t.Parallel()
	}
}

// notShort leaves a test out of the run that only checks authentication.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("not with -short")
	}
}

// eachSeed runs a fault test with its seeds: few of them in `make test`.
func eachSeed(t *testing.T, few int, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	runSeeds(t, few, 1, run)
}

// eachLongSeed is for tests that wait for a minute in `make faults`: a tenth of the
// seeds, or they alone would take half a day.
func eachLongSeed(t *testing.T, few int, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	runSeeds(t, few, 10, run)
}

func runSeeds(t *testing.T, few, share int, run func(t *testing.T, rng *rand.Rand)) {
	t.Helper()
	beside(t)
	seeds.Any(t, few, share, func(t *testing.T, seed uint64) { run(t, rand.New(rand.NewPCG(seed, 7))) })
}

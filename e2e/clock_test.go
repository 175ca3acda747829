package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks/sinktest"
)

// The wall clock of a process cannot be set apart from the machine's, so the
// program is built with a time.Now whose wall clock is shifted, and whose monotonic
// one is not, by as many seconds as a file says when SIGUSR1 comes.
const (
	shiftInTime = `package time

import "sync/atomic"

// WallShift is added to the wall clock, in seconds.
var WallShift atomic.Int64
`
	shiftInMain = `package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		for range signals {
			text, _ := os.ReadFile(os.Getenv("HOGSTREAM_TEST_CLOCK"))
			shift, _ := strconv.ParseInt(string(text), 10, 64)
			time.WallShift.Store(shift)
			os.WriteFile(os.Getenv("HOGSTREAM_TEST_CLOCK")+".set", text, 0o600)
		}
	}()
}
`
	nowBefore = "sec, nsec, mono := runtimeNow()\n	if mono == 0 {\n		return Time{uint64(nsec), sec + unixToInternal, Local}"
	nowAfter  = "sec, nsec, mono := runtimeNow()\n	sec += WallShift.Load()\n	if mono == 0 {\n		return Time{uint64(nsec), sec + unixToInternal, Local}"
)

var shifted struct {
	once sync.Once
	path string
	err  error
}

// shiftableBinary builds the program with a clock that can be shifted.
func shiftableBinary(t *testing.T) string {
	t.Helper()
	shifted.once.Do(func() { shifted.path, shifted.err = buildShiftable(built.dir) })
	require.NoError(t, shifted.err)
	return shifted.path
}

func buildShiftable(dir string) (string, error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask for GOROOT: %w", err)
	}
	main, err := filepath.Abs("../cmd/hogstream")
	if err != nil {
		return "", err
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	text, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	now := strings.Replace(string(text), nowBefore, nowAfter, 1)
	if now == string(text) {
		return "", fmt.Errorf("time.Now of %s is not the one that this test knows", root)
	}
	replace := map[string]string{}
	for path, text := range map[string]string{
		filepath.Join(library, "time.go"): now, filepath.Join(library, "shift.go"): shiftInTime, filepath.Join(main, "shift.go"): shiftInMain,
	} {
		file := filepath.Join(dir, fmt.Sprintf("overlay-%d.go", len(replace)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "hogstream-shiftable")
	if out, err := exec.Command("go", "build", "-pgo=off", "-overlay", list, "-o", path, "../cmd/hogstream").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary with a shiftable clock: %w\n%s", err, out)
	}
	return path, nil
}

// shiftClock makes the process's wall clock jump to so far from the machine's.
func (p *process) shiftClock(by time.Duration) {
	p.t.Helper()
	file := p.clock()
	text := fmt.Sprint(int64(by / time.Second))
	require.NoError(p.t, os.WriteFile(file, []byte(text), 0o600))
	p.signal(syscall.SIGUSR1)
	p.w.eventually("the clock to jump", func(context.Context) error {
		set, _ := os.ReadFile(file + ".set")
		if string(set) != text {
			return fmt.Errorf("it is at %q", set)
		}
		return nil
	})
}

func (p *process) clock() string { return filepath.Join(p.w.dir, p.name+".clock") }

// Two processes play all roles while their clocks jump by more than a lease, each
// on its own: leases, retries and idle times go by other clocks, so nothing is
// lost, repeated or held up.
func TestFaultWallClocksThatJumpChangeNothing(t *testing.T) {
	if !thorough() {
		t.Skip("builds the whole program anew: make faults")
	}
	eachLongSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t)
		r := w.addReceiver(sinktest.Options{Sequence: bySeq, Latency: time.Millisecond})
		var fleet []*process
		for _, name := range []string{"a", "b"} {
			p := w.newProcess(name, []string{"serve"})
			p.binary = shiftableBinary(t)
			p.env = append(p.env, "HOGSTREAM_TEST_CLOCK="+p.clock())
			p.start()
			p.waitReady()
			fleet = append(fleet, p)
		}
		w.waitMembers(2)
		l := load{name: "clock", subjects: 24, each: 24, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		var jumps []string
		for k := range 8 {
			w.waitAccepted(c, l.events()*(k+1)/10)
			p := fleet[rng.IntN(len(fleet))]
			// A receiver refuses signatures that are five minutes off.
			by := time.Duration(rng.IntN(8*60)-4*60) * time.Second
			p.shiftClock(by)
			jumps = append(jumps, fmt.Sprint(p.name, " ", by))
		}
		wait()
		started := time.Now()
		stats := w.waitDelivered(2 * l.events())
		w.verify(l)
		t.Logf("jumps: %v; all delivered %s after the last event, %d repeated", jumps, time.Since(started).Round(time.Millisecond), stats.Duplicates)
		require.Zero(t, stats.Duplicates)
		require.Zero(t, r.Stats().BadSignatures)
		for _, p := range fleet {
			require.NotContains(t, p.tail(1000), "delivery.lease_lost")
			p.stop()
		}
	})
}

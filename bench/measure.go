package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// profile takes a CPU profile of this process until the function returned is
// called; without a directory for profiles it does nothing.
func profile(cfg Config, name string) (stop func()) {
	if cfg.Profile == "" {
		return func() {}
	}
	if err := os.MkdirAll(cfg.Profile, 0o755); err != nil {
		cfg.say("  no profile: %v", err)
		return func() {}
	}
	f, err := os.Create(filepath.Join(cfg.Profile, name+".pprof"))
	if err != nil {
		cfg.say("  no profile: %v", err)
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		cfg.say("  no profile: %v", err)
		return func() { _ = f.Close() }
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}
}

// awaitCount waits until a counter of a processor has reached n.
func awaitCount(ctx context.Context, reg prometheus.Gatherer, name, label, value string, n float64) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last float64
	for progress := time.Now(); ; {
		got, err := counter(reg, name, label, value)
		if err != nil {
			return err
		}
		if got >= n {
			return nil
		}
		if got > last {
			last, progress = got, time.Now()
		}
		if time.Since(progress) > time.Minute {
			return fmt.Errorf("%s of %s stands at %.0f of %.0f for a minute", name, value, got, n)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// counter adds up the series with this label, 0 when there is none.
func counter(reg prometheus.Gatherer, name, label, value string) (sum float64, err error) {
	families, err := reg.Gather()
	if err != nil {
		return 0, fmt.Errorf("read figures: %w", err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == label && l.GetValue() == value {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum, nil
}

// cpuTime is what this process has used, in user and system mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// treeCPU is what a process and its children have used, those that have ended too.
func treeCPU(pid int) time.Duration {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	var ticks int64
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone by now
		}
		// The name, in parentheses, may hold anything; what follows is numbers.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		own, _, _ := strings.Cut(strings.TrimPrefix(path, "/proc/"), "/")
		if len(fields) < 15 || own != strconv.Itoa(pid) && fields[1] != strconv.Itoa(pid) {
			continue
		}
		times := fields[11:13] // utime, stime
		if own == strconv.Itoa(pid) {
			times = fields[11:15] // and cutime, cstime: of children that have ended
		}
		for _, f := range times {
			n, err := strconv.ParseInt(f, 10, 64)
			if err == nil {
				ticks += n
			}
		}
	}
	const perSecond = 100 // USER_HZ, the same on all Linux architectures Go knows
	return time.Duration(ticks) * time.Second / perSecond
}

// residentMiB is the resident memory of a process now.
func residentMiB(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kib float64
	_, _ = fmt.Sscanf(after(string(text), "VmRSS:"), "%f", &kib)
	return kib / 1024
}

// peakMiB samples the resident memory of this process until stop is called,
// which returns the highest.
func peakMiB() (stop func() float64) {
	done, result := make(chan struct{}), make(chan float64)
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var peak float64
		for {
			peak = max(peak, residentMiB(os.Getpid()))
			select {
			case <-tick.C:
			case <-done:
				result <- max(peak, residentMiB(os.Getpid()))
				return
			}
		}
	}()
	return func() float64 { close(done); return <-result }
}

// isStatement tells spans of statements from those of what is around them.
func isStatement(span string) bool {
	for _, prefix := range []string{"batch start", "prepare", "connect", "pool."} {
		if strings.HasPrefix(span, prefix) {
			return false
		}
	}
	return true
}

// usage is the CPU time that the process under test and its surroundings have used.
type usage struct{ process, postgres, broker time.Duration }

func (s *surroundings) used() usage {
	u := usage{process: cpuTime(), broker: treeCPU(s.brokerPID)}
	if s.postgresPID != 0 {
		u.postgres = treeCPU(s.postgresPID)
	}
	return u
}

// costs are microseconds of CPU a record, of each round.
type costs struct{ process, postgres, broker []float64 }

func (c *costs) add(before, after usage, records int) {
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(records) }
	c.process = append(c.process, each(after.process-before.process))
	c.postgres = append(c.postgres, each(after.postgres-before.postgres))
	c.broker = append(c.broker, each(after.broker-before.broker))
}

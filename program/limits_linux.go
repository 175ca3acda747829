package program

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is what a worker is started from: this binary, also when another has been put
// in its place since.
func command() (string, error) {
	const self = "/proc/self/exe"
	if _, err := os.Stat(self); err == nil {
		return self, nil
	}
	return os.Executable()
}

// apart ends a worker with its parent, and keeps it out of what a terminal sends to
// the parent's process group.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// limitMemory has the kernel refuse this process more than so many bytes of address space
// beyond what it has now, end it before others when the machine runs out of memory, and
// write neither files nor dumps, which would hold what is in records.
//
// It is the address space (RLIMIT_AS) and not the data (RLIMIT_DATA): Go reserves a part
// of its heap before it uses it, and the kernel does not count what is used in place of
// a reservation.
func limitMemory(most uint64) error {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600) // a sandbox may have no /proc
	for resource, limit := range map[int]uint64{
		syscall.RLIMIT_AS: addressSpace() + most, syscall.RLIMIT_CORE: 0, syscall.RLIMIT_FSIZE: 0,
	} {
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	return nil
}

// closeInherited closes what the parent got open from whoever started it, and so passed
// on. What Go itself has opened by now waits for others and leads nowhere.
func closeInherited() {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, fd := range open {
		n, err := strconv.Atoi(fd.Name())
		if err != nil || n <= 2 {
			continue
		}
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			_ = syscall.Close(n) // may be that of the directory, which is closed
		}
	}
}

// addressSpace is how much of it the process has taken, most of it reserved only.
func addressSpace() uint64 {
	statm, err := os.ReadFile("/proc/self/statm")
	if fields := bytes.Fields(statm); err == nil && len(fields) > 0 {
		pages, err := strconv.ParseUint(string(fields[0]), 10, 64)
		if err == nil {
			return pages * uint64(os.Getpagesize())
		}
	}
	return 2 << 30
}

// limitCPU has the kernel end this process when it has used so many seconds more. The
// kernel counts from the start of the process and in whole seconds, so the limit is
// moved on for each record.
func limitCPU(seconds uint64) {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_CPU, &limit) != nil {
		return
	}
	// Rounded up, so that there is always as much left as was promised.
	if want := uint64(cpuTime()/time.Second) + 1 + seconds; limit.Cur != want && want <= limit.Max {
		limit.Cur = want
		_ = syscall.Setrlimit(syscall.RLIMIT_CPU, &limit) // the watch ends what this would
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

package embedded

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// memory is how much this machine has, or the container that this process is in, in bytes; 0
// when that is not known.
func memory() uint64 {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return 0
	}
	all := uint64(info.Totalram) * uint64(info.Unit) //nolint:unconvert // it has 32 bits on some
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // or "max"
			all = min(all, limit)
		}
	}
	return all
}

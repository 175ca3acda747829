//go:build !linux

package program

import (
	"os"
	"syscall"
	"time"
)

// Elsewhere the worker's watch keeps the limits of memory and CPU, and the parent ends
// one that does not answer.

func command() (string, error) { return os.Executable() }

func apart() *syscall.SysProcAttr { return nil }

func limitMemory(uint64) error { return nil }

func closeInherited() {}

func limitCPU(uint64) {}

var started = time.Now()

// cpuTime is the time since the start, which is no less than the CPU time of a record.
func cpuTime() time.Duration { return time.Since(started) }

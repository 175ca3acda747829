//go:build !linux

package stream

// yieldThread cannot give a thread less priority here.
func yieldThread() bool { return false }

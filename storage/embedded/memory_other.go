//go:build !linux

package embedded

// memory is how much this machine has, in bytes; 0 when that is not known.
func memory() uint64 { return 0 }

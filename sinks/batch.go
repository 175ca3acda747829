package sinks

import "sync"

// The bodies of large batches are most of what a destination that gets batches
// would have the garbage collector do, so they are used again. Small ones are not:
// a few bytes must not hold on to half a megabyte.
const (
	pooledRecords = 64
	pooledBytes   = 2 << 20
)

var batches sync.Pool // of *[]byte

// newBatch is an empty body with room for as many records.
func newBatch(records int) []byte {
	if records >= pooledRecords {
		if b, ok := batches.Get().(*[]byte); ok {
			return (*b)[:0]
		}
	}
	return make([]byte, 0, 256+1024*records)
}

// recycle takes a body back that nobody reads any more: an exchange returns only
// when all of it is written, or will never be.
func recycle(b []byte) {
	if cap(b) >= 1024*pooledRecords && cap(b) <= pooledBytes {
		batches.Put(&b)
	}
}

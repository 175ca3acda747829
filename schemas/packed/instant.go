package packed

import (
	"math"
	"time"
)

// Never is an instant after all others, in microseconds.
const Never = math.MaxInt64

// Micros is an instant in microseconds since 1970, 0 for the zero one: how states hold them.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Instant is the other way round, in UTC.
func Instant(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// OrNever is an instant in microseconds, of which 0 is [Never].
func OrNever(micros int64) int64 {
	if micros == 0 {
		return Never
	}
	return micros
}

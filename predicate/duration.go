package predicate

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// maxDuration is far beyond every window and small enough to be added to any time.
const maxDuration = 100 * 366 * 24 * time.Hour

// Days is a duration of n times 24 hours.
func Days(n int) time.Duration { return Hours(24 * n) }

// Hours is a duration of n hours.
func Hours(n int) time.Duration { return time.Duration(n) * time.Hour }

// Minutes is a duration of n minutes.
func Minutes(n int) time.Duration { return time.Duration(n) * time.Minute }

// durationUnits are the letters of a duration that is written as text; a day has 24 hours.
var durationUnits = []struct {
	letter string
	part   string
	length time.Duration
}{
	{"w", "weeks", 7 * 24 * time.Hour},
	{"d", "days", 24 * time.Hour},
	{"h", "hours", time.Hour},
	{"m", "minutes", time.Minute},
	{"s", "seconds", time.Second},
}

func durationParts() []string {
	parts := make([]string, len(durationUnits))
	for i, unit := range durationUnits {
		parts[i] = unit.part
	}
	return parts
}

// ParseDuration reads a duration as it is written in files: 30d, 1d12h, 90s.
func ParseDuration(text string) (time.Duration, error) { return parseDuration(text) }

// parseDuration reads "30d", "1d12h", "90s".
func parseDuration(text string) (time.Duration, error) {
	var total float64
	rest := text
	for rest != "" {
		digits := strings.TrimLeft(rest, "0123456789")
		n, err := strconv.ParseUint(rest[:len(rest)-len(digits)], 10, 32)
		if err != nil || digits == "" {
			return 0, errDuration(text)
		}
		length, known := unitLength(digits[:1])
		if !known {
			return 0, errDuration(text)
		}
		total += float64(n) * float64(length)
		rest = digits[1:]
	}
	return checkDuration(total)
}

func unitLength(letter string) (time.Duration, bool) {
	for _, unit := range durationUnits {
		if unit.letter == letter {
			return unit.length, true
		}
	}
	return 0, false
}

func errDuration(text string) error {
	return fmt.Errorf("%q is no duration: write numbers with w, d, h, m or s, such as 30d or 1h30m", text)
}

// checkDuration takes nanoseconds. Windows are exact to the microsecond, and empty ones
// are mistakes.
func checkDuration(nanoseconds float64) (time.Duration, error) {
	switch {
	case nanoseconds <= 0:
		return 0, errors.New("a duration must be longer than zero")
	case nanoseconds > float64(maxDuration):
		return 0, errors.New("a duration must be at most 100 years")
	case math.Mod(math.Round(nanoseconds), 1000) != 0:
		return 0, errors.New("a duration must be whole microseconds")
	}
	return time.Duration(math.Round(nanoseconds)), nil
}

// durationObject is a duration as it is published: hours, minutes and seconds, without
// those that are zero.
func durationObject(d time.Duration) map[string]any {
	out := map[string]any{}
	if h := d / time.Hour; h != 0 {
		out["hours"] = float64(h)
	}
	if m := d % time.Hour / time.Minute; m != 0 {
		out["minutes"] = float64(m)
	}
	if s := d % time.Minute; s != 0 {
		out["seconds"] = s.Seconds()
	}
	return out
}

// durationText writes what parseDuration reads, for whole seconds.
func durationText(d time.Duration) string {
	var out strings.Builder
	for _, unit := range durationUnits {
		if n := d / unit.length; n != 0 {
			fmt.Fprintf(&out, "%d%s", n, unit.letter)
			d %= unit.length
		}
	}
	return out.String()
}

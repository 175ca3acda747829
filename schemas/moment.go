package schemas

import (
	"regexp"
	"strconv"
	"time"
)

// MomentForms are the forms that [ParseMoment] reads, for errors and help.
const MomentForms = "a time such as 2026-01-31T12:00:00Z, a date such as 2026-01-31, how long ago it was such as 36h or 7d, or now"

// ago is how long ago something was: 7d, 36h, 1d12h, with or without a minus.
var ago = regexp.MustCompile(`^-?(?:(\d{1,5})w)?(?:(\d{1,5})d)?((?:\d{1,9}(?:\.\d{1,9})?(?:h|ms|m|s))*)$`)

// moments are layouts of times; those without a zone are in UTC.
var moments = []string{
	time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02",
	"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04",
}

// ParseMoment reads a time as people write it in a command or a filter ([MomentForms]);
// the result is in UTC. A day is 24 hours. What is no time of the years 1 to 9999 is
// refused.
func ParseMoment(text string, now time.Time) (time.Time, bool) {
	if text == "now" {
		return now.UTC(), true
	}
	for _, layout := range moments {
		if t, err := time.Parse(layout, text); err == nil {
			return representable(t.UTC())
		}
	}
	parts := ago.FindStringSubmatch(text)
	if parts == nil || parts[1]+parts[2]+parts[3] == "" {
		return time.Time{}, false
	}
	weeks, _ := strconv.Atoi(parts[1])
	days, _ := strconv.Atoi(parts[2])
	var rest time.Duration
	if parts[3] != "" {
		var err error
		if rest, err = time.ParseDuration(parts[3]); err != nil {
			return time.Time{}, false
		}
	}
	return representable(now.UTC().AddDate(0, 0, -7*weeks-days).Add(-rest))
}

// representable refuses what RFC 3339 cannot write.
func representable(t time.Time) (time.Time, bool) {
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}

package schedule

import (
	"cmp"
	"time"
)

// Repeat is a time that comes again: each day, on days of the week, or on days of the
// month.
type Repeat struct {
	At TimeOfDay
	// Days or MonthDays, one of the two at most; without, it is each day.
	Days      Weekdays
	MonthDays MonthDays
	// Zone is whose clock is meant; nil is the zone of whom it is for.
	Zone *time.Location
}

// Next is the first time after an instant; it is never the instant itself. Zone is that of
// whom it is for; nil is UTC. Two dates that come to one instant, as around a date that a
// zone never had, are one time.
func (r Repeat) Next(after time.Time, zone *time.Location) time.Time {
	zone = cmp.Or(r.Zone, zone, time.UTC)
	// That of the date before may have been moved past midnight.
	for d := dateOf(after, zone) - 1; ; d++ {
		if !r.has(d) {
			continue
		}
		if at := d.instant(r.At, zone); at.After(after) {
			return at
		}
	}
}

func (r Repeat) has(d date) bool {
	if r.MonthDays != 0 {
		return r.MonthDays.has(d)
	}
	return r.Days.has(d)
}

package schedule

import (
	"cmp"
	"time"
)

// Window is when something may be sent: from a time of day until before another, on some
// days. The zero value is always.
//
// One whose From is later than its To goes past midnight, and belongs to the day on which
// it opens. One whose two are the same, or none, is open for whole days.
type Window struct {
	From, To TimeOfDay
	Days     Weekdays
}

// Clamp is t when the window is open then, else the next instant at which it opens. It is
// open from the opening on, and no more at the closing. A nil zone is UTC.
//
// Where clocks are put forward over the opening and the closing is then no later, it is
// open for that one instant.
func (w Window) Clamp(t time.Time, zone *time.Location) time.Time {
	zone = cmp.Or(zone, time.UTC)
	// One that opened on the date before may be open still, or on the one before that when a
	// zone never had the date on which it was to close.
	for d := dateOf(t, zone) - 2; ; d++ {
		if !w.Days.has(d) {
			continue
		}
		opens, closes := w.edges(d, zone)
		if !t.After(opens) {
			return opens
		}
		if t.Before(closes) {
			return t
		}
	}
}

// edges are when the window of a date opens and closes.
func (w Window) edges(d date, zone *time.Location) (opens, closes time.Time) {
	last := d
	if w.To.seconds() <= w.From.seconds() {
		last++
	}
	return d.instant(w.From, zone), last.instant(w.To, zone)
}

package schedule

import (
	"cmp"
	"time"
)

// Until is a time to wait for. Of At, After and Window at least one is set.
type Until struct {
	// At is the time of day; without it, it is the time After leads to.
	At TimeOfDay
	// Tomorrow: At of the next calendar date. Days: At of the next of these days, today
	// when that is still to come. One of the two at most.
	Tomorrow bool
	Days     Weekdays
	// After is the least wait, in whole seconds; with At, At of the date that it leads to,
	// which may be earlier on that date.
	After time.Duration
	// OrNow: when At of the date is past already, it is not waited for the next.
	OrNow bool
	// Window is when it may end: outside, it goes on until the window opens.
	Window Window
	// Zone is whose clock is meant; nil is the zone of whoever waits.
	Zone *time.Location
}

// Resolve is when a wait ends that begins now: never before now, and with At after it
// unless OrNow. Zone is that of whoever waits; nil is UTC.
func (u Until) Resolve(now time.Time, zone *time.Location) time.Time {
	zone = cmp.Or(u.Zone, zone, time.UTC)
	return u.Window.Clamp(u.ends(now, zone), zone).In(zone)
}

// ends is when the wait ends, were there no window. A time that is now is past.
func (u Until) ends(now time.Time, zone *time.Location) time.Time {
	earliest := now.Add(u.After)
	if u.At.IsZero() {
		return earliest
	}
	first := dateOf(earliest, zone)
	if u.Tomorrow {
		first++
	}
	for d := first; ; d++ {
		if !u.Days.has(d) {
			continue
		}
		at := d.instant(u.At, zone)
		if at.After(now) {
			return at
		}
		if u.OrNow {
			return now
		}
	}
}

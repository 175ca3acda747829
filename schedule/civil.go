package schedule

import (
	"cmp"
	"time"
)

// day is the number of seconds of a day without a change of clocks.
const day = 86400

// date is a calendar date, in days since 1970.
type date int64

func dateOf(t time.Time, zone *time.Location) date {
	year, month, dayOfMonth := t.In(zone).Date()
	return date(time.Date(year, month, dayOfMonth, 0, 0, 0, 0, time.UTC).Unix() / day)
}

func (d date) utc() time.Time { return time.Unix(int64(d)*day, 0).UTC() }

func (d date) weekday() time.Weekday { return d.utc().Weekday() }

// instant is the first at which the zone's clock shows the time on the date. When it shows
// it never, it is as long after the gap's begin as the time is.
func (d date) instant(t TimeOfDay, zone *time.Location) time.Time {
	// No zone was ever more than 16 hours from UTC.
	wall := int64(d)*day + t.seconds()
	from := time.Unix(wall-16*3600, 0).In(zone)
	_, offset := from.Zone()
	for {
		_, end := from.ZoneBounds()
		if at := wall - int64(offset); end.IsZero() || at < end.Unix() {
			return time.Unix(at, 0).In(zone)
		}
		from = end
		_, next := from.Zone()
		if wall-int64(next) < from.Unix() {
			return time.Unix(wall-int64(offset), 0).In(zone)
		}
		offset = next
	}
}

// OnDate is when a zone's clock first shows a time on a calendar date; none is midnight.
// When it never does, it is as much later as the clock was put forward. A nil zone is UTC.
func OnDate(year int, month time.Month, dayOfMonth int, at TimeOfDay, zone *time.Location) time.Time {
	d := date(time.Date(year, month, dayOfMonth, 0, 0, 0, 0, time.UTC).Unix() / day)
	return d.instant(at, cmp.Or(zone, time.UTC))
}

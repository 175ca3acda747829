package predicate

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Instants are microseconds since 1970 in here, as on the wire, and calendar dates days.
const (
	never  = math.MaxInt64
	always = math.MinInt64
	micro  = int64(time.Microsecond)
)

// Moment is what a date is compared with: an instant or a calendar date, fixed or
// relative to now. The two never compare with each other by accident: an instant has a
// calendar date in a zone, a calendar date has no instant.
type Moment struct {
	calendar bool
	relative bool
	at       int64 // microconds or days: since 1970, or from now
}

// At is an instant, to the microsecond.
func At(t time.Time) Moment { return Moment{at: t.UnixMicro()} }

// Now is the instant of the evaluation, shifted; a negative shift is the past.
func Now(shift time.Duration) Moment {
	return Moment{relative: true, at: int64(shift) / micro}
}

// Date is a calendar date.
func Date(year int, month time.Month, day int) Moment {
	return Moment{calendar: true, at: dayOf(time.Date(year, month, day, 0, 0, 0, 0, time.UTC))}
}

// Today is the calendar date of the evaluation in the zone of the condition, the contact
// or the deployment, shifted by days.
func Today(days int) Moment { return Moment{calendar: true, relative: true, at: int64(days)} }

// momentForms says how a moment is written.
const momentForms = "an instant (2026-01-31T12:00:00Z, now, now-3d) or a calendar date (2026-01-31, today, today+7d)"

// ParseMoment reads what String writes, and durations in all units.
func ParseMoment(text string) (Moment, error) {
	if shift, ok := strings.CutPrefix(text, "now"); ok {
		d, err := parseShift(shift)
		return Now(d), err
	}
	if shift, ok := strings.CutPrefix(text, "today"); ok {
		d, err := parseShift(shift)
		if err == nil && d%(24*time.Hour) != 0 {
			err = fmt.Errorf("%q: calendar dates are shifted by whole days", text)
		}
		return Today(int(d / (24 * time.Hour))), err
	}
	if m, ok := readMoment(text); ok {
		return m, nil
	}
	return Moment{}, fmt.Errorf("%q is no date: write %s", text, momentForms)
}

func parseShift(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := parseDuration(text[1:])
	switch text[0] {
	case '-':
		return -d, err
	case '+':
		return d, err
	}
	return 0, fmt.Errorf("%q: write + or - and a duration, such as -3d", text)
}

// readMoment reads the fixed forms, which are also what a property may hold: RFC 3339
// with a zone, or a date alone. A time without a zone is neither.
func readMoment(text string) (Moment, bool) {
	if len(text) == len(time.DateOnly) {
		t, err := time.Parse(time.DateOnly, text)
		return Moment{calendar: true, at: dayOf(t)}, err == nil
	}
	if len(text) < len("2006-01-02T15:04:05Z") {
		return Moment{}, false
	}
	t, err := time.Parse(time.RFC3339, text)
	return Moment{at: t.UnixMicro()}, err == nil
}

// String is how a moment is written.
func (m Moment) String() string {
	switch {
	case m.calendar && m.relative:
		return "today" + shiftText(time.Duration(m.at)*24*time.Hour)
	case m.calendar:
		return time.Unix(m.at*86400, 0).UTC().Format(time.DateOnly)
	case m.relative:
		return "now" + shiftText(time.Duration(m.at)*time.Microsecond)
	}
	return time.UnixMicro(m.at).UTC().Format(time.RFC3339Nano)
}

func shiftText(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + durationText(-d)
	case d > 0:
		return "+" + durationText(d)
	}
	return ""
}

// span is the time for which something holds: from the one until before the other.
type span struct{ from, until int64 }

func (s span) and(other span) span {
	return span{max(s.from, other.from), min(s.until, other.until)}
}

// spanOf is when a date stands to a moment as the operator says. A calendar date and an
// instant to compare it with are of two types: never.
func spanOf(operator string, actual, m Moment, zone *time.Location) span {
	if actual.calendar && !m.calendar {
		return span{never, never}
	}
	date := actual.at
	if m.calendar && !actual.calendar {
		date = dayOf(time.UnixMicro(actual.at).In(zone))
	}
	if !m.relative {
		if compareDates(operator, date, m.at) {
			return span{always, never}
		}
		return span{never, never}
	}
	// The date stands to now + shift as date - shift, the pivot, stands to now.
	pivot := date - m.at
	begins, ends := pivot, pivot+1 // of the unit that the pivot is: a microsecond, a day
	if m.calendar {
		begins, ends = dayStart(pivot, zone), dayStart(pivot+1, zone)
	}
	switch operator {
	case opBefore:
		return span{ends, never}
	case opOnOrBefore:
		return span{begins, never}
	case opAfter:
		return span{always, begins}
	case opOnOrAfter:
		return span{always, ends}
	}
	return span{begins, ends} // on_date
}

func compareDates(operator string, date, with int64) bool {
	switch operator {
	case opBefore:
		return date < with
	case opOnOrBefore:
		return date <= with
	case opAfter:
		return date > with
	case opOnOrAfter:
		return date >= with
	}
	return date == with
}

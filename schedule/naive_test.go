package schedule_test

import (
	"slices"
	"strings"
	"time"

	s "github.com/hogstream/hogstream/schedule"
)

// naive answers by watching a clock on the wall, minute by minute. It shares no code with
// the room: a date is what the clock shows, and so is a day of the week.
type naive struct {
	zone    *time.Location
	moments map[string]time.Time
}

const wall = "2006-01-02 15:04"

func (n *naive) shows(t time.Time) string { return t.In(n.zone).Format(wall) }

// at is when the clock shows the time on the date first; when it jumps over it, the time
// as long after the jump as the jump is.
func (n *naive) at(date, clock string) time.Time {
	want := date + " " + clock
	if known, ok := n.moments[want]; ok {
		return known
	}
	written, _ := time.Parse(wall, want)
	at := n.watch(want, written.Add(-40*time.Hour))
	if n.moments == nil {
		n.moments = map[string]time.Time{}
	}
	n.moments[want] = at
	return at
}

func (n *naive) watch(want string, from time.Time) time.Time {
	before := n.shows(from)
	for t := from; ; t = t.Add(time.Minute) {
		now := n.shows(t)
		if now == want {
			return t
		}
		if before < want && now > want {
			a, _ := time.Parse(wall, before)
			b, _ := time.Parse(wall, now)
			w, _ := time.Parse(wall, want)
			return n.watch(w.Add(b.Sub(a)-time.Minute).Format(wall), t)
		}
		before = now
	}
}

// dates are those around an instant, from so many days before to so many after.
func (n *naive) dates(t time.Time, before, after int) []time.Time {
	noon, _ := time.Parse(time.DateOnly, t.In(n.zone).Format(time.DateOnly))
	var out []time.Time
	for i := -before; i <= after; i++ {
		out = append(out, noon.AddDate(0, 0, i))
	}
	return out
}

func isOn(days s.Weekdays, date time.Time) bool {
	return days.String() == "" || slices.Contains(strings.Split(days.String(), ", "), strings.ToLower(date.Weekday().String()))
}

func isOneOf(days []int, date time.Time) bool {
	last := date.AddDate(0, 0, 1).Day() == 1
	return slices.ContainsFunc(days, func(d int) bool { return d == date.Day() || last && d > date.Day() })
}

func or(t s.TimeOfDay) string {
	if t.IsZero() {
		return "00:00"
	}
	return t.String()
}

func (n *naive) next(r s.Repeat, monthDays []int, after time.Time) time.Time {
	var first time.Time
	for _, date := range n.dates(after, 4, 40) {
		if len(monthDays) > 0 && !isOneOf(monthDays, date) || !isOn(r.Days, date) {
			continue
		}
		at := n.at(date.Format(time.DateOnly), or(r.At))
		if at.After(after) && (first.IsZero() || at.Before(first)) {
			first = at
		}
		if !first.IsZero() && len(monthDays) == 0 && at.After(first.AddDate(0, 0, 4)) {
			break
		}
	}
	return first
}

// isOpen says whether the window of some date is open.
func (n *naive) isOpen(w s.Window, t time.Time) bool {
	for _, date := range n.dates(t, 3, 2) {
		if !isOn(w.Days, date) {
			continue
		}
		closing := date
		if or(w.To) <= or(w.From) {
			closing = date.AddDate(0, 0, 1)
		}
		opens, closes := n.at(date.Format(time.DateOnly), or(w.From)), n.at(closing.Format(time.DateOnly), or(w.To))
		if t.Equal(opens) || t.After(opens) && t.Before(closes) {
			return true
		}
	}
	return false
}

func (n *naive) clamp(w s.Window, t time.Time) time.Time {
	if n.isOpen(w, t) {
		return t
	}
	for t = t.Truncate(time.Minute).Add(time.Minute); !n.isOpen(w, t); t = t.Add(time.Minute) {
	}
	return t
}

func (n *naive) until(u s.Until, now time.Time) time.Time {
	earliest := now.Add(u.After)
	if u.At.IsZero() {
		return n.clamp(u.Window, earliest)
	}
	for _, date := range n.dates(earliest, 0, 20) {
		if u.Tomorrow && date.Equal(n.dates(earliest, 0, 0)[0]) || !isOn(u.Days, date) {
			continue
		}
		at := n.at(date.Format(time.DateOnly), u.At.String())
		if at.After(now) {
			return n.clamp(u.Window, at)
		}
		if u.OrNow {
			return n.clamp(u.Window, now)
		}
	}
	panic("never")
}

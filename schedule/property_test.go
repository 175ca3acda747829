package schedule_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	s "github.com/hogstream/hogstream/schedule"
)

// changes are instants at which clocks changed, of all kinds.
var changes = []struct{ zone, at string }{
	{"America/New_York", "2026-03-08T02:00:00-05:00"}, {"America/New_York", "2026-11-01T02:00:00-04:00"},
	{"Europe/Berlin", "2026-03-29T02:00:00+01:00"}, {"Europe/Berlin", "2026-10-25T03:00:00+02:00"},
	{"Australia/Lord_Howe", "2026-10-04T02:00:00+10:30"}, {"Australia/Lord_Howe", "2026-04-05T02:00:00+11:00"},
	{"Africa/Cairo", "2026-04-24T00:00:00+02:00"}, {"Africa/Cairo", "2026-10-30T00:00:00+03:00"},
	{"Africa/Casablanca", "2026-02-15T03:00:00+01:00"}, {"Africa/Casablanca", "2026-03-22T02:00:00Z"},
	{"America/Sao_Paulo", "2018-11-04T00:00:00-03:00"}, {"America/Sao_Paulo", "2018-02-18T00:00:00-02:00"},
	{"America/Goose_Bay", "2010-03-14T00:01:00-04:00"}, {"America/Goose_Bay", "2010-11-07T00:01:00-03:00"},
	{"America/Toronto", "1919-03-30T23:30:00-05:00"}, {"Antarctica/Troll", "2026-10-25T03:00:00+02:00"},
	{"Pacific/Apia", "2011-12-30T00:00:00-10:00"}, {"Pacific/Kwajalein", "1993-08-21T00:00:00-12:00"},
	{"Asia/Kathmandu", "2026-02-28T00:00:00+05:45"}, {"UTC", "2028-02-29T00:00:00Z"},
}

// around is a zone, an instant near a change of its clocks, and the naive model of it.
func around(t *rapid.T) (now time.Time, model *naive) {
	change := rapid.SampledFrom(changes).Draw(t, "change")
	minutes := rapid.OneOf(rapid.IntRange(-180, 180), rapid.IntRange(-4*1440, 4*1440)).Draw(t, "minutes")
	micros := rapid.SampledFrom([]int{0, -1, 1, 30e6}).Draw(t, "microseconds")
	now = instant(t, change.at).Add(time.Duration(minutes)*time.Minute + time.Duration(micros)*time.Microsecond)
	return now, &naive{zone: zone(t, change.zone)}
}

// near are times of day, most of them near those at which clocks change or near now.
func near(now time.Time, zone *time.Location) *rapid.Generator[s.TimeOfDay] {
	of := func(minute int) s.TimeOfDay {
		minute = (minute + 1440) % 1440
		return s.Clock(minute/60, minute%60)
	}
	wall := now.In(zone)
	return rapid.OneOf(
		rapid.Map(rapid.IntRange(-90, 240), of),
		rapid.Map(rapid.IntRange(-3, 3), func(d int) s.TimeOfDay { return of(wall.Hour()*60 + wall.Minute() + d) }),
		rapid.Map(rapid.IntRange(0, 1439), of),
	)
}

func weekdays() *rapid.Generator[s.Weekdays] {
	return rapid.OneOf(rapid.Just(s.Weekdays(0)), rapid.Map(rapid.IntRange(1, 127), func(n int) s.Weekdays { return s.Weekdays(n) }))
}

func windows(now time.Time, zone *time.Location) *rapid.Generator[s.Window] {
	return rapid.Custom(func(t *rapid.T) s.Window {
		w := s.Window{Days: weekdays().Draw(t, "days")}
		if rapid.Bool().Draw(t, "times") {
			w.From, w.To = near(now, zone).Draw(t, "from"), near(now, zone).Draw(t, "to")
		}
		return w
	})
}

func TestRepeatsAgreeWithAClockOnTheWall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, model := around(t)
		r := s.Repeat{At: near(now, model.zone).Draw(t, "at")}
		var monthDays []int
		if rapid.Bool().Draw(t, "monthly") {
			monthDays = rapid.SliceOfN(rapid.IntRange(1, 31), 1, 4).Draw(t, "days")
			r.MonthDays = s.OnDays(monthDays...)
		} else {
			r.Days = weekdays().Draw(t, "days")
		}
		next := r.Next(now, model.zone)
		require.Equal(t, shows(model.next(r, monthDays, now).UTC()), shows(next.UTC()))
		require.Equal(t, next, r.Next(next.Add(-time.Microsecond), model.zone), "it is the next a microsecond before it")
	})
}

func TestWindowsAgreeWithAClockOnTheWall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, model := around(t)
		w := windows(now, model.zone).Draw(t, "window")
		got := w.Clamp(now, model.zone)
		require.Equal(t, shows(model.clamp(w, now).UTC()), shows(got.UTC()))
		require.True(t, got.Equal(w.Clamp(got, model.zone)), "what was moved into the window is in it")
	})
}

func TestWaitsAgreeWithAClockOnTheWall(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, model := around(t)
		u := s.Until{Window: windows(now, model.zone).Draw(t, "window")}
		if rapid.Bool().Draw(t, "after") {
			u.After = time.Duration(rapid.Int64Range(1, 4*86400*1e6).Draw(t, "microseconds")) * time.Microsecond
		}
		if u.After == 0 || rapid.Bool().Draw(t, "time") {
			u.At, u.OrNow = near(now, model.zone).Draw(t, "at"), rapid.Bool().Draw(t, "or now")
			if u.After == 0 {
				u.Tomorrow = rapid.Bool().Draw(t, "tomorrow")
			}
			if u.After == 0 && !u.Tomorrow {
				u.Days = weekdays().Draw(t, "days")
			}
		}
		got := u.Resolve(now, model.zone)
		require.Equal(t, shows(model.until(u, now).UTC()), shows(got.UTC()))
		require.False(t, got.Before(now), "a wait does not end before it begins")
	})
}

package schedule_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/predicate"
	s "github.com/hogstream/hogstream/schedule"
)

func zone(t require.TestingT, name string) *time.Location {
	z, err := predicate.LoadZone(name)
	require.NoError(t, err)
	return z
}

// instant reads 2026-03-08T02:30:00-05:00.
func instant(t require.TestingT, text string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, text)
	require.NoError(t, err)
	return at
}

func clock(t require.TestingT, text string) s.TimeOfDay {
	at, err := s.ParseTimeOfDay(text)
	require.NoError(t, err)
	return at
}

// shows is an instant as its zone's clock and offset show it.
func shows(t time.Time) string { return t.Format(time.RFC3339Nano) }

func TestATimeOfDayIsHoursAndMinutes(t *testing.T) {
	for text, want := range map[string]s.TimeOfDay{
		"08:30": s.Clock(8, 30), "8:30": s.Clock(8, 30), " 00:00\n": s.Clock(0, 0), "23:59": s.Clock(23, 59),
	} {
		assert.Equal(t, want, clock(t, text), text)
	}
	assert.Equal(t, "08:05", s.Clock(8, 5).String())
	assert.Empty(t, s.TimeOfDay{}.String())
	for _, text := range []string{"", "24:00", "12:60", "8h", "8", "8:5", "008:30", "08:300", "-8:30", "+8:30", "08:30:00", "8 :30", ":30", "08:", "٠٨:٣٠"} {
		_, err := s.ParseTimeOfDay(text)
		assert.ErrorContains(t, err, "write hours and minutes", text)
	}
	assert.PanicsWithValue(t, "schedule: no clock shows 24:00", func() { s.Clock(24, 0) })
	assert.PanicsWithValue(t, "schedule: no clock shows 12:60", func() { s.Clock(12, 60) })
	assert.PanicsWithValue(t, "schedule: no month has a day 32", func() { s.OnDays(1, 32) })
	assert.PanicsWithValue(t, "schedule: no month has a day 0", func() { s.OnDays(0) })
}

// A clock in a zone that changes: the time that is asked for, and what it is.
func TestTimesWhereClocksChange(t *testing.T) {
	for _, c := range []struct{ zone, date, at, want string }{
		// An hour is left out: moved forward by an hour.
		{"America/New_York", "2026-03-08", "01:59", "2026-03-08T01:59:00-05:00"},
		{"America/New_York", "2026-03-08", "02:00", "2026-03-08T03:00:00-04:00"},
		{"America/New_York", "2026-03-08", "02:30", "2026-03-08T03:30:00-04:00"},
		{"America/New_York", "2026-03-08", "02:59", "2026-03-08T03:59:00-04:00"},
		{"America/New_York", "2026-03-08", "03:00", "2026-03-08T03:00:00-04:00"},
		// An hour comes twice: the first.
		{"America/New_York", "2026-11-01", "00:59", "2026-11-01T00:59:00-04:00"},
		{"America/New_York", "2026-11-01", "01:00", "2026-11-01T01:00:00-04:00"},
		{"America/New_York", "2026-11-01", "01:30", "2026-11-01T01:30:00-04:00"},
		{"America/New_York", "2026-11-01", "01:59", "2026-11-01T01:59:00-04:00"},
		{"America/New_York", "2026-11-01", "02:00", "2026-11-01T02:00:00-05:00"},
		{"Europe/Berlin", "2026-03-29", "02:30", "2026-03-29T03:30:00+02:00"},
		{"Europe/Berlin", "2026-10-25", "02:30", "2026-10-25T02:30:00+02:00"},
		{"Europe/Berlin", "2026-10-25", "03:00", "2026-10-25T03:00:00+01:00"},
		// Half an hour.
		{"Australia/Lord_Howe", "2026-10-04", "01:59", "2026-10-04T01:59:00+10:30"},
		{"Australia/Lord_Howe", "2026-10-04", "02:00", "2026-10-04T02:30:00+11:00"},
		{"Australia/Lord_Howe", "2026-10-04", "02:29", "2026-10-04T02:59:00+11:00"},
		{"Australia/Lord_Howe", "2026-10-04", "02:30", "2026-10-04T02:30:00+11:00"},
		{"Australia/Lord_Howe", "2026-04-05", "01:45", "2026-04-05T01:45:00+11:00"},
		{"Australia/Lord_Howe", "2026-04-05", "02:00", "2026-04-05T02:00:00+10:30"},
		// Two hours.
		{"Antarctica/Troll", "2026-03-29", "01:15", "2026-03-29T03:15:00+02:00"},
		{"Antarctica/Troll", "2026-03-29", "02:45", "2026-03-29T04:45:00+02:00"},
		{"Antarctica/Troll", "2026-10-25", "01:30", "2026-10-25T01:30:00+02:00"},
		// There is no midnight.
		{"Africa/Cairo", "2026-04-24", "00:00", "2026-04-24T01:00:00+03:00"},
		{"Africa/Cairo", "2026-04-24", "00:30", "2026-04-24T01:30:00+03:00"},
		{"Africa/Cairo", "2026-10-29", "23:30", "2026-10-29T23:30:00+03:00"},
		{"Africa/Cairo", "2026-10-30", "00:00", "2026-10-30T00:00:00+02:00"},
		{"Asia/Beirut", "2026-03-29", "00:30", "2026-03-29T01:30:00+03:00"},
		{"America/Sao_Paulo", "2018-11-04", "00:00", "2018-11-04T01:00:00-02:00"},
		{"America/Sao_Paulo", "2018-11-04", "00:59", "2018-11-04T01:59:00-02:00"},
		{"America/Sao_Paulo", "2018-02-17", "23:30", "2018-02-17T23:30:00-02:00"},
		{"America/Sao_Paulo", "2018-02-18", "00:00", "2018-02-18T00:00:00-03:00"},
		// What is left out goes past midnight, and what comes twice begins a minute after it.
		{"America/Toronto", "1919-03-30", "23:45", "1919-03-31T00:45:00-04:00"},
		{"America/Toronto", "1919-03-31", "00:15", "1919-03-31T01:15:00-04:00"},
		{"America/Goose_Bay", "2010-11-07", "00:00", "2010-11-07T00:00:00-03:00"},
		{"America/Goose_Bay", "2010-11-06", "23:30", "2010-11-06T23:30:00-03:00"},
		{"America/Goose_Bay", "2010-11-07", "00:01", "2010-11-07T00:01:00-04:00"},
		// In Ramadan a zone is behind its own time.
		{"Africa/Casablanca", "2026-02-15", "02:30", "2026-02-15T02:30:00+01:00"},
		{"Africa/Casablanca", "2026-03-22", "02:30", "2026-03-22T03:30:00+01:00"},
		{"Europe/Dublin", "2026-03-29", "01:30", "2026-03-29T02:30:00+01:00"},
		{"Europe/Dublin", "2026-10-25", "01:30", "2026-10-25T01:30:00+01:00"},
		// There is no such date: moved forward by a day.
		{"Pacific/Apia", "2011-12-29", "09:00", "2011-12-29T09:00:00-10:00"},
		{"Pacific/Apia", "2011-12-30", "00:00", "2011-12-31T00:00:00+14:00"},
		{"Pacific/Apia", "2011-12-30", "09:00", "2011-12-31T09:00:00+14:00"},
		{"Pacific/Apia", "2011-12-31", "09:00", "2011-12-31T09:00:00+14:00"},
		{"Pacific/Kwajalein", "1993-08-21", "12:00", "1993-08-22T12:00:00+12:00"},
		// There is such a date twice.
		{"America/Juneau", "1867-10-19", "09:00", "1867-10-19T09:00:00+15:02"},
		{"America/Juneau", "1867-10-19", "16:00", "1867-10-19T16:00:00-08:57"},
		// Nothing changes there.
		{"Asia/Kathmandu", "2026-03-29", "02:30", "2026-03-29T02:30:00+05:45"},
		{"UTC", "2026-03-29", "02:30", "2026-03-29T02:30:00Z"},
	} {
		date, err := time.Parse(time.DateOnly, c.date)
		require.NoError(t, err)
		r := s.Repeat{At: clock(t, c.at), MonthDays: s.OnDays(date.Day())}
		got := r.Next(date.AddDate(0, 0, -2), zone(t, c.zone))
		assert.Equal(t, c.want, got.Format(time.RFC3339), "%s %s %s", c.zone, c.date, c.at)
	}
}

func TestUntil(t *testing.T) {
	nine := s.Clock(9, 0)
	for name, c := range map[string]struct {
		until           s.Until
		zone, now, want string
	}{
		"the next time is tomorrow's when today's is past": {
			s.Until{At: s.Clock(14, 0)}, "America/New_York", "2026-06-10T15:00:00-04:00", "2026-06-11T14:00:00-04:00"},
		"now is past": {
			s.Until{At: s.Clock(14, 0)}, "America/New_York", "2026-06-10T14:00:00-04:00", "2026-06-11T14:00:00-04:00"},
		"a microsecond before is not": {
			s.Until{At: s.Clock(14, 0)}, "America/New_York", "2026-06-10T13:59:59.999999-04:00", "2026-06-10T14:00:00-04:00"},
		"a microsecond after is": {
			s.Until{At: s.Clock(14, 0)}, "America/New_York", "2026-06-10T14:00:00.000001-04:00", "2026-06-11T14:00:00-04:00"},
		"what is past need not be waited for": {
			s.Until{At: s.Clock(14, 0), OrNow: true}, "America/New_York", "2026-06-10T15:00:00.000001-04:00", "2026-06-10T15:00:00.000001-04:00"},
		"what is to come is waited for all the same": {
			s.Until{At: s.Clock(14, 0), OrNow: true}, "America/New_York", "2026-06-10T13:00:00-04:00", "2026-06-10T14:00:00-04:00"},
		"today is the zone's": {
			s.Until{At: nine}, "Asia/Tokyo", "2026-06-09T23:00:00Z", "2026-06-10T09:00:00+09:00"},
		"a weekday whose time is past is the next week's": {
			s.Until{At: s.Clock(8, 0), Days: s.On(time.Tuesday)}, "UTC", "2026-06-09T09:00:00Z", "2026-06-16T08:00:00Z"},
		"a weekday whose time is to come is today": {
			s.Until{At: s.Clock(8, 0), Days: s.On(time.Tuesday)}, "UTC", "2026-06-09T06:00:00Z", "2026-06-09T08:00:00Z"},
		"the next of several weekdays": {
			s.Until{At: s.Clock(8, 0), Days: s.On(time.Monday, time.Thursday)}, "UTC", "2026-06-09T06:00:00Z", "2026-06-11T08:00:00Z"},
		"a weekday that is past need not be waited for": {
			s.Until{At: s.Clock(8, 0), Days: s.On(time.Tuesday), OrNow: true}, "UTC", "2026-06-09T09:00:00Z", "2026-06-09T09:00:00Z"},
		"another weekday is not past": {
			s.Until{At: s.Clock(8, 0), Days: s.On(time.Monday), OrNow: true}, "UTC", "2026-06-09T09:00:00Z", "2026-06-15T08:00:00Z"},
		"tomorrow": {
			s.Until{At: nine, Tomorrow: true}, "Europe/Berlin", "2026-06-09T00:30:00+02:00", "2026-06-10T09:00:00+02:00"},
		"tomorrow at the end of the month": {
			s.Until{At: nine, Tomorrow: true}, "Europe/Berlin", "2028-02-29T23:59:00+01:00", "2028-03-01T09:00:00+01:00"},
		"a duration": {
			s.Until{After: 36 * time.Hour}, "Europe/Berlin", "2026-03-28T09:00:00.000001+01:00", "2026-03-29T22:00:00.000001+02:00"},
		"after a duration, the time of the date it leads to": {
			s.Until{At: s.Clock(8, 0), After: time.Hour}, "UTC", "2026-06-09T23:30:00Z", "2026-06-10T08:00:00Z"},
		"after a duration, never what is past": {
			s.Until{At: s.Clock(8, 0), After: time.Hour}, "UTC", "2026-06-09T09:00:00Z", "2026-06-10T08:00:00Z"},
		"after a duration, what is past is now": {
			s.Until{At: s.Clock(8, 0), After: time.Hour, OrNow: true}, "UTC", "2026-06-09T09:00:00Z", "2026-06-09T09:00:00Z"},
		"after days, earlier on the date": {
			s.Until{At: s.Clock(8, 0), After: 48 * time.Hour}, "UTC", "2026-06-09T09:00:00Z", "2026-06-11T08:00:00Z"},
		"in a gap": {
			s.Until{At: s.Clock(2, 30)}, "America/New_York", "2026-03-08T01:00:00-05:00", "2026-03-08T03:30:00-04:00"},
		"on the day after a gap, as it was written": {
			s.Until{At: s.Clock(2, 30)}, "America/New_York", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"},
		"in an overlap, the first": {
			s.Until{At: s.Clock(1, 30)}, "America/New_York", "2026-11-01T00:30:00-04:00", "2026-11-01T01:30:00-04:00"},
		"in an overlap, never the second": {
			s.Until{At: s.Clock(1, 30)}, "America/New_York", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"},
		"a Friday that a zone never had": {
			s.Until{At: nine, Days: s.On(time.Friday)}, "Pacific/Apia", "2011-12-29T10:00:00-10:00", "2011-12-31T09:00:00+14:00"},
		"tomorrow where there is none": {
			s.Until{At: nine, Tomorrow: true}, "Pacific/Apia", "2011-12-29T10:00:00-10:00", "2011-12-31T09:00:00+14:00"},
		// The first midnight is past when the clock shows the evening before it again.
		"midnight of a day that began twice is not past": {
			s.Until{At: s.Clock(0, 0)}, "America/Goose_Bay", "2010-11-06T23:30:00-04:00", "2010-11-08T00:00:00-04:00"},
		"its own zone": {
			s.Until{At: nine, Zone: zone(t, "Asia/Tokyo")}, "Europe/Berlin", "2026-06-09T12:00:00Z", "2026-06-10T09:00:00+09:00"},
		"a window moves it": {
			s.Until{After: 4 * time.Hour, Window: s.Window{From: nine, To: s.Clock(17, 0)}}, "Europe/Berlin", "2026-06-09T14:00:00+02:00", "2026-06-10T09:00:00+02:00"},
		"a window moves what is past, too": {
			s.Until{At: s.Clock(6, 0), OrNow: true, Window: s.Window{From: nine, To: s.Clock(17, 0)}}, "Europe/Berlin", "2026-06-09T07:00:00+02:00", "2026-06-09T09:00:00+02:00"},
		"a window alone": {
			s.Until{Window: s.Window{From: nine, To: s.Clock(17, 0)}}, "Europe/Berlin", "2026-06-09T16:59:59.999999+02:00", "2026-06-09T16:59:59.999999+02:00"},
	} {
		got := c.until.Resolve(instant(t, c.now), zone(t, c.zone))
		assert.Equal(t, c.want, shows(got), name)
	}
}

func TestWindow(t *testing.T) {
	work := s.Window{From: s.Clock(9, 0), To: s.Clock(17, 0)}
	night := s.Window{From: s.Clock(22, 0), To: s.Clock(6, 0)}
	on := func(w s.Window, days ...time.Weekday) s.Window { w.Days = s.On(days...); return w }
	monday := on(s.Window{}, time.Monday)
	for name, c := range map[string]struct {
		window          s.Window
		zone, now, want string
	}{
		"before":                                     {work, "UTC", "2026-06-09T07:00:00Z", "2026-06-09T09:00:00Z"},
		"a microsecond before":                       {work, "UTC", "2026-06-09T08:59:59.999999Z", "2026-06-09T09:00:00Z"},
		"the opening":                                {work, "UTC", "2026-06-09T09:00:00Z", "2026-06-09T09:00:00Z"},
		"a microsecond after":                        {work, "UTC", "2026-06-09T09:00:00.000001Z", "2026-06-09T09:00:00.000001Z"},
		"a microsecond to the close":                 {work, "UTC", "2026-06-09T16:59:59.999999Z", "2026-06-09T16:59:59.999999Z"},
		"the closing":                                {work, "UTC", "2026-06-09T17:00:00Z", "2026-06-10T09:00:00Z"},
		"at noon, of a night":                        {night, "UTC", "2026-06-09T12:00:00Z", "2026-06-09T22:00:00Z"},
		"at three, of a night":                       {night, "UTC", "2026-06-09T03:00:00Z", "2026-06-09T03:00:00Z"},
		"before six, of a night":                     {night, "UTC", "2026-06-09T05:59:59.999999Z", "2026-06-09T05:59:59.999999Z"},
		"at six, of a night":                         {night, "UTC", "2026-06-09T06:00:00Z", "2026-06-09T22:00:00Z"},
		"until midnight":                             {s.Window{From: s.Clock(18, 0), To: s.Clock(0, 0)}, "UTC", "2026-06-09T00:00:00Z", "2026-06-09T18:00:00Z"},
		"none":                                       {s.Window{}, "Europe/Berlin", "2026-03-29T03:30:00+02:00", "2026-03-29T03:30:00+02:00"},
		"both the same":                              {s.Window{From: s.Clock(2, 30), To: s.Clock(2, 30)}, "Europe/Berlin", "2026-03-29T03:10:00+02:00", "2026-03-29T03:10:00+02:00"},
		"over the weekend":                           {on(work, time.Monday, time.Friday), "UTC", "2026-06-12T17:00:00Z", "2026-06-15T09:00:00Z"},
		"a night belongs to its open":                {on(night, time.Friday), "UTC", "2026-06-13T05:00:00Z", "2026-06-13T05:00:00Z"},
		"and not to its close":                       {on(night, time.Saturday), "UTC", "2026-06-13T05:00:00Z", "2026-06-13T22:00:00Z"},
		"a whole day":                                {monday, "Europe/Berlin", "2026-06-15T23:59:59.999999+02:00", "2026-06-15T23:59:59.999999+02:00"},
		"no part of the day after":                   {monday, "Europe/Berlin", "2026-06-16T00:00:00+02:00", "2026-06-22T00:00:00+02:00"},
		"a day without a midnight":                   {on(s.Window{}, time.Friday), "Africa/Cairo", "2026-04-23T23:59:59.999999+02:00", "2026-04-24T01:00:00+03:00"},
		"the opening in a gap":                       {s.Window{From: s.Clock(2, 30), To: s.Clock(5, 0)}, "Europe/Berlin", "2026-03-29T03:10:00+02:00", "2026-03-29T03:30:00+02:00"},
		"the closing in a gap":                       {s.Window{From: s.Clock(1, 0), To: s.Clock(2, 30)}, "Europe/Berlin", "2026-03-29T03:29:59.999999+02:00", "2026-03-29T03:29:59.999999+02:00"},
		"closed in a gap":                            {s.Window{From: s.Clock(1, 0), To: s.Clock(2, 30)}, "Europe/Berlin", "2026-03-29T03:30:00+02:00", "2026-03-30T01:00:00+02:00"},
		"open for an instant":                        {s.Window{From: s.Clock(2, 30), To: s.Clock(3, 15)}, "Europe/Berlin", "2026-03-29T03:16:00+02:00", "2026-03-29T03:30:00+02:00"},
		"that instant":                               {s.Window{From: s.Clock(2, 30), To: s.Clock(3, 15)}, "Europe/Berlin", "2026-03-29T03:30:00+02:00", "2026-03-29T03:30:00+02:00"},
		"after that instant":                         {s.Window{From: s.Clock(2, 30), To: s.Clock(3, 15)}, "Europe/Berlin", "2026-03-29T03:30:00.000001+02:00", "2026-03-30T02:30:00+02:00"},
		"the first of an overlap":                    {s.Window{From: s.Clock(2, 15), To: s.Clock(2, 45)}, "Europe/Berlin", "2026-10-25T02:20:00+02:00", "2026-10-25T02:20:00+02:00"},
		"the second of an overlap":                   {s.Window{From: s.Clock(2, 15), To: s.Clock(2, 45)}, "Europe/Berlin", "2026-10-25T02:20:00+01:00", "2026-10-26T02:15:00+01:00"},
		"through an overlap":                         {s.Window{From: s.Clock(2, 15), To: s.Clock(3, 15)}, "Europe/Berlin", "2026-10-25T02:05:00+01:00", "2026-10-25T02:05:00+01:00"},
		"half an hour less":                          {s.Window{From: s.Clock(2, 10), To: s.Clock(6, 0)}, "Australia/Lord_Howe", "2026-10-04T02:35:00+11:00", "2026-10-04T02:40:00+11:00"},
		"a night that ends on a date that never was": {night, "Pacific/Apia", "2011-12-31T05:59:59.999999+14:00", "2011-12-31T05:59:59.999999+14:00"},
		"and does end":                               {night, "Pacific/Apia", "2011-12-31T06:00:00+14:00", "2011-12-31T22:00:00+14:00"},
		"a date that never was":                      {on(work, time.Friday), "Pacific/Apia", "2011-12-29T18:00:00-10:00", "2011-12-31T09:00:00+14:00"},
	} {
		z := zone(t, c.zone)
		got := c.window.Clamp(instant(t, c.now), z)
		assert.Equal(t, c.want, shows(got.In(z)), name)
	}
}

func TestRepeat(t *testing.T) {
	nine := s.Clock(9, 0)
	for name, c := range map[string]struct {
		repeat            s.Repeat
		zone, after, want string
	}{
		"each day":               {s.Repeat{At: nine}, "Europe/Berlin", "2026-06-09T08:59:59.999999+02:00", "2026-06-09T09:00:00+02:00"},
		"strictly after":         {s.Repeat{At: nine}, "Europe/Berlin", "2026-06-09T09:00:00+02:00", "2026-06-10T09:00:00+02:00"},
		"a microsecond after":    {s.Repeat{At: nine}, "Europe/Berlin", "2026-06-09T09:00:00.000001+02:00", "2026-06-10T09:00:00+02:00"},
		"over a change":          {s.Repeat{At: nine}, "Europe/Berlin", "2026-03-28T09:00:00+01:00", "2026-03-29T09:00:00+02:00"},
		"on days of the week":    {s.Repeat{At: nine, Days: s.On(time.Monday, time.Thursday)}, "UTC", "2026-06-11T09:00:00Z", "2026-06-15T09:00:00Z"},
		"on Sundays":             {s.Repeat{At: nine, Days: s.On(time.Sunday)}, "UTC", "2026-06-09T00:00:00Z", "2026-06-14T09:00:00Z"},
		"on the 1st and 15th":    {s.Repeat{At: nine, MonthDays: s.OnDays(1, 15)}, "UTC", "2026-06-01T09:00:00Z", "2026-06-15T09:00:00Z"},
		"the 31st of February":   {s.Repeat{At: nine, MonthDays: s.OnDays(31)}, "UTC", "2026-01-31T09:00:00Z", "2026-02-28T09:00:00Z"},
		"in a leap year":         {s.Repeat{At: nine, MonthDays: s.OnDays(31)}, "UTC", "2028-01-31T09:00:00Z", "2028-02-29T09:00:00Z"},
		"the 31st of April":      {s.Repeat{At: nine, MonthDays: s.OnDays(31)}, "UTC", "2026-04-01T09:00:00Z", "2026-04-30T09:00:00Z"},
		"the 29th of February":   {s.Repeat{At: nine, MonthDays: s.OnDays(29)}, "UTC", "2028-02-01T00:00:00Z", "2028-02-29T09:00:00Z"},
		"that is not":            {s.Repeat{At: nine, MonthDays: s.OnDays(29)}, "UTC", "2026-02-01T00:00:00Z", "2026-02-28T09:00:00Z"},
		"nor in 2100":            {s.Repeat{At: nine, MonthDays: s.OnDays(29)}, "UTC", "2100-02-01T00:00:00Z", "2100-02-28T09:00:00Z"},
		"29, 30 and 31 are one":  {s.Repeat{At: nine, MonthDays: s.OnDays(29, 30, 31)}, "UTC", "2026-02-28T09:00:00Z", "2026-03-29T09:00:00Z"},
		"each of them elsewhere": {s.Repeat{At: nine, MonthDays: s.OnDays(29, 30, 31)}, "UTC", "2026-03-30T09:00:00Z", "2026-03-31T09:00:00Z"},
		"the 29th is no 30th":    {s.Repeat{At: nine, MonthDays: s.OnDays(29)}, "UTC", "2026-04-29T09:00:00Z", "2026-05-29T09:00:00Z"},
		"the 1st is no last":     {s.Repeat{At: nine, MonthDays: s.OnDays(1)}, "UTC", "2026-06-02T00:00:00Z", "2026-07-01T09:00:00Z"},
		"in a gap":               {s.Repeat{At: s.Clock(2, 30)}, "America/New_York", "2026-03-07T02:30:00-05:00", "2026-03-08T03:30:00-04:00"},
		"after a gap":            {s.Repeat{At: s.Clock(2, 30)}, "America/New_York", "2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"},
		"once in an overlap":     {s.Repeat{At: s.Clock(1, 30)}, "America/New_York", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"},
		"moved past midnight":    {s.Repeat{At: s.Clock(23, 45)}, "America/Toronto", "1919-03-31T00:44:59.999999-04:00", "1919-03-31T00:45:00-04:00"},
		"two dates, one time":    {s.Repeat{At: nine}, "Pacific/Apia", "2011-12-31T09:00:00+14:00", "2012-01-01T09:00:00+14:00"},
		"the last of such a day": {s.Repeat{At: nine, MonthDays: s.OnDays(30)}, "Pacific/Apia", "2011-12-01T00:00:00-10:00", "2011-12-31T09:00:00+14:00"},
		"its own zone":           {s.Repeat{At: nine, Zone: zone(t, "Asia/Tokyo")}, "Europe/Berlin", "2026-06-09T12:00:00Z", "2026-06-10T09:00:00+09:00"},
	} {
		got := c.repeat.Next(instant(t, c.after), zone(t, c.zone))
		assert.Equal(t, c.want, shows(got), name)
	}
}

func TestWithoutAZoneItIsUTC(t *testing.T) {
	now := instant(t, "2026-06-09T23:00:00-05:00")
	assert.Equal(t, "2026-06-10T09:00:00Z", shows(s.Until{At: s.Clock(9, 0)}.Resolve(now, nil)))
	assert.Equal(t, "2026-06-10T09:00:00Z", shows(s.Repeat{At: s.Clock(9, 0)}.Next(now, nil)))
	assert.Equal(t, "2026-06-10T09:00:00Z", shows(s.Window{From: s.Clock(9, 0), To: s.Clock(10, 0)}.Clamp(now, nil)))
}

func TestTheZoneOfAContact(t *testing.T) {
	tokyo, berlin, lima := zone(t, "Asia/Tokyo"), zone(t, "Europe/Berlin"), zone(t, "America/Lima")
	said := func(pairs ...string) func(string) string {
		return func(property string) string {
			for i := 0; i < len(pairs); i += 2 {
				if pairs[i] == property {
					return pairs[i+1]
				}
			}
			return ""
		}
	}
	for name, c := range map[string]struct {
		text       func(string) string
		deployment *time.Location
		want       s.ContactZone
	}{
		"the browser's first": {said("timezone", "Europe/Berlin", "$geoip_time_zone", "America/Lima", "$timezone", "Asia/Tokyo"), nil,
			s.ContactZone{Zone: tokyo, Source: "$timezone"}},
		"then that of the address": {said("timezone", "Europe/Berlin", "$geoip_time_zone", "America/Lima"), nil,
			s.ContactZone{Zone: lima, Source: "$geoip_time_zone"}},
		"then what the product wrote": {said("timezone", "Europe/Berlin"), lima,
			s.ContactZone{Zone: berlin, Source: "timezone"}},
		"then the deployment's": {said(), lima, s.ContactZone{Zone: lima, Source: s.Deployment}},
		"then UTC":              {said(), nil, s.ContactZone{Zone: time.UTC, Source: s.Deployment}},
		"what is none is passed over, and told": {said("$timezone", "Mars/Base", "$geoip_time_zone", "+05:30", "timezone", "Asia/Tokyo"), lima,
			s.ContactZone{Zone: tokyo, Source: "timezone", Wrong: []string{
				`$timezone: "Mars/Base" is no time zone: write an IANA name such as Europe/Berlin`,
				`$geoip_time_zone: "+05:30" is no time zone: write an IANA name such as Europe/Berlin`,
			}}},
		"the machine's zone is none": {said("$timezone", "Local"), lima,
			s.ContactZone{Zone: lima, Source: s.Deployment, Wrong: []string{
				`$timezone: "Local" is no time zone: write an IANA name such as Europe/Berlin`,
			}}},
	} {
		got := s.ZoneOf(c.text, c.deployment)
		assert.Equal(t, c.want, got, name)
		assert.Same(t, c.want.Zone, got.Zone, name)
	}
}

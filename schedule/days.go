package schedule

import (
	"fmt"
	"math/bits"
	"strings"
	"time"
)

// TimeOfDay is what a clock on the wall shows, to the minute. The zero value is none.
type TimeOfDay struct{ minutes int } // since midnight, and one more

// Clock is a time of day. It panics when there is no such time, for it is written by a
// programmer; what others write is for [ParseTimeOfDay].
func Clock(hour, minute int) TimeOfDay {
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 {
		panic(fmt.Sprintf("schedule: no clock shows %02d:%02d", hour, minute))
	}
	return TimeOfDay{hour*60 + minute + 1}
}

// ParseTimeOfDay reads 09:00 or 9:00, blanks around it left out.
func ParseTimeOfDay(text string) (TimeOfDay, error) {
	hour, minute, found := strings.Cut(strings.TrimSpace(text), ":")
	h, hourOK := number(hour)
	m, minuteOK := number(minute)
	if !found || !hourOK || !minuteOK || len(minute) != 2 || h > 23 || m > 59 {
		return TimeOfDay{}, fmt.Errorf("%q is no time of day: write hours and minutes from 00:00 to 23:59, such as 09:30", text)
	}
	return Clock(h, m), nil
}

// number reads one or two digits.
func number(text string) (int, bool) {
	n := 0
	for _, digit := range []byte(text) {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		n = n*10 + int(digit-'0')
	}
	return n, len(text) == 1 || len(text) == 2
}

// IsZero says whether it is none.
func (t TimeOfDay) IsZero() bool { return t.minutes == 0 }

// String is what ParseTimeOfDay reads; none is empty.
func (t TimeOfDay) String() string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%02d:%02d", (t.minutes-1)/60, (t.minutes-1)%60)
}

// seconds is how long after midnight it is, where clocks do not change; none is midnight.
func (t TimeOfDay) seconds() int64 { return int64(max(0, t.minutes-1)) * 60 }

// Weekdays are days of the week. The zero value is all of them.
type Weekdays uint8

// On are these days of the week.
func On(days ...time.Weekday) Weekdays {
	var set Weekdays
	for _, d := range days {
		set |= 1 << uint(d%7)
	}
	return set
}

func (w Weekdays) has(d date) bool { return w&everyDay == 0 || w&On(d.weekday()) != 0 }

const (
	everyDay      = 1<<7 - 1
	everyMonthDay = 1<<32 - 2
)

// ISO puts Monday first.
var week = []time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday}

// String is the names of the days, from Monday.
func (w Weekdays) String() string { return strings.Join(w.words(), ", ") }

func (w Weekdays) words() []string {
	var out []string
	for _, d := range week {
		if w&On(d) != 0 {
			out = append(out, strings.ToLower(d.String()))
		}
	}
	return out
}

// ParseWeekday reads monday or mon, in upper or lower case.
func ParseWeekday(text string) (time.Weekday, error) {
	word := strings.ToLower(text)
	for _, d := range week {
		if name := strings.ToLower(d.String()); word == name || word == name[:3] {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is no day of the week: write monday to sunday, or mon to sun", text)
}

// MonthDays are days of the month, from 1 to 31. In a month that is shorter, those that it
// does not have are its last day. The zero value is none.
type MonthDays uint32

// OnDays are these days of the month. It panics when there is no such day, for it is
// written by a programmer.
func OnDays(days ...int) MonthDays {
	var set MonthDays
	for _, d := range days {
		if d < 1 || d > 31 {
			panic(fmt.Sprintf("schedule: no month has a day %d", d))
		}
		set |= 1 << uint(d)
	}
	return set
}

func (m MonthDays) has(d date) bool {
	today, tomorrow := d.utc(), (d + 1).utc()
	if tomorrow.Day() == 1 {
		return bits.Len32(uint32(m)) > today.Day() // this one, or one that the month lacks
	}
	return m&(1<<uint(today.Day())) != 0
}

// numbers are the days, from the first.
func (m MonthDays) numbers() []int {
	var out []int
	for d := 1; d <= 31; d++ {
		if m&(1<<uint(d)) != 0 {
			out = append(out, d)
		}
	}
	return out
}

package schedule

import (
	"fmt"
	"time"

	"github.com/hogstream/hogstream/predicate"
)

// problem is what is wrong with a field; a field within another has a path.
type problem struct{ field, message string }

// Check says all that is wrong with a wait that was built in Go. The error is
// [predicate.Faults], whose paths are those of a file. One that was read is right.
func (u Until) Check() error { return asFaults(u.problems()) }

// Check says all that is wrong with what repeats, as that of [Until] does.
func (r Repeat) Check() error { return asFaults(r.problems()) }

// Check says all that is wrong with a window, as that of [Until] does.
func (w Window) Check() error { return asFaults(w.problems()) }

func asFaults(problems []problem) error {
	var faults predicate.Faults
	for _, p := range problems {
		faults = append(faults, predicate.Fault{Path: p.field, Message: p.message})
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}

// maxAfter is far beyond every wait and small enough to be added to any time.
const maxAfter = 100 * 366 * 24 * time.Hour

func (u Until) problems() []problem {
	var out []problem
	wrong := func(is bool, field, message string) {
		if is {
			out = append(out, problem{field, message})
		}
	}
	timeless, dated := u.At.IsZero(), u.Tomorrow || u.Days != 0
	wrong(timeless && !dated && u.After == 0 && u.Window == Window{}, "", "names no time: write at, after or window")
	wrong(u.Tomorrow && u.Days != 0, "day", "is tomorrow and a day of the week: write one of the two")
	wrong(timeless && dated, "day", "has no time of day: write at too")
	wrong(timeless && u.OrNow, "ifPast", "has no time of day that may be past: write at too, or leave it out")
	wrong(dated && u.After != 0, "after", "does not go with day: write one of the two")
	wrong(u.After < 0 || u.After > maxAfter || u.After%time.Second != 0, "after", fmt.Sprintf("is %s: write whole seconds, up to 100 years", u.After))
	for _, p := range u.Window.problems() {
		out = append(out, problem{join("window", p.field), p.message})
	}
	return append(out, u.Days.problems("day")...)
}

func (w Window) problems() []problem {
	var out []problem
	if w.From.IsZero() && !w.To.IsZero() {
		out = append(out, problem{"from", "is missing: write when it opens"})
	}
	if w.To.IsZero() && !w.From.IsZero() {
		out = append(out, problem{"to", "is missing: write when it closes"})
	}
	return append(out, w.Days.problems("days")...)
}

func (r Repeat) problems() []problem {
	var out []problem
	if r.At.IsZero() {
		out = append(out, problem{"at", "is missing: write the time of day, such as 09:30"})
	}
	if r.Days != 0 && r.MonthDays != 0 {
		out = append(out, problem{"monthDays", "does not go with days: write one of the two"})
	}
	if r.MonthDays&^everyMonthDay != 0 {
		out = append(out, problem{"monthDays", "holds what is no day of the month: use OnDays"})
	}
	return append(out, r.Days.problems("days")...)
}

func (w Weekdays) problems(field string) []problem {
	if w&^everyDay != 0 {
		return []problem{{field, "holds what is no day of the week: use On"}}
	}
	return nil
}

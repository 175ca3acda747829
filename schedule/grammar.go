package schedule

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/definition/node"
	"github.com/hogstream/hogstream/predicate"
)

// field is one key of a value as it is written. Reader, canonical form and JSON Schema are
// made from the tables.
type field[T any] struct {
	name   string
	doc    string
	schema map[string]any
	read   func(r *node.Reader, at ast.Node, path string, v *T)
	write  func(v T) any // nil: is left out
}

func untilFields() []field[Until] {
	return []field[Until]{
		timeField("at", "The time of day.", func(u *Until) *TimeOfDay { return &u.At }),
		{"day", "With at: tomorrow, or the next of these days of the week, today when the time is still to come.", daySchema(),
			func(r *node.Reader, at ast.Node, path string, u *Until) {
				u.Tomorrow = isTomorrow(at)
				if !u.Tomorrow {
					u.Days = readWeekdays(r, at, path, tomorrow)
				}
			},
			func(u Until) any {
				if u.Tomorrow {
					return tomorrow
				}
				return writeWeekdays(u.Days)
			}},
		{"after", "How long at least; with at, that time on the date which it leads to.", ref("duration"),
			func(r *node.Reader, at ast.Node, path string, u *Until) { u.After = r.Duration(at, path) },
			func(u Until) any { return unlessZero(u.After != 0, u.After.String()) }},
		{"ifPast", "With at, when it is past already: next (the default) waits for the next, now does not.", map[string]any{"enum": pasts()},
			func(r *node.Reader, at ast.Node, path string, u *Until) { u.OrNow = r.Word(at, path, pasts()) == now },
			func(u Until) any { return unlessZero(u.OrNow, now) }},
		{"window", "When it may end; outside, it goes on until the window opens.", ref("window"),
			func(r *node.Reader, at ast.Node, path string, u *Until) { u.Window = readWindow(r, at, path) },
			func(u Until) any { return unlessZero(u.Window != Window{}, u.Window) }},
		zoneField("The IANA time zone, such as Europe/Berlin; by default that of the contact.", func(u *Until) **time.Location { return &u.Zone }),
	}
}

func windowFields() []field[Window] {
	return []field[Window]{
		timeField("from", "When it opens.", func(w *Window) *TimeOfDay { return &w.From }),
		timeField("to", "When it closes; when that is no later than from, on the day after.", func(w *Window) *TimeOfDay { return &w.To }),
		weekdaysField("On which days of the week it opens; by default all.", func(w *Window) *Weekdays { return &w.Days }),
	}
}

func repeatFields() []field[Repeat] {
	return []field[Repeat]{
		timeField("at", "The time of day.", func(r *Repeat) *TimeOfDay { return &r.At }),
		weekdaysField("On which days of the week; by default all.", func(r *Repeat) *Weekdays { return &r.Days }),
		{"monthDays", "On which days of the month; those that a month does not have are its last.", oneOrMore(map[string]any{"type": "integer", "minimum": 1, "maximum": 31}),
			func(r *node.Reader, at ast.Node, path string, v *Repeat) { v.MonthDays = readMonthDays(r, at, path) },
			func(v Repeat) any { return unlessZero(v.MonthDays != 0, v.MonthDays.numbers()) }},
		zoneField("The IANA time zone, such as Europe/Berlin; by default that of whom it is for.", func(r *Repeat) **time.Location { return &r.Zone }),
	}
}

// Words of the written form.
const (
	tomorrow = "tomorrow"
	now      = "now"
)

func pasts() []string { return []string{"next", now} }

func timeField[T any](name, doc string, of func(*T) *TimeOfDay) field[T] {
	return field[T]{name, doc, ref("time"),
		func(r *node.Reader, at ast.Node, path string, v *T) { *of(v) = readTime(r, at, path) },
		func(v T) any { return unlessZero(!of(&v).IsZero(), of(&v).String()) }}
}

func weekdaysField[T any](doc string, of func(*T) *Weekdays) field[T] {
	return field[T]{"days", doc, oneOrMore(ref("weekday")),
		func(r *node.Reader, at ast.Node, path string, v *T) { *of(v) = readWeekdays(r, at, path) },
		func(v T) any { return writeWeekdays(*of(&v)) }}
}

func zoneField[T any](doc string, of func(*T) **time.Location) field[T] {
	return field[T]{"zone", doc, textSchema(),
		func(r *node.Reader, at ast.Node, path string, v *T) { *of(v) = readZone(r, at, path) },
		func(v T) any {
			if *of(&v) == nil {
				return nil
			}
			return (*of(&v)).String()
		}}
}

func unlessZero(is bool, value any) any {
	if !is {
		return nil
	}
	return value
}

func writeWeekdays(w Weekdays) any {
	if words := w.words(); len(words) > 0 {
		return words
	}
	return nil
}

func names[T any](fields []field[T]) []string {
	var out []string
	for _, f := range fields {
		out = append(out, f.name)
	}
	return out
}

// readMap reads a map whose keys are fields, and notes in the places of values what they
// say wrong together.
func readMap[T interface{ problems() []problem }](r *node.Reader, at ast.Node, path, example string, fields []field[T]) T {
	var v, none T
	faults := len(r.Faults)
	pairs, ok := node.Pairs(at)
	if !ok {
		r.Fault(at, path, "is %s: write a map such as %s", node.Describe(at), example)
		return none
	}
	if len(pairs) == 0 {
		r.Fault(at, path, "is empty: write a map such as %s", example)
	}
	places := map[string]ast.Node{}
	for _, pair := range pairs {
		name, ok := r.Key(pair, path)
		if !ok {
			continue
		}
		i := slices.IndexFunc(fields, func(f field[T]) bool { return f.name == name })
		if i < 0 {
			r.Fault(pair.Key, join(path, name), "%s", predicate.NotKnown(name, names(fields)))
			continue
		}
		places[name] = pair.Value
		fields[i].read(r, pair.Value, join(path, name), &v)
	}
	if len(r.Faults) > faults {
		return none
	}
	for _, p := range v.problems() {
		place := places[p.field]
		if place == nil {
			place = at
		}
		r.Fault(place, join(path, p.field), "%s", p.message)
	}
	return v
}

func writeMap[T any](v T, fields []field[T]) map[string]any {
	out := map[string]any{}
	for _, f := range fields {
		if written := f.write(v); written != nil {
			out[f.name] = written
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" || name == "" {
		return path + name
	}
	return path + "." + name
}

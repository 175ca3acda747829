package predicatetest

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

// EventNames are the events there are.
var EventNames = []string{"a", "b", "order.completed"}

// scalars are what properties and conditions hold; some look alike.
var scalars = []any{"pro", "Pro", "PRO plan", "", "1", "true", true, false, 0.0, 1.0, 2.5, -3.0, 100.0}

// Base is where in time a case plays: near a change of some zone's clocks.
type Base struct {
	Zone string
	At   time.Time
}

// Bases are those there are.
var Bases = []Base{
	{"Europe/Berlin", time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC)},
	{"America/Sao_Paulo", time.Date(2018, 11, 3, 12, 0, 0, 0, time.UTC)}, // midnight was skipped
	{"Pacific/Apia", time.Date(2011, 12, 29, 6, 0, 0, 0, time.UTC)},      // 30 December was skipped
	{"Australia/Lord_Howe", time.Date(2026, 10, 3, 10, 0, 0, 0, time.UTC)},
	{"America/New_York", time.Date(2026, 10, 31, 22, 0, 0, 0, time.UTC)},
}

// Spans are how long windows are.
var Spans = []string{"1s", "1h", "2h", "1d", "36h", "1w"}

// Language draws conditions and records around an instant.
type Language struct {
	T       *rapid.T
	Base    time.Time
	Buckets []string // that may be asked for
	// NoMail leaves out conditions on mails, and so on facts.
	NoMail bool
}

// Draw draws one of a list.
func Draw[T any](t *rapid.T, label string, list []T) T { return rapid.SampledFrom(list).Draw(t, label) }

// Chance is true for a third.
func Chance(t *rapid.T, label string) bool { return rapid.IntRange(0, 2).Draw(t, label) == 0 }

// Condition draws a condition of the whole language, as it is written.
func (l *Language) Condition(depth int) Object {
	kinds := []string{"property", "event", "event", "seen", "sequence", "identified"}
	if !l.NoMail {
		kinds = append(kinds, "email_engagement")
	}
	if depth > 0 {
		kinds = append(kinds, "composite", "composite", "not")
	}
	if len(l.Buckets) > 0 {
		kinds = append(kinds, "bucket")
	}
	c := Object{"type": Draw(l.T, "type", kinds)}
	switch c["type"] {
	case "composite":
		l.composite(c, func() Object { return l.Condition(depth - 1) })
	case "not":
		c["condition"] = l.Condition(depth - 1)
	case "property":
		c["property"] = l.path()
		l.comparison(c, true)
	case "event":
		l.event(c)
	case "seen":
		c["check"] = Draw(l.T, "check", []string{"first", "last"})
		if Chance(l.T, "of an event") {
			l.step(c)
		}
		l.date(c, true)
	case "sequence":
		l.sequence(c)
	case "identified":
		c["by"] = Draw(l.T, "by", []string{"any", "userId", "email"})
	case "email_engagement":
		c["templateKey"] = Draw(l.T, "template", []string{"t1", "t2"})
		c["check"] = Draw(l.T, "check", []string{"opened", "clicked", "not_opened", "not_clicked"})
	case "bucket":
		c["bucketId"] = Draw(l.T, "bucket", l.Buckets)
	}
	return c
}

func (l *Language) composite(c Object, inner func() Object) {
	c["operator"] = Draw(l.T, "operator", []string{"and", "or"})
	list := []any{}
	for range rapid.IntRange(1, 3).Draw(l.T, "conditions") {
		list = append(list, inner())
	}
	c["conditions"] = list
}

func (l *Language) path() any {
	return Draw(l.T, "path", []any{"plan", "amount", "when", "tags", []any{"address", "city"}, []any{"address", "since"}})
}

func (l *Language) span() any {
	return Draw(l.T, "span", Spans)
}

// comparison draws any operator with a value that it wants.
func (l *Language) comparison(c Object, relative bool) {
	ops := []string{"eq", "neq", "in", "gt", "gte", "lt", "lte", "between", "contains", "prefix", "suffix", "list_contains", "exists", "not_exists"}
	for _, path := range []any{c["property"], c["of"]} { // mostly what such a property is for
		if path == "when" || fmt.Sprint(path) == "[address since]" {
			ops = []string{"date", "date", "date", "eq", "exists"}
		}
	}
	op := Draw(l.T, "operator", append(ops, "date"))
	c["operator"] = op
	numbers := []any{-3.0, 0.0, 1.0, 2.5, 50.0}
	switch op {
	case "date":
		l.date(c, relative)
		return
	case "eq", "neq", "list_contains":
		c["value"] = Draw(l.T, "value", scalars)
	case "in":
		c["value"] = []any{Draw(l.T, "value", scalars), Draw(l.T, "value", scalars)}
	case "gt", "gte", "lt", "lte":
		c["value"] = Draw(l.T, "value", numbers)
	case "between":
		c["value"] = []any{Draw(l.T, "low", numbers), Draw(l.T, "high", numbers)}
	case "contains", "prefix", "suffix":
		c["value"] = Draw(l.T, "value", []string{"", "pro", "PRO", "o"})
	}
	switch op {
	case "eq", "neq", "in", "contains", "prefix", "suffix", "list_contains":
		if Chance(l.T, "ignore case") {
			c["ignoreCase"] = true
		}
	}
}

func (l *Language) date(c Object, relative bool) {
	op := Draw(l.T, "operator", []string{"before", "on_or_before", "after", "on_or_after", "on_date", "between"})
	calendar := op == "on_date" || rapid.Bool().Draw(l.T, "calendar")
	c["operator"], c["value"] = op, l.moment(calendar, relative)
	if op == "between" {
		c["value"] = []any{c["value"], l.moment(calendar, relative)}
	}
	if calendar && Chance(l.T, "names a zone") {
		c["zone"] = Draw(l.T, "zone", Bases).Zone
	}
}

func (l *Language) moment(calendar, relative bool) any {
	days := rapid.IntRange(-2, 2).Draw(l.T, "days")
	fixed := !relative || Chance(l.T, "fixed")
	switch {
	case fixed && calendar:
		return l.Base.AddDate(0, 0, days).Format(time.DateOnly)
	case fixed:
		return l.Instant().Format(time.RFC3339Nano)
	case calendar && days == 0:
		return "today"
	case calendar:
		return fmt.Sprintf("today%+dd", days)
	case Chance(l.T, "now"):
		return "now"
	}
	return "now" + Draw(l.T, "sign", []string{"+", "-"}) + Draw(l.T, "span", Spans)
}

func (l *Language) step(c Object) {
	c["eventName"] = Draw(l.T, "event", EventNames)
	if Chance(l.T, "filtered") {
		c["where"] = l.Where()
	}
}

// Where is a condition, the short form, or a list of these.
func (l *Language) Where() any {
	switch Draw(l.T, "where", []string{"long", "short", "list"}) {
	case "short":
		return l.short()
	case "list":
		return []any{l.filter(1), l.short()}
	}
	return l.filter(1)
}

// short is the short form of comparisons of properties.
func (l *Language) short() Object {
	out := Object{}
	for range rapid.IntRange(1, 2).Draw(l.T, "properties") {
		name := Draw(l.T, "property", []string{"plan", "amount", "when", "tags"})
		c := Object{"property": name}
		l.comparison(c, false)
		op, value := c["operator"].(string), c["value"]
		plain := c["ignoreCase"] == nil && c["zone"] == nil && Chance(l.T, "plain")
		switch {
		case op == "exists" || op == "not_exists":
			out[name] = Object{op: rapid.Bool().Draw(l.T, "is so")}
		case plain && (op == "eq" || op == "in"):
			out[name] = value
		default:
			delete(c, "property")
			delete(c, "operator")
			delete(c, "value")
			c[op] = value
			out[name] = c
		}
	}
	return out
}

func (l *Language) filter(depth int) Object {
	kind := "property"
	if depth > 0 {
		kind = Draw(l.T, "filter", []string{"property", "property", "not", "composite"})
	}
	c := Object{"type": kind}
	switch kind {
	case "not":
		c["condition"] = l.filter(depth - 1)
	case "composite":
		l.composite(c, func() Object { return l.filter(depth - 1) })
	default:
		c["property"] = l.path()
		l.comparison(c, false)
	}
	return c
}

func (l *Language) event(c Object) {
	l.step(c)
	if !Chance(l.T, "unwindowed") {
		c["within"] = l.span()
	}
	c["check"] = Draw(l.T, "check", []string{"exists", "not_exists", "count", "count", "total", "last"})
	switch c["check"] {
	case "count":
		c["operator"] = Draw(l.T, "operator", []string{"eq", "gt", "gte", "lt", "lte"})
		c["value"] = Draw(l.T, "count", []any{-1.0, 0.0, 1.0, 2.0, 2.5, 3.0})
	case "total":
		c["of"] = "amount"
		c["operator"] = Draw(l.T, "operator", []string{"eq", "gt", "gte", "lt", "lte"})
		c["value"] = Draw(l.T, "total", []any{0.0, 0.3, 3.0, 100.0})
	case "last":
		c["of"] = l.path()
		l.comparison(c, true)
	}
}

func (l *Language) sequence(c Object) {
	first, then := Object{}, Object{}
	l.step(first)
	l.step(then)
	c["first"], c["then"] = first, then
	c["check"] = Draw(l.T, "check", []string{"followed", "not_followed"})
	c["occurrence"] = Draw(l.T, "occurrence", []string{"any", "last"})
	if c["check"] == "not_followed" || Chance(l.T, "bounded") {
		c["within"] = Draw(l.T, "gap", []string{"1s", "1h", "1d"})
	}
	if Chance(l.T, "looks back") {
		c["lookback"] = "1w"
	}
}

// Properties are a random JSON Object, with values of any type under any name.
func (l *Language) Properties() Object {
	out := Object{}
	for _, name := range []string{"plan", "amount", "when", "tags", "timezone", "$timezone", "$geoip_time_zone", "other"} {
		if rapid.Bool().Draw(l.T, name) {
			out[name] = l.anything(name)
		}
	}
	if rapid.Bool().Draw(l.T, "address") {
		out["address"] = Draw(l.T, "address", []any{nil, "here", Object{}, Object{"city": "Rome", "since": l.anything("when")}, Object{"city": "pro"}})
	}
	return out
}

func (l *Language) anything(name string) any {
	if Chance(l.T, "another type") {
		return Draw(l.T, "value", append([]any{nil, []any{}, Object{}, []any{"pro", 1.0, nil}}, scalars...))
	}
	switch name {
	case "amount":
		return Draw(l.T, "amount", []any{0.1, 0.2, 1.0, 50.0, -3.0, 99.99})
	case "tags":
		return Draw(l.T, "tags", []any{[]any{"pro", "x"}, []any{1.0, true}, []any{"PRO", []any{"pro"}}})
	case "timezone", "$timezone", "$geoip_time_zone":
		return Draw(l.T, "zone", []any{"Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo", "nowhere", ""})
	case "when":
		return l.anyDate()
	}
	return Draw(l.T, "value", scalars)
}

func (l *Language) anyDate() any {
	at := l.Instant()
	return Draw(l.T, "date", []any{
		at.Format(time.RFC3339Nano), at.In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339Nano),
		at.Format(time.DateOnly), at.Format("2006-01-02T15:04:05"),
	})
}

// Instant is near the base, often at the same distance from others as a window is long.
func (l *Language) Instant() time.Time {
	at := l.Base
	for range rapid.IntRange(0, 2).Draw(l.T, "steps") {
		at = at.Add(time.Duration(rapid.IntRange(-1, 1).Draw(l.T, "sign")) * Duration(Draw(l.T, "span", Spans)))
	}
	return at.Add(time.Duration(rapid.IntRange(-1, 1).Draw(l.T, "microseconds")) * time.Microsecond)
}

// Duration is how long a span is.
func Duration(text string) time.Duration { return time.Duration(shiftOf(text)) * time.Microsecond }

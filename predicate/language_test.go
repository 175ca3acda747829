package predicate_test

import (
	"fmt"
	"time"

	"pgregory.net/rapid"
)

// Random conditions of the whole language, as they are written, and random records that
// they may be about.

var eventNames = []string{"a", "b", "order.completed"}

// scalars are what properties and conditions hold; some look alike.
var scalars = []any{"pro", "Pro", "PRO plan", "", "1", "true", true, false, 0.0, 1.0, 2.5, -3.0, 100.0}

// A base is where in time a case plays: near a change of some zone's clocks.
var bases = []struct {
	zone string
	at   time.Time
}{
	{"Europe/Berlin", time.Date(2026, 3, 28, 20, 0, 0, 0, time.UTC)},
	{"America/Sao_Paulo", time.Date(2018, 11, 3, 12, 0, 0, 0, time.UTC)}, // midnight was skipped
	{"Pacific/Apia", time.Date(2011, 12, 29, 6, 0, 0, 0, time.UTC)},      // 30 December was skipped
	{"Australia/Lord_Howe", time.Date(2026, 10, 3, 10, 0, 0, 0, time.UTC)},
	{"America/New_York", time.Date(2026, 10, 31, 22, 0, 0, 0, time.UTC)},
}

var spans = []string{"1s", "1h", "2h", "1d", "36h", "1w"}

type language struct {
	t       *rapid.T
	base    time.Time
	buckets []string
}

func draw[T any](t *rapid.T, label string, list []T) T { return rapid.SampledFrom(list).Draw(t, label) }

func chance(t *rapid.T, label string) bool { return rapid.IntRange(0, 2).Draw(t, label) == 0 }

func (l *language) condition(depth int) object {
	kinds := []string{"property", "event", "event", "seen", "sequence", "identified", "email_engagement"}
	if depth > 0 {
		kinds = append(kinds, "composite", "composite", "not")
	}
	if len(l.buckets) > 0 {
		kinds = append(kinds, "bucket")
	}
	c := object{"type": draw(l.t, "type", kinds)}
	switch c["type"] {
	case "composite":
		l.composite(c, func() object { return l.condition(depth - 1) })
	case "not":
		c["condition"] = l.condition(depth - 1)
	case "property":
		c["property"] = l.path()
		l.comparison(c, true)
	case "event":
		l.event(c)
	case "seen":
		c["check"] = draw(l.t, "check", []string{"first", "last"})
		if chance(l.t, "of an event") {
			l.step(c)
		}
		l.date(c, true)
	case "sequence":
		l.sequence(c)
	case "identified":
		c["by"] = draw(l.t, "by", []string{"any", "userId", "email"})
	case "email_engagement":
		c["templateKey"] = draw(l.t, "template", []string{"t1", "t2"})
		c["check"] = draw(l.t, "check", []string{"opened", "clicked", "not_opened", "not_clicked"})
	case "bucket":
		c["bucketId"] = draw(l.t, "bucket", l.buckets)
	}
	return c
}

func (l *language) composite(c object, inner func() object) {
	c["operator"] = draw(l.t, "operator", []string{"and", "or"})
	list := []any{}
	for range rapid.IntRange(1, 3).Draw(l.t, "conditions") {
		list = append(list, inner())
	}
	c["conditions"] = list
}

func (l *language) path() any {
	return draw(l.t, "path", []any{"plan", "amount", "when", "tags", []any{"address", "city"}, []any{"address", "since"}})
}

func (l *language) span() any {
	return draw(l.t, "span", spans)
}

// comparison draws any operator with a value that it wants.
func (l *language) comparison(c object, relative bool) {
	ops := []string{"eq", "neq", "in", "gt", "gte", "lt", "lte", "between", "contains", "prefix", "suffix", "list_contains", "exists", "not_exists"}
	for _, path := range []any{c["property"], c["of"]} { // mostly what such a property is for
		if path == "when" || fmt.Sprint(path) == "[address since]" {
			ops = []string{"date", "date", "date", "eq", "exists"}
		}
	}
	op := draw(l.t, "operator", append(ops, "date"))
	c["operator"] = op
	numbers := []any{-3.0, 0.0, 1.0, 2.5, 50.0}
	switch op {
	case "date":
		l.date(c, relative)
		return
	case "eq", "neq", "list_contains":
		c["value"] = draw(l.t, "value", scalars)
	case "in":
		c["value"] = []any{draw(l.t, "value", scalars), draw(l.t, "value", scalars)}
	case "gt", "gte", "lt", "lte":
		c["value"] = draw(l.t, "value", numbers)
	case "between":
		c["value"] = []any{draw(l.t, "low", numbers), draw(l.t, "high", numbers)}
	case "contains", "prefix", "suffix":
		c["value"] = draw(l.t, "value", []string{"", "pro", "PRO", "o"})
	}
	switch op {
	case "eq", "neq", "in", "contains", "prefix", "suffix", "list_contains":
		if chance(l.t, "ignore case") {
			c["ignoreCase"] = true
		}
	}
}

func (l *language) date(c object, relative bool) {
	op := draw(l.t, "operator", []string{"before", "on_or_before", "after", "on_or_after", "on_date", "between"})
	calendar := op == "on_date" || rapid.Bool().Draw(l.t, "calendar")
	c["operator"], c["value"] = op, l.moment(calendar, relative)
	if op == "between" {
		c["value"] = []any{c["value"], l.moment(calendar, relative)}
	}
	if calendar && chance(l.t, "names a zone") {
		c["zone"] = draw(l.t, "zone", bases).zone
	}
}

func (l *language) moment(calendar, relative bool) any {
	days := rapid.IntRange(-2, 2).Draw(l.t, "days")
	fixed := !relative || chance(l.t, "fixed")
	switch {
	case fixed && calendar:
		return l.base.AddDate(0, 0, days).Format(time.DateOnly)
	case fixed:
		return l.instant().Format(time.RFC3339Nano)
	case calendar && days == 0:
		return "today"
	case calendar:
		return fmt.Sprintf("today%+dd", days)
	case chance(l.t, "now"):
		return "now"
	}
	return "now" + draw(l.t, "sign", []string{"+", "-"}) + draw(l.t, "span", spans)
}

func (l *language) step(c object) {
	c["eventName"] = draw(l.t, "event", eventNames)
	if chance(l.t, "filtered") {
		c["where"] = l.where()
	}
}

// where is a condition, the short form, or a list of these.
func (l *language) where() any {
	switch draw(l.t, "where", []string{"long", "short", "list"}) {
	case "short":
		return l.short()
	case "list":
		return []any{l.filter(1), l.short()}
	}
	return l.filter(1)
}

// short is the short form of comparisons of properties.
func (l *language) short() object {
	out := object{}
	for range rapid.IntRange(1, 2).Draw(l.t, "properties") {
		name := draw(l.t, "property", []string{"plan", "amount", "when", "tags"})
		c := object{"property": name}
		l.comparison(c, false)
		op, value := c["operator"].(string), c["value"]
		plain := c["ignoreCase"] == nil && c["zone"] == nil && chance(l.t, "plain")
		switch {
		case op == "exists" || op == "not_exists":
			out[name] = object{op: rapid.Bool().Draw(l.t, "is so")}
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

func (l *language) filter(depth int) object {
	kind := "property"
	if depth > 0 {
		kind = draw(l.t, "filter", []string{"property", "property", "not", "composite"})
	}
	c := object{"type": kind}
	switch kind {
	case "not":
		c["condition"] = l.filter(depth - 1)
	case "composite":
		l.composite(c, func() object { return l.filter(depth - 1) })
	default:
		c["property"] = l.path()
		l.comparison(c, false)
	}
	return c
}

func (l *language) event(c object) {
	l.step(c)
	if !chance(l.t, "unwindowed") {
		c["within"] = l.span()
	}
	c["check"] = draw(l.t, "check", []string{"exists", "not_exists", "count", "count", "total", "last"})
	switch c["check"] {
	case "count":
		c["operator"] = draw(l.t, "operator", []string{"eq", "gt", "gte", "lt", "lte"})
		c["value"] = draw(l.t, "count", []any{-1.0, 0.0, 1.0, 2.0, 2.5, 3.0})
	case "total":
		c["of"] = "amount"
		c["operator"] = draw(l.t, "operator", []string{"eq", "gt", "gte", "lt", "lte"})
		c["value"] = draw(l.t, "total", []any{0.0, 0.3, 3.0, 100.0})
	case "last":
		c["of"] = l.path()
		l.comparison(c, true)
	}
}

func (l *language) sequence(c object) {
	first, then := object{}, object{}
	l.step(first)
	l.step(then)
	c["first"], c["then"] = first, then
	c["check"] = draw(l.t, "check", []string{"followed", "not_followed"})
	c["occurrence"] = draw(l.t, "occurrence", []string{"any", "last"})
	if c["check"] == "not_followed" || chance(l.t, "bounded") {
		c["within"] = draw(l.t, "gap", []string{"1s", "1h", "1d"})
	}
	if chance(l.t, "looks back") {
		c["lookback"] = "1w"
	}
}

// properties are a random JSON object, with values of any type under any name.
func (l *language) properties() object {
	out := object{}
	for _, name := range []string{"plan", "amount", "when", "tags", "timezone", "other"} {
		if rapid.Bool().Draw(l.t, name) {
			out[name] = l.anything(name)
		}
	}
	if rapid.Bool().Draw(l.t, "address") {
		out["address"] = draw(l.t, "address", []any{nil, "here", object{}, object{"city": "Rome", "since": l.anything("when")}, object{"city": "pro"}})
	}
	return out
}

func (l *language) anything(name string) any {
	if chance(l.t, "another type") {
		return draw(l.t, "value", append([]any{nil, []any{}, object{}, []any{"pro", 1.0, nil}}, scalars...))
	}
	switch name {
	case "amount":
		return draw(l.t, "amount", []any{0.1, 0.2, 1.0, 50.0, -3.0, 99.99})
	case "tags":
		return draw(l.t, "tags", []any{[]any{"pro", "x"}, []any{1.0, true}, []any{"PRO", []any{"pro"}}})
	case "timezone":
		return draw(l.t, "zone", []any{"Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo", "nowhere", ""})
	case "when":
		return l.anyDate()
	}
	return draw(l.t, "value", scalars)
}

func (l *language) anyDate() any {
	at := l.instant()
	return draw(l.t, "date", []any{
		at.Format(time.RFC3339Nano), at.In(time.FixedZone("", 5*3600+1800)).Format(time.RFC3339Nano),
		at.Format(time.DateOnly), at.Format("2006-01-02T15:04:05"),
	})
}

// instant is near the base, often at the same distance from others as a window is long.
func (l *language) instant() time.Time {
	at := l.base
	for range rapid.IntRange(0, 2).Draw(l.t, "steps") {
		at = at.Add(time.Duration(rapid.IntRange(-1, 1).Draw(l.t, "sign")) * duration(draw(l.t, "span", spans)))
	}
	return at.Add(time.Duration(rapid.IntRange(-1, 1).Draw(l.t, "microseconds")) * time.Microsecond)
}

func duration(text string) time.Duration { return time.Duration(shiftOf(text)) * time.Microsecond }

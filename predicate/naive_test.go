package predicate_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The naive evaluator: it reads the canonical JSON of a condition and looks at the whole
// history each time. It shares no code with the product.

// happening is an event as it was recorded.
type happening struct {
	id         string
	name       string
	at         int64 // microseconds
	properties map[string]any
}

// world is everything that was ever said of a contact.
type world struct {
	history             []happening
	properties          map[string]any
	firstSeen, lastSeen int64
	userID, email       bool
	zone                *time.Location // the deployment's
	sequence            int            // so many of the newest events
	buckets             map[string]map[string]any
}

type object = map[string]any

// told is for people.
func (w *world) told() string {
	out := fmt.Sprintf("contact %v, seen %d to %d;", w.properties, w.firstSeen, w.lastSeen)
	for _, h := range w.history {
		out += fmt.Sprintf(" %s at %s %v;", h.name, time.UnixMicro(h.at).UTC().Format(time.RFC3339Nano), h.properties)
	}
	return out
}

func parsed(canonical string) object {
	out := object{}
	if err := json.Unmarshal([]byte(canonical), &out); err != nil {
		panic(err)
	}
	return out
}

func (w *world) holds(c object, now int64) bool {
	switch c["type"] {
	case "composite":
		for _, inner := range c["conditions"].([]any) {
			if w.holds(inner.(object), now) == (c["operator"] == "or") {
				return c["operator"] == "or"
			}
		}
		return c["operator"] == "and"
	case "not":
		return !w.holds(c["condition"].(object), now)
	case "property":
		return w.compares(c, lookUp(w.properties, c["property"]), now, w.zoneOf(c))
	case "event":
		return w.event(c, now)
	case "seen":
		return w.seen(c, now)
	case "sequence":
		return w.sequenceHolds(c, now)
	case "bucket":
		return w.holds(w.buckets[c["bucketId"].(string)], now)
	case "identified":
		switch c["by"] {
		case "userId":
			return w.userID
		case "email":
			return w.email
		}
		return w.userID || w.email
	case "email_engagement":
		return w.mail(c, now)
	}
	panic(c["type"])
}

// matching are the distinct events of a name that pass a filter, newest first.
func (w *world) matching(name any, where any) []happening {
	var out []happening
	for _, h := range w.history {
		known := slices.ContainsFunc(out, func(o happening) bool { return o.id == h.id })
		if h.name == name && !known && w.passes(where, h.properties) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b happening) int {
		if a.at != b.at {
			return int(b.at - a.at)
		}
		return strings.Compare(b.id, a.id)
	})
	return out
}

func (w *world) passes(where any, properties map[string]any) bool {
	if where == nil {
		return true
	}
	filter := world{properties: properties, zone: w.zone}
	delete(filter.properties, "timezone") // an event has no zone of its own
	return filter.holds(where.(object), 0)
}

func recent(list []happening, since int64) []happening {
	return slices.DeleteFunc(slices.Clone(list), func(h happening) bool { return h.at < since })
}

func (w *world) event(c object, now int64) bool {
	list := w.matching(c["eventName"], c["where"])
	if c["within"] != nil {
		list = recent(list, now-length(c["within"]))
	}
	switch c["check"] {
	case "exists":
		return len(list) > 0
	case "not_exists":
		return len(list) == 0
	case "count":
		if c["operator"] == nil {
			return len(list) > 0
		}
		return compareRat(c["operator"], big.NewRat(int64(len(list)), 1), rat(c["value"]))
	case "total":
		total := new(big.Rat)
		for _, h := range list {
			if n, ok := lookUp(h.properties, c["of"]).(float64); ok {
				total.Add(total, rat(n))
			}
		}
		return compareRat(c["operator"], total, rat(c["value"]))
	}
	// The newest of all events: when it is not recent, none is.
	if len(list) == 0 {
		return compareNothing(c)
	}
	if c["within"] != nil && !slices.ContainsFunc(list, func(h happening) bool { return h.id == w.matching(c["eventName"], c["where"])[0].id }) {
		return false
	}
	return w.compares(c, lookUp(list[0].properties, c["of"]), now, w.zoneOf(c))
}

// compareNothing is a comparison of the last value when there is no event.
func compareNothing(c object) bool {
	return c["within"] == nil && (c["operator"] == "neq" || c["operator"] == "not_exists")
}

func rat(v any) *big.Rat {
	out, _ := new(big.Rat).SetString(strconv.FormatFloat(v.(float64), 'f', 6, 64))
	return out
}

func compareRat(operator any, a, b *big.Rat) bool {
	c := a.Cmp(b)
	return map[any]bool{"eq": c == 0, "gt": c > 0, "gte": c >= 0, "lt": c < 0, "lte": c <= 0}[operator]
}

func (w *world) seen(c object, now int64) bool {
	at := w.firstSeen
	if c["check"] == "last" {
		at = w.lastSeen
	}
	if c["eventName"] != nil {
		list := w.matching(c["eventName"], c["where"])
		if len(list) == 0 {
			return false
		}
		at = list[len(list)-1].at
		if c["check"] == "last" {
			at = list[0].at
		}
	}
	return at != 0 && datesHold(c, day{instant: at}, now, w.zoneOf(c))
}

func (w *world) newest(step any) []happening {
	list := w.matching(step.(object)["eventName"], step.(object)["where"])
	return list[:min(len(list), w.sequence)]
}

func (w *world) sequenceHolds(c object, now int64) bool {
	firsts, thens := w.newest(c["first"]), w.newest(c["then"])
	if c["occurrence"] == "last" && len(firsts) > 1 {
		firsts = firsts[:1]
	}
	for _, a := range firsts {
		if c["lookback"] != nil && a.at < now-length(c["lookback"]) {
			continue
		}
		followed := slices.ContainsFunc(thens, func(b happening) bool {
			return b.at > a.at && (c["within"] == nil || b.at-a.at <= length(c["within"]))
		})
		if c["check"] != "not_followed" && followed {
			return true
		}
		if c["check"] == "not_followed" && !followed && now > a.at+length(c["within"]) {
			return true
		}
	}
	return false
}

func (w *world) mail(c object, now int64) bool {
	where := object{"type": "property", "property": "templateKey", "operator": "eq", "value": c["templateKey"]}
	what, negative := strings.CutPrefix(c["check"].(string), "not_")
	opened := w.holds(object{"type": "sequence", "occurrence": "last",
		"first": object{"eventName": "email.sent", "where": where},
		"then":  object{"eventName": "email." + what, "where": where}}, now)
	sent := len(w.matching("email.sent", where)) > 0
	return sent && opened != negative
}

func lookUp(properties map[string]any, path any) any {
	names, ok := path.([]any)
	if !ok {
		names = []any{path}
	}
	var at any = properties
	for _, name := range names {
		inner, ok := at.(object)
		if !ok {
			return nil
		}
		if at, ok = inner[name.(string)]; !ok {
			return nil
		}
	}
	return at
}

func (w *world) zoneOf(c object) *time.Location {
	for _, name := range []any{c["zone"], w.properties["timezone"]} {
		if text, ok := name.(string); ok && text != "" && text != "Local" {
			if zone, err := time.LoadLocation(text); err == nil {
				return zone
			}
		}
	}
	return w.zone
}

func lower(c object, v any) any {
	if text, ok := v.(string); ok && c["ignoreCase"] == true {
		return strings.ToLower(text)
	}
	return v
}

func isScalar(v any) bool {
	switch v.(type) {
	case string, float64, bool:
		return true
	}
	return false
}

func (w *world) compares(c object, actual any, now int64, zone *time.Location) bool {
	want := c["value"]
	equal := func(a, b any) bool { return isScalar(a) && lower(c, a) == lower(c, b) }
	text := func(test func(a, b string) bool) bool {
		a, ok := lower(c, actual).(string)
		return ok && test(a, lower(c, want).(string))
	}
	order := func(test func(a, b float64) bool) bool {
		a, ok := actual.(float64)
		return ok && test(a, want.(float64))
	}
	switch c["operator"] {
	case "eq":
		return equal(actual, want)
	case "neq":
		return !equal(actual, want)
	case "in":
		return slices.ContainsFunc(want.([]any), func(v any) bool { return equal(actual, v) })
	case "gt":
		return order(func(a, b float64) bool { return a > b })
	case "gte":
		return order(func(a, b float64) bool { return a >= b })
	case "lt":
		return order(func(a, b float64) bool { return a < b })
	case "lte":
		return order(func(a, b float64) bool { return a <= b })
	case "contains":
		return text(strings.Contains)
	case "prefix":
		return text(strings.HasPrefix)
	case "suffix":
		return text(strings.HasSuffix)
	case "list_contains":
		list, _ := actual.([]any)
		return slices.ContainsFunc(list, func(v any) bool { return equal(v, want) })
	case "exists":
		return actual != nil
	case "not_exists":
		return actual == nil
	case "between":
		if low, ok := want.([]any)[0].(float64); ok {
			a, isNumber := actual.(float64)
			return isNumber && low <= a && a <= want.([]any)[1].(float64)
		}
	}
	date, ok := readDay(actual)
	return ok && datesHold(c, date, now, zone)
}

// day is an instant or a calendar date.
type day struct {
	instant  int64
	calendar bool
	date     int64
}

func readDay(v any) (day, bool) {
	text, _ := v.(string)
	if t, err := time.Parse("2006-01-02", text); err == nil {
		return day{calendar: true, date: t.Unix() / 86400}, true
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return day{instant: t.UnixMicro()}, true
	}
	return day{}, false
}

func dateIn(instant int64, zone *time.Location) int64 {
	y, m, d := time.UnixMicro(instant).In(zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / 86400
}

func datesHold(c object, actual day, now int64, zone *time.Location) bool {
	test := func(operator any, want any) bool {
		a, b, ok := comparable(actual, want.(string), now, zone)
		return ok && map[any]bool{"before": a < b, "on_or_before": a <= b, "after": a > b, "on_or_after": a >= b, "on_date": a == b}[operator]
	}
	if c["operator"] == "between" {
		pair := c["value"].([]any)
		return test("on_or_after", pair[0]) && test("on_or_before", pair[1])
	}
	return test(c["operator"], c["value"])
}

func comparable(actual day, want string, now int64, zone *time.Location) (a, b int64, ok bool) {
	if shift, isToday := strings.CutPrefix(want, "today"); isToday {
		b = dateIn(now, zone) + shiftOf(shift)/86_400_000_000
	} else if shift, isNow := strings.CutPrefix(want, "now"); isNow {
		return actual.instant, now + shiftOf(shift), !actual.calendar
	} else {
		fixed, _ := readDay(want)
		if !fixed.calendar {
			return actual.instant, fixed.instant, !actual.calendar
		}
		b = fixed.date
	}
	if actual.calendar {
		return actual.date, b, true
	}
	return dateIn(actual.instant, zone), b, true
}

var shiftPart = regexp.MustCompile(`(\d+)([wdhms])`)

func shiftOf(text string) int64 {
	total := int64(0)
	for _, m := range shiftPart.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		total += n * map[string]int64{"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}[m[2]] * 1_000_000
	}
	if strings.HasPrefix(text, "-") {
		return -total
	}
	return total
}

// length is a duration of the canonical form in microseconds.
func length(v any) int64 {
	total := 0.0
	for part, seconds := range map[string]float64{"hours": 3600, "minutes": 60, "seconds": 1} {
		if n, ok := v.(object)[part].(float64); ok {
			total += n * seconds
		}
	}
	return int64(total*1e6 + 0.5)
}

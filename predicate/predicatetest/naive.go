// Package predicatetest helps tests that ask whether what is kept of a contact answers as
// the whole history would: random conditions and records, and an evaluator that reads the
// canonical JSON of a condition and looks at everything each time. It shares no code with
// package predicate.
package predicatetest

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

// Happening is an event as it was recorded.
type Happening struct {
	ID         string
	Name       string
	At         int64 // microseconds
	Properties map[string]any
}

// World is everything that was ever said of a contact.
type World struct {
	History             []Happening
	Properties          map[string]any
	FirstSeen, LastSeen int64 // microseconds; 0 is not known
	UserID, Email       bool
	Zone                *time.Location // the deployment's
	Sequence            int            // so many of the newest events
	// Members says whether it is a member of a bucket at an instant.
	Members func(bucketID string, now int64) bool
}

// Object is a JSON object.
type Object = map[string]any

// Told is for people.
func (w *World) Told() string {
	out := fmt.Sprintf("contact %v, seen %d to %d;", w.Properties, w.FirstSeen, w.LastSeen)
	for _, h := range w.History {
		out += fmt.Sprintf(" %s at %s %v;", h.Name, time.UnixMicro(h.At).UTC().Format(time.RFC3339Nano), h.Properties)
	}
	return out
}

// Parsed is a canonical condition, or another JSON object.
func Parsed(canonical string) Object {
	out := Object{}
	if err := json.Unmarshal([]byte(canonical), &out); err != nil {
		panic(err)
	}
	return out
}

// Holds says whether a condition does at an instant, in microseconds.
func (w *World) Holds(c Object, now int64) bool {
	switch c["type"] {
	case "composite":
		for _, inner := range c["conditions"].([]any) {
			if w.Holds(inner.(Object), now) == (c["operator"] == "or") {
				return c["operator"] == "or"
			}
		}
		return c["operator"] == "and"
	case "not":
		return !w.Holds(c["condition"].(Object), now)
	case "property":
		return w.compares(c, LookUp(w.Properties, c["property"]), now, w.zoneOf(c))
	case "event":
		return w.event(c, now)
	case "seen":
		return w.seen(c, now)
	case "sequence":
		return w.sequenceHolds(c, now)
	case "bucket":
		return w.Members(c["bucketId"].(string), now)
	case "identified":
		switch c["by"] {
		case "userId":
			return w.UserID
		case "email":
			return w.Email
		}
		return w.UserID || w.Email
	case "email_engagement":
		return w.mail(c, now)
	}
	panic(c["type"])
}

// Matching are the distinct events of a name that pass a filter, newest first.
func (w *World) Matching(name any, where any) []Happening {
	var out []Happening
	for _, h := range w.History {
		known := slices.ContainsFunc(out, func(o Happening) bool { return o.ID == h.ID })
		if h.Name == name && !known && w.Passes(where, h.Properties) {
			out = append(out, h)
		}
	}
	slices.SortFunc(out, func(a, b Happening) int {
		if a.At != b.At {
			return int(b.At - a.At)
		}
		return strings.Compare(b.ID, a.ID)
	})
	return out
}

// Passes says whether an event passes a filter; nil passes all.
func (w *World) Passes(where any, properties map[string]any) bool {
	if where == nil {
		return true
	}
	filter := World{Properties: properties, Zone: w.Zone}
	for _, name := range []string{"$timezone", "$geoip_time_zone", "timezone"} {
		delete(filter.Properties, name) // an event has no zone of its own
	}
	return filter.Holds(where.(Object), 0)
}

// Recent are those of a list that happened at an instant or later.
func Recent(list []Happening, since int64) []Happening {
	return slices.DeleteFunc(slices.Clone(list), func(h Happening) bool { return h.At < since })
}

func (w *World) event(c Object, now int64) bool {
	list := w.Matching(c["eventName"], c["where"])
	if c["within"] != nil {
		list = Recent(list, now-Length(c["within"]))
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
			if n, ok := LookUp(h.Properties, c["of"]).(float64); ok {
				total.Add(total, rat(n))
			}
		}
		return compareRat(c["operator"], total, rat(c["value"]))
	}
	// The newest of all events: when it is not recent, none is.
	if len(list) == 0 {
		return compareNothing(c)
	}
	if c["within"] != nil && !slices.ContainsFunc(list, func(h Happening) bool { return h.ID == w.Matching(c["eventName"], c["where"])[0].ID }) {
		return false
	}
	return w.compares(c, LookUp(list[0].Properties, c["of"]), now, w.zoneOf(c))
}

// compareNothing is a comparison of the last value when there is no event.
func compareNothing(c Object) bool {
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

// SeenBetween widens when it was seen.
func (w *World) SeenBetween(first, last int64) {
	if w.FirstSeen == 0 || first < w.FirstSeen {
		w.FirstSeen = first
	}
	w.LastSeen = max(w.LastSeen, last)
}

func (w *World) seen(c Object, now int64) bool {
	at := w.FirstSeen
	if c["check"] == "last" {
		at = w.LastSeen
	}
	if c["eventName"] != nil {
		list := w.Matching(c["eventName"], c["where"])
		if len(list) == 0 {
			return false
		}
		at = list[len(list)-1].At
		if c["check"] == "last" {
			at = list[0].At
		}
	}
	return at != 0 && datesHold(c, day{instant: at}, now, w.zoneOf(c))
}

func (w *World) newest(step any) []Happening {
	list := w.Matching(step.(Object)["eventName"], step.(Object)["where"])
	return list[:min(len(list), w.Sequence)]
}

func (w *World) sequenceHolds(c Object, now int64) bool {
	firsts, thens := w.newest(c["first"]), w.newest(c["then"])
	if c["occurrence"] == "last" && len(firsts) > 1 {
		firsts = firsts[:1]
	}
	for _, a := range firsts {
		if c["lookback"] != nil && a.At < now-Length(c["lookback"]) {
			continue
		}
		followed := slices.ContainsFunc(thens, func(b Happening) bool {
			return b.At > a.At && (c["within"] == nil || b.At-a.At <= Length(c["within"]))
		})
		if c["check"] != "not_followed" && followed {
			return true
		}
		if c["check"] == "not_followed" && !followed && now > a.At+Length(c["within"]) {
			return true
		}
	}
	return false
}

func (w *World) mail(c Object, now int64) bool {
	where := Object{"type": "property", "property": "templateKey", "operator": "eq", "value": c["templateKey"]}
	what, negative := strings.CutPrefix(c["check"].(string), "not_")
	opened := w.Holds(Object{"type": "sequence", "occurrence": "last",
		"first": Object{"eventName": "email.sent", "where": where},
		"then":  Object{"eventName": "email." + what, "where": where}}, now)
	sent := len(w.Matching("email.sent", where)) > 0
	return sent && opened != negative
}

// LookUp is the value at a path; nil for none.
func LookUp(properties map[string]any, path any) any {
	names, ok := path.([]any)
	if !ok {
		names = []any{path}
	}
	var at any = properties
	for _, name := range names {
		inner, ok := at.(Object)
		if !ok {
			return nil
		}
		if at, ok = inner[name.(string)]; !ok {
			return nil
		}
	}
	return at
}

func (w *World) zoneOf(c Object) *time.Location {
	for _, name := range []any{c["zone"], w.Properties["$timezone"], w.Properties["$geoip_time_zone"], w.Properties["timezone"]} {
		if text, ok := name.(string); ok && text != "" && text != "Local" {
			if zone, err := time.LoadLocation(text); err == nil {
				return zone
			}
		}
	}
	return w.Zone
}

func lower(c Object, v any) any {
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

func (w *World) compares(c Object, actual any, now int64, zone *time.Location) bool {
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

func datesHold(c Object, actual day, now int64, zone *time.Location) bool {
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

// Length is a duration of the canonical form in microseconds.
func Length(v any) int64 {
	total := 0.0
	for part, seconds := range map[string]float64{"hours": 3600, "minutes": 60, "seconds": 1} {
		if n, ok := v.(Object)[part].(float64); ok {
			total += n * seconds
		}
	}
	return int64(total*1e6 + 0.5)
}

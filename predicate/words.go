package predicate

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Conditions in plain words, for people. Nothing reads them.

// words says what a condition asks; of a composite or not only how it joins.
func (e *expr) words() string {
	switch e.kind {
	case kindComposite:
		if e.operator == operatorAnd {
			return "all of"
		}
		return "any of"
	case kindNot:
		return "not"
	case kindProperty:
		return e.property.words() + " " + e.comparisonWords()
	case kindEvent:
		return e.eventWords()
	case kindSeen:
		out := e.check + " seen " + e.comparisonWords()
		if e.eventName != "" {
			return e.stepWords() + " " + out
		}
		return out
	case kindSequence:
		return e.sequenceWords()
	case kindEmail:
		return fmt.Sprintf("newest mail %s %s", nameWords(e.templateKey), strings.ReplaceAll(e.check, "_", " "))
	case kindBucket:
		return "member of " + nameWords(e.bucketID)
	}
	return cmp.Or(map[string]string{byUserID: "user id known", byEmail: "email known"}[e.by], "user id or email known")
}

// sentence says a whole condition in one line.
func (e *expr) sentence() string {
	switch e.kind {
	case kindNot:
		return "not (" + e.conditions[0].sentence() + ")"
	case kindComposite:
		parts := make([]string, len(e.conditions))
		for i, inner := range e.conditions {
			parts[i] = inner.sentence()
			if inner.kind == kindComposite {
				parts[i] = "(" + parts[i] + ")"
			}
		}
		return strings.Join(parts, " "+e.operator+" ")
	}
	return e.words()
}

// stepWords is an event with its filter.
func (e *expr) stepWords() string {
	if e.where == nil {
		return nameWords(e.eventName)
	}
	return nameWords(e.eventName) + " (" + e.where.sentence() + ")"
}

func (e *expr) eventWords() string {
	within := ""
	if e.within != 0 {
		within = " within " + spanWords(e.within)
	}
	switch e.check {
	case checkTotal:
		return fmt.Sprintf("total of %s of %s %s%s", e.of.words(), e.stepWords(), e.numberWords(), within)
	case checkLast:
		return fmt.Sprintf("newest %s%s: %s %s", e.stepWords(), within, e.of.words(), e.comparisonWords())
	case checkNotExists:
		return e.stepWords() + " did not happen" + within
	}
	if e.operator == "" {
		return e.stepWords() + " happened" + within
	}
	return e.stepWords() + " " + e.numberWords() + within
}

// numberWords compares a number of events or a total.
func (e *expr) numberWords() string {
	return cmp.Or(map[string]string{"eq": "exactly"}[e.operator], propertyOperators.find(e.operator).plain) + " " + valueWords(e.value)
}

func (e *expr) sequenceWords() string {
	var out strings.Builder
	if e.occur == occurLast {
		out.WriteString("newest ")
	}
	out.WriteString(e.first.stepWords())
	if e.check == checkNotFollowed {
		out.WriteString(" not followed by ")
	} else {
		out.WriteString(" followed by ")
	}
	out.WriteString(e.then.stepWords())
	if e.within != 0 {
		out.WriteString(" within " + spanWords(e.within))
	}
	if e.lookback != 0 {
		out.WriteString(", in the last " + spanWords(e.lookback))
	}
	return out.String()
}

// comparisonWords is operator and value.
func (e *expr) comparisonWords() string {
	out := propertyOperators.find(e.operator).plain
	switch v := e.value.(type) {
	case nil:
	case []any:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = e.operandWords(item)
		}
		separator := ", "
		if e.operator == opBetween {
			separator = " and "
		}
		out += " " + strings.Join(parts, separator)
	default:
		out += " " + e.operandWords(v)
	}
	if e.ignoreCase {
		out += " in any case"
	}
	if e.zone != "" {
		out += " in " + e.zone
	}
	return out
}

// operandWords writes dates without quotes.
func (e *expr) operandWords(v any) string {
	if text, ok := v.(string); ok && len(e.moments()) > 0 {
		m, _ := ParseMoment(text) // was checked
		return m.words()
	}
	return valueWords(v)
}

// words is a moment as people write it, in days and not in weeks.
func (m Moment) words() string {
	unit, name := time.Microsecond, "now"
	if m.calendar {
		unit, name = 24*time.Hour, "today"
	}
	shift := time.Duration(m.at) * unit
	switch {
	case !m.relative:
		return m.String()
	case shift > 0:
		return name + "+" + spanWords(shift)
	case shift < 0:
		return name + "-" + spanWords(-shift)
	}
	return name
}

func valueWords(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}

// words is a name, or the names on the way with dots between them.
func (p Path) words() string {
	out := make([]string, len(p))
	for i, name := range p {
		out[i] = nameWords(name)
		if len(p) > 1 && strings.Contains(name, ".") {
			out[i] = strconv.Quote(name)
		}
	}
	return strings.Join(out, ".")
}

// nameWords quotes a name that would not be read as one.
func nameWords(name string) string {
	odd := func(r rune) bool { return !strconv.IsPrint(r) || strings.ContainsRune(` "()`, r) }
	if name == "" || strings.ContainsFunc(name, odd) {
		return strconv.Quote(name)
	}
	return name
}

// spanWords is a length of time, in days as its longest unit.
func spanWords(d time.Duration) string {
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	text := durationText(rest)
	if rest%time.Second != 0 || d == 0 {
		text = rest.String()
	}
	if days > 0 {
		text = fmt.Sprintf("%dd%s", days, text)
	}
	return text
}

func microWords(micros int64) string { return spanWords(time.Duration(micros) * time.Microsecond) }

func timeWords(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999Z") }

// newestWords is "the 3rd newest".
func newestWords(nth int) string {
	if nth == 1 {
		return "the newest"
	}
	suffix := "th"
	if nth%100 < 11 || nth%100 > 13 {
		suffix = cmp.Or(map[int]string{1: "st", 2: "nd", 3: "rd"}[nth%10], "th")
	}
	return fmt.Sprintf("the %d%s newest", nth, suffix)
}

package journeystest

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// walker walks over the steps of a run. Its methods are false when the run is over.
type walker struct {
	r     *naiveRun
	yield func(request) bool
}

func (w walker) steps(steps any, prefix string) bool {
	for i, s := range list(steps) {
		if !w.step(s, prefix, i) {
			return false
		}
	}
	return true
}

func (w walker) wait(want request) (string, bool) {
	if !w.yield(want) {
		return "", false
	}
	return w.r.answer, true
}

func (w walker) step(s Object, prefix string, i int) bool {
	kind := ""
	for name := range s {
		if name != "id" && name != "then" {
			kind = name
		}
	}
	id := fmt.Sprintf("%s%s-%d", prefix, kind, i)
	if given, is := s["id"].(string); is {
		id = given
	}
	w.r.at = id
	w.r.epoch++
	for w.r.n.stands(w.r) {
		if _, ok := w.wait(request{held: true}); !ok {
			return false
		}
	}
	outcome, inner := "next", any(nil)
	ok := true
	r := w.r
	now := r.n.now
	switch kind {
	case "exit":
		r.end("exited", s[kind].(string))
		return false
	case "wait":
		_, ok = w.wait(request{due: waitEnd(s[kind], now)})
	case "waitFor":
		outcome, ok = w.waitFor(s[kind].(Object))
	case "waitUntil":
		outcome, ok = w.waitUntil(s[kind].(Object))
	case "branch":
		outcome, inner = w.branch(list(s[kind]))
	case "split":
		outcome, inner = w.split(list(s[kind]), id)
	case "call":
		r.call = schemas.Derive(r.id, "call:"+id, r.epoch)
		outcome, ok = w.wait(request{due: now.Add(duration(s[kind].(Object)["timeout"].(string)) + 5*time.Minute)})
		r.call = ""
		if outcome == "" {
			outcome = "failed"
		}
		if then, _ := s["then"].(Object); ok && outcome == "failed" && s[kind].(Object)["failed"] != "continue" && then["failed"] == nil {
			r.end("failed", "")
			return false
		}
	}
	if !ok || r.over {
		return false
	}
	r.say(Line{Kind: "step", Step: id, Outcome: outcome}, schemas.FactJourneyStep)
	if then, is := s["then"].(Object); is {
		inner = then[outcome]
	}
	return w.steps(inner, id+"."+outcome+".")
}

func (w walker) waitFor(f Object) (string, bool) {
	r, n := w.r, w.r.n
	alternatives := list(f["any"])
	name := func(a Object) string {
		for _, field := range []string{"as", "event"} {
			if text, is := a[field].(string); is {
				return text
			}
		}
		return "condition"
	}
	look := func(h *Happening) string {
		for _, a := range alternatives {
			switch {
			case a["condition"] != nil:
				if r.n.holds(a["condition"].(Object)) {
					return name(a)
				}
			case h != nil && r.n.meant(a, h, r):
				r.last = *h
				return name(a)
			}
		}
		return ""
	}
	for _, a := range alternatives {
		if a["condition"] != nil {
			if n.holds(a["condition"].(Object)) {
				return name(a), true
			}
			continue
		}
		if text, is := f["lookback"].(string); is {
			if h := w.before(a, duration(text)); h != nil {
				r.last = *h
				return name(a), true
			}
		}
	}
	outcome, ok := w.wait(request{due: n.now.Add(duration(f["timeout"].(string))), look: look})
	return cmp.Or(outcome, "timeout"), ok
}

// before is the newest record that is meant, and not longer ago.
func (w walker) before(a Object, lookback time.Duration) *Happening {
	n := w.r.n
	var found *Happening
	for i := range n.history {
		h := &n.history[i]
		if h.At.Before(later(n.now, h.known).Add(-lookback)) || h.ID == w.r.trigger.ID || h.ID == w.r.last.ID || !n.meant(a, h, w.r) {
			continue
		}
		if found == nil || h.At.After(found.At) || h.At.Equal(found.At) && h.ID < found.ID {
			found = h
		}
	}
	return found
}

func (w walker) waitUntil(u Object) (string, bool) {
	for {
		n := w.r.n // that of another, when the contact was merged meanwhile
		date, known := dateOf(n.contactProps[u["property"].(string)], u)
		switch {
		case !known && u["missing"] == "continue":
			return "missing", true
		case !known && u["missing"] == "exit":
			w.r.end("exited", "no_date")
			return "", false
		case known && !date.After(n.now) && u["past"] == "exit":
			w.r.end("exited", "date_passed")
			return "", false
		case known && !date.After(n.now):
			return "past", true
		}
		want := request{look: func(*Happening) string {
			now, still := dateOf(w.r.n.contactProps[u["property"].(string)], u)
			if still != known || !now.Equal(date) {
				return "moved"
			}
			return ""
		}}
		if known {
			want.due = date
		}
		outcome, ok := w.wait(want)
		switch {
		case !ok:
			return "", false
		case outcome == "":
			return "reached", true
		}
	}
}

func dateOf(v any, u Object) (time.Time, bool) {
	text, _ := v.(string)
	t, err := time.Parse(time.RFC3339, text)
	shift := duration(strings.TrimPrefix(fmt.Sprint(u["shift"]), "-"))
	if err == nil && u["at"] == nil {
		return t.Add(-shift), true
	}
	if err != nil {
		if t, err = time.Parse(time.DateOnly, text); err != nil {
			return t, false
		}
	}
	day := t.UTC().Truncate(24 * time.Hour) // UTC has no changes of clocks
	if at, is := u["at"].(string); is {
		day = day.Add(clock(at))
	}
	return day.Add(-shift), true
}

func clock(text string) time.Duration {
	var h, m int
	if _, err := fmt.Sscanf(text, "%d:%d", &h, &m); err != nil {
		panic(err)
	}
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// waitEnd looks at minute after minute.
func waitEnd(wait any, now time.Time) time.Time {
	o, is := wait.(Object)
	if !is {
		return now.Add(duration(wait.(string)))
	}
	t := now.Add(duration(o["after"].(string)))
	from, to, _ := strings.Cut(o["window"].(string), "-")
	for {
		inDay := t.Sub(t.Truncate(24 * time.Hour))
		open := inDay >= clock(from) && inDay < clock(to)
		if clock(from) > clock(to) {
			open = inDay >= clock(from) || inDay < clock(to)
		}
		if open {
			return t
		}
		t = t.Truncate(time.Minute).Add(time.Minute)
	}
}

func (w walker) branch(arms []Object) (string, any) {
	r := w.r
	for i, a := range arms {
		if a["else"] != nil {
			return "else", a["else"]
		}
		when, is := a["when"].(Object)
		if is && !r.n.holds(when) || a["trigger"] != nil && !r.where(a["trigger"], r.trigger.Props) || a["last"] != nil && !r.where(a["last"], r.last.Props) {
			continue
		}
		return fmt.Sprint(i + 1), a["do"]
	}
	return "else", nil
}

func (w walker) split(shares []Object, id string) (string, any) {
	p, end := chance(w.r.n.contact, w.r.journey["id"].(string), id), 0.0
	for i, s := range shares {
		if end += s["percent"].(float64); p < end {
			return fmt.Sprint(i + 1), s["do"]
		}
	}
	panic("more than all")
}

func chance(of ...string) float64 {
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) * 100
}

// holds answers for the two kinds of conditions that are drawn.
func (n *Naive) holds(c Object) bool {
	if c["type"] == "property" {
		return n.knownProps[c["property"].(string)] == c["value"]
	}
	since := n.now.Add(-duration(c["within"].(string)))
	found := slices.ContainsFunc(n.history, func(h Happening) bool { return h.Name == c["eventName"] && !h.At.Before(since) })
	return found == (c["check"] == "exists")
}

func list(v any) []Object {
	var out []Object
	switch v := v.(type) {
	case Object:
		out = append(out, v)
	case []any:
		for _, item := range v {
			out = append(out, item.(Object))
		}
	}
	return out
}

func duration(text string) time.Duration {
	if text == "<nil>" {
		return 0
	}
	if days, is := strings.CutSuffix(text, "d"); is {
		return 24 * duration(days+"h")
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return d
}

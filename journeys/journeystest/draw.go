package journeystest

import "fmt"

// Drawing draws journeys, and whatever else a test draws. It is not safe for concurrent use.
type Drawing struct {
	// Draw draws a number below n.
	Draw func(name string, n int) int

	left int // steps
}

// Of draws one of several.
func (d *Drawing) Of(name string, from ...string) string { return from[d.Draw(name, len(from))] }

// One is true once in n times.
func (d *Drawing) One(name string, n int) bool { return d.Draw(name, n) == 0 }

func (d *Drawing) hours(name string) string { return fmt.Sprintf("%dh", 1+d.Draw(name, 6)) }

func (d *Drawing) where(sources ...string) Object {
	out := Object{}
	if d.One("where k", 3) {
		out["k"] = d.Of("k", "x", "y")
	}
	if len(out) == 0 && len(sources) > 0 && d.One("where source", 2) {
		source := d.Of("source", sources...)
		out["k"] = Object{source: map[string]string{"run": "key", "trigger": "k", "last": "k", "contact": "k"}[source]}
	}
	return out
}

func (d *Drawing) match(sources ...string) Object {
	out := Object{"event": d.Of("event", "a", "b", "c")}
	if where := d.where(sources...); len(where) > 0 {
		out["where"] = where
	}
	return out
}

func (d *Drawing) condition() Object {
	if d.One("of the contact", 2) {
		return Object{"type": "property", "property": "plan", "operator": "eq", "value": d.Of("plan", "free", "pro")}
	}
	return Object{"type": "event", "eventName": d.Of("event", "a", "b", "c"), "check": d.Of("check", "exists", "not_exists"), "within": d.Of("within", "1h", "2h")}
}

func (d *Drawing) steps(depth int) []any {
	n := 1 + d.Draw("steps", 3)
	var out []any
	for range n {
		if d.left <= 0 && len(out) > 0 {
			break
		}
		d.left--
		s := d.step(depth)
		if out = append(out, s); s["exit"] != nil {
			break
		}
	}
	return out
}

func (d *Drawing) step(depth int) Object {
	kinds := []string{"wait", "waitFor", "waitFor", "waitUntil", "set", "trigger", "email", "bucket", "exit", "call"}
	if depth < 3 && d.left > 0 {
		kinds = append(kinds, "branch", "branch", "split")
	}
	s := Object{}
	then := func(outcomes ...string) {
		parts := Object{}
		for _, outcome := range outcomes {
			if depth < 3 && d.left > 0 && d.One("then "+outcome, 3) {
				parts[outcome] = d.steps(depth + 1)
			}
		}
		if len(parts) > 0 {
			s["then"] = parts
		}
	}
	switch kind := d.Of("kind", kinds...); kind {
	case "wait":
		s[kind] = any(d.hours("wait"))
		if d.One("window", 3) {
			s[kind] = Object{"after": d.hours("after"), "window": d.Of("window", "09:00-17:00", "22:00-06:00", "13:30-13:45")}
		}
	case "waitFor":
		any := []any{d.match("run", "trigger", "last")}
		names := []string{any[0].(Object)["event"].(string), "timeout"}
		if d.One("second", 2) {
			second := d.match("trigger", "contact")
			second["as"] = "second"
			any, names = append(any, second), append(names, "second")
		}
		if d.One("condition", 3) {
			any, names = append(any, Object{"condition": d.condition()}), append(names, "condition")
		}
		f := Object{"any": any, "timeout": d.hours("timeout")}
		if d.One("lookback", 3) {
			f["lookback"] = d.hours("lookback")
		}
		s[kind] = f
		then(names...)
	case "waitUntil":
		u := Object{"property": "date", "past": d.Of("past", "continue", "exit"), "missing": d.Of("missing", "wait", "continue", "exit")}
		if d.One("shift", 2) {
			u["shift"] = d.Of("shift", "-1h", "-1d")
		}
		if d.One("at", 3) {
			u["at"] = "09:00"
		}
		s[kind] = u
		then("reached", "past")
	case "set":
		s[kind] = Object{"last": Object{"trigger": "k"}}
	case "trigger":
		s[kind] = Object{"event": "told", "properties": Object{"key": Object{"run": "key"}}}
	case "email":
		s[kind] = Object{"template": "t"}
	case "bucket":
		s[kind] = Object{d.Of("bucket", "add", "remove"): "vip"}
	case "exit":
		s[kind] = d.Of("reason", "enough", "done")
	case "call":
		s[kind] = Object{"destination": "d", "timeout": "1h", "failed": d.Of("failed", "fail", "continue")}
		then("failed", "accepted")
	case "branch":
		arm := Object{"do": d.steps(depth + 1)}
		switch d.Of("arm", "when", "trigger", "last") {
		case "when":
			arm["when"] = d.condition()
		case "trigger":
			arm["trigger"] = Object{"k": d.Of("k", "x", "y")}
		case "last":
			arm["last"] = Object{"k": d.Of("k", "x", "y")}
		}
		arms := []any{arm}
		if d.One("else", 2) {
			arms = append(arms, Object{"else": d.steps(depth + 1)})
		}
		s[kind] = arms
	case "split":
		s[kind] = []any{Object{"percent": 50.0, "do": d.steps(depth + 1)}, Object{"percent": 50.0}}
	}
	return s
}

// Journey draws a journey, the i-th, as a file says it. Where it follows another, that is the
// one before it.
func (d *Drawing) Journey(i int) Object {
	d.left = 12
	j := Object{
		"id": fmt.Sprintf("j%d", i), "name": "J", "enabled": !d.One("disabled", 8), "trigger": d.match(), "zone": "UTC",
		"entryLimit": d.Of("limit", "once", "once_per_period", "unlimited", "unlimited"), "steps": d.steps(0),
	}
	if i > 0 && d.One("follows", 3) {
		j["trigger"] = Object{"event": d.Of("after", "journey.completed", "journey.exited") + fmt.Sprintf(":j%d", i-1)}
	} else if d.One("key", 3) {
		j["key"] = "k"
	}
	if j["entryLimit"] == "once_per_period" {
		j["entryPeriod"] = d.hours("period")
	}
	if j["entryLimit"] != "once" {
		j["live"] = d.Of("live", "ignore", "restart", "queue")
	}
	if d.One("exits", 2) {
		exits := []any{d.match("run", "trigger")}
		if d.One("settles", 2) {
			exits = append(exits, Object{"event": "bucket.left:vip", "settle": "30m"})
		}
		j["exitOn"] = exits
	}
	if d.One("goal", 3) {
		j["goal"] = Object{"event": d.Of("goal", "a", "b", "c"), "within": d.hours("within")}
	}
	if d.One("holdout", 4) {
		j["holdout"] = 50.0
	}
	if d.One("everybody", 4) {
		j["subscribed"] = false
	}
	return j
}

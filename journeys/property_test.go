package journeys_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
)

// drawing draws journeys and what happens.
type drawing struct {
	*rapid.T
	left int // steps
}

func (d *drawing) of(name string, from ...string) string {
	return rapid.SampledFrom(from).Draw(d.T, name)
}
func (d *drawing) one(name string, n int) bool { return rapid.IntRange(0, n-1).Draw(d.T, name) == 0 }
func (d *drawing) hours(name string) string {
	return fmt.Sprintf("%dh", rapid.IntRange(1, 6).Draw(d.T, name))
}

func (d *drawing) where(sources ...string) object {
	out := object{}
	if d.one("where k", 3) {
		out["k"] = d.of("k", "x", "y")
	}
	if len(out) == 0 && len(sources) > 0 && d.one("where source", 2) {
		source := d.of("source", sources...)
		out["k"] = object{source: map[string]string{"run": "key", "trigger": "k", "last": "k", "contact": "k"}[source]}
	}
	return out
}

func (d *drawing) match(sources ...string) object {
	out := object{"event": d.of("event", "a", "b", "c")}
	if where := d.where(sources...); len(where) > 0 {
		out["where"] = where
	}
	return out
}

func (d *drawing) condition() object {
	if d.one("of the contact", 2) {
		return object{"type": "property", "property": "plan", "operator": "eq", "value": d.of("plan", "free", "pro")}
	}
	return object{"type": "event", "eventName": d.of("event", "a", "b", "c"), "check": d.of("check", "exists", "not_exists"), "within": d.of("within", "1h", "2h")}
}

func (d *drawing) steps(depth int) []any {
	n := rapid.IntRange(1, 3).Draw(d.T, "steps")
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

func (d *drawing) step(depth int) object {
	kinds := []string{"wait", "waitFor", "waitFor", "waitUntil", "set", "trigger", "email", "bucket", "exit", "call"}
	if depth < 3 && d.left > 0 {
		kinds = append(kinds, "branch", "branch", "split")
	}
	s := object{}
	then := func(outcomes ...string) {
		parts := object{}
		for _, outcome := range outcomes {
			if depth < 3 && d.left > 0 && d.one("then "+outcome, 3) {
				parts[outcome] = d.steps(depth + 1)
			}
		}
		if len(parts) > 0 {
			s["then"] = parts
		}
	}
	switch kind := d.of("kind", kinds...); kind {
	case "wait":
		s[kind] = any(d.hours("wait"))
		if d.one("window", 3) {
			s[kind] = object{"after": d.hours("after"), "window": d.of("window", "09:00-17:00", "22:00-06:00", "13:30-13:45")}
		}
	case "waitFor":
		any := []any{d.match("run", "trigger", "last")}
		names := []string{any[0].(object)["event"].(string), "timeout"}
		if d.one("second", 2) {
			second := d.match("trigger", "contact")
			second["as"] = "second"
			any, names = append(any, second), append(names, "second")
		}
		if d.one("condition", 3) {
			any, names = append(any, object{"condition": d.condition()}), append(names, "condition")
		}
		f := object{"any": any, "timeout": d.hours("timeout")}
		if d.one("lookback", 3) {
			f["lookback"] = d.hours("lookback")
		}
		s[kind] = f
		then(names...)
	case "waitUntil":
		u := object{"property": "date", "past": d.of("past", "continue", "exit"), "missing": d.of("missing", "wait", "continue", "exit")}
		if d.one("shift", 2) {
			u["shift"] = d.of("shift", "-1h", "-1d")
		}
		if d.one("at", 3) {
			u["at"] = "09:00"
		}
		s[kind] = u
		then("reached", "past")
	case "set":
		s[kind] = object{"last": object{"trigger": "k"}}
	case "trigger":
		s[kind] = object{"event": "told", "properties": object{"key": object{"run": "key"}}}
	case "email":
		s[kind] = object{"template": "t"}
	case "bucket":
		s[kind] = object{d.of("bucket", "add", "remove"): "vip"}
	case "exit":
		s[kind] = d.of("reason", "enough", "done")
	case "call":
		s[kind] = object{"destination": "d", "timeout": "1h", "failed": d.of("failed", "fail", "continue")}
		then("failed", "accepted")
	case "branch":
		arm := object{"do": d.steps(depth + 1)}
		switch d.of("arm", "when", "trigger", "last") {
		case "when":
			arm["when"] = d.condition()
		case "trigger":
			arm["trigger"] = object{"k": d.of("k", "x", "y")}
		case "last":
			arm["last"] = object{"k": d.of("k", "x", "y")}
		}
		arms := []any{arm}
		if d.one("else", 2) {
			arms = append(arms, object{"else": d.steps(depth + 1)})
		}
		s[kind] = arms
	case "split":
		s[kind] = []any{object{"percent": 50.0, "do": d.steps(depth + 1)}, object{"percent": 50.0}}
	}
	return s
}

func (d *drawing) journey(i int) object {
	d.left = 12
	j := object{
		"id": fmt.Sprintf("j%d", i), "name": "J", "enabled": !d.one("disabled", 8), "trigger": d.match(), "zone": "UTC",
		"entryLimit": d.of("limit", "once", "once_per_period", "unlimited", "unlimited"), "steps": d.steps(0),
	}
	if i > 0 && d.one("follows", 3) {
		j["trigger"] = object{"event": d.of("after", "journey.completed", "journey.exited") + fmt.Sprintf(":j%d", i-1)}
	} else if d.one("key", 3) {
		j["key"] = "k"
	}
	if j["entryLimit"] == "once_per_period" {
		j["entryPeriod"] = d.hours("period")
	}
	if j["entryLimit"] != "once" {
		j["live"] = d.of("live", "ignore", "restart", "queue")
	}
	if d.one("exits", 2) {
		exits := []any{d.match("run", "trigger")}
		if d.one("settles", 2) {
			exits = append(exits, object{"event": "bucket.left:vip", "settle": "30m"})
		}
		j["exitOn"] = exits
	}
	if d.one("goal", 3) {
		j["goal"] = object{"event": d.of("goal", "a", "b", "c"), "within": d.hours("within")}
	}
	if d.one("holdout", 4) {
		j["holdout"] = 50.0
	}
	if d.one("everybody", 4) {
		j["subscribed"] = false
	}
	return j
}

// play is a history, told to the machine and to the naive interpreter.
type play struct {
	*drawing
	s     *stage
	naive *naive
	lazy  bool // nobody tells the machine what is due before the next record
}

func (p *play) until(at time.Time) {
	for !p.lazy && !p.s.due.IsZero() && p.s.due.Before(at) {
		if p.s.due.After(p.s.now) {
			p.s.now = p.s.due
		}
		p.s.step(&journeys.Input{})
	}
	p.s.now = at
	p.naive.until(at)
}

func (p *play) both(id, name, about string, props object) {
	p.naive.record(happening{p.naive.now, id, name, about, props})
}

func (p *play) something() {
	text := func(props object) string {
		out, err := json.Marshal(props)
		require.NoError(p, err)
		return string(out)
	}
	switch p.of("what", "event", "event", "event", "event", "contact", "enters", "leaves", "answer", "answer", "unsubscribes") {
	case "event":
		props := object{}
		if !p.one("no k", 6) {
			props["k"] = p.of("k", "x", "y")
		}
		name := p.of("event", "a", "b", "c")
		occurred := p.s.now
		if p.one("dated back", 5) {
			occurred = occurred.Add(-time.Duration(rapid.IntRange(1, 300).Draw(p.T, "minutes")) * time.Minute)
		}
		id := p.s.eventAt(name, text(props), occurred)
		p.naive.record(happening{occurred, id, name, "", props})
	case "contact":
		props := object{"plan": p.of("plan", "free", "pro"), "k": p.of("k", "x", "y")}
		if !p.one("no date", 3) {
			at := p.s.now.Add(time.Duration(rapid.IntRange(-12, 60).Draw(p.T, "hours")) * time.Hour)
			props["date"] = at.Format(p.of("as", time.RFC3339, time.DateOnly))
		}
		p.s.properties(text(props))
		p.both("", schemas.FactContactUpdated, "", props)
	case "enters":
		p.s.enters("vip", 1)
		p.both("", schemas.FactBucketEntered, "vip", object{})
	case "leaves":
		p.s.leaves("vip", "criteria")
		p.both("", schemas.FactBucketLeft, "vip", object{})
	case "unsubscribes":
		p.s.fact(&schemas.Fact{Type: schemas.FactContactUnsubscribed, Unsubscribed: &schemas.Unsubscribed{Scope: "all"}})
		p.both("", schemas.FactContactUnsubscribed, "", object{})
	case "answer":
		asked := sent[*schemas.Outbox](p.s)
		if len(asked) == 0 {
			return
		}
		accepted := p.one("accepted", 2)
		id := asked[len(asked)-1-min(len(asked)-1, rapid.IntRange(0, 2).Draw(p.T, "which"))].ID
		p.s.receipt(id, map[bool]string{true: schemas.ReceiptAccepted, false: schemas.ReceiptGivenUp}[accepted], `{}`)
		p.naive.answered(id, accepted)
	}
}

// merge makes two contacts one. What was due of both was told before.
func (p *play) merge(other *play) {
	for _, one := range []*play{p, other} {
		lazy := one.lazy
		one.lazy = false
		one.until(one.s.now)
		one.lazy = lazy
	}
	p.s.merge(other.s)
	p.naive.merge(other.naive, "")
	p.s.changes = append(slices.Clone(other.s.changes), p.s.changes...)
	p.naive.story = append(slices.Clone(other.naive.story), p.naive.story...)
	p.s.tried, p.naive.tried = append(p.s.tried, other.s.tried...), append(p.naive.tried, other.naive.tried...)
	p.s.effects = append(slices.Clone(other.s.effects), p.s.effects...)
	other.naive = nil
}

// story is what the machine's changes say.
func (p *play) story() []string {
	var out []string
	for _, c := range p.s.changes {
		l := line{at: c.At, kind: c.Kind, journey: c.Journey, key: strings.Trim(c.Key, `"`), step: c.Step, outcome: c.Outcome, reason: c.Reason}
		if c.Kind == journeys.Converted {
			l.step, l.outcome = "", ""
		}
		out = append(out, l.String())
	}
	return out
}

// What a journey says and what happens give one story, whoever interprets it: the machine,
// however late it is told of the time, or a reader with the whole history.
func TestTheMachineAgreesWithANaiveInterpreter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &drawing{T: rt}
		var texts []string
		var drawn []object
		for i := range rapid.IntRange(1, 3).Draw(d.T, "journeys") {
			text, err := yaml.Marshal(d.journey(i))
			require.NoError(rt, err)
			var read object
			require.NoError(rt, yaml.Unmarshal(text, &read))
			texts, drawn = append(texts, string(text)), append(drawn, plain(read).(object))
		}
		rt.Logf("%s", strings.Join(texts, "---\n"))
		p := &play{drawing: d, s: newStage(rt, texts...), lazy: d.one("lazy", 2)}
		p.naive = &naive{contact: someone, journeys: drawn, now: monday, contactProps: object{}, members: map[string]bool{}, entries: map[string]*naiveEntry{}}
		p.s.asks = true
		other := &play{drawing: d, s: p.s.another(), lazy: p.lazy}
		other.naive = &naive{contact: other.s.contact, journeys: drawn, now: monday, contactProps: object{}, members: map[string]bool{}, entries: map[string]*naiveEntry{}}
		merges := d.one("merges", 2)
		defer p.naive.leave()
		defer other.naive.leave()
		for range rapid.IntRange(1, 25).Draw(d.T, "records") {
			at := p.s.now.Add(time.Duration(rapid.IntRange(0, 180).Draw(d.T, "minutes")) * time.Minute)
			p.until(at)
			if other.naive == nil || !merges {
				p.something()
				continue
			}
			other.until(at)
			switch d.of("whom", "one", "the other", "both are one") {
			case "one":
				p.something()
			case "the other":
				other.something()
			default:
				p.merge(other)
			}
		}
		p.lazy = false
		p.until(p.s.now.Add(10 * day))
		var naive []string
		for _, l := range p.naive.story {
			naive = append(naive, l.String())
		}
		require.Equal(rt, strings.Join(naive, "\n"), strings.Join(p.story(), "\n"))
		require.Equal(rt, p.naive.tried, p.s.tried)
		p.balance()
	})
}

// plain makes numbers what JSON makes of them.
func plain(v any) any {
	switch v := v.(type) {
	case object:
		for name := range v {
			v[name] = plain(v[name])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case uint64:
		return float64(v)
	}
	return v
}

// balance checks that at each step, who came went on, waits, exited or failed, and that each
// way is one of the graph.
func (p *play) balance() {
	type place struct{ journey, step string }
	came, went := map[place]int{}, map[place]int{}
	for _, c := range p.s.changes {
		if c.Next != "" {
			came[place{c.Journey, c.Next}]++
		}
		switch c.Kind {
		case journeys.Stepped, journeys.Exited, journeys.Failed:
			went[place{c.Journey, c.Step}]++
		}
		if c.Kind == journeys.Stepped {
			require.True(p, leads(p.s.m.Program(c.Journey, c.Version), c.Step, c.Outcome, c.Next), "%s %s leads to %q", c.Step, c.Outcome, c.Next)
		}
	}
	for _, r := range p.s.s.Runs() {
		if !r.Failed {
			went[place{r.Journey, p.s.m.Program(r.Journey, r.Version).Nodes()[r.Node].ID}]++
		}
	}
	require.Equal(p, came, went)
	require.Less(p, len(bytesOf(p, &p.s.s)), math.MaxInt16)
}

func leads(p *journeys.Program, step, outcome, next string) bool {
	for _, n := range p.Nodes() {
		for _, edge := range n.Next {
			if n.ID == step && edge.Outcome == outcome {
				return edge.To < 0 && next == "" || edge.To >= 0 && p.Nodes()[edge.To].ID == next
			}
		}
	}
	return false
}

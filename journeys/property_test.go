package journeys_test

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/journeys/journeystest"
	"github.com/hogstream/hogstream/schemas"
)

type object = journeystest.Object

// play is a history, told to the machine and to the naive interpreter.
type play struct {
	*rapid.T
	*journeystest.Drawing
	s     *stage
	naive *journeystest.Naive
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
	p.naive.At(at)
}

func (p *play) both(name, about string, props object) {
	p.naive.Record(journeystest.Happening{At: p.s.now, Name: name, About: about, Epoch: 1, Props: props})
}

func (p *play) something() {
	text := func(props object) string {
		out, err := json.Marshal(props)
		require.NoError(p, err)
		return string(out)
	}
	switch p.Of("what", "event", "event", "event", "event", "contact", "enters", "leaves", "answer", "answer", "unsubscribes") {
	case "event":
		props := object{}
		if !p.One("no k", 6) {
			props["k"] = p.Of("k", "x", "y")
		}
		name := p.Of("event", "a", "b", "c")
		occurred := p.s.now
		if p.One("dated back", 5) {
			occurred = occurred.Add(-time.Duration(rapid.IntRange(1, 300).Draw(p.T, "minutes")) * time.Minute)
		}
		id := p.s.eventAt(name, text(props), occurred)
		p.naive.Record(journeystest.Happening{At: occurred, ID: id, Name: name, Props: props})
	case "contact":
		props := object{"plan": p.Of("plan", "free", "pro"), "k": p.Of("k", "x", "y")}
		if !p.One("no date", 3) {
			at := p.s.now.Add(time.Duration(rapid.IntRange(-12, 60).Draw(p.T, "hours")) * time.Hour)
			props["date"] = at.Format(p.Of("as", time.RFC3339, time.DateOnly))
		}
		p.s.properties(text(props))
		p.both(schemas.FactContactUpdated, "", props)
	case "enters":
		p.s.enters("vip", 1)
		p.both(schemas.FactBucketEntered, "vip", object{})
	case "leaves":
		p.s.leaves("vip", "criteria")
		p.both(schemas.FactBucketLeft, "vip", object{})
	case "unsubscribes":
		p.s.fact(&schemas.Fact{Type: schemas.FactContactUnsubscribed, Unsubscribed: &schemas.Unsubscribed{Scope: "all"}})
		p.both(schemas.FactContactUnsubscribed, "", object{})
	case "answer":
		asked := sent[*schemas.Outbox](p.s)
		if len(asked) == 0 {
			return
		}
		accepted := p.One("accepted", 2)
		id := asked[len(asked)-1-min(len(asked)-1, rapid.IntRange(0, 2).Draw(p.T, "which"))].ID
		p.s.receipt(id, map[bool]string{true: schemas.ReceiptAccepted, false: schemas.ReceiptGivenUp}[accepted], `{}`)
		p.naive.Answered(id, accepted)
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
	p.naive.Merge(other.naive, journeystest.Happening{At: p.s.now, Name: schemas.FactContactMerged, Props: object{}})
	p.s.changes = append(slices.Clone(other.s.changes), p.s.changes...)
	p.naive.Story = append(slices.Clone(other.naive.Story), p.naive.Story...)
	p.s.tried, p.naive.Tried = append(p.s.tried, other.s.tried...), append(p.naive.Tried, other.naive.Tried...)
	p.s.effects = append(slices.Clone(other.s.effects), p.s.effects...)
	other.naive = nil
}

// story is what the machine's changes say.
func (p *play) story() []string {
	var out []string
	for _, c := range p.s.changes {
		l := journeystest.Line{At: c.At, Kind: c.Kind, Journey: c.Journey, Key: strings.Trim(c.Key, `"`), Step: c.Step, Outcome: c.Outcome, Reason: c.Reason}
		if c.Kind == journeys.Converted {
			l.Step, l.Outcome = "", ""
		}
		out = append(out, l.String())
	}
	return out
}

// What a journey says and what happens give one story, whoever interprets it: the machine,
// however late it is told of the time, or a reader with the whole history.
func TestTheMachineAgreesWithANaiveInterpreter(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &journeystest.Drawing{Draw: func(name string, n int) int { return rapid.IntRange(0, n-1).Draw(rt, name) }}
		var texts []string
		var drawn []journeystest.Defined
		for i := range 1 + d.Draw("journeys", 3) {
			text, err := yaml.Marshal(d.Journey(i))
			require.NoError(rt, err)
			var read object
			require.NoError(rt, yaml.Unmarshal(text, &read))
			texts, drawn = append(texts, string(text)), append(drawn, journeystest.Defined{Journey: plain(read).(object)})
		}
		rt.Logf("%s", strings.Join(texts, "---\n"))
		p := &play{T: rt, Drawing: d, s: newStage(rt, texts...), lazy: d.One("lazy", 2)}
		p.naive = journeystest.NewNaive(someone, 0, drawn, monday)
		p.s.asks = true
		other := &play{T: rt, Drawing: d, s: p.s.another(), lazy: p.lazy}
		other.naive = journeystest.NewNaive(other.s.contact, 0, drawn, monday)
		merges := d.One("merges", 2)
		defer p.naive.Leave()
		defer other.naive.Leave()
		for range 1 + d.Draw("records", 25) {
			at := p.s.now.Add(time.Duration(d.Draw("minutes", 181)) * time.Minute)
			p.until(at)
			if other.naive == nil || !merges {
				p.something()
				continue
			}
			other.until(at)
			switch d.Of("whom", "one", "the other", "both are one") {
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
		for _, l := range p.naive.Story {
			naive = append(naive, l.String())
		}
		require.Equal(rt, strings.Join(naive, "\n"), strings.Join(p.story(), "\n"))
		require.Equal(rt, p.naive.Tried, p.s.tried)
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

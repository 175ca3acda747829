package journeys

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

// goalStep is what a reached goal is told as.
const goalStep = "goal"

// theEnd is the node behind the last.
const theEnd = -1

// Program is a journey made ready: a flat graph of nodes, of which the first is where a run
// begins. Nodes never lead back.
type Program struct {
	journey Journey
	version string
	nodes   []Node
	byID    map[string]int
	zone    *time.Location
	named   map[string]string // ids of the conditions of code, by name

	triggers []matcher
	exits    []exitRule
	goal     *matcher // nil: none
	memos    []*memo

	conditions []predicate.Named
	ofTrigger  paths // that are read of the record that begins a run
	ofLast     paths // of the one that ends a WaitFor
	ofContact  paths
}

// Node is a step.
type Node struct {
	ID   string
	Kind string // as it is written: wait, email, …
	Next []Edge // by outcome; none of an exit

	step  *Step
	path  string // where it stands in its file
	until schedule.Until
	any   []alternative
	arms  []arm
	ends  []float64 // of a split: where each share ends, of a hundred
	keep  paths     // of a call: what is read of its answer
}

// Edge says where a run goes with an outcome.
type Edge struct {
	Outcome string
	To      int // a node, or -1: the run is completed
}

type alternative struct {
	name      string
	match     *matcher // nil of a condition
	condition string   // its id
	memo      *memo    // of a lookback; nil without
	lookback  int64
}

type arm struct {
	name    string
	when    string // id of a condition, "" for none
	trigger *predicate.Filter
	last    *predicate.Filter
}

type exitRule struct {
	matcher
	settle int64
	reason string
}

// memo is what is kept of events that a wait may look back at.
type memo struct {
	id       uint64
	match    matcher // without what is to be the same as a value of a run
	where    string  // canonical
	keep     paths
	lookback int64
}

// Options are what programs are compiled with.
type Options struct {
	// Zone is the deployment's, for who names none; nil is UTC.
	Zone *time.Location
	// Coded are the journeys whose code this program has.
	Coded []Journey
	// WithoutCode compiles journeys whose code this program does not have, too: see
	// [Program.Lacks].
	WithoutCode bool
}

// code is the code of a journey, with what that looks at.
func (o *Options) code(j *Journey) {
	for i := range o.Coded {
		if c := &o.Coded[i]; j.Coded && j.Code == nil && c.ID == j.ID && c.Version == j.Version {
			j.Code, j.Reads, j.Conditions, j.Lookbacks = c.Code, c.Reads, c.Conditions, c.Lookbacks
		}
	}
}

// Compile makes a program of a journey. The error is [predicate.Faults], as that of
// [Journey.Check].
func Compile(j Journey, opts Options) (*Program, error) {
	if err := j.Check(); err != nil {
		return nil, err
	}
	opts.code(&j)
	if j.Coded && j.Code == nil && !opts.WithoutCode {
		return nil, predicate.Faults{{File: j.File, Path: "version", Message: fmt.Sprintf("the code of version %q is not in this program", j.Version)}}
	}
	version := j.Identity() // of what is written, as all others know it
	j.EntryLimit, j.Live, j.OnChange = cmp.Or(j.EntryLimit, EntryOnce), cmp.Or(j.Live, LiveIgnore), cmp.Or(j.OnChange, OnChangeFinish)
	j.EntryPeriod, j.Trigger.NotAfter = cmp.Or(j.EntryPeriod, defaultEntryPeriod), cmp.Or(j.Trigger.NotAfter, defaultNotAfter)
	c := &compiler{p: &Program{journey: j, version: version, byID: map[string]int{}, zone: opts.Zone}, zone: opts.Zone, numbers: map[*Step]int{}}
	c.number("", "steps", j.Steps)
	c.link(j.Steps, theEnd)
	c.head()
	c.coded()
	for i := range c.p.nodes {
		c.node(&c.p.nodes[i])
	}
	for _, m := range c.p.memos {
		if !j.Coded { // code reads what its Lookbacks keep
			m.keep.addAll(c.p.ofLast.all())
		}
		m.id = m.identity()
	}
	if c.err != nil {
		return nil, c.err
	}
	return c.p, nil
}

// Identity is the version of the journey: the one that it names, else what its trigger, key,
// exits and steps come to. Runs belong to it.
func (j *Journey) Identity() string {
	if j.Version != "" {
		return j.Version
	}
	text := writeMap(j, journeyFields())
	for name := range text {
		switch name {
		case "trigger", "key", "exitOn", "steps", "window":
		default:
			delete(text, name)
		}
	}
	sum := sha256.Sum256([]byte(canonicalText(text)))
	return hex.EncodeToString(sum[:6])
}

// ID is the id of the journey.
func (p *Program) ID() string { return p.journey.ID }

// Lacks says that the journey is code that this program does not have: it enrols nobody here.
func (p *Program) Lacks() bool { return p.journey.Coded && p.journey.Code == nil }

// AsksOfContact says that steps look at what is known of the contact from before the run: its
// properties, conditions on it, and records that waits look back at.
func (p *Program) AsksOfContact() bool {
	return len(p.conditions)+len(p.memos)+len(p.ofContact.all()) > 0
}

// Version is what runs of the program belong to.
func (p *Program) Version() string { return p.version }

// Journey is what the program was made of, with its defaults filled in.
func (p *Program) Journey() Journey { return p.journey }

// Nodes are the steps. The slice is not to be changed.
func (p *Program) Nodes() []Node { return p.nodes }

// Conditions are what the steps ask of the contact: whoever holds its facts compiles them,
// and answers for them by their ids. They are unique among all programs.
func (p *Program) Conditions() []predicate.Named { return p.conditions }

// compiler makes a program. Its err is of what was checked before, so there is none.
type compiler struct {
	p       *Program
	zone    *time.Location
	numbers map[*Step]int
	err     error
}

func (c *compiler) matcher(m *Match) matcher {
	out, err := newMatcher(m, c.zone)
	c.fail(err)
	for i := range m.Same {
		c.reads(&m.Same[i].Value)
	}
	return out
}

func (c *compiler) filter(s predicate.Selector) *predicate.Filter {
	out, err := newFilter(s, c.zone)
	c.fail(err)
	return out
}

func (c *compiler) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

func (c *compiler) head() {
	j := &c.p.journey
	for i := range j.Trigger.Records {
		c.p.triggers = append(c.p.triggers, c.matcher(&j.Trigger.Records[i]))
	}
	for i := range j.ExitOn {
		e := &j.ExitOn[i]
		c.p.exits = append(c.p.exits, exitRule{c.matcher(&e.Match), e.Settle.Microseconds(), cmp.Or(e.Reason, e.Event)})
	}
	if j.Goal.Event != "" {
		goal := c.matcher(&j.Goal.Match)
		c.p.goal = &goal
	}
}

// number makes nodes of a list and of what is within it, in the order in which they are
// written.
func (c *compiler) number(prefix, path string, steps []Step) {
	for i := range steps {
		s := &steps[i]
		id := s.idAt(prefix, i)
		c.numbers[s], c.p.byID[id] = len(c.p.nodes), len(c.p.nodes)
		c.p.nodes = append(c.p.nodes, Node{ID: id, Kind: s.kinds()[0], step: s, path: index(path, i)})
		for _, outcome := range s.outcomes() {
			field, inner := s.inner(outcome)
			c.number(within(id, outcome), join(index(path, i), field), inner)
		}
	}
}

// link says where the steps of a list lead; after is the node behind the list.
func (c *compiler) link(steps []Step, after int) {
	for i := range steps {
		next := after
		if i+1 < len(steps) {
			next = c.numbers[&steps[i+1]]
		}
		n := &c.p.nodes[c.numbers[&steps[i]]]
		for _, outcome := range steps[i].outcomes() {
			to := next
			if _, inner := steps[i].inner(outcome); len(inner) > 0 {
				to = c.numbers[&inner[0]]
				c.link(inner, next)
			}
			n.Next = append(n.Next, Edge{outcome, to})
		}
	}
}

// coded notes what code looks at.
func (c *compiler) coded() {
	j := &c.p.journey
	if !j.Coded {
		return
	}
	c.p.ofTrigger.whole, c.p.ofLast.whole = true, true
	c.p.ofContact.addAll(j.Reads)
	c.p.named = map[string]string{}
	for _, name := range sortedNames(j.Conditions) {
		c.p.named[name] = c.condition(j.Conditions[name], "conditions."+name)
	}
	for i := range j.Lookbacks {
		l := &j.Lookbacks[i]
		c.memo(&l.Match, c.matcher(&l.Match), l.For).keep.addAll(l.Keep)
	}
}

// inner are the steps within a step that belong to an outcome, and where they stand in it.
func (s *Step) inner(outcome string) (path string, steps []Step) {
	for i := range s.Branch {
		if a := &s.Branch[i]; armName(a, i) == outcome {
			if a.isElse() {
				return index(kindBranch, i) + ".else", a.Do
			}
			return index(kindBranch, i) + ".do", a.Do
		}
	}
	for i := range s.Split {
		if shareName(&s.Split[i], i) == outcome {
			return index(kindSplit, i) + ".do", s.Split[i].Do
		}
	}
	return "then." + outcome, s.Then[outcome]
}

// node makes ready what a step says.
func (c *compiler) node(n *Node) {
	s := n.step
	switch n.Kind {
	case kindWait:
		n.until = *s.Wait
		if n.until.Window == (schedule.Window{}) && !n.until.At.IsZero() {
			n.until.Window = c.p.journey.Window
		}
	case kindWaitUntil:
		c.p.ofContact.add(s.WaitUntil.Property)
	case kindWaitFor:
		c.waitFor(n, s.WaitFor)
	case kindBranch:
		c.branch(n, s.Branch)
	case kindSplit:
		total := 0.0
		for i := range s.Split {
			total += s.Split[i].Percent
			n.ends = append(n.ends, total)
		}
		n.ends[len(n.ends)-1] = 100 // whatever was rounded
	case kindSet:
		c.reads(s.Set)
	case kindTrigger:
		c.reads(s.Trigger.Properties)
	case kindEmail:
		c.reads(s.Email.Props)
	case kindCall:
		c.reads(s.Call.Body)
	}
}

func (c *compiler) waitFor(n *Node, w *WaitFor) {
	for i := range w.Any {
		a := &w.Any[i]
		out := alternative{name: a.name()}
		if !a.Condition.IsZero() {
			out.condition = c.condition(a.Condition, fmt.Sprintf("%s.waitFor.any[%d].condition", n.path, i))
			n.any = append(n.any, out)
			continue
		}
		m := c.matcher(&a.Match)
		out.match = &m
		if w.Lookback > 0 {
			out.lookback = w.Lookback.Microseconds()
			out.memo = c.memo(&a.Match, m, w.Lookback)
			for j := range m.same {
				out.memo.keep.add(predicate.Path{m.same[j].Property})
			}
		}
		n.any = append(n.any, out)
	}
}

// memo has records kept for a time.
func (c *compiler) memo(m *Match, made matcher, lookback time.Duration) *memo {
	out := &memo{match: made, where: m.Where.Canonical(), lookback: lookback.Microseconds()}
	out.match.same = nil
	c.p.memos = append(c.p.memos, out)
	return out
}

func (c *compiler) branch(n *Node, arms []Arm) {
	for i := range arms {
		a := &arms[i]
		out := arm{name: armName(a, i), trigger: c.filter(a.Trigger), last: c.filter(a.Last)}
		c.p.ofTrigger.addAll(a.Trigger.Properties())
		c.p.ofLast.addAll(a.Last.Properties())
		if !a.When.IsZero() {
			out.when = c.condition(a.When, fmt.Sprintf("%s.branch[%d].when", n.path, i))
		}
		n.arms = append(n.arms, out)
	}
}

// condition notes a condition on the contact, and returns its id.
func (c *compiler) condition(cond predicate.Condition, path string) string {
	id := fmt.Sprintf("%s@%s/%d", c.p.journey.ID, c.p.version, len(c.p.conditions))
	c.p.conditions = append(c.p.conditions, predicate.Named{ID: id, Condition: cond, File: c.p.journey.File, Path: path})
	return id
}

// reads notes what a value looks up.
func (c *compiler) reads(v *Value) {
	v.walk(func(v *Value) {
		switch v.source {
		case sourceTrigger:
			c.p.ofTrigger.add(v.path)
		case sourceLast:
			c.p.ofLast.add(v.path)
		case sourceContact:
			c.p.ofContact.add(v.path)
		case sourceStep:
			if n, known := c.p.byID[v.step]; known {
				c.p.nodes[n].keep.add(v.path)
			}
		}
	})
}

// identity tells memos apart, and is the same for one that says the same in another version.
func (m *memo) identity() uint64 {
	sum := sha256.Sum256([]byte(canonicalText([]any{m.match.event, m.where, m.keep.all(), m.lookback})))
	return binary.BigEndian.Uint64(sum[:])
}

package journeys

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Buckets are those that the journey names: whose facts it looks at, whose members it asks
// for, and manual ones that it puts contacts into. Each once, in order.
func (p *Program) Buckets() []string {
	var out []string
	for _, a := range p.Asks() {
		out = append(out, a.Bucket)
	}
	for _, c := range p.conditions {
		out = append(out, c.Condition.Inputs().Buckets...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Asked is a bucket that a part of the journey names, other than a condition.
type Asked struct {
	Path   string // where in the file, such as trigger.bucket
	Bucket string
	// Put says that contacts are put into it or taken out, as of a manual one.
	Put bool
}

// Asks are the buckets that the journey names but for its conditions, as it is written.
func (p *Program) Asks() []Asked {
	var out []Asked
	if b := p.journey.Trigger.Bucket; b != "" {
		out = append(out, Asked{Path: "trigger.bucket", Bucket: b})
	}
	p.matches(func(path string, m *matcher) {
		if m.about != "" && strings.HasPrefix(m.name, "bucket.") {
			out = append(out, Asked{Path: path + ".event", Bucket: m.about})
		}
	})
	for i := range p.nodes {
		if b := p.nodes[i].step.Bucket; b != nil {
			field := ".bucket.add"
			if b.Add == "" {
				field = ".bucket.remove"
			}
			out = append(out, Asked{p.nodes[i].path + field, b.Add + b.Remove, true})
		}
	}
	return out
}

// CallTime is until when the answer of a call is waited for.
type CallTime struct {
	Path    string // where in the file, such as steps[0].call.timeout
	Timeout time.Duration
}

// CallTimes are those of all calls.
func (p *Program) CallTimes() []CallTime {
	var out []CallTime
	for i := range p.nodes {
		if c := p.nodes[i].step.Call; c != nil {
			out = append(out, CallTime{p.nodes[i].path + ".call.timeout", cmp.Or(c.Timeout, defaultTimeout)})
		}
	}
	return out
}

// matches visits all that records are compared with.
func (p *Program) matches(visit func(path string, m *matcher)) {
	for i := range p.triggers {
		visit(index("trigger", i), &p.triggers[i])
	}
	for i := range p.exits {
		visit(index("exitOn", i), &p.exits[i].matcher)
	}
	if p.goal != nil {
		visit("goal", p.goal)
	}
	for i := range p.nodes {
		for j := range p.nodes[i].any {
			if m := p.nodes[i].any[j].match; m != nil {
				visit(index(p.nodes[i].path+".waitFor.any", j), m)
			}
		}
	}
}

// Destinations are those that the journey asks, by name or id. Each once, in order.
func (p *Program) Destinations() []string {
	var out []string
	for i := range p.nodes {
		if c := p.nodes[i].step.Call; c != nil {
			out = append(out, c.Destination)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

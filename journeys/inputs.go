package journeys

import (
	"slices"
	"strings"
)

// Buckets are those that the journey names: whose facts it looks at, whose members it asks
// for, and manual ones that it puts contacts into. Each once, in order.
func (p *Program) Buckets() []string {
	out := slices.Clone(p.ManualBuckets())
	if b := p.journey.Trigger.Bucket; b != "" {
		out = append(out, b)
	}
	p.matches(func(m *matcher) {
		if m.about != "" && strings.HasPrefix(m.name, "bucket.") {
			out = append(out, m.about)
		}
	})
	for _, c := range p.conditions {
		out = append(out, c.Condition.Inputs().Buckets...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ManualBuckets are those that the journey puts contacts into or takes them out of.
func (p *Program) ManualBuckets() []string {
	var out []string
	for i := range p.nodes {
		if b := p.nodes[i].step.Bucket; b != nil {
			out = append(out, b.Add+b.Remove)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// matches visits all that records are compared with.
func (p *Program) matches(visit func(*matcher)) {
	for i := range p.triggers {
		visit(&p.triggers[i])
	}
	for i := range p.exits {
		visit(&p.exits[i].matcher)
	}
	if p.goal != nil {
		visit(p.goal)
	}
	for i := range p.nodes {
		for j := range p.nodes[i].any {
			if m := p.nodes[i].any[j].match; m != nil {
				visit(m)
			}
		}
	}
}

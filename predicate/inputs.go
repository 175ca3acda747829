package predicate

import "slices"

// Inputs are what a condition looks at.
type Inputs struct {
	Properties []Path       // of the contact
	Events     []EventInput // and facts
	Buckets    []string     // whose membership
	Identity   bool         // whether a user id or an email address is known
	FirstSeen  bool         // of the contact
	LastSeen   bool
}

// EventInput is an event that is looked at.
type EventInput struct {
	Name  string
	Where string // the filter in its canonical form; empty: none
}

// Inputs are what a condition of the set looks at, each once.
func (s *Set) Inputs(i int) Inputs {
	in := s.conditions[i].inputs
	in.Properties = slices.Clone(in.Properties)
	in.Events = slices.Clone(in.Events)
	in.Buckets = slices.Clone(in.Buckets)
	return in
}

// Inputs are what a condition looks at, each once; nothing when it cannot be compiled.
func (c Condition) Inputs() Inputs {
	var buckets []string
	asked(&Named{Condition: c}, func(e *expr, _ string) { buckets = append(buckets, e.bucketID) })
	most := Limits{Count: maxLimit, Sequence: maxLimit, Total: maxLimit}
	set, err := Compile([]Named{{Condition: c}}, Options{Limits: most, Buckets: buckets})
	if err != nil {
		return Inputs{}
	}
	return set.Inputs(0)
}

func (in *Inputs) property(p Path) {
	if !slices.ContainsFunc(in.Properties, func(known Path) bool { return slices.Equal(known, p) }) {
		in.Properties = append(in.Properties, p)
	}
}

func (in *Inputs) event(e EventInput) {
	if !slices.Contains(in.Events, e) {
		in.Events = append(in.Events, e)
	}
}

func (in *Inputs) bucket(id string) {
	if !slices.Contains(in.Buckets, id) {
		in.Buckets = append(in.Buckets, id)
	}
}

package predicate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// Filter says of single records whether they are meant. It keeps nothing between two, is
// immutable and safe for concurrent use.
type Filter struct {
	rules   []compiledRule
	paths   paths // of the events' properties
	buckets []string
}

type compiledRule struct {
	event             eventPattern
	where             node // nil: all
	bucket, notBucket string
}

// FilterOptions are what a selector is compiled with.
type FilterOptions struct {
	// Zone is the deployment's, for instants that are compared with calendar dates without
	// another; nil is UTC.
	Zone *time.Location
	// Buckets are those that may be asked for; nil: any.
	Buckets []string
}

// CompileFilter makes a selector ready. The error is [Faults]: buckets that are unknown, or
// that there is no selector.
func CompileFilter(s Selector, opts FilterOptions) (*Filter, error) {
	if s.IsZero() {
		return nil, Faults{{Message: "is missing: a filter is needed"}}
	}
	var faults Faults
	event := &eventSpec{}
	c := &compiler{set: &Set{zone: cmp.Or(opts.Zone, time.UTC)}, filter: event}
	out := &Filter{buckets: s.buckets()}
	for _, id := range out.buckets {
		if opts.Buckets != nil && !slices.Contains(opts.Buckets, id) {
			faults = append(faults, Fault{Path: "bucket", Message: oneOf(id, opts.Buckets)})
		}
	}
	if len(faults) > 0 {
		return nil, faults
	}
	for _, u := range s.rules {
		compiled := compiledRule{event: newEventPattern(u.event), bucket: u.bucket, notBucket: u.notBucket}
		if u.where != nil {
			compiled.where = c.node(u.where)
		}
		out.rules = append(out.rules, compiled)
	}
	out.paths = event.paths
	return out, nil
}

// Buckets are those whose membership is asked for, each once; none: members may be nil.
func (f *Filter) Buckets() []string { return slices.Clone(f.buckets) }

// Match says whether a record is meant. Of its fields it looks at name and properties;
// members is of which buckets the contact is a member, nil for none.
func (f *Filter) Match(r *Record, members Members) bool {
	v := view{members: members}
	for i := range f.rules {
		rule := &f.rules[i]
		if !rule.event.matches(r) {
			continue
		}
		if rule.where != nil {
			if v.event == nil { // the properties are read once
				v.event = f.paths.root.read(r.Document(), make(reading, 0, f.paths.n))
			}
			if !rule.where.eval(v).holds {
				continue
			}
		}
		if rule.takes(members) {
			return true
		}
	}
	return false
}

func (u *compiledRule) takes(members Members) bool {
	is := func(id string) bool { return members != nil && members.Has(id) }
	return (u.bucket == "" || is(u.bucket)) && (u.notBucket == "" || !is(u.notBucket))
}

// eventPattern is the event of a rule, made ready.
type eventPattern struct {
	name    schemas.TypePattern
	product bool // product events alone
}

func newEventPattern(text string) eventPattern {
	name, product := strings.CutPrefix(text, schemas.TypeEventTracked)
	if product && (name == "" || name[0] == ':') {
		return eventPattern{schemas.ParseTypePattern(strings.TrimPrefix(name, ":")), true}
	}
	return eventPattern{name: schemas.ParseTypePattern(text)}
}

func (p *eventPattern) matches(r *Record) bool {
	return p.name.Matches(r.Name) && (!p.product || r.Name != "" && r.fact == nil && !isFact(r.Name))
}

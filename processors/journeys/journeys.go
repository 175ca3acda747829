// Package journeys runs journeys: it gives each record of a contact to the machine of room
// journeys, keeps the contact's state, and writes down what happened where it can be looked
// up.
//
// What it promises, beside what the frame promises of every derived processor and the
// machine of what follows from a record:
//
//   - A run belongs to the version of its journey that it began with, which is kept for as
//     long as a run may need it. What becomes of live runs when the journey is changed or
//     removed, the journey says.
//   - A run, its counters and what it has done are written with the state that says so, once.
//   - A contact for whom definitions have changed is filled first: until then it begins new
//     journeys, and their runs stand at their first step.
//   - Runs are not rebuilt: whoever is taken over anew goes on with those that it has.
package journeys

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Name is the processor's name, which never changes.
const Name = machine.Name

// Options are what journeys are compiled with, beside their definitions.
type Options struct {
	Limits predicate.Limits
	Zone   *time.Location // of contacts and journeys that name none; nil is UTC
	// Coded are the journeys whose steps are code that this program has.
	Coded []machine.Journey
}

// Logic is the journeys of a set of definitions, and the versions before them that runs may
// belong to. It is safe for concurrent use.
type Logic struct {
	version int64
	// fills is what states are filled for: the version or, while the code of a journey is not
	// here, what was before that: what it asks of contacts is not known here.
	fills   int64
	opts    Options
	current []inUse
	older   []*machine.Program
	buckets []string         // that there are, or that conditions ask for
	failing map[string]error // by journey

	destinations []string          // that calls ask, by name
	targets      map[string]string // their ids; of those that are there and take outbox records

	revised []int64   // the revisions of what is in use, ascending
	subsets []*subset // by how many revisions are filled; the last has all
}

// inUse is a journey that enrols.
type inUse struct {
	machine.InUse
	revision int64
}

// subset is the machine for contacts that are filled with what has not changed since some
// version, compiled when it is needed.
type subset struct {
	compile func() *subset
	m       *machine.Machine
	set     *predicate.Set
	names   []string // events that those look at that are not filled
	// circular: runs may follow from facts on runs, which may fail half-way.
	circular bool
}

// Versions are those that the journeys of a set have, to be kept.
func Versions(set *definition.Set) []storage.JourneyVersion {
	var out []storage.JourneyVersion
	for _, inUse := range set.AllJourneys() {
		j := &inUse.Journey.Journey
		out = append(out, storage.JourneyVersion{JourneyID: j.ID, Version: j.Identity(), Definition: j.Canonical()})
	}
	return out
}

// Missing says which of some versions a program with these options cannot run, and why, by
// id@version.
func Missing(versions []storage.JourneyVersion, opts Options) map[string]error {
	return Compile(&definition.Set{}, versions, opts).Failing()
}

// Compile makes the logic of a set, beside which these versions are kept. Definitions that
// cannot be compiled are left out, as if they were removed; Failing says why.
func Compile(set *definition.Set, kept []storage.JourneyVersion, opts Options) *Logic {
	l := &Logic{version: set.Version, fills: set.Version, opts: opts, failing: map[string]error{}}
	for i := range set.Buckets {
		l.buckets = append(l.buckets, set.Buckets[i].ID)
	}
	for _, j := range set.AllJourneys() {
		l.use(&j)
	}
	l.keep(kept)
	for n := range len(l.revised) + 1 {
		until := int64(math.MaxInt64)
		if n < len(l.revised) {
			until = l.revised[n] - 1
		}
		l.subsets = append(l.subsets, &subset{compile: sync.OnceValue(func() *subset { return l.subset(until) })})
	}
	return l
}

// use takes in a journey of the set. Switched off by hand is another reason than its own.
func (l *Logic) use(j *definition.JourneyInUse) {
	def := j.Journey.Journey
	byAdmin := j.Switched != nil && !*j.Switched
	def.Enabled = def.Enabled || byAdmin
	p, err := l.program(&def)
	if err != nil {
		l.failing[j.ID] = err
		if p = l.headOf(&def); p == nil {
			return
		}
		l.fills = min(l.fills, j.Revision-1)
	}
	l.current = append(l.current, inUse{machine.InUse{Program: p, ByAdmin: byAdmin, Paused: j.Paused}, j.Revision})
	l.revised = append(l.revised, j.Revision)
	slices.Sort(l.revised)
	l.revised = slices.Compact(l.revised)
}

// keep takes in the versions that are kept beside those in use.
func (l *Logic) keep(kept []storage.JourneyVersion) {
	for _, v := range kept {
		if slices.ContainsFunc(l.current, func(u inUse) bool { return u.Program.ID() == v.JourneyID && u.Program.Version() == v.Version }) {
			continue
		}
		var def machine.Journey
		err := def.UnmarshalJSON([]byte(v.Definition))
		var p *machine.Program
		if err == nil {
			p, err = l.program(&def)
		}
		if err == nil && p.Version() != v.Version {
			def.Version = v.Version // another release names it otherwise
			p, err = l.program(&def)
		}
		if err != nil {
			l.failing[v.JourneyID+"@"+v.Version] = err
			continue
		}
		l.older = append(l.older, p)
	}
}

// program compiles a journey, and its conditions by themselves.
func (l *Logic) program(def *machine.Journey) (*machine.Program, error) {
	p, err := machine.Compile(*def, machine.Options{Zone: l.opts.Zone, Coded: l.opts.Coded})
	if err != nil {
		return nil, err
	}
	for _, c := range p.Conditions() {
		l.buckets = append(l.buckets, c.Condition.Inputs().Buckets...)
	}
	slices.Sort(l.buckets)
	l.buckets = slices.Compact(l.buckets)
	for _, name := range p.Destinations() {
		if uuid.Validate(name) != nil && !slices.Contains(l.destinations, name) {
			l.destinations = append(l.destinations, name)
		}
	}
	_, err = l.conditions(p.Conditions())
	return p, err
}

// headOf is a journey whose code is not here, which enrols nobody and says so; nil of one that
// fails otherwise.
func (l *Logic) headOf(def *machine.Journey) *machine.Program {
	p, err := machine.Compile(*def, machine.Options{Zone: l.opts.Zone, Coded: l.opts.Coded, WithoutCode: true})
	if err != nil || !p.Lacks() {
		return nil
	}
	return p
}

// asking is the logic with the destinations that there are.
func (l *Logic) asking(targets []storage.CallTarget) *Logic {
	out := *l
	out.targets = make(map[string]string, len(targets))
	for _, t := range targets {
		if sub, err := schemas.ParseSubscription(t.EventTypes); err == nil && sub.WantsOutbox() {
			out.targets[t.Name] = t.ID
		}
	}
	return &out
}

// nobody stands for a destination that is not there: what is addressed to it is refused.
const nobody = "00000000-0000-0000-0000-000000000000"

// address has calls go to the ids of the destinations that they name.
func (l *Logic) address(effects []schemas.Message) {
	for _, m := range effects {
		o, is := m.(*schemas.Outbox)
		if !is || uuid.Validate(o.Destination) == nil {
			continue
		}
		id, there := l.targets[o.Destination]
		if !there {
			id = nobody
		}
		o.Destination = id
	}
}

func (l *Logic) conditions(list []predicate.Named) (*predicate.Set, error) {
	return predicate.Compile(list, predicate.Options{Limits: l.opts.Limits, Zone: l.opts.Zone, Buckets: l.buckets})
}

// subset is what contacts are stepped with that are filled with the journeys that have not
// changed since a version.
func (l *Logic) subset(until int64) *subset {
	var current []machine.InUse
	var filled, rest []predicate.Named
	for _, u := range l.current {
		u.Filling = u.revision > until && u.Program.AsksOfContact()
		current = append(current, u.InUse)
		if u.Filling {
			rest = append(rest, u.Program.Conditions()...)
		} else {
			filled = append(filled, u.Program.Conditions()...)
		}
	}
	for _, p := range l.older {
		filled = append(filled, p.Conditions()...)
	}
	d := &subset{m: machine.New(current, l.older, machine.Options{Zone: l.opts.Zone})}
	d.set = l.must(filled)
	d.names = eventsOf(l.must(rest))
	if len(rest) > 0 || slices.ContainsFunc(current, func(u machine.InUse) bool { return u.Filling }) {
		d.names = slices.Compact(slices.Sorted(slices.Values(append(d.names, d.m.LooksBack()...))))
	}
	for _, typ := range ownFacts {
		d.circular = d.circular || d.set.LooksAt(typ) || d.m.LooksAt(typ)
	}
	return d
}

func (l *Logic) must(list []predicate.Named) *predicate.Set {
	set, err := l.conditions(list)
	if err != nil {
		panic(fmt.Sprintf("journeys: what compiled does not: %v", err))
	}
	return set
}

// eventsOf are the names of the events that a set looks at.
func eventsOf(set *predicate.Set) []string {
	names := map[string]bool{}
	for i := range set.Len() {
		for _, e := range set.Inputs(i).Events {
			names[e.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// ownFacts are those that the processor tells.
var ownFacts = []string{
	schemas.FactJourneyStarted, schemas.FactJourneyStep, schemas.FactJourneyCompleted, schemas.FactJourneyExited, schemas.FactJourneyFailed, schemas.FactJourneySkipped,
}

func isOwn(factType string) bool { return strings.HasPrefix(factType, "journey.") }

// since is what a state of a version is stepped with.
func (l *Logic) since(version int64) *subset {
	n, _ := slices.BinarySearchFunc(l.revised, version, func(r, version int64) int { return cmp.Or(cmp.Compare(r, version), -1) })
	return l.subsets[n].compile()
}

func (l *Logic) whole() *subset { return l.subsets[len(l.revised)].compile() }

// Failing are the journeys, and the versions of them (id@version), that could not be
// compiled. Their runs stay where they are.
func (l *Logic) Failing() map[string]error { return l.failing }

// Program is that of a journey and version; nil when it is not known.
func (l *Logic) Program(journey, version string) *machine.Program {
	return l.whole().m.Program(journey, version)
}

// Wants implements derive.Logic: what begins, wakes and ends runs, what conditions look at,
// and memberships, where any are asked for. Facts on journeys are our own.
func (l *Logic) Wants(factType string) bool {
	whole := l.whole()
	switch {
	case isOwn(factType):
		return false
	case factType == schemas.FactBucketEntered || factType == schemas.FactBucketLeft:
		return len(l.current)+len(l.older) > 0
	}
	return whole.m.LooksAt(factType) || whole.set.LooksAt(factType)
}

// LooksBeside implements derive.LooksBeside.
func (l *Logic) LooksBeside() bool { return true }

// Version implements derive.Refills.
func (l *Logic) Version() int64 { return l.fills }

// VersionOf implements derive.Refills. A contact of which nothing is known lacks nothing,
// nor does one for which nothing has changed.
func (l *Logic) VersionOf(s State) int64 {
	switch {
	case !s.known:
		return math.MaxInt64
	case s.version >= l.fills:
		return s.version
	case l.since(s.version) == l.whole() && !l.ends(&s):
		return l.fills
	}
	return s.version
}

// ends says that a run of the contact is to exit, for its journey has changed.
func (l *Logic) ends(s *State) bool {
	for _, r := range s.runs.Runs() {
		p := l.Program(r.Journey, r.Version)
		if r.Failed || p == nil {
			continue
		}
		onChange := p.Journey().OnChange
		if i := slices.IndexFunc(l.current, func(u inUse) bool { return u.Program.ID() == r.Journey }); i >= 0 {
			if l.current[i].Program.Version() == r.Version {
				continue
			}
			onChange = l.current[i].Program.Journey().OnChange
		}
		if onChange == machine.OnChangeExit {
			return true
		}
	}
	return false
}

// Names implements derive.Refills.
func (l *Logic) Names(version int64) []string { return l.since(version).names }

// Package buckets derives who is a member of which bucket, from what contacts says of each
// contact and from the passing of time, exact to the microsecond.
//
// What it promises, beside what the frame promises of every derived processor:
//
//   - Once nothing is left to handle, the members of a bucket are those who satisfy its
//     criteria over their whole history, but for who is held by minDwell, was removed by
//     maxDwell, or may not join by time alone.
//   - Entering and leaving alternate for each contact and bucket. Memberships are numbered
//     from 1 by epochs without holes; a merge adds those of the other contact.
//   - A record costs what looks at it: only buckets are evaluated whose inputs changed,
//     whatever the length of the history. The state of a contact is bounded.
//   - What is due is handled at the instant at which it is due, however late.
//   - A record is judged as of when it was received. So who was active while records waited
//     to be handled is not taken for quiet meanwhile.
//
// The logic is pure: it is driven by the frame, and by a [derive.Rehearsal] in virtual time.
package buckets

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
)

// Name is the processor's name, which never changes.
const Name = "buckets"

// Options are what buckets are compiled with, beside their definitions.
type Options struct {
	Limits predicate.Limits
	Zone   *time.Location // for calendar dates that name none, of contacts without one; nil is UTC
}

// Logic is the buckets of a set of definitions. It is safe for concurrent use.
type Logic struct {
	version int64
	opts    Options
	known   map[string]*definition.BucketInUse // all of the set
	failing map[string]error
	observe func(bucketID string) // tests count evaluations; nil

	// followsItself: conditions look at facts on buckets, so that one may lead to another.
	followsItself bool

	usable  []*definition.BucketInUse // dynamic ones that are evaluated, by id
	subsets []*subset                 // by how many revisions are in; the last has all
	revised []int64                   // the revisions of what is in use, ascending
}

// subset is the buckets that have not changed since some version, compiled when they are
// needed.
type subset struct {
	compile func() *subset
	set     *predicate.Set
	buckets []*definition.BucketInUse // as numbered by set
	names   []string                  // events that those look at that are not in it
}

// Compile makes the logic of a set. Definitions that cannot be compiled are left out, as
// if they were disabled; Failing says why.
func Compile(set *definition.Set, opts Options) *Logic {
	l := &Logic{version: set.Version, opts: opts, known: make(map[string]*definition.BucketInUse, len(set.Buckets)), failing: map[string]error{}}
	for i := range set.Buckets {
		l.known[set.Buckets[i].ID] = &set.Buckets[i]
	}
	for _, id := range slices.Sorted(maps.Keys(l.known)) {
		if b := l.known[id]; b.Enabled && b.Kind != definition.KindManual {
			l.usable = append(l.usable, b)
		}
	}
	whole := l.leaveOutFailing()
	for _, b := range l.known {
		if b.Enabled && l.failing[b.ID] == nil {
			l.revised = append(l.revised, b.Revision)
		}
	}
	slices.Sort(l.revised)
	l.revised = slices.Compact(l.revised)
	for n := range l.revised {
		until := int64(math.MinInt64)
		if n > 0 {
			until = l.revised[n-1]
		}
		l.subsets = append(l.subsets, &subset{compile: sync.OnceValue(func() *subset { return l.unchanged(until) })})
	}
	l.subsets = append(l.subsets, &subset{compile: func() *subset { return whole }})
	l.followsItself = slices.ContainsFunc(ownFacts, whole.set.LooksAt)
	return l
}

// leaveOutFailing compiles all that can be.
func (l *Logic) leaveOutFailing() *subset {
	if whole, err := l.compile(l.usable); err == nil {
		return whole
	}
	var good []*definition.BucketInUse
	for _, b := range l.usable {
		if _, err := l.compile([]*definition.BucketInUse{b}); err != nil {
			l.failing[b.ID] = err
			continue
		}
		if _, err := l.compile(append(slices.Clip(good), b)); err != nil { // a circle
			l.failing[b.ID] = err
			continue
		}
		good = append(good, b)
	}
	l.usable = good
	whole, err := l.compile(good)
	if err != nil {
		panic(fmt.Sprintf("buckets: what compiled does not: %v", err))
	}
	return whole
}

// compile makes a subset of these buckets. They may ask for any other.
func (l *Logic) compile(list []*definition.BucketInUse) (*subset, error) {
	named, byID := make([]predicate.Named, len(list)), make(map[string]*definition.BucketInUse, len(list))
	for i, b := range list {
		named[i] = predicate.Named{ID: b.ID, Bucket: true, Condition: b.Criteria, File: b.File, Path: "criteria"}
		byID[b.ID] = b
	}
	var others []string
	for id := range l.known {
		if byID[id] == nil {
			others = append(others, id)
		}
	}
	set, err := predicate.Compile(named, predicate.Options{Limits: l.opts.Limits, Zone: l.opts.Zone, Buckets: others})
	if err != nil {
		return nil, err
	}
	out := &subset{set: set}
	for i := range set.Len() {
		out.buckets = append(out.buckets, byID[set.ID(i)])
	}
	return out, nil
}

// unchanged compiles the buckets that have not changed since a version.
func (l *Logic) unchanged(since int64) *subset {
	var same, changed []*definition.BucketInUse
	for _, b := range l.usable {
		if b.Revision <= since {
			same = append(same, b)
		} else {
			changed = append(changed, b)
		}
	}
	out, err := l.compile(same)
	if err != nil {
		panic(fmt.Sprintf("buckets: a part of what compiled does not: %v", err))
	}
	rest, err := l.compile(changed)
	if err != nil {
		panic(fmt.Sprintf("buckets: a part of what compiled does not: %v", err))
	}
	out.names = rest.events()
	return out
}

// events are the names of the events that somebody looks at.
func (d *subset) events() []string {
	names := map[string]bool{}
	for i := range d.set.Len() {
		for _, e := range d.set.Inputs(i).Events {
			names[e.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// since is what a state of a version is stepped with: the buckets that it is filled for.
func (l *Logic) since(version int64) *subset {
	n, _ := slices.BinarySearchFunc(l.revised, version, func(r, version int64) int { return cmp.Or(cmp.Compare(r, version), -1) })
	return l.subsets[n].compile()
}

func (l *Logic) whole() *subset { return l.subsets[len(l.revised)].compile() }

// manual is the manual bucket of that id, if members may be put into it; else nil.
func (l *Logic) manual(id string) *definition.BucketInUse {
	if b := l.known[id]; b != nil && b.Enabled && b.Kind == definition.KindManual {
		return b
	}
	return nil
}

// inUse is the bucket of that id unless it is disabled or gone; else nil.
func (l *Logic) inUse(id string) *definition.BucketInUse {
	if b := l.known[id]; b != nil && b.Enabled {
		return b
	}
	return nil
}

// Failing are the buckets that could not be compiled, by id. Their members stay.
func (l *Logic) Failing() map[string]error { return l.failing }

// Wants implements derive.Logic: what conditions look at. Facts on buckets are our own.
func (l *Logic) Wants(factType string) bool {
	return !strings.HasPrefix(factType, "bucket.") && l.whole().set.LooksAt(factType)
}

// Version implements derive.Refills.
func (l *Logic) Version() int64 { return l.version }

// VersionOf implements derive.Refills. A contact of which nothing is known lacks nothing,
// nor does one for which nothing has changed.
func (l *Logic) VersionOf(s State) int64 {
	switch {
	case !s.known:
		return math.MaxInt64
	case l.since(s.version) == l.whole():
		return l.version
	}
	return s.version
}

// Names implements derive.Refills.
func (l *Logic) Names(version int64) []string { return l.since(version).names }

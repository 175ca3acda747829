package enrich

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Options are what enrichments are compiled with, beside their definitions.
type Options struct {
	Limits predicate.Limits
	Zone   *time.Location // for calendar dates that name none, of contacts without one; nil is UTC
	// Map makes of an answer, as an enrichment's program says, the patch of the contact.
	Map Mapper
}

// Mapper runs the program of an enrichment on an answer. What it returns is a JSON object, or
// empty when the program leaves the answer out. Its error says why there is none and quotes
// nothing of the answer. Safe for concurrent use.
type Mapper func(enrichmentID, program, answer string) (patch string, err error)

// Logic is the enrichments of a set of definitions. It is safe for concurrent use.
type Logic struct {
	version int64
	opts    Options
	known   map[string]bool // ids of all of the set
	failing map[string]error

	usable       []*definition.EnrichmentInUse // that are enabled and can be evaluated, by id
	destinations []string                      // their names
	subsets      []*subset                     // by how many revisions are in; the last has all
	revised      []int64                       // the revisions of what is in use, ascending

	targets map[string]string // ids of the destinations that can be asked, by name
}

// subset is the enrichments that have not changed since some version, compiled when they are
// needed.
type subset struct {
	compile func() *subset
	set     *predicate.Set // of those with a condition
	list    []*definition.EnrichmentInUse
	of      []int            // by the number of a condition: whose it is
	tracked []string         // names of properties that are sent, or whose age counts
	looks   map[string][]int // who looks at such a property
	entered map[string][]int // who is asked at the entry of a bucket
	numbers map[string]int   // of conditions, by enrichment
	names   []string         // events that those look at that are not in it
}

// Compile makes the logic of a set, which asks nobody: see asking. Definitions that cannot be
// compiled are left out, as if they were disabled.
func Compile(set *definition.Set, opts Options) *Logic {
	l := &Logic{version: set.Version, opts: opts, known: map[string]bool{}, failing: map[string]error{}}
	for i := range set.Enrichments {
		e := &set.Enrichments[i]
		l.known[e.ID] = true
		if !e.Enabled {
			continue
		}
		if _, err := l.compile([]*definition.EnrichmentInUse{e}); err != nil {
			l.failing[e.ID] = err
			continue
		}
		l.usable, l.revised = append(l.usable, e), append(l.revised, e.Revision)
		l.destinations = append(l.destinations, e.Destination)
	}
	slices.Sort(l.revised)
	l.revised = slices.Compact(l.revised)
	slices.Sort(l.destinations)
	l.destinations = slices.Compact(l.destinations)
	for n := range l.revised {
		until := int64(math.MinInt64)
		if n > 0 {
			until = l.revised[n-1]
		}
		l.subsets = append(l.subsets, &subset{compile: sync.OnceValue(func() *subset { return l.unchanged(until) })})
	}
	whole := l.must(l.usable)
	l.subsets = append(l.subsets, &subset{compile: func() *subset { return whole }})
	return l
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

func (l *Logic) compile(list []*definition.EnrichmentInUse) (*subset, error) {
	out := &subset{list: list, looks: map[string][]int{}, entered: map[string][]int{}, numbers: map[string]int{}}
	var named []predicate.Named
	for i, e := range list {
		if !e.When.IsZero() {
			named = append(named, predicate.Named{ID: e.ID, Condition: e.When, File: e.File, Path: "when"})
		}
		if e.Entered != "" {
			out.entered[e.Entered] = append(out.entered[e.Entered], i)
		}
		for _, property := range properties(e) {
			out.looks[property] = append(out.looks[property], i)
		}
	}
	out.tracked = slices.Sorted(maps.Keys(out.looks))
	var err error
	if out.set, err = predicate.Compile(named, predicate.Options{Limits: l.opts.Limits, Zone: l.opts.Zone}); err != nil {
		return nil, err
	}
	for n := range out.set.Len() {
		id := out.set.ID(n)
		out.numbers[id] = n
		out.of = append(out.of, slices.IndexFunc(list, func(e *definition.EnrichmentInUse) bool { return e.ID == id }))
	}
	return out, nil
}

// properties are those of the contact that are kept for an enrichment, each once.
func properties(e *definition.EnrichmentInUse) []string {
	out := slices.Clone(e.Send)
	if e.Refresh != nil && !slices.Contains(out, e.Refresh.Property) {
		out = append(out, e.Refresh.Property)
	}
	return out
}

// must compiles a part of what compiles one by one.
func (l *Logic) must(list []*definition.EnrichmentInUse) *subset {
	out, err := l.compile(list)
	if err != nil {
		panic("enrich: what compiled does not: " + err.Error())
	}
	return out
}

// unchanged compiles the enrichments that have not changed since a version.
func (l *Logic) unchanged(since int64) *subset {
	var same, changed []*definition.EnrichmentInUse
	for _, e := range l.usable {
		if e.Revision <= since {
			same = append(same, e)
		} else {
			changed = append(changed, e)
		}
	}
	out, rest := l.must(same), l.must(changed)
	names := map[string]bool{}
	for i := range rest.set.Len() {
		for _, e := range rest.set.Inputs(i).Events {
			names[e.Name] = true
		}
	}
	out.names = slices.Sorted(maps.Keys(names))
	return out
}

// since is what a state of a version is stepped with: the enrichments that it is filled for.
func (l *Logic) since(version int64) *subset {
	n, _ := slices.BinarySearchFunc(l.revised, version, func(r, version int64) int { return cmp.Or(cmp.Compare(r, version), -1) })
	return l.subsets[n].compile()
}

func (l *Logic) whole() *subset { return l.subsets[len(l.revised)].compile() }

// find is the place of an enrichment, or -1.
func (d *subset) find(id string) int {
	i, found := slices.BinarySearchFunc(d.list, id, func(e *definition.EnrichmentInUse, id string) int { return strings.Compare(e.ID, id) })
	if !found {
		return -1
	}
	return i
}

// Wants implements derive.Logic: what conditions look at, and the entries of buckets.
func (l *Logic) Wants(factType string) bool {
	d := l.whole()
	return d.set.LooksAt(factType) || factType == schemas.FactBucketEntered && len(d.entered) > 0
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

package definition

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/storage"
)

// Set is the definitions in use. It is immutable once made, and safe for concurrent use.
type Set struct {
	Version   int64  // from 1, growing by one; 0 when nothing was ever applied
	Hash      string // of the canonical form, SHA-256 in lower-case hex
	AppliedAt time.Time
	AppliedBy string        // who or what applied it, such as "dev" or the name of an API key
	Buckets   []BucketInUse // by id
	// Enrichments and Journeys are by id.
	Enrichments []EnrichmentInUse
	Journeys    []JourneyInUse
	Failing     []Failing // by file

	events map[string]bool // that definitions look at, by name
	exits  bool            // a journey declares exitOn
}

// BucketInUse is a bucket of the set in use, with its defaults filled in.
type BucketInUse struct {
	Bucket
	InUse
}

// Failing is a file that had faults when definitions were applied last. What is in use of
// its definitions is their last good form.
type Failing struct {
	File   string    `json:"file"`          // below the directory of definitions
	IDs    []string  `json:"ids,omitempty"` // of the definitions in it, as far as they are known
	Faults string    `json:"faults"`        // a line each
	Since  time.Time `json:"since"`
}

// newSet makes a set of definitions, which are in order.
func newSet(version int64, list []entry, failing []Failing) *Set {
	s := &Set{Version: version, Failing: failing, events: map[string]bool{}}
	for _, k := range kinds {
		var of []entry
		for _, e := range list {
			if e.Ref().Kind == k.name {
				of = append(of, e)
			}
		}
		k.set.put(s, of)
	}
	for _, e := range list {
		for _, event := range e.looksAt() {
			s.events[event] = true
		}
	}
	s.exits = slices.ContainsFunc(s.AllJourneys(), func(j JourneyInUse) bool { return len(j.ExitOn) > 0 })
	return s
}

// all are the definitions of all kinds, in order.
func (s *Set) all() []entry {
	var out []entry
	for _, k := range kinds {
		out = append(out, k.set.get(s)...)
	}
	return out
}

// byRef are the definitions of all kinds.
func (s *Set) byRef() map[Ref]entry {
	out := map[Ref]entry{}
	for _, e := range s.all() {
		out[e.Ref()] = e
	}
	return out
}

// Counts says how many definitions of each kind there are.
func (s *Set) Counts() []Count { return counts(func(k *kind) int { return len(k.set.get(s)) }) }

// Find is the bucket of that id, or nil.
func (s *Set) Find(id string) *BucketInUse {
	i, found := slices.BinarySearchFunc(s.Buckets, id, func(b BucketInUse, id string) int { return strings.Compare(b.ID, id) })
	if !found {
		return nil
	}
	return &s.Buckets[i]
}

// FindJourney is the journey of that id, also one that stands with a bucket, or nil.
func (s *Set) FindJourney(id string) *JourneyInUse {
	all := s.AllJourneys()
	i, found := slices.BinarySearchFunc(all, id, func(j JourneyInUse, id string) int { return strings.Compare(j.ID, id) })
	if !found {
		return nil
	}
	return &all[i]
}

// AllJourneys are those of the set and those that stand with its buckets, by id. Of the
// latter Revision and Switched are the bucket's.
func (s *Set) AllJourneys() []JourneyInUse {
	out := slices.Clone(s.Journeys)
	for _, b := range s.Buckets {
		for i, j := range b.reactions() {
			out = append(out, JourneyInUse{Journey: j, InUse: b.InUse, Bucket: b.ID, Reaction: &b.On[i]})
		}
	}
	slices.SortFunc(out, func(a, b JourneyInUse) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// LooksAt says whether a definition, enabled or not, looks at an event of this name.
func (s *Set) LooksAt(event string) bool { return s.events[event] }

// DeclaresExits says whether a journey, enabled or not, declares exitOn.
func (s *Set) DeclaresExits() bool { return s.exits }

// Keeps says whether a definition of a file that fails is in use, in its last good form.
func (s *Set) Keeps(f *Failing) bool {
	names := refs(f.File, f.IDs)
	for _, k := range kinds {
		if slices.ContainsFunc(k.set.get(s), func(e entry) bool { return slices.Contains(names, e.Ref()) }) {
			return true
		}
	}
	return false
}

// FailingOf is what is wrong with a definition that is in use in its last good form; nil
// when nothing is.
func (s *Set) FailingOf(ref Ref) *Failing {
	for i := range s.Failing {
		if slices.Contains(refs(s.Failing[i].File, s.Failing[i].IDs), ref) {
			return &s.Failing[i]
		}
	}
	return nil
}

// Reader is where sets are read: a *storage.Tx or a *storage.DB.
type Reader interface {
	DefinitionSet(ctx context.Context) (*storage.DefinitionSet, error)
	DefinitionSets(ctx context.Context, below int64, limit int) ([]storage.DefinitionSet, error)
	DefinitionFaults(ctx context.Context) ([]storage.DefinitionFault, error)
}

// Current reads the set in use: one of version 0, without definitions, when nothing was
// ever applied.
func Current(ctx context.Context, from Reader) (*Set, error) {
	stored, err := from.DefinitionSet(ctx)
	if err != nil {
		return nil, err
	}
	set := &Set{}
	if stored != nil {
		if set, err = readSet(stored); err != nil {
			return nil, err
		}
	}
	faults, err := from.DefinitionFaults(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range faults {
		set.Failing = append(set.Failing, Failing{f.File, f.IDs, f.Faults, f.Since})
	}
	return set, nil
}

// readSet reads a stored set.
func readSet(stored *storage.DefinitionSet) (*Set, error) {
	list, err := decode(stored.Body)
	if err != nil {
		return nil, err
	}
	set := newSet(stored.Version, list, nil)
	set.Hash, set.AppliedAt, set.AppliedBy = stored.Hash, stored.AppliedAt, stored.AppliedBy
	return set, nil
}

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
	Failing   []Failing     // by file

	events map[string]bool // that buckets look at, by name
}

// BucketInUse is a bucket of the set in use, with its defaults filled in. Its Enabled is
// the effective one: what the definition says, unless an administrator switched the bucket.
type BucketInUse struct {
	Bucket
	// Revision is the version of the set at which the bucket was added, enabled again, or
	// changed in anything but name, description and file; or at which that happened to a
	// bucket whose membership it asks for, directly or through others.
	Revision int64
	// Switched is what an administrator switched the bucket to; nil when that is what the
	// definition says anyway.
	Switched *bool
	// Declared is what the definition says of Enabled.
	Declared bool
}

// Failing is a file that had faults when definitions were applied last. What is in use of
// its definitions is their last good form.
type Failing struct {
	File   string    `json:"file"`          // below the directory of definitions
	IDs    []string  `json:"ids,omitempty"` // of the definitions in it, as far as they are known
	Faults string    `json:"faults"`        // a line each
	Since  time.Time `json:"since"`
}

// newInUse puts a definition in use.
func newInUse(b Bucket, switched *bool) BucketInUse {
	out := BucketInUse{Bucket: b.withDefaults(), Declared: b.Enabled}
	if switched != nil && *switched != b.Enabled {
		out.Switched, out.Enabled = switched, *switched
	}
	return out
}

// Find is the bucket of that id, or nil.
func (s *Set) Find(id string) *BucketInUse {
	i, found := slices.BinarySearchFunc(s.Buckets, id, func(b BucketInUse, id string) int { return strings.Compare(b.ID, id) })
	if !found {
		return nil
	}
	return &s.Buckets[i]
}

// LooksAt says whether a bucket, enabled or not, looks at an event of this name.
func (s *Set) LooksAt(event string) bool { return s.events[event] }

func eventsOf(buckets []BucketInUse) map[string]bool {
	out := map[string]bool{}
	for _, b := range buckets {
		for _, event := range b.Criteria.Inputs().Events {
			out[event.Name] = true
		}
	}
	return out
}

// FailingOf is what is wrong with the definition of a bucket that is in use in its last
// good form; nil when nothing is.
func (s *Set) FailingOf(id string) *Failing {
	for i := range s.Failing {
		if slices.Contains(s.Failing[i].IDs, id) {
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

// Current reads the set in use: one of version 0, without buckets, when nothing was ever
// applied.
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
	buckets, err := decode(stored.Body)
	if err != nil {
		return nil, err
	}
	return &Set{Version: stored.Version, Hash: stored.Hash, AppliedAt: stored.AppliedAt, AppliedBy: stored.AppliedBy, Buckets: buckets, events: eventsOf(buckets)}, nil
}

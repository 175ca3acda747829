package definition

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/storage"
)

// Outcome is what came of applying definitions.
type Outcome struct {
	Set     *Set     // in use now
	Changed bool     // whether it is another version than before
	Changes []Change // against the version before, by id
	// Broken are filters of destinations that ask for buckets which were removed.
	Broken []Reference
	// Members is what was foreseen of it; nil when nobody looked.
	Members *Forecast
}

// Change is a bucket that differs from what was in use.
type Change struct {
	ID     string   `json:"id"`
	What   string   `json:"what"`             // added, changed or removed
	Fields []string `json:"fields,omitempty"` // of a changed one: what differs
}

// String is what a person reads: keen: changed (criteria, maxDwell).
func (c Change) String() string {
	if len(c.Fields) == 0 {
		return c.ID + ": " + c.What
	}
	return c.ID + ": " + c.What + " (" + strings.Join(c.Fields, ", ") + ")"
}

// What a [Change] says.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
)

// ErrUnknown is what [Switch] returns (wrapped) for a bucket that is not defined.
var ErrUnknown = errors.New("no such bucket is defined")

// ErrInUse is what [RequireUnused] returns (wrapped).
var ErrInUse = errors.New("the bucket is in use")

// Apply puts what was read in use: in one transaction, after those of others that apply at
// the same time. Definitions with faults keep their last good form and are in
// [Set.Failing]; when nothing differs there is no new version. by says who it was.
//
// Files replace what was applied from files, and definitions built in Go what was built in
// Go; neither removes the other.
func Apply(ctx context.Context, db *storage.DB, files *Files, opts Options, by string) (*Outcome, error) {
	var broken []Reference
	out, err := change(ctx, db, by, func(tx *storage.Tx, inUse *Set) ([]BucketInUse, []Failing, error) {
		p, err := NewPlan(inUse, files, opts)
		if err != nil {
			return nil, nil, err
		}
		broken, err = p.Broken(ctx, tx)
		return p.Next.Buckets, p.Next.Failing, err
	})
	if err == nil {
		out.Broken = broken
	}
	return out, err
}

// Switch enables or disables a bucket, whatever its definition says, until it is switched
// back or its definition is removed.
func Switch(ctx context.Context, db *storage.DB, bucketID string, enabled bool, by string) (*Outcome, error) {
	return change(ctx, db, by, func(_ *storage.Tx, inUse *Set) ([]BucketInUse, []Failing, error) {
		if inUse.Find(bucketID) == nil {
			return nil, nil, fmt.Errorf("bucket %q: %w", bucketID, ErrUnknown)
		}
		buckets := slices.Clone(inUse.Buckets)
		for i := range buckets {
			if buckets[i].ID == bucketID {
				buckets[i] = newInUse(buckets[i].declared(), &enabled)
			}
		}
		return buckets, inUse.Failing, nil
	})
}

// RequireUnused returns [ErrInUse] unless the bucket is not defined, and keeps it so until
// the transaction ends: what is known of the members of a defined bucket is not forgotten.
func RequireUnused(ctx context.Context, tx *storage.Tx, bucketID string) error {
	if err := tx.LockDefinitions(ctx); err != nil {
		return err
	}
	inUse, err := Current(ctx, tx)
	if err != nil {
		return err
	}
	if inUse.Find(bucketID) != nil {
		return fmt.Errorf("bucket %q: %w: remove its definition and apply that first", bucketID, ErrInUse)
	}
	return nil
}

// change makes the next version of the set of what next says.
func change(ctx context.Context, db *storage.DB, by string, next func(tx *storage.Tx, inUse *Set) ([]BucketInUse, []Failing, error)) (*Outcome, error) {
	var out *Outcome
	err := db.InTx(ctx, func(tx *storage.Tx) error {
		if err := tx.LockDefinitions(ctx); err != nil {
			return err
		}
		inUse, err := Current(ctx, tx)
		if err != nil {
			return err
		}
		buckets, failing, err := next(tx, inUse)
		if err != nil {
			return err
		}
		out = &Outcome{Changes: differences(inUse, buckets)}
		if out.Changed, err = save(ctx, tx, inUse, buckets, by); err != nil {
			return err
		}
		if err := saveFailing(ctx, tx, inUse.Failing, failing); err != nil {
			return err
		}
		out.Set, err = Current(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func save(ctx context.Context, tx *storage.Tx, inUse *Set, buckets []BucketInUse, by string) (changed bool, err error) {
	if _, hash := encode(buckets); hash == inUse.Hash || inUse.Version == 0 && len(buckets) == 0 {
		return false, nil
	}
	version := inUse.Version + 1
	revise(inUse, buckets, version)
	text, hash := encode(buckets)
	_, err = tx.ApplyDefinitions(ctx, storage.DefinitionSet{Version: version, Hash: hash, Body: text, AppliedBy: by})
	return true, err
}

func saveFailing(ctx context.Context, tx *storage.Tx, before, now []Failing) error {
	same := func(a, b Failing) bool {
		return a.File == b.File && a.Faults == b.Faults && slices.Equal(a.IDs, b.IDs)
	}
	if slices.EqualFunc(before, now, same) {
		return nil
	}
	faults := make([]storage.DefinitionFault, len(now))
	for i, f := range now {
		faults[i] = storage.DefinitionFault{File: f.File, IDs: append([]string{}, f.IDs...), Faults: f.Faults}
	}
	return tx.SaveDefinitionFaults(ctx, faults)
}

// Compare says what would change if files were applied, and what would fail.
func Compare(inUse *Set, files *Files, opts Options) ([]Change, []Failing) {
	buckets, failing := plan(inUse, files, opts)
	return differences(inUse, buckets), failing
}

// Next is the set that would be in use if files were applied to a set, without applying
// them; its hash is left out.
func Next(inUse *Set, files *Files, opts Options) *Set {
	buckets, failing := plan(inUse, files, opts)
	revise(inUse, buckets, inUse.Version+1)
	return &Set{Version: inUse.Version + 1, Buckets: buckets, Failing: failing}
}

// differences are by id.
func differences(before *Set, buckets []BucketInUse) []Change {
	var out []Change
	after := &Set{Buckets: buckets}
	for _, b := range buckets {
		was := before.Find(b.ID)
		if was == nil {
			out = append(out, Change{ID: b.ID, What: Added})
			continue
		}
		if fields := differing(was, &b); len(fields) > 0 {
			out = append(out, Change{ID: b.ID, What: Changed, Fields: fields})
		}
	}
	for _, was := range before.Buckets {
		if after.Find(was.ID) == nil {
			out = append(out, Change{ID: was.ID, What: Removed})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// differing are the fields in which two forms of a bucket differ, by name.
func differing(a, b *BucketInUse) []string {
	left, right := asMap(a.Bucket), asMap(b.Bucket)
	all := maps.Clone(left)
	maps.Copy(all, right)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if !reflect.DeepEqual(left[name], right[name]) {
			out = append(out, name)
		}
	}
	return out
}

func asMap(b Bucket) (out map[string]any) {
	_ = json.Unmarshal([]byte(b.Canonical()), &out) // was written just now
	return out
}

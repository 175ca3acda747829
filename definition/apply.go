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
	// Unasked are enrichments and journeys whose destinations cannot be asked.
	Unasked []Unasked
	// Members is what was foreseen of it; nil when nobody looked.
	Members *Forecast
}

// Change is a definition that differs from what was in use.
type Change struct {
	Kind   string   `json:"kind" doc:"Such as bucket."`
	ID     string   `json:"id"`
	What   string   `json:"what"`             // added, changed or removed
	Fields []string `json:"fields,omitempty"` // of a changed one: what differs
}

// String is what a person reads: keen: changed (criteria, maxDwell).
func (c Change) String() string {
	if len(c.Fields) == 0 {
		return c.Ref().String() + ": " + c.What
	}
	return c.Ref().String() + ": " + c.What + " (" + strings.Join(c.Fields, ", ") + ")"
}

// Ref is what differs.
func (c Change) Ref() Ref { return Ref{c.Kind, c.ID} }

// What a [Change] says.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
)

// ErrUnknown is what [Switch] returns (wrapped) for what is not defined.
var ErrUnknown = errors.New("no such definition is in use")

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
	out, err := change(ctx, db, by, func(tx *storage.Tx, inUse *Set) ([]entry, []Failing, error) {
		p, err := NewPlan(inUse, files, opts)
		if err != nil {
			return nil, nil, err
		}
		broken, err = p.Broken(ctx, tx)
		return p.Next.all(), p.Next.Failing, err
	})
	if err == nil {
		out.Broken = broken
	}
	return out, err
}

// Switch enables or disables a definition, whatever it says itself, until it is switched
// back or removed.
func Switch(ctx context.Context, db *storage.DB, ref Ref, enabled bool, by string) (*Outcome, error) {
	return change(ctx, db, by, func(_ *storage.Tx, inUse *Set) ([]entry, []Failing, error) {
		list := inUse.all()
		i := slices.IndexFunc(list, func(e entry) bool { return e.Ref() == ref })
		if i < 0 {
			return nil, nil, fmt.Errorf("%s %q: %w", ref.Kind, ref.ID, ErrUnknown)
		}
		paused := list[i].Paused
		list[i] = newEntry(list[i].declared(), &enabled)
		list[i].Paused = paused
		return list, inUse.Failing, nil
	})
}

// Pause has a journey enrol nobody and its runs stay where they are, until it is resumed or
// removed.
func Pause(ctx context.Context, db *storage.DB, journeyID string, paused bool, by string) (*Outcome, error) {
	return change(ctx, db, by, func(_ *storage.Tx, inUse *Set) ([]entry, []Failing, error) {
		list := inUse.all()
		i := slices.IndexFunc(list, func(e entry) bool { return e.Ref() == JourneyRef(journeyID) })
		if i < 0 {
			return nil, nil, fmt.Errorf("journey %q: %w", journeyID, ErrUnknown)
		}
		list[i].Paused = paused
		return list, inUse.Failing, nil
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
func change(ctx context.Context, db *storage.DB, by string, next func(tx *storage.Tx, inUse *Set) ([]entry, []Failing, error)) (*Outcome, error) {
	var out *Outcome
	err := db.InTx(ctx, func(tx *storage.Tx) error {
		if err := tx.LockDefinitions(ctx); err != nil {
			return err
		}
		inUse, err := Current(ctx, tx)
		if err != nil {
			return err
		}
		list, failing, err := next(tx, inUse)
		if err != nil {
			return err
		}
		out = &Outcome{Changes: differences(inUse, list)}
		if out.Changed, err = save(ctx, tx, inUse, list, by); err != nil {
			return err
		}
		if err := saveFailing(ctx, tx, inUse.Failing, failing); err != nil {
			return err
		}
		if out.Set, err = Current(ctx, tx); err != nil {
			return err
		}
		out.Unasked, err = out.Set.Unasked(ctx, tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func save(ctx context.Context, tx *storage.Tx, inUse *Set, list []entry, by string) (changed bool, err error) {
	if _, hash := encode(list); hash == inUse.Hash || inUse.Version == 0 && len(list) == 0 {
		return false, nil
	}
	version := inUse.Version + 1
	revise(inUse, list, version)
	text, hash := encode(list)
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
	list, failing := plan(inUse, files, opts)
	return differences(inUse, list), failing
}

// Next is the set that would be in use if files were applied to a set, without applying
// them; its hash is left out.
func Next(inUse *Set, files *Files, opts Options) *Set {
	list, failing := plan(inUse, files, opts)
	revise(inUse, list, inUse.Version+1)
	return newSet(inUse.Version+1, list, failing)
}

// differences are in the order of [Ref].
func differences(before *Set, list []entry) []Change {
	var out []Change
	was := before.byRef()
	for _, e := range list {
		ref := e.Ref()
		old, stood := was[ref]
		delete(was, ref)
		if !stood {
			out = append(out, Change{Kind: ref.Kind, ID: ref.ID, What: Added})
			continue
		}
		fields := differing(old, e)
		if old.Paused != e.Paused {
			fields = append(fields, "paused")
		}
		if len(fields) > 0 {
			out = append(out, Change{Kind: ref.Kind, ID: ref.ID, What: Changed, Fields: fields})
		}
	}
	for ref := range was {
		out = append(out, Change{Kind: ref.Kind, ID: ref.ID, What: Removed})
	}
	return sorted(out)
}

// differing are the fields in which two forms of a definition differ, by name.
func differing(a, b Definition) []string {
	left, right := asMap(a), asMap(b)
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

func asMap(d Definition) (out map[string]any) {
	_ = json.Unmarshal([]byte(d.Canonical()), &out) // was written just now
	return out
}

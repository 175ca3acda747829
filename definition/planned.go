package definition

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/storage"
)

// Wanted is definitions that may be put in use: [*Files], or a [*Former] set.
type Wanted interface {
	// next is what would be in use, without revisions, and what fails.
	next(inUse *Set, opts Options) ([]entry, []Failing, error)
	// content is a text that is the same as long as the definitions are.
	content() string
}

// Plan is what would change if definitions were put in use, as of the moment at which it was
// made. It is not changed, and safe for concurrent use.
type Plan struct {
	InUse   *Set
	Next    *Set     // its hash is left out; Failing is what would fail
	Changes []Change // by id
	Basis   Basis

	opts Options
}

// NewPlan says what would change if these were put in use instead of the set in use. The
// error is a [*NotAllowedError] when a former set is not allowed any more.
func NewPlan(inUse *Set, want Wanted, opts Options) (*Plan, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	list, failing, err := want.next(inUse, opts)
	if err != nil {
		return nil, err
	}
	revise(inUse, list, inUse.Version+1)
	next := newSet(inUse.Version+1, list, failing)
	return &Plan{InUse: inUse, Next: next, Changes: differences(inUse, list), Basis: basisOf(inUse, want, opts), opts: opts}, nil
}

func (f *Files) next(inUse *Set, opts Options) ([]entry, []Failing, error) {
	list, failing := plan(inUse, f, opts)
	return list, failing, nil
}

// content is in order: definitions are by kind and id, files with faults by name.
func (f *Files) content() string {
	var out strings.Builder
	for _, d := range f.all() {
		fmt.Fprintf(&out, "%t %s\n", d.head().File == "", d.Canonical())
	}
	for _, bad := range f.Faulty {
		fmt.Fprintf(&out, "%s\n%s\n", bad.File, bad.Faults)
	}
	return out.String()
}

// Moving are the buckets whose members change with the plan, or may: those that are in use
// then, decided by criteria, and new, enabled again or changed in what members depend on, or
// that ask for such a one.
func (p *Plan) Moving() []*BucketInUse {
	var out []*BucketInUse
	for i := range p.Next.Buckets {
		if b := &p.Next.Buckets[i]; b.Revision == p.Next.Version && b.Enabled && b.Kind != KindManual {
			out = append(out, b)
		}
	}
	return out
}

// why says why the members of a bucket may change.
func (p *Plan) why(b *BucketInUse) string {
	for _, c := range p.Changes {
		if c.Ref() != b.Ref() {
			continue
		}
		if c.What == Changed {
			return "changed (" + strings.Join(c.Fields, ", ") + ")"
		}
		return c.What
	}
	var asked []string
	for _, id := range b.Criteria.Inputs().Buckets {
		if other := p.Next.Find(id); other != nil && other.Revision == p.Next.Version {
			asked = append(asked, id)
		}
	}
	return "asks for " + strings.Join(asked, ", ")
}

// Basis is what a plan stands on. While it is the same, what is applied is what the plan
// says.
type Basis struct {
	Version     int64  // of the set in use
	Definitions string // hash of what was to be put in use
	Settings    string // hash of the settings that definitions are checked with
}

func basisOf(inUse *Set, want Wanted, opts Options) Basis {
	return Basis{inUse.Version, digest(want.content())[:16], digest(fmt.Sprintf("%+v", opts))[:8]}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Hash is the basis as a word, such as 12-5d2c9e1f00a1b2c3-9f86d081.
func (b Basis) Hash() string {
	return fmt.Sprintf("%d-%s-%s", b.Version, b.Definitions, b.Settings)
}

// ParseHash reads what [Basis.Hash] wrote.
func ParseHash(hash string) (Basis, error) {
	parts := strings.Split(hash, "-")
	if len(parts) == 3 && len(parts[1]) == 16 && len(parts[2]) == 8 {
		if version, err := strconv.ParseInt(parts[0], 10, 64); err == nil && version >= 0 {
			return Basis{version, parts[1], parts[2]}, nil
		}
	}
	return Basis{}, fmt.Errorf("%q is no hash of a plan: give it as the plan said it, such as 12-5d2c9e1f00a1b2c3-9f86d081", hash)
}

// MovedError says that what a plan stands on is not as it was.
type MovedError struct {
	Was, Is Basis
	InUse   *Set     // now
	Since   []Change // from the set that was in use to the one that is
}

// Error names what moved.
func (e *MovedError) Error() string {
	var moved []string
	if e.Was.Version != e.Is.Version {
		text := fmt.Sprintf("version %d is in use, and it was %d", e.Is.Version, e.Was.Version)
		if e.InUse.AppliedBy != "" {
			text += fmt.Sprintf("; %s applied it at %s", e.InUse.AppliedBy, e.InUse.AppliedAt.Format("2006-01-02 15:04:05 MST"))
		}
		if len(e.Since) > 0 {
			text += "; since then " + inWords(e.Since)
		}
		moved = append(moved, text)
	}
	if e.Was.Definitions != e.Is.Definitions {
		moved = append(moved, "the definitions are not those of the plan")
	}
	if e.Was.Settings != e.Is.Settings {
		moved = append(moved, "the settings that definitions are checked with (EVENTS_RETENTION, EVENTS_MODE, RETENTION_EVENTS) are others")
	}
	return "the plan does not hold any more: " + strings.Join(moved, "; ") + ": make a new plan"
}

func inWords(changes []Change) string {
	words := make([]string, len(changes))
	for i, c := range changes {
		words[i] = c.String()
	}
	return strings.Join(words, ", ")
}

// ApplyPlan puts in use what was planned, and makes no change unless everything that the
// plan stands on is as it was: else the error is a [*MovedError]. A bucket that is removed
// although a destination asks for it is an error too, [*BrokenError]. by says who it was.
func ApplyPlan(ctx context.Context, db *storage.DB, want Wanted, opts Options, by string, planned Basis) (*Outcome, error) {
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	return change(ctx, db, by, func(tx *storage.Tx, inUse *Set) ([]entry, []Failing, error) {
		if now := basisOf(inUse, want, opts); now != planned {
			moved := &MovedError{Was: planned, Is: now, InUse: inUse}
			if was, err := Version(ctx, tx, planned.Version); err == nil {
				moved.Since = differences(was, inUse.all())
			}
			return nil, nil, moved
		}
		p, err := NewPlan(inUse, want, opts)
		if err != nil {
			return nil, nil, err
		}
		broken, err := p.Broken(ctx, tx)
		if err == nil && len(broken) > 0 {
			err = &BrokenError{broken}
		}
		return p.Next.all(), p.Next.Failing, err
	})
}

// Reference is something that asks for a bucket.
type Reference struct {
	Bucket string `json:"bucket"`
	Kind   string `json:"kind" enum:"destination" doc:"What asks for it."`
	Name   string `json:"name" doc:"Of what asks for it."`
}

// String is what a person reads.
func (r Reference) String() string {
	return fmt.Sprintf("the filter of %s %s asks for bucket %s", r.Kind, r.Name, r.Bucket)
}

// BrokenError says that buckets would be removed that something asks for.
type BrokenError struct{ References []Reference }

// Error names each, and the fix.
func (e *BrokenError) Error() string {
	texts := make([]string, len(e.References))
	for i, r := range e.References {
		texts[i] = r.String()
	}
	return strings.Join(texts, "; ") + ", which is removed: change that filter first, or keep the bucket"
}

// Selectors is where the filters of destinations are read: a *storage.Tx or a *storage.DB.
type Selectors interface {
	DestinationSelectors(ctx context.Context) ([]storage.DestinationSelector, error)
}

// Broken are the filters of destinations that ask for buckets that the plan removes.
func (p *Plan) Broken(ctx context.Context, from Selectors) ([]Reference, error) {
	var removed []string
	for _, c := range p.Changes {
		if c.What == Removed && c.Kind == BucketKind {
			removed = append(removed, c.ID)
		}
	}
	if len(removed) == 0 {
		return nil, nil
	}
	destinations, err := from.DestinationSelectors(ctx)
	if err != nil {
		return nil, err
	}
	var out []Reference
	for _, d := range destinations {
		for _, bucket := range bucketsAsked(d.Selector) {
			if slices.Contains(removed, bucket) {
				out = append(out, Reference{bucket, "destination", d.Name})
			}
		}
	}
	return out, nil
}

// bucketsAsked are the buckets that a filter asks for. One that this release cannot read
// asks for none that it knows of.
func bucketsAsked(selector string) []string {
	s, err := predicate.ParseSelectorJSON("", []byte(selector))
	if err != nil {
		return nil
	}
	f, err := predicate.CompileFilter(s, predicate.FilterOptions{})
	if err != nil {
		return nil
	}
	return f.Buckets()
}

// ErrNoVersion is what [Version] returns (wrapped) for a version that never was in use.
var ErrNoVersion = errors.New("no such version of the definitions")

// NotAllowedError says that what was in use once would have faults now, as when a window is
// longer than events are kept.
type NotAllowedError struct {
	Version int64
	Faults  predicate.Faults
}

// Error names the faults.
func (e *NotAllowedError) Error() string {
	return fmt.Sprintf("version %d cannot be put in use again: %v", e.Version, e.Faults)
}

// Former is a set that was in use before, to be put in use again.
type Former struct{ *Set }

func (f *Former) next(inUse *Set, opts Options) ([]entry, []Failing, error) {
	list := f.all()
	declared := make([]Definition, len(list))
	for i, e := range list {
		declared[i] = e.declared()
	}
	var wrong predicate.Faults
	for i, faults := range compile(declared, nil, nil, opts) {
		for _, fault := range faults {
			fault.File, fault.Line = "", 0
			fault.Path = fmt.Sprintf("%s %q: %s", declared[i].Ref().Kind, declared[i].Ref().ID, fault.Path)
			wrong = append(wrong, fault)
		}
	}
	if len(wrong) > 0 {
		return nil, nil, &NotAllowedError{f.Version, wrong.Sorted()}
	}
	return list, inUse.Failing, nil
}

func (f *Former) content() string { return "version " + strconv.FormatInt(f.Version, 10) }

// Version is a set that is or was in use; version 0 is the empty one before all. The error
// is [ErrNoVersion] (wrapped) when there is none.
func Version(ctx context.Context, from Reader, version int64) (*Set, error) {
	if version == 0 {
		return &Set{}, nil
	}
	found, err := from.DefinitionSets(ctx, version+1, 1)
	if err != nil {
		return nil, err
	}
	if version < 0 || len(found) == 0 || found[0].Version != version {
		return nil, fmt.Errorf("version %d: %w", version, ErrNoVersion)
	}
	return readSet(&found[0])
}

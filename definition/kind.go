package definition

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"

	"github.com/goccy/go-yaml/ast"

	"github.com/hogstream/hogstream/predicate"
)

// kinds is the table of kinds of definitions. What asks for others comes after them.
var kinds = []*kind{bucketKind, enrichmentKind, journeyKind}

// Definition is a value of one of the kinds, such as a [Bucket]. It is not changed.
type Definition interface {
	// Ref is its kind and id.
	Ref() Ref
	// Canonical is the one JSON text of the definition, without its file. Two that say the
	// same have the same text.
	Canonical() string

	head() head
	withHead(head) Definition
	// defaulted has its defaults filled in.
	defaulted() Definition
	// check is what is wrong with it by itself, but for what its kind compiles.
	check() []problem
	// evaluated is the canonical text of what states of contacts depend on.
	evaluated() string
	// asks are the definitions that it cannot be without.
	asks() []Ref
	// looksAt are the names of events that it looks at.
	looksAt() []string
}

// Ref names a definition.
type Ref struct {
	Kind string // such as [BucketKind]
	ID   string // unique among those of its kind
}

// String is what a person reads: a bucket is its id.
func (r Ref) String() string {
	if r.Kind == BucketKind {
		return r.ID
	}
	return r.Kind + " " + r.ID
}

// compare orders by kind, as in the table, then by id.
func (r Ref) compare(other Ref) int {
	return cmp.Or(cmp.Compare(place(r.Kind), place(other.Kind)), cmp.Compare(r.ID, other.ID))
}

// place is where a kind is in the table.
func place(name string) int {
	return slices.IndexFunc(kinds, func(k *kind) bool { return k.name == name })
}

// head is what definitions of all kinds have.
type head struct {
	ID      string
	Enabled bool
	File    string // below the directory; empty for what was built in Go
}

// InUse is what there is beside a definition in the set in use, where its Enabled is the
// effective one: what the definition says, unless an administrator switched it.
type InUse struct {
	// Revision is the version of the set at which the definition was added, enabled again, or
	// changed in anything but name, description and file; or at which that happened to one
	// that it asks for, directly or through others.
	Revision int64
	// Switched is what an administrator switched it to; nil when that is what the definition
	// says anyway.
	Switched *bool
	// Declared is what the definition says of Enabled.
	Declared bool
	// Paused says that an administrator paused it, see [Pause].
	Paused bool
}

// entry is a definition of the set in use, of any kind.
type entry struct {
	Definition
	InUse
}

// newEntry puts a definition in use.
func newEntry(d Definition, switched *bool) entry {
	d = d.defaulted()
	h := d.head()
	out := entry{Definition: d, InUse: InUse{Declared: h.Enabled}}
	if switched != nil && *switched != h.Enabled {
		out.Switched, h.Enabled = switched, *switched
		out.Definition = d.withHead(h)
	}
	return out
}

// declared is the definition as it says itself.
func (e entry) declared() Definition {
	h := e.head()
	h.Enabled = e.Declared
	return e.withHead(h)
}

// kind is what the room has to know of a kind of definitions: one file, and one line in the
// table.
type kind struct {
	name    string // such as bucket: in faults, in changes and at the API
	dir     string // below the directory of definitions, and its key in the stored set
	built   string // stands for the file of what was built in Go
	refused map[string]string
	schema  SchemaFile

	// read reads a document of a file, which it is false for when that is no map.
	read func(r *reader, document ast.Node) (Definition, bool)
	// decode reads what Canonical wrote.
	decode func(canonical []byte) (Definition, error)
	// compile checks definitions of the kind beside each other and all that are known, which
	// they are among. It returns faults by the index of the definition.
	compile func(list []Definition, known known, opts Options) map[int]predicate.Faults

	files accessor[Files, Definition] // where they stand among what was read
	set   accessor[Set, entry]        // where they stand in a set
}

// accessor is a list of all definitions of one kind in an F.
type accessor[F, D any] struct {
	get func(*F) []D
	put func(*F, []D)
}

// inFiles is the accessor of a field of [Files].
func inFiles[T Definition](at func(*Files) *[]T) accessor[Files, Definition] {
	return accessor[Files, Definition]{
		get: func(f *Files) []Definition { return All(*at(f)) },
		put: func(f *Files, list []Definition) {
			*at(f) = nil
			for _, d := range list {
				*at(f) = append(*at(f), d.(T))
			}
		},
	}
}

// inSet is the accessor of a field of [Set], of which each element has its two parts.
func inSet[T Definition, U any](at func(*Set) *[]U, parts func(U) (T, InUse), whole func(T, InUse) U) accessor[Set, entry] {
	return accessor[Set, entry]{
		get: func(s *Set) []entry {
			var out []entry
			for _, u := range *at(s) {
				d, use := parts(u)
				out = append(out, entry{d, use})
			}
			return out
		},
		put: func(s *Set, list []entry) {
			*at(s) = nil
			for _, e := range list {
				*at(s) = append(*at(s), whole(e.Definition.(T), e.InUse))
			}
		},
	}
}

// reads is how a kind is read whose files are maps that a table describes; what says what
// it is, for people.
func reads[T Definition](what string, fields func() table[T]) func(*reader, ast.Node) (Definition, bool) {
	return func(r *reader, document ast.Node) (Definition, bool) {
		var d T
		ok := object(r, document, "", what, fields(), &d)
		return d, ok
	}
}

// decodes is how a kind is decoded that is written as a W.
func decodes[W any](read func(W) Definition) func([]byte) (Definition, error) {
	return func(canonical []byte) (Definition, error) {
		var w W
		if err := json.Unmarshal(canonical, &w); err != nil {
			return nil, err
		}
		return read(w), nil
	}
}

// All are definitions of one kind as those of any.
func All[T Definition](list []T) []Definition {
	out := make([]Definition, len(list))
	for i, d := range list {
		out[i] = d
	}
	return out
}

// kindOf is the kind of a definition.
func kindOf(d Definition) *kind { return kinds[place(d.Ref().Kind)] }

// kindOfFile is the kind that a file defines, or nil. What was built in Go has a name too.
func kindOfFile(name string) *kind {
	for _, k := range kinds {
		if name == k.built || path.Dir(name) == k.dir {
			return k
		}
	}
	return nil
}

// refs are the definitions of a file, by their ids.
func refs(file string, ids []string) []Ref {
	k := kindOfFile(file)
	if k == nil {
		return nil
	}
	return refsOf(k.name, ids)
}

// known is what is known of the definitions that there are.
type known struct {
	ids     map[string][]string // by kind
	dynamic map[string]bool     // the buckets of which that is known
}

func (k known) add(r Ref) { k.ids[r.Kind] = append(k.ids[r.Kind], r.ID) }

// knownOf is what is known of definitions, and of some others that they are there.
func knownOf(list []Definition, others []Ref) known {
	out := known{map[string][]string{}, map[string]bool{}}
	for _, d := range list {
		out.add(d.Ref())
		if b, is := d.(Bucket); is && b.Kind != KindManual {
			out.dynamic[b.ID] = true
		}
	}
	for _, r := range others {
		out.add(r)
	}
	return out
}

// compile checks definitions beside each other, and beside some that are not checked. It
// returns the faults by the index of the definition. Of those in others it is only known that
// they are there.
func compile(list, beside []Definition, others []Ref, opts Options) map[int]predicate.Faults {
	known := knownOf(slices.Concat(list, beside), others)
	out := map[int]predicate.Faults{}
	for _, k := range kinds {
		var of []Definition
		var at []int
		for i, d := range list {
			if d.Ref().Kind == k.name {
				of, at = append(of, d), append(at, i)
			}
		}
		for i, faults := range k.compile(of, known, opts) {
			for j := range faults {
				faults[j].File = of[i].head().File
			}
			out[at[i]] = faults
		}
	}
	return out
}

// sorted brings definitions into the order of [Ref].
func sorted[D interface{ Ref() Ref }](list []D) []D {
	slices.SortFunc(list, func(a, b D) int { return a.Ref().compare(b.Ref()) })
	return list
}

// Count is how many definitions of a kind there are.
type Count struct {
	Kind string `json:"kind"`
	N    int    `json:"count"`
}

// String is what a person reads: 2 buckets.
func (c Count) String() string {
	if c.N == 1 {
		return "1 " + c.Kind
	}
	return fmt.Sprintf("%d %ss", c.N, c.Kind)
}

// counts says how many there are of each kind: of buckets always, of others when there are
// any.
func counts(n func(*kind) int) []Count {
	out := []Count{}
	for _, k := range kinds {
		if count := n(k); count > 0 || k.name == BucketKind {
			out = append(out, Count{k.name, count})
		}
	}
	return out
}

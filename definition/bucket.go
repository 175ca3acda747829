package definition

import (
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
)

// BucketKind is the kind of buckets, as [Ref] has it.
const BucketKind = "bucket"

// Kinds of a bucket.
const (
	KindDynamic = "dynamic" // the criteria decide who is a member
	KindManual  = "manual"  // somebody says who is a member
)

// Entry limits of a bucket. They gate the telling of a join, not the join.
const (
	EntryUnlimited     = "unlimited"       // each join is told
	EntryOnce          = "once"            // the first join of a contact is told
	EntryOncePerPeriod = "once_per_period" // a join is told when the last leave is an entry period ago
)

// How those join who satisfy a new or changed bucket when it is filled.
const (
	JoinsSilent = "silent" // nobody is told
	JoinsTold   = "told"   // as if they had joined by themselves
)

// Bucket is a group of contacts that is kept up to date: those who satisfy its criteria,
// or those whom somebody put into it. The zero value of a field that has a default means
// the default.
type Bucket struct {
	ID          string // unique and stable: it stands in facts and commands
	Name        string // for people
	Description string // for people
	// Enabled: a bucket that is not keeps its members, is not evaluated and tells nothing.
	Enabled  bool
	Kind     string              // KindDynamic, the default, or KindManual
	Criteria predicate.Condition // of a dynamic bucket only

	EntryLimit  string        // EntryUnlimited (default), EntryOnce or EntryOncePerPeriod
	EntryPeriod time.Duration // of EntryOncePerPeriod, since the last leave
	MinDwell    time.Duration // who stops to satisfy the criteria leaves this long after the join at the earliest
	MaxDwell    time.Duration // everybody leaves this long after the join at the latest; 0 is never
	// ReconcileJoins says whether time alone may make somebody join; nil is true.
	ReconcileJoins *bool
	Dwell          []Dwell // when it is told that somebody is still a member
	Joins          string  // JoinsSilent (default) or JoinsTold
	// On are journeys of who enters the bucket, leaves it, or still is a member after a time
	// of Dwell: [Set.AllJourneys] has them.
	On journeys.Reactions

	// Hints of other systems. They are read and shown; nothing needs them, for every turn
	// by time has its timer.
	TimeBased      *bool
	FastExpiry     bool
	ReconcileEvery time.Duration

	// File is where it was defined, for faults. It is no part of the canonical form.
	File string
}

// Dwell is a time after which it is told that somebody is still a member: once after After,
// or each Every. One of the two is set.
type Dwell struct {
	After time.Duration
	Every time.Duration
}

// Label tells a dwell from others of its bucket: after-604800000, every-86400000, in
// milliseconds.
func (d Dwell) Label() string {
	if d.Every != 0 {
		return fmt.Sprintf("every-%d", d.Every.Milliseconds())
	}
	return fmt.Sprintf("after-%d", d.After.Milliseconds())
}

// BucketRef names a bucket.
func BucketRef(id string) Ref { return Ref{BucketKind, id} }

var bucketKind = &kind{
	name: BucketKind, dir: "buckets", built: "built in Go", refused: refusals,
	schema:  SchemaFile{"bucket.schema.json", Schema, newSchema},
	read:    reads("a bucket", fields),
	decode:  decodes(func(w written) Definition { return w.read() }),
	compile: compileBuckets,
	files:   inFiles(func(f *Files) *[]Bucket { return &f.Buckets }),
	set: inSet(func(s *Set) *[]BucketInUse { return &s.Buckets },
		func(b BucketInUse) (Bucket, InUse) { return b.Bucket, b.InUse },
		func(b Bucket, use InUse) BucketInUse { return BucketInUse{b, use} }),
}

// Ref implements [Definition].
func (b Bucket) Ref() Ref { return BucketRef(b.ID) }

func (b Bucket) head() head { return head{b.ID, b.Enabled, b.File} }

func (b Bucket) withHead(h head) Definition {
	b.ID, b.Enabled, b.File = h.ID, h.Enabled, h.File
	return b
}

func (b Bucket) defaulted() Definition { return b.withDefaults() }

func (b Bucket) asks() []Ref {
	out := refsOf(BucketKind, b.Criteria.Inputs().Buckets)
	for _, j := range b.reactions() {
		out = append(out, j.asks()...)
	}
	return slices.DeleteFunc(out, func(r Ref) bool { return r == b.Ref() })
}

func (b Bucket) looksAt() []string {
	out := eventNames(b.Criteria)
	for _, j := range b.reactions() {
		out = append(out, j.looksAt()...)
	}
	return out
}

// reactions are the journeys that stand with the bucket.
func (b Bucket) reactions() []Journey {
	var out []Journey
	for i := range b.On {
		j := Journey{b.On[i].Journey(b.ID, b.Name, b.Enabled)}
		j.File = b.File
		out = append(out, j)
	}
	return out
}

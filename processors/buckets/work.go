package buckets

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/packed"
)

// Sources of a transition: what made it.
const (
	sourceEvent     = "event"     // a record
	sourceReconcile = "reconcile" // time alone
	sourceBackfill  = "backfill"  // a filling
	sourceManual    = "manual"    // somebody
)

// Reasons of leaving.
const (
	reasonCriteria = "criteria"
	reasonMaxDwell = "maxDwell"
	reasonManual   = "manual"
	reasonMerged   = "merged"
)

// ownFacts are the facts that the processor tells.
var ownFacts = []string{schemas.FactBucketEntered, schemas.FactBucketLeft, schemas.FactBucketDwell}

// maxRounds is how often each bucket may turn at one instant, because facts on buckets are
// looked at by others, before it is taken for a circle.
const maxRounds = 16

// work is a step in hand.
type work struct {
	l       *Logic
	d       *subset
	s       State
	contact string
	fresh   bool // nothing was known of the contact
	changed bool // the state is to be written

	at      int64 // as of when
	source  string
	cause   string       // id of the record in hand; empty for none
	place   derive.Place // of it
	silent  bool
	touched []int // to be evaluated, ascending
	turns   int   // since begin
	out     []schemas.Message

	few    [16]int
	timers [1]derive.Timer
}

// begin goes on as of an instant, which is never before the last.
func (w *work) begin(at int64, source string) {
	w.at, w.source, w.turns = max(at, w.s.clock), source, 0
}

// touch adds to what is to be evaluated.
func (w *work) touch(numbers []int) {
	for _, n := range numbers {
		if at, found := slices.BinarySearch(w.touched, n); !found {
			w.touched = slices.Insert(w.touched, at, n)
		}
	}
}

func (w *work) touchAll() {
	w.touched, w.changed = w.touched[:0], true
	for i := range w.d.set.Len() {
		w.touched = append(w.touched, i)
	}
}

// settle evaluates what was touched, each bucket after those that it asks for, and what is
// touched by that.
func (w *work) settle() error {
	for len(w.touched) > 0 {
		w.changed, w.s.clock = true, w.at
		i := w.touched[0]
		w.touched = slices.Delete(w.touched, 0, 1)
		if w.evaluate(i); w.turns > maxRounds*len(w.d.buckets) {
			return fmt.Errorf("buckets follow from one another in a circle: the last is %q", w.d.buckets[i].ID)
		}
	}
	return nil
}

// evaluate looks at the criteria of a bucket again.
func (w *work) evaluate(i int) {
	if w.l.observe != nil {
		w.l.observe(w.d.buckets[i].ID)
	}
	verdict := w.d.set.Evaluate(i, &w.s.facts, &w.s, packed.Instant(w.at))
	b, next := w.d.buckets[i], packed.Micros(verdict.Next)
	m := w.s.find(b.ID)
	if m == nil {
		if !verdict.Holds && next == 0 {
			return
		}
		m = w.s.member(b.ID)
	}
	m.next, m.deferred = next, 0
	if w.source == sourceEvent {
		m.barred = false
	}
	switch {
	case verdict.Holds && !m.active && w.mayJoin(b, m):
		w.join(b, m, 0)
	case !verdict.Holds && m.active && w.source != sourceBackfill && w.at < m.entered+b.MinDwell.Microseconds():
		m.deferred = m.entered + b.MinDwell.Microseconds()
	case !verdict.Holds && m.active:
		w.leave(b, m, reasonCriteria)
	}
}

// mayJoin says whether who satisfies the criteria may join now.
func (w *work) mayJoin(b *definition.BucketInUse, m *membership) bool {
	byTime := w.source == sourceReconcile && b.ReconcileJoins != nil && !*b.ReconcileJoins
	return !m.barred && !byTime
}

// join begins a membership. The entry limit gates the telling alone.
func (w *work) join(b *definition.BucketInUse, m *membership, until int64) {
	told := w.tells(b, m)
	m.epoch++
	*m = membership{
		bucket: m.bucket, epoch: m.epoch, number: m.epoch, active: true, parked: m.parked,
		entered: w.at, left: m.left, next: m.next, until: until, maxDwell: after(w.at, b.MaxDwell),
	}
	m.tick = m.nextTick(b)
	w.turn(m, Transition{Entered: true, Told: told, Until: packed.Instant(until), MaxDwellAt: packed.Instant(m.maxDwell)})
	if told {
		w.tell(b, w.fact(schemas.FactBucketEntered, b, m))
	}
}

// tells says whether a join is told.
func (w *work) tells(b *definition.BucketInUse, m *membership) bool {
	if w.silent || w.source == sourceBackfill && b.Joins != definition.JoinsTold || !b.Enabled {
		return false
	}
	told, _ := limitTells(b, m, w.at)
	return told
}

// leave ends a membership; nil is a bucket that is not in use, of which nothing is told.
func (w *work) leave(b *definition.BucketInUse, m *membership, reason string) {
	m.active, m.barred, m.left = false, reason == reasonMaxDwell, w.at
	m.deferred, m.until, m.maxDwell, m.tick, m.fired = 0, 0, 0, 0, nil
	told := b != nil && !w.silent
	w.turn(m, Transition{Reason: reason, Told: told})
	if told {
		f := w.fact(schemas.FactBucketLeft, b, m)
		f.Bucket.Reason = &reason
		w.tell(b, f)
	}
}

// keep goes on with a membership whose ends are others now.
func (w *work) keep(m *membership, until, maxDwell int64) {
	if m.until == until && m.maxDwell == maxDwell {
		return
	}
	m.until, m.maxDwell = until, maxDwell
	w.turn(m, Transition{Kept: true, Until: packed.Instant(until), MaxDwellAt: packed.Instant(maxDwell)})
}

// turn notes a transition, and who is to be evaluated because of it.
func (w *work) turn(m *membership, t Transition) {
	t.ContactID, t.BucketID, t.Epoch, t.At, t.Source = w.contact, m.bucket, m.number, packed.Instant(w.at), w.source
	w.s.changes = append(w.s.changes, t)
	w.s.clock, w.changed = w.at, true
	w.turns++
	if !t.Kept {
		w.s.changes[len(w.s.changes)-1].Why = w.keepWhy(m.bucket, t.Told)
		var few [8]int
		w.touch(w.d.set.OnBucket(m.bucket, few[:0]))
	}
}

// fact is one on a membership. Its id is derived from what it says, so that it is the same
// however often it is told.
func (w *work) fact(typ string, b *definition.BucketInUse, m *membership) *schemas.Fact {
	return &schemas.Fact{
		ID:   schemas.Derive(w.contact, typ+":"+url.QueryEscape(m.bucket), int(m.number)),
		Type: typ, ContactID: w.contact, OccurredAt: packed.Instant(w.at),
		UserID: pointer(w.s.person.userID), Email: pointer(w.s.person.email), AnonymousID: pointer(w.s.person.anonymousID),
		Bucket: &schemas.BucketTransition{
			BucketID: m.bucket, BucketName: b.Name, Transition: typ[len("bucket."):], EntryCount: m.number, Source: w.source,
		},
	}
}

// tell publishes a fact, which conditions may look at.
func (w *work) tell(b *definition.BucketInUse, f *schemas.Fact) {
	w.out = append(w.out, f)
	if !w.d.set.LooksAt(f.Type) {
		return
	}
	said, err := predicate.FromFact(f)
	if err != nil {
		panic(fmt.Sprintf("buckets: the id of a fact on %s: %v", b.ID, err)) // it was derived
	}
	var few [8]int
	w.touch(w.d.set.Apply(&w.s.facts, &said, few[:0]))
}

// dwelt is the fact that a dwell is told with.
func (w *work) dwelt(b *definition.BucketInUse, m *membership, label string, ordinal, at int64) *schemas.Fact {
	f := w.fact(schemas.FactBucketDwell, b, m)
	f.ID = schemas.Derive(w.contact, f.Type+":"+url.QueryEscape(m.bucket)+":"+label+":"+strconv.FormatInt(m.number, 10), int(ordinal))
	f.OccurredAt = packed.Instant(at)
	f.Bucket.Label, f.Bucket.DwellCount = &label, &ordinal
	return f
}

func pointer(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// after is an instant some time later, 0 when that is never.
func after(at int64, d time.Duration) int64 {
	if d == 0 {
		return 0
	}
	return at + d.Microseconds()
}

package buckets

import (
	"cmp"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas/packed"
)

// Explanation says why a contact is a member of a bucket at an instant, or why it is not.
type Explanation struct {
	Member bool
	// At is as of when: the instant that was asked for, or when the contact was looked at
	// last, if that is later.
	At time.Time
	// Criteria are what the criteria say and why; nil of a manual bucket, and of one that
	// cannot be asked, for which there is a reason.
	Criteria *predicate.Explanation
	// Reasons are what decides, the one that does first; there is at least one. Those after it
	// tell what else is known.
	Reasons []Reason
	// Next is when time alone may change the membership, if no record comes before; zero is
	// never.
	Next time.Time
	// Membership is the present one, or the last; zero when there was none.
	Membership Membership
}

// Reason is one of the reasons of an [Explanation].
type Reason struct {
	Code  string    // one of the Because… constants
	Until time.Time // when it ends by itself; zero is never, or not known
	Error string    // of BecauseFailing
}

// Why a contact is a member, or is not.
const (
	BecauseCriteria       = "criteria"       // the criteria say so
	BecauseManual         = "manual"         // somebody put it in, and nobody took it out
	BecauseNotPutIn       = "notPutIn"       // nobody put it in
	BecauseTakenOut       = "takenOut"       // somebody took it out, or its time was over
	BecauseMinDwell       = "minDwell"       // it does not satisfy the criteria and may not leave yet
	BecauseMaxDwell       = "maxDwell"       // it satisfies them, was taken out by maxDwell, and a record has to come
	BecauseReconcileJoins = "reconcileJoins" // it satisfies them, and time alone makes nobody join
	BecauseDue            = "due"            // time has turned the criteria, and that is about to be handled
	BecauseDisabled       = "disabled"       // the bucket is not evaluated
	BecauseFailing        = "failing"        // nor can it be
	BecauseFilling        = "filling"        // the contact was not looked at yet with the definition in use
	BecauseUnseen         = "unseen"         // nothing of the contact has come to the processor
	BecauseUndefined      = "undefined"      // the bucket is defined no more, or never was
	// What does not decide, and is told.
	BecauseStays      = "stays"      // a member until then at the latest: maxDwell, or put in for a time
	BecauseEntryLimit = "entryLimit" // its next join will not be told
)

// Explain says why a contact is a member of a bucket at an instant, or why it is not. It
// changes nothing.
func (l *Logic) Explain(s State, bucketID string, now time.Time) Explanation {
	at := max(packed.Micros(now), s.clock)
	x := situation{bucket: l.known[bucketID], failing: l.failing[bucketID], known: s.known, now: at}
	if m := s.find(bucketID); m != nil {
		x.membership = *m
	}
	out := Explanation{Member: x.membership.active, At: packed.Instant(at)}
	if d, number := l.evaluated(&s, bucketID); number >= 0 {
		e := d.set.Explain(number, &s.facts, &s, out.At)
		x.criteria, out.Criteria = &e, &e
	}
	out.Reasons, out.Next = x.reasons(), x.next()
	for _, m := range s.Memberships() {
		if m.BucketID == bucketID {
			out.Membership = m
		}
	}
	return out
}

// Replay says of each leaf of the criteria when its answer turned last, as far as a history
// tells, with the events by the names that Looks gives.
func (l *Logic) Replay(s State, bucketID string, e *Explanation, history predicate.History) {
	if d, number := l.evaluated(&s, bucketID); number >= 0 && e.Criteria != nil {
		d.set.Replay(number, e.Criteria, history, e.At)
	}
}

// Looks are what the criteria of a bucket look at; nothing where they cannot be asked.
func (l *Logic) Looks(s State, bucketID string) predicate.Inputs {
	if d, number := l.evaluated(&s, bucketID); number >= 0 {
		return d.set.Inputs(number)
	}
	return predicate.Inputs{}
}

// evaluated is where the criteria of a bucket are asked of a state; the number is negative
// where they are not.
func (l *Logic) evaluated(s *State, bucketID string) (*subset, int) {
	if !s.known {
		return nil, -1
	}
	d := l.since(s.version)
	return d, d.set.Index(bucketID)
}

// situation is what the reasons follow from.
type situation struct {
	bucket     *definition.BucketInUse // nil of one that is not defined
	failing    error
	known      bool // something is known of the contact
	membership membership
	criteria   *predicate.Explanation
	now        int64
}

// reasons decide, and tell what else is known.
func (x *situation) reasons() []Reason {
	out := []Reason{x.decides()}
	b, m := x.bucket, &x.membership
	if b == nil || !b.Enabled {
		return out
	}
	if ends := min(packed.OrNever(m.until), packed.OrNever(m.maxDwell)); m.active && ends != packed.Never {
		out = append(out, Reason{Code: BecauseStays, Until: packed.Instant(ends)})
	}
	if told, until := limitTells(b, m, x.now); !m.active && !told {
		out = append(out, Reason{Code: BecauseEntryLimit, Until: packed.Instant(until)})
	}
	return out
}

func (x *situation) decides() Reason {
	b, m := x.bucket, &x.membership
	switch {
	case b == nil:
		return Reason{Code: BecauseUndefined}
	case !b.Enabled:
		return Reason{Code: BecauseDisabled}
	case x.failing != nil:
		return Reason{Code: BecauseFailing, Error: x.failing.Error()}
	case !x.known:
		return Reason{Code: BecauseUnseen}
	case b.Kind == definition.KindManual:
		return m.byHand()
	case x.criteria == nil:
		return Reason{Code: BecauseFilling}
	}
	return x.byCriteria()
}

// byHand is why somebody is in a manual bucket, or is not.
func (m *membership) byHand() Reason {
	switch {
	case m.active:
		return Reason{Code: BecauseManual, Until: packed.Instant(m.until)}
	case m.number == 0:
		return Reason{Code: BecauseNotPutIn}
	}
	return Reason{Code: BecauseTakenOut}
}

// byCriteria is why a bucket that is evaluated does what its criteria say, or does not.
func (x *situation) byCriteria() Reason {
	b, m, c := x.bucket, &x.membership, x.criteria
	switch {
	case c.Holds == m.active:
		return Reason{Code: BecauseCriteria, Until: c.Next}
	case m.active && x.now < m.deferred:
		return Reason{Code: BecauseMinDwell, Until: packed.Instant(m.deferred)}
	case m.active:
		return Reason{Code: BecauseDue}
	case m.barred:
		return Reason{Code: BecauseMaxDwell}
	case b.ReconcileJoins != nil && !*b.ReconcileJoins:
		return Reason{Code: BecauseReconcileJoins}
	}
	return Reason{Code: BecauseDue}
}

// next is when time alone may change the membership. Who may not join by time does not.
func (x *situation) next() time.Time {
	b, m := x.bucket, &x.membership
	if b == nil || !b.Enabled || m.parked || x.failing != nil {
		return time.Time{}
	}
	at := min(packed.OrNever(m.until), packed.OrNever(m.maxDwell), packed.OrNever(m.deferred))
	switch c := x.criteria; {
	case c == nil || m.deferred != 0 || c.Next.IsZero():
	case m.active:
		at = min(at, max(packed.Micros(c.Next), m.entered+b.MinDwell.Microseconds()))
	case !m.barred && (b.ReconcileJoins == nil || *b.ReconcileJoins):
		at = min(at, packed.Micros(c.Next))
	}
	if at == packed.Never {
		return time.Time{}
	}
	return packed.Instant(at)
}

// limitTells says whether the entry limit of a bucket lets the next join be told at an
// instant, and if not, until when; 0 is for ever.
func limitTells(b *definition.BucketInUse, m *membership, at int64) (told bool, until int64) {
	if m.epoch == 0 {
		return true, 0
	}
	switch cmp.Or(b.EntryLimit, definition.EntryUnlimited) {
	case definition.EntryOnce:
		return false, 0
	case definition.EntryOncePerPeriod:
		until = m.left + b.EntryPeriod.Microseconds()
		return b.EntryPeriod == 0 || m.left == 0 || at >= until, until
	}
	return true, 0
}

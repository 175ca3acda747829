package buckets

import "github.com/hogstream/hogstream/definition"

// takeIn folds in the state that a contact had when it was merged into this one. Where one
// of the two is filled for fewer definitions, so is what comes of it.
func (w *work) takeIn(loser State) {
	if !loser.known {
		return
	}
	if w.fresh || loser.version < w.s.version {
		w.s.version = min(w.s.version, loser.version)
		w.d = w.l.since(w.s.version)
	}
	w.d.set.Fit(&w.s.facts)
	w.d.set.Fit(&loser.facts)
	w.d.set.Merge(&w.s.facts, &loser.facts)
	for i := range loser.members {
		if other := &loser.members[i]; other.epoch > 0 {
			w.inherit(other)
		}
	}
}

// inherit takes over what the other was in a bucket. Criteria decide who is a member of
// most; of others who was one stays one.
func (w *work) inherit(other *membership) {
	m := w.s.member(other.bucket)
	m.epoch += other.epoch
	m.left = max(m.left, other.left)
	decided := w.d.set.Index(m.bucket) >= 0
	switch {
	case !other.adoptee || decided:
	case m.active && (m.until == 0 || other.until == 0):
		w.keep(m, 0, m.maxDwell)
	case m.active:
		w.keep(m, max(m.until, other.until), m.maxDwell)
	default:
		w.adopt(m, other.until)
	}
}

// adopt makes the contact a member where the one that was merged into it was.
func (w *work) adopt(m *membership, until int64) {
	b := w.l.known[m.bucket]
	switch {
	case b == nil: // gone
		b = &definition.BucketInUse{}
		m.parked = true
	case w.l.inUse(m.bucket) == nil:
		m.parked = true
	case b.Kind == definition.KindManual:
		w.source = sourceManual
	}
	w.join(b, m, until)
	w.source = sourceEvent
}

package buckets

import (
	"slices"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/schemas/packed"
)

// maxDue is how many instants are handled in one step. What is due beyond has the timer
// armed anew, which is told at once.
const maxDue = 1000

// catchUp handles what is due until an instant, that one included, oldest first and each
// as of when it is due.
func (w *work) catchUp(until int64) error {
	for range maxDue {
		due := w.s.needed()
		if due > until {
			return nil
		}
		w.begin(due, sourceReconcile)
		w.s.clock, w.changed = w.at, true
		if err := w.handleDue(until); err != nil {
			return err
		}
	}
	return nil
}

// handleDue does what is due at one instant, in this order: criteria, ends by time, dwells.
func (w *work) handleDue(until int64) error {
	for i := range w.s.members {
		m := &w.s.members[i]
		if m.parked || min(m.due(), packed.OrNever(m.tick)) > w.at {
			continue
		}
		number := w.d.set.Index(m.bucket)
		switch {
		case number < 0 && w.l.manual(m.bucket) == nil:
			m.parked = true // not in use
		case number < 0:
			m.next, m.deferred = 0, 0
		case min(packed.OrNever(m.next), packed.OrNever(m.deferred)) <= w.at:
			w.touch([]int{number})
		}
	}
	if err := w.settle(); err != nil {
		return err
	}
	for i := range w.s.members {
		switch m := &w.s.members[i]; {
		case m.parked || !m.active:
		case packed.OrNever(m.until) <= w.at:
			w.leave(w.l.inUse(m.bucket), m, reasonManual)
		case packed.OrNever(m.maxDwell) <= w.at:
			w.leave(w.l.inUse(m.bucket), m, reasonMaxDwell)
		}
	}
	if err := w.settle(); err != nil {
		return err
	}
	w.dwell(until)
	return w.settle()
}

// dwell tells of those who are still members. Of several times that have passed, because
// it is late and nothing else was due between them, only the last is told.
func (w *work) dwell(until int64) {
	for i := range w.s.members {
		until = min(until, w.s.members[i].due()-1)
	}
	until = max(until, w.at)
	for i := range w.s.members {
		m := &w.s.members[i]
		if m.parked || !m.active || packed.OrNever(m.tick) > w.at {
			continue
		}
		b := w.l.inUse(m.bucket)
		for _, d := range b.Dwell {
			label := d.Label()
			last := m.ordinal(label)
			ordinal := m.passed(d, until)
			if ordinal > last && m.instantOf(d, last+1) <= w.at {
				m.fire(label, ordinal)
				w.s.dwelt = append(w.s.dwelt, m.bucket)
				w.tell(b, w.dwelt(b, m, label, ordinal, m.instantOf(d, ordinal)))
			}
		}
		m.tick = m.nextTick(b)
	}
}

// passed is how often a dwell has passed until an instant.
func (m *membership) passed(d definition.Dwell, until int64) int64 {
	if d.Every != 0 {
		return (until - m.entered) / d.Every.Microseconds()
	}
	if until-m.entered >= d.After.Microseconds() {
		return 1
	}
	return 0
}

// instantOf is when a dwell passes for the ordinal-th time; never when it does not.
func (m *membership) instantOf(d definition.Dwell, ordinal int64) int64 {
	switch {
	case d.Every != 0:
		return m.entered + ordinal*d.Every.Microseconds()
	case ordinal > 1:
		return packed.Never
	}
	return m.entered + d.After.Microseconds()
}

// ordinal is how often a dwell was told, counting those times that were passed over.
func (m *membership) ordinal(label string) int64 {
	for _, f := range m.fired {
		if f.label == label {
			return f.ordinal
		}
	}
	return 0
}

func (m *membership) fire(label string, ordinal int64) {
	if i := slices.IndexFunc(m.fired, func(f fired) bool { return f.label == label }); i >= 0 {
		m.fired[i].ordinal = ordinal
		return
	}
	m.fired = append(m.fired, fired{label, ordinal})
}

// nextTick is when the next dwell is to be told, 0 for never.
func (m *membership) nextTick(b *definition.BucketInUse) int64 {
	next := int64(packed.Never)
	for _, d := range b.Dwell {
		next = min(next, m.instantOf(d, m.ordinal(d.Label())+1))
	}
	if next == packed.Never {
		return 0
	}
	return next
}

// renew brings what was armed for buckets that changed up to date with their definitions.
func (w *work) renew(since int64) {
	for i := range w.s.members {
		m := &w.s.members[i]
		b := w.l.inUse(m.bucket)
		number := w.d.set.Index(m.bucket)
		switch {
		case b == nil || number < 0 && w.l.manual(m.bucket) == nil:
			m.parked = true
		case b.Revision > since:
			m.parked = false
			if number < 0 {
				m.next, m.deferred = 0, 0
			}
			if m.active {
				m.tick = m.nextTick(b)
				w.keep(m, m.until, after(m.entered, b.MaxDwell))
			}
		}
	}
}

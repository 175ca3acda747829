package predicate

import (
	"cmp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// State is what a [Set] knows of one contact: the properties and facts that some
// condition looks at, and of each event in use the newest times. Its zero value is a
// contact of whom nothing is known. It is changed by [Set.Apply] and [Set.Merge] alone,
// and not safe for concurrent use. Written as bytes it outlives its set: another one
// finds in it what both look at.
type State struct {
	firstSeen, lastSeen int64 // microseconds; 0 is not known
	hasUserID, hasEmail bool
	properties          []property // by id
	legs                []leg      // by id
}

// property is a property that some condition looks at.
type property struct {
	id  uint64 // of its path
	raw string // JSON
}

// A leg is what is kept of an event of one name and filter.
type leg struct {
	id      uint64
	mode    legMode
	entries []entry // newest first
	total   int64   // of modeAmounts: of all events, also those that are not kept
	raw     string  // of modeValue: JSON, or "" when the event has no such property
}

// entry is one event. Events are ordered by time, then id.
type entry struct {
	at     int64 // when it happened, in microseconds
	id     uuid.UUID
	amount int64 // of modeAmounts; of modeFollowed when the other event came, or never
}

// legMode is a number of the encoded state: new ones come last.
type legMode uint8

const (
	modeTimes    legMode = iota // the newest times
	modeAmounts                 // the newest times with their amounts, and the total of all
	modeValue                   // the newest time with a value
	modeOldest                  // the oldest time
	modeFollowed                // the newest times, with when another event first came later
	modes
)

// order is negative for the newer of two events.
func (e *entry) order(other *entry) int {
	if c := cmp.Compare(other.at, e.at); c != 0 {
		return c
	}
	return strings.Compare(string(other.id[:]), string(e.id[:]))
}

// add puts an event among those that are kept, at most size. It says whether anything
// changed: a repeat changes nothing, nor does what is older than all that are kept.
func (l *leg) add(e entry, raw string, size int) bool {
	at, repeat := slices.BinarySearchFunc(l.entries, e, func(kept, e entry) int { return kept.order(&e) })
	if repeat {
		return false
	}
	switch l.mode {
	case modeOldest:
		if at < len(l.entries) {
			return false
		}
		l.entries = append(l.entries[:0], e)
		return true
	case modeValue:
		if at > 0 {
			return false
		}
		l.entries, l.raw = append(l.entries[:0], e), raw
		return true
	}
	if l.mode == modeAmounts {
		l.total = addAmounts(l.total, e.amount)
	}
	if at >= size {
		return l.mode == modeAmounts && e.amount != 0
	}
	l.entries = slices.Insert(l.entries, at, e)
	l.trim(size)
	return true
}

// follow notes that the other event of a sequence came, and says whether it is the first
// after any that is kept.
func (l *leg) follow(at int64) bool {
	changed := false
	for i := range l.entries {
		if e := &l.entries[i]; e.at < at && at < e.amount {
			e.amount, changed = at, true
		}
	}
	return changed
}

// firstAfter is when the first event after an instant came, or never.
func firstAfter(entries []entry, at int64) int64 {
	n, _ := slices.BinarySearchFunc(entries, at, func(e entry, at int64) int {
		if e.at > at {
			return -1
		}
		return 1
	})
	if n == 0 {
		return never
	}
	return entries[n-1].at
}

// trim keeps the newest.
func (l *leg) trim(size int) { l.entries = l.entries[:min(size, len(l.entries))] }

// find returns a leg, or nil.
func (s *State) find(id uint64) *leg {
	if at, found := s.searchLeg(id); found {
		return &s.legs[at]
	}
	return nil
}

func (s *State) searchLeg(id uint64) (int, bool) {
	return slices.BinarySearchFunc(s.legs, id, func(l leg, id uint64) int { return cmp.Compare(l.id, id) })
}

// entries are the events of a leg, newest first.
func (s *State) entries(id uint64) []entry {
	if l := s.find(id); l != nil {
		return l.entries
	}
	return nil
}

// leg returns a leg, made when it is not there.
func (s *State) leg(id uint64, mode legMode) *leg {
	at, found := s.searchLeg(id)
	if !found {
		s.legs = slices.Insert(s.legs, at, leg{id: id, mode: mode})
	}
	return &s.legs[at]
}

// raw is the JSON of a property, "" for none.
func (s *State) raw(id uint64) string {
	at, found := slices.BinarySearchFunc(s.properties, id, func(p property, id uint64) int { return cmp.Compare(p.id, id) })
	if !found {
		return ""
	}
	return s.properties[at].raw
}

// merge takes in the legs of another, with the sizes of the set that both belong to.
func (l *leg) merge(other *leg, size int) {
	switch l.mode {
	case modeValue, modeOldest: // one event
		for _, e := range other.entries {
			l.add(e, other.raw, size)
		}
		return
	case modeAmounts:
		l.total = addAmounts(addAmounts(l.total, other.total), -common(l.entries, other.entries))
	}
	l.entries = union(l.entries, other.entries)
	l.trim(size)
}

// union joins two lists, newest first, in a new one; an event that is in both counts once.
func union(a, b []entry) []entry {
	out := make([]entry, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].order(&b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			both := a[0]
			both.amount = min(a[0].amount, b[0].amount) // only of modeFollowed they differ
			out, a, b = append(out, both), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// common is the amounts of the events that are in both.
func common(a, b []entry) int64 {
	total := int64(0)
	for i := range a {
		if _, both := slices.BinarySearchFunc(b, a[i], func(kept, e entry) int { return kept.order(&e) }); both {
			total = addAmounts(total, a[i].amount)
		}
	}
	return total
}

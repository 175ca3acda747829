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
	amount int64 // of modeAmounts
}

type legMode uint8

const (
	modeTimes   legMode = iota // the newest times
	modeAmounts                // the newest times with their amounts, and the total of all
	modeValue                  // the newest time with a value
	modeOldest                 // the oldest time
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
	l.total = addAmounts(l.total, e.amount)
	if at < size {
		l.entries = slices.Insert(l.entries, at, e)
		l.trim(size)
	}
	return at < size || e.amount != 0
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

// leg returns a leg, made when it is not there.
func (s *State) leg(id uint64, mode legMode) *leg {
	at, found := s.searchLeg(id)
	if !found {
		s.legs = slices.Insert(s.legs, at, leg{id: id, mode: mode})
	}
	return &s.legs[at]
}

// value is what a property holds.
func (s *State) value(id uint64) value {
	at, found := slices.BinarySearchFunc(s.properties, id, func(p property, id uint64) int { return cmp.Compare(p.id, id) })
	if !found {
		return value{}
	}
	return readValue(s.properties[at].raw)
}

// merge takes in the legs of another, with the sizes of the set that both belong to.
func (l *leg) merge(other *leg, size int) {
	switch l.mode {
	case modeTimes, modeAmounts:
		entries, twice := union(l.entries, other.entries)
		l.entries, l.total = entries, addAmounts(addAmounts(l.total, other.total), -twice)
		l.trim(size)
	default: // one event
		for _, e := range other.entries {
			l.add(e, other.raw, size)
		}
	}
}

// union joins two lists, newest first, in a new one. An event that is in both counts
// once; twice is the amounts of these.
func union(a, b []entry) (out []entry, twice int64) {
	out = make([]entry, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].order(&b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			twice = addAmounts(twice, a[0].amount)
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...), twice
}

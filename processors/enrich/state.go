package enrich

import (
	"cmp"
	"hash/fnv"
	"maps"
	"slices"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas/packed"
)

// State is what the processor keeps of a contact. Its zero value is a contact of which
// nothing is known.
type State struct {
	known   bool
	version int64 // of the definitions that it is filled for
	clock   int64 // as of when it was evaluated last; it never goes back
	due     int64 // of the timer that is armed
	person  person
	values  []value // of the properties that some enrichment sends or refreshes, by name
	facts   predicate.State
	entries []entry     // by enrichment
	asks    derive.Asks // each the last of some entry

	notes []note // since it was loaded
}

// person is who it is, for requests.
type person struct{ userID, email, anonymousID string }

// maxValue is the longest value of a property that is kept, and so sent.
const maxValue = 4 << 10

// value is a property of the contact.
type value struct {
	name  string
	raw   string // JSON; empty when it is longer than maxValue
	hash  uint64 // of the JSON; 0 when there is no such property
	since int64  // it is as it is
}

// entry is what is known of the contact and one enrichment.
type entry struct {
	enrichment string
	epoch      int64 // how often it was asked

	holds   bool  // the condition, when it was looked at last
	next    int64 // when time may turn the condition
	due     int64 // when something is to be done
	why     why   // because of this
	ask     string
	drop    bool   // the answer to ask is not to be used
	sent    uint64 // hash of what was sent
	asked   int64
	settled int64 // when it was answered, or the last attempt failed

	failures int // in a row
	outcome  string
	detail   string // of a failure
}

// why is why something is asked, or what is due.
type why uint8

const (
	whyNone      why = iota
	whyCondition     // it turned true
	whyEntered       // the bucket was entered
	whyAge           // the property is old
	whyRetry         // it failed before
	whyBackfill      // it was true when the enrichment was new
	whyAgain         // something changed while it was under way
	whyLost          // no receipt came
	whys
)

// String is the word in figures.
func (w why) String() string {
	return [...]string{"none", "condition", "entered", "age", "retry", "backfill", "again", "lost"}[w]
}

// Outcomes of a call.
const (
	outcomePatched       = "patched"
	outcomeEmpty         = "empty"  // the answer, or what the mapping made of it
	outcomeUnused        = "unused" // something changed meanwhile, or the enrichment is not in use
	outcomeCancelled     = "cancelled"
	outcomeRefused       = "refused"
	outcomeGivenUp       = "given_up"
	outcomeExpired       = "expired"
	outcomeLost          = "lost" // no receipt came
	outcomeMapping       = "mapping"
	outcomeNoDestination = "no_destination"
)

// note is something for the figures: that it was asked, or what came of it.
type note struct {
	enrichment string
	why        why
	outcome    string
}

// clone is a copy that shares nothing that is changed.
func (s *State) clone() State {
	out := *s
	out.values, out.entries, out.notes = slices.Clone(s.values), slices.Clone(s.entries), slices.Clip(s.notes)
	out.asks = maps.Clone(s.asks)
	data, err := s.facts.MarshalBinary()
	if err == nil {
		err = out.facts.UnmarshalBinary(data)
	}
	if err != nil {
		panic(err) // what was written is read
	}
	return out
}

// kept is a state of which what was asked is known alone, to be evaluated anew.
func (s *State) kept() State {
	return State{clock: s.clock, entries: slices.Clone(s.entries), asks: maps.Clone(s.asks)}
}

// open says that no receipt of the last call has come.
func (s *State) open(en *entry) bool {
	state, asked := s.asks[en.ask]
	return asked && state == derive.AskOpen
}

func (s *State) search(enrichment string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, enrichment, func(en entry, id string) int { return cmp.Compare(en.enrichment, id) })
}

// find is what is known of an enrichment, or nil. The pointer holds until another is added.
func (s *State) find(enrichment string) *entry {
	if at, found := s.search(enrichment); found {
		return &s.entries[at]
	}
	return nil
}

// entry is as find, made when it is not there.
func (s *State) entry(enrichment string) *entry {
	at, found := s.search(enrichment)
	if !found {
		s.entries = slices.Insert(s.entries, at, entry{enrichment: enrichment})
	}
	return &s.entries[at]
}

// askedBy is the entry whose last call this was, or nil.
func (s *State) askedBy(outboxID string) *entry {
	i := slices.IndexFunc(s.entries, func(en entry) bool { return en.ask == outboxID })
	if i < 0 {
		return nil
	}
	return &s.entries[i]
}

// value is what is known of a property.
func (s *State) value(name string) value {
	if at, found := s.searchValue(name); found {
		return s.values[at]
	}
	return value{name: name}
}

func (s *State) searchValue(name string) (int, bool) {
	return slices.BinarySearchFunc(s.values, name, func(v value, name string) int { return cmp.Compare(v.name, name) })
}

// put keeps a property as it is as of an instant, and says whether it was another before.
func (s *State) put(name, raw string, at int64) bool {
	v := value{name: name, since: at}
	if raw != "" {
		v.hash = max(hashOf(raw), 1)
	}
	if raw != "" && len(raw) <= maxValue {
		v.raw = raw
	}
	i, found := s.searchValue(name)
	switch {
	case !found && v.hash == 0, found && s.values[i].hash == v.hash:
		return false
	case !found:
		s.values = slices.Insert(s.values, i, v)
	default:
		s.values[i] = v
	}
	return true
}

func hashOf(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return h.Sum64()
}

// needed is the earliest instant at which something is due; never for none.
func (s *State) needed() int64 {
	earliest := int64(packed.Never)
	for i := range s.entries {
		earliest = min(earliest, packed.OrNever(s.entries[i].next), packed.OrNever(s.entries[i].due))
	}
	return earliest
}

// blank says that nothing is known of the contact and the enrichment.
func (en *entry) blank() bool { return *en == entry{enrichment: en.enrichment} }

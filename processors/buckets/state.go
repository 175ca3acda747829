package buckets

import (
	"cmp"
	"slices"

	"github.com/hogstream/hogstream/predicate"
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
	facts   predicate.State
	members []membership // by bucket

	changes []Transition // since it was loaded
	dwelt   []string     // buckets of which a dwell was told since then
}

// person is who it is, for facts.
type person struct{ userID, email, anonymousID string }

// membership is what is known of the contact in one bucket.
type membership struct {
	bucket string
	epoch  int64 // how often the contact, and who was merged into it, joined
	number int64 // epoch of the active membership, else of the last

	active   bool
	barred   bool // was removed by maxDwell: time alone makes nobody join again
	parked   bool // the bucket is not in use: nothing is due
	adoptee  bool // was active when the contact was merged away
	entered  int64
	left     int64 // the last time
	next     int64 // when time may turn the criteria
	deferred int64 // when who is held by minDwell leaves
	until    int64 // when a manual membership expires
	maxDwell int64 // when the longest stay ends
	tick     int64 // when the next dwell is told
	fired    []fired
}

// fired is how often a dwell was told in the active membership.
type fired struct {
	label   string
	ordinal int64
}

// clone is a copy that shares nothing that is changed.
func (s *State) clone() State {
	out := *s
	out.members, out.changes, out.dwelt = slices.Clone(s.members), slices.Clip(s.changes), slices.Clip(s.dwelt)
	for i := range out.members {
		out.members[i].fired = slices.Clone(out.members[i].fired)
	}
	data, err := s.facts.MarshalBinary()
	if err == nil {
		err = out.facts.UnmarshalBinary(data)
	}
	if err != nil {
		panic(err) // what was written is read
	}
	return out
}

// memberships is a state of which these are known alone, to be evaluated anew.
func (s *State) memberships() State {
	out := State{clock: s.clock, members: slices.Clone(s.members)}
	for i := range out.members {
		m := &out.members[i]
		m.next, m.deferred, m.tick, m.parked = 0, 0, 0, false
		m.fired = slices.Clone(m.fired)
	}
	return out
}

// Transitions are those since the state was loaded, as they happened.
func (s *State) Transitions() []Transition { return s.changes }

// Memberships are the contact's, also those that ended, by bucket.
func (s *State) Memberships() []Membership {
	out := make([]Membership, 0, len(s.members))
	for i := range s.members {
		m := &s.members[i]
		if m.number == 0 {
			continue
		}
		out = append(out, Membership{
			BucketID: m.bucket, Epoch: m.number, Active: m.active, EnteredAt: packed.Instant(m.entered), LeftAt: packed.Instant(m.left),
			Until: packed.Instant(m.until), MaxDwellAt: packed.Instant(m.maxDwell),
		})
	}
	return out
}

// Has implements predicate.Members.
func (s *State) Has(bucketID string) bool {
	m := s.find(bucketID)
	return m != nil && m.active
}

func (s *State) search(bucketID string) (int, bool) {
	return slices.BinarySearchFunc(s.members, bucketID, func(m membership, id string) int { return cmp.Compare(m.bucket, id) })
}

// find is what is known of the contact in a bucket, or nil. The pointer holds until
// another bucket is added.
func (s *State) find(bucketID string) *membership {
	if at, found := s.search(bucketID); found {
		return &s.members[at]
	}
	return nil
}

// member is as find, made when it is not there.
func (s *State) member(bucketID string) *membership {
	at, found := s.search(bucketID)
	if !found {
		s.members = slices.Insert(s.members, at, membership{bucket: bucketID})
	}
	return &s.members[at]
}

// needed is the earliest instant at which something is due; never for none.
func (s *State) needed() int64 {
	earliest := int64(packed.Never)
	for i := range s.members {
		earliest = min(earliest, s.members[i].due(), packed.OrNever(s.members[i].ticks()))
	}
	return earliest
}

// due is when something is due but a dwell.
func (m *membership) due() int64 {
	if m.parked {
		return packed.Never
	}
	return min(packed.OrNever(m.next), packed.OrNever(m.deferred), packed.OrNever(m.until), packed.OrNever(m.maxDwell))
}

// ticks is when a dwell is due, 0 for none.
func (m *membership) ticks() int64 {
	if m.parked {
		return 0
	}
	return m.tick
}

// blank says that nothing is known of the contact in the bucket.
func (m *membership) blank() bool { return m.epoch == 0 && m.next == 0 }

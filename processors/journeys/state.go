package journeys

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas/packed"
)

// State is what the processor keeps of a contact. Its zero value is a contact of which
// nothing is known.
type State struct {
	known        bool
	version      int64 // of the definitions that it is filled for
	due          int64 // of the timer that is armed, in microseconds; 0 for none
	unsubscribed bool  // from everything
	members      []membership
	facts        predicate.State
	runs         machine.State

	changes []machine.Change   // since it was loaded
	took    []string           // the contacts that were merged into it since then
	begun   []machine.JobBegun // since then
	over    []machine.JobRef   // since then
}

// membership is a bucket that the contact is a member of.
type membership struct {
	bucket string
	epoch  int64
}

// Runs are the contact's that live, and those that failed.
func (s *State) Runs() []machine.RunInfo { return s.runs.Runs() }

// Entries are how the contact has begun journeys.
func (s *State) Entries() []machine.EntryInfo { return s.runs.Entries() }

// Next is when the time of a journey comes again for the contact; zero when it does not.
func (s *State) Next(journey string) time.Time { return s.runs.Next(journey) }

// Changes are what happened to runs since the state was loaded.
func (s *State) Changes() []machine.Change { return s.changes }

// Has implements predicate.Members.
func (s *State) Has(bucketID string) bool {
	_, found := s.search(bucketID)
	return found
}

func (s *State) search(bucketID string) (int, bool) {
	return slices.BinarySearchFunc(s.members, bucketID, func(m membership, id string) int { return cmp.Compare(m.bucket, id) })
}

// enter notes a membership, unless a later one is known; leave that one has ended. Both say
// whether that is news.
func (s *State) enter(bucketID string, epoch int64) bool {
	at, found := s.search(bucketID)
	switch {
	case !found:
		s.members = slices.Insert(s.members, at, membership{bucketID, epoch})
	case s.members[at].epoch >= epoch:
		return false
	default:
		s.members[at].epoch = epoch
	}
	return true
}

func (s *State) leave(bucketID string, epoch int64) bool {
	at, found := s.search(bucketID)
	if !found || s.members[at].epoch > epoch {
		return false
	}
	s.members = slices.Delete(s.members, at, at+1)
	return true
}

// clone is a copy that shares nothing that is changed.
func (s *State) clone() State {
	out := *s
	out.members, out.changes, out.took = slices.Clone(s.members), slices.Clip(s.changes), slices.Clip(s.took)
	out.begun, out.over = slices.Clip(s.begun), slices.Clip(s.over)
	out.runs = s.runs.Clone()
	out.facts = cloneFacts(&s.facts)
	return out
}

func cloneFacts(facts *predicate.State) (out predicate.State) {
	data, err := facts.MarshalBinary()
	if err == nil {
		err = out.UnmarshalBinary(data)
	}
	if err != nil {
		panic(err) // what was written is read
	}
	return out
}

// stateVersion is the first byte of an encoded state. A new layout has another number, and
// the old ones are read for ever.
const stateVersion = 1

// ErrState says that bytes are no encoded state.
var ErrState = errors.New("journeys: no state of a contact")

// Flags of an encoded state.
const (
	flagKnown = 1 << iota
	flagUnsubscribed
	flagsEnd
)

// codec makes bytes and copies of states.
type codec struct{}

// Encode implements derive.Processor with a compact, versioned form; the same state gives
// the same bytes.
func (codec) Encode(s State) ([]byte, error) {
	if !s.known {
		return []byte{stateVersion, 0}, nil
	}
	flags := byte(flagKnown)
	if s.unsubscribed {
		flags |= flagUnsubscribed
	}
	out := append(make([]byte, 0, 256), stateVersion, flags)
	out = binary.AppendVarint(binary.AppendVarint(out, s.version), s.due)
	out = binary.AppendUvarint(out, uint64(len(s.members)))
	for _, m := range s.members {
		out = binary.AppendVarint(packed.AppendText(out, m.bucket), m.epoch)
	}
	runs, err := s.runs.AppendBinary(make([]byte, 0, 512))
	if err != nil {
		return nil, err
	}
	return s.facts.AppendBinary(packed.AppendText(out, runs))
}

// Decode implements derive.Processor: it reads what Encode wrote, of any version, and
// nothing for a contact of which nothing is known. It refuses anything else with [ErrState].
func (codec) Decode(data []byte) (State, error) {
	if len(data) == 0 {
		return State{}, nil
	}
	d := packed.NewReader(data, ErrState)
	if version := d.Byte(); version != stateVersion {
		return State{}, fmt.Errorf("%w: version %d, this program knows %d", ErrState, version, stateVersion)
	}
	flags := d.Byte()
	if flags >= flagsEnd {
		d.Fail("unknown flags")
	}
	if flags&flagKnown == 0 {
		if len(d.Rest()) > 0 {
			d.Fail("something follows")
		}
		return State{}, d.Err()
	}
	s := State{known: true, unsubscribed: flags&flagUnsubscribed != 0, version: d.Int(), due: d.Int()}
	for i := range d.Count(2) {
		s.members = append(s.members, membership{d.Text(), d.Int()})
		if i > 0 && s.members[i].bucket <= s.members[i-1].bucket { // the list is searched by halves
			d.Fail("not in order")
		}
	}
	runs := d.Bytes()
	if d.Err() == nil {
		if err := s.runs.UnmarshalBinary(runs); err != nil {
			d.Fail(err.Error())
		}
	}
	if d.Err() != nil {
		return State{}, d.Err()
	}
	if err := s.facts.UnmarshalBinary(d.Rest()); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrState, err)
	}
	return s, nil
}

// DecodeState reads the state of a contact as the processor keeps it.
func DecodeState(data []byte) (State, error) { return codec{}.Decode(data) }

// Clone implements derive.Processor.
func (codec) Clone(s State) (State, error) { return s.clone(), nil }

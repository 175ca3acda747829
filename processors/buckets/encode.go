package buckets

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hogstream/hogstream/schemas/packed"
)

// stateVersion is the first byte of an encoded state. A new layout has another number,
// and the old ones are read for ever.
const stateVersion = 1

// ErrState says that bytes are no encoded state.
var ErrState = errors.New("buckets: no state of a contact")

// Flags of an encoded membership: what it is, and which instants follow.
const (
	flagActive = 1 << iota
	flagBarred
	flagParked
	flagAdoptee
	flagNumber
	flagLeft
	flagNext
	flagDeferred
	flagUntil
	flagMaxDwell
	flagTick
	flagFired
	flagsEnd
)

// Encode implements derive.Processor with a compact, versioned form; the same state gives
// the same bytes.
func (codec) Encode(s State) ([]byte, error) {
	if !s.known {
		return []byte{stateVersion, 0}, nil
	}
	out := append(make([]byte, 0, 256), stateVersion, 1)
	for _, n := range []int64{s.version, s.clock, s.due} {
		out = binary.AppendVarint(out, n)
	}
	for _, text := range []string{s.person.userID, s.person.email, s.person.anonymousID} {
		out = packed.AppendText(out, text)
	}
	kept := 0
	for i := range s.members {
		if !s.members[i].blank() {
			kept++
		}
	}
	out = binary.AppendUvarint(out, uint64(kept))
	for i := range s.members {
		if m := &s.members[i]; !m.blank() {
			out = m.append(out, s.clock)
		}
	}
	return s.facts.AppendBinary(out)
}

// append writes instants as their distance to the clock, which is short.
func (m *membership) append(out []byte, clock int64) []byte {
	out = packed.AppendText(out, m.bucket)
	flags := uint64(0)
	instants := m.instants()
	for i, set := range []bool{m.active, m.barred, m.parked, m.adoptee, m.number != m.epoch} {
		if set {
			flags |= 1 << i
		}
	}
	for i, at := range instants {
		if *at != 0 {
			flags |= flagLeft << i
		}
	}
	if len(m.fired) > 0 {
		flags |= flagFired
	}
	out = binary.AppendUvarint(out, flags)
	out = binary.AppendVarint(out, m.epoch)
	if flags&flagNumber != 0 {
		out = binary.AppendVarint(out, m.number)
	}
	out = binary.AppendVarint(out, m.entered-clock)
	for _, at := range instants {
		if *at != 0 {
			out = binary.AppendVarint(out, *at-clock)
		}
	}
	if len(m.fired) > 0 {
		out = binary.AppendUvarint(out, uint64(len(m.fired)))
		for _, f := range m.fired {
			out = binary.AppendVarint(packed.AppendText(out, f.label), f.ordinal)
		}
	}
	return out
}

// instants are those that may be none, in the order of their flags.
func (m *membership) instants() [6]*int64 {
	return [...]*int64{&m.left, &m.next, &m.deferred, &m.until, &m.maxDwell, &m.tick}
}

// Decode implements derive.Processor: it reads what Encode wrote, of any version, and
// nothing for a contact of which nothing is known. It refuses anything else with
// [ErrState].
func (codec) Decode(data []byte) (State, error) {
	if len(data) == 0 {
		return State{}, nil
	}
	d := &decoder{packed.NewReader(data, ErrState)}
	if version := d.Byte(); version != stateVersion {
		return State{}, fmt.Errorf("%w: version %d, this program knows %d", ErrState, version, stateVersion)
	}
	s := d.state()
	if d.Err() != nil {
		return State{}, d.Err()
	}
	return s, nil
}

// EncodeState is the state of a contact as the processor keeps it.
func EncodeState(s State) ([]byte, error) { return codec{}.Encode(s) }

// DecodeState reads the state of a contact as the processor keeps it.
func DecodeState(data []byte) (State, error) { return codec{}.Decode(data) }

// decoder reads an encoded state.
type decoder struct{ *packed.Reader }

func (d *decoder) state() State {
	switch known := d.Byte(); {
	case known > 1:
		d.Fail("unknown flags")
	case known == 0:
		if len(d.Rest()) > 0 {
			d.Fail("something follows")
		}
		return State{}
	}
	s := State{known: true, version: d.Int(), clock: d.Int(), due: d.Int()}
	s.person = person{userID: d.Text(), email: d.Text(), anonymousID: d.Text()}
	n := d.Count(4)
	s.members = make([]membership, 0, n)
	for i := range n {
		m := d.membership(s.clock)
		if i > 0 && m.bucket <= s.members[i-1].bucket { // the list is searched by halves
			d.Fail("not in order")
		}
		s.members = append(s.members, m)
	}
	if d.Err() != nil {
		return State{}
	}
	if err := s.facts.UnmarshalBinary(d.Rest()); err != nil {
		d.Fail(err.Error())
	}
	return s
}

func (d *decoder) membership(clock int64) membership {
	m := membership{bucket: d.Text()}
	flags := d.Uint()
	if flags >= flagsEnd {
		d.Fail("unknown flags")
	}
	for i, set := range []*bool{&m.active, &m.barred, &m.parked, &m.adoptee} {
		*set = flags&(1<<i) != 0
	}
	m.epoch = d.Int()
	m.number = m.epoch
	if flags&flagNumber != 0 {
		m.number = d.Int()
	}
	m.entered = d.Int() + clock
	for i, at := range m.instants() {
		if flags&(flagLeft<<i) != 0 {
			*at = d.Int() + clock
		}
	}
	if flags&flagFired != 0 {
		for range d.Count(2) {
			m.fired = append(m.fired, fired{d.Text(), d.Int()})
		}
	}
	return m
}

// codec makes bytes and copies of states.
type codec struct{}

// Clone implements derive.Processor.
func (codec) Clone(s State) (State, error) { return s.clone(), nil }

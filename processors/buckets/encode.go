package buckets

import (
	"encoding/binary"
	"errors"
	"fmt"
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
		out = appendText(out, text)
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

func appendText(out []byte, text string) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

// append writes instants as their distance to the clock, which is short.
func (m *membership) append(out []byte, clock int64) []byte {
	out = appendText(out, m.bucket)
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
			out = binary.AppendVarint(appendText(out, f.label), f.ordinal)
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
	d := &decoder{data: data}
	if version := d.byte(); version != stateVersion {
		return State{}, fmt.Errorf("%w: version %d, this program knows %d", ErrState, version, stateVersion)
	}
	s := d.state()
	if d.err != nil {
		return State{}, d.err
	}
	return s, nil
}

// decoder reads from data until the first fault; after it everything is zero.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrState, what)
	}
	d.data = nil
}

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.fail("ends too early")
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.data)
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.data = d.data[n:]
	return v
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail("no number")
		return 0
	}
	d.data = d.data[n:]
	return v
}

// count reads how many things of at least size bytes follow.
func (d *decoder) count(size int) int {
	v := d.uint()
	if v > uint64(len(d.data)/size) {
		d.fail("no count")
		return 0
	}
	return int(v)
}

func (d *decoder) text() string {
	n := d.count(1)
	text := string(d.data[:n])
	d.data = d.data[n:]
	return text
}

func (d *decoder) state() State {
	switch known := d.byte(); {
	case known > 1:
		d.fail("unknown flags")
	case known == 0:
		if len(d.data) > 0 {
			d.fail("something follows")
		}
		return State{}
	}
	s := State{known: true, version: d.int(), clock: d.int(), due: d.int()}
	s.person = person{userID: d.text(), email: d.text(), anonymousID: d.text()}
	n := d.count(4)
	s.members = make([]membership, 0, n)
	for i := range n {
		m := d.membership(s.clock)
		if i > 0 && m.bucket <= s.members[i-1].bucket { // the list is searched by halves
			d.fail("not in order")
		}
		s.members = append(s.members, m)
	}
	if d.err != nil {
		return State{}
	}
	if err := s.facts.UnmarshalBinary(d.data); err != nil {
		d.fail(err.Error())
	}
	return s
}

func (d *decoder) membership(clock int64) membership {
	m := membership{bucket: d.text()}
	flags := d.uint()
	if flags >= flagsEnd {
		d.fail("unknown flags")
	}
	for i, set := range []*bool{&m.active, &m.barred, &m.parked, &m.adoptee} {
		*set = flags&(1<<i) != 0
	}
	m.epoch = d.int()
	m.number = m.epoch
	if flags&flagNumber != 0 {
		m.number = d.int()
	}
	m.entered = d.int() + clock
	for i, at := range m.instants() {
		if flags&(flagLeft<<i) != 0 {
			*at = d.int() + clock
		}
	}
	if flags&flagFired != 0 {
		for range d.count(2) {
			m.fired = append(m.fired, fired{d.text(), d.int()})
		}
	}
	return m
}

// codec makes bytes and copies of states.
type codec struct{}

// Clone implements derive.Processor.
func (codec) Clone(s State) (State, error) { return s.clone(), nil }

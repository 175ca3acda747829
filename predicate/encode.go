package predicate

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/packed"
)

// stateVersion is the first byte of an encoded state. A new layout has another number,
// and the old ones are read for ever.
const stateVersion = 1

// ErrState says that bytes are no encoded state.
var ErrState = errors.New("predicate: no state of a contact")

// Flags of an encoded state.
const (
	flagUserID = 1 << iota
	flagEmail
)

// AppendBinary appends the state in its compact, versioned form; the same state gives
// the same bytes. It never fails.
func (s *State) AppendBinary(out []byte) ([]byte, error) {
	flags := byte(0)
	if s.hasUserID {
		flags |= flagUserID
	}
	if s.hasEmail {
		flags |= flagEmail
	}
	out = append(out, stateVersion, flags)
	out = binary.AppendVarint(out, s.firstSeen)
	out = binary.AppendVarint(out, s.lastSeen)
	out = binary.AppendUvarint(out, uint64(len(s.properties)))
	for _, p := range s.properties {
		out = binary.BigEndian.AppendUint64(out, p.id)
		out = packed.AppendText(out, p.raw)
	}
	out = binary.AppendUvarint(out, uint64(len(s.legs)))
	for i := range s.legs {
		out = s.legs[i].append(out)
	}
	return out, nil
}

// MarshalBinary is AppendBinary to nothing.
func (s *State) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// append writes the times as what lies between them: they are near each other.
func (l *leg) append(out []byte) []byte {
	out = binary.BigEndian.AppendUint64(out, l.id)
	out = append(out, byte(l.mode))
	out = binary.AppendUvarint(out, uint64(len(l.entries)))
	before := int64(0)
	for i := range l.entries {
		e := &l.entries[i]
		out = binary.AppendVarint(out, before-e.at)
		out = append(out, e.id[:]...)
		switch l.mode {
		case modeAmounts:
			out = binary.AppendVarint(out, e.amount)
		case modeFollowed:
			out = binary.AppendVarint(out, e.distance())
		}
		before = e.at
	}
	switch l.mode {
	case modeAmounts:
		out = binary.AppendVarint(out, l.total)
	case modeValue:
		out = packed.AppendText(out, l.raw)
	}
	return out
}

// distance is how much later the other event of a sequence came, 0 for never.
func (e *entry) distance() int64 {
	if e.amount == never {
		return 0
	}
	return e.amount - e.at
}

// UnmarshalBinary reads what AppendBinary wrote, of any version. It refuses anything else
// with [ErrState], and keeps nothing of data.
func (s *State) UnmarshalBinary(data []byte) error {
	d := &decoder{packed.NewReader(data, ErrState)}
	if version := d.Byte(); d.Err() == nil && version != stateVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrState, version, stateVersion)
	}
	out := d.state()
	if d.Err() == nil && len(d.Rest()) > 0 {
		d.Fail("something follows")
	}
	if d.Err() != nil {
		return d.Err()
	}
	*s = out
	return nil
}

// decoder reads an encoded state.
type decoder struct{ *packed.Reader }

func (d *decoder) id() uint64 {
	if b := d.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) state() State {
	flags := d.Byte()
	if flags&^(flagUserID|flagEmail) != 0 {
		d.Fail("unknown flags")
	}
	out := State{hasUserID: flags&flagUserID != 0, hasEmail: flags&flagEmail != 0, firstSeen: d.Int(), lastSeen: d.Int()}
	before := uint64(0)
	for i := range d.Count(9) {
		p := property{d.id(), d.Text()}
		d.ascends(i, before, p.id)
		out.properties, before = append(out.properties, p), p.id
	}
	for i := range d.Count(10) {
		l := d.leg()
		d.ascends(i, before, l.id)
		out.legs, before = append(out.legs, l), l.id
	}
	return out
}

// ascends: lists are searched by halves, so they must be in order.
func (d *decoder) ascends(i int, before, id uint64) {
	if i > 0 && id <= before {
		d.Fail("not in order")
	}
}

func (d *decoder) leg() leg {
	l := leg{id: d.id(), mode: legMode(d.Byte())}
	if l.mode >= modes {
		d.Fail("unknown kind of leg")
		return l
	}
	n := d.Count(1 + len(uuid.UUID{}))
	l.entries = make([]entry, 0, n)
	before := int64(0)
	for i := range n {
		e := entry{at: before - d.Int()}
		copy(e.id[:], d.Take(len(e.id)))
		switch l.mode {
		case modeAmounts:
			e.amount = d.Int()
		case modeFollowed:
			e.amount = e.at + d.Int()
			if e.amount <= e.at {
				e.amount = never
			}
		}
		if i > 0 && l.entries[i-1].order(&e) >= 0 {
			d.Fail("not in order")
		}
		l.entries, before = append(l.entries, e), e.at
	}
	switch l.mode {
	case modeAmounts:
		l.total = d.Int()
	case modeValue:
		l.raw = d.Text()
	}
	return l
}

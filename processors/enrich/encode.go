package enrich

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas/packed"
)

// stateVersion is the first byte of an encoded state. A new layout has another number,
// and the old ones are read for ever.
const stateVersion = 1

// ErrState says that bytes are no encoded state.
var ErrState = errors.New("enrich: no state of a contact")

// codec makes bytes and copies of states.
type codec struct{}

// Clone implements derive.Processor.
func (codec) Clone(s State) (State, error) { return s.clone(), nil }

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
	out = binary.AppendUvarint(out, uint64(len(s.values)))
	for _, v := range s.values {
		out = packed.AppendText(packed.AppendText(out, v.name), v.raw)
		out = binary.AppendVarint(binary.BigEndian.AppendUint64(out, v.hash), v.since-s.clock)
	}
	entries := slices.DeleteFunc(slices.Clone(s.entries), func(en entry) bool { return en.blank() })
	out = binary.AppendUvarint(out, uint64(len(entries)))
	for i := range entries {
		out = entries[i].append(out)
	}
	out = binary.AppendUvarint(out, uint64(len(s.asks)))
	for _, id := range slices.Sorted(maps.Keys(s.asks)) {
		out = append(appendID(out, id), byte(s.asks[id]))
	}
	return s.facts.AppendBinary(out)
}

// Flags of an encoded entry.
const (
	flagHolds = 1 << iota
	flagDrop
	flagAsk
	flagsEnd
)

func (en *entry) append(out []byte) []byte {
	flags := byte(0)
	for i, set := range []bool{en.holds, en.drop, en.ask != ""} {
		if set {
			flags |= 1 << i
		}
	}
	out = append(packed.AppendText(out, en.enrichment), flags, byte(en.why))
	for _, n := range []int64{en.epoch, en.next, en.due, en.settled, int64(en.failures)} {
		out = binary.AppendVarint(out, n)
	}
	if en.ask != "" {
		out = binary.AppendVarint(binary.BigEndian.AppendUint64(appendID(out, en.ask), en.sent), en.asked)
	}
	return packed.AppendText(packed.AppendText(out, en.outcome), en.detail)
}

// appendID appends an id, which is a UUID, for it was derived.
func appendID(out []byte, id string) []byte {
	parsed := uuid.MustParse(id)
	return append(out, parsed[:]...)
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
	for i := range d.Count(11) {
		s.values = append(s.values, value{name: d.Text(), raw: d.Text(), hash: d.hash(), since: d.Int() + s.clock})
		if i > 0 && s.values[i].name <= s.values[i-1].name { // the list is searched by halves
			d.Fail("not in order")
		}
	}
	for i := range d.Count(10) {
		s.entries = append(s.entries, d.entry())
		if i > 0 && s.entries[i].enrichment <= s.entries[i-1].enrichment {
			d.Fail("not in order")
		}
	}
	for range d.Count(17) {
		id := d.id()
		state := derive.AskState(d.Byte())
		if s.askedBy(id) == nil || state > derive.AskGivenUp {
			d.Fail("nobody asked")
		}
		if s.asks == nil {
			s.asks = derive.Asks{}
		}
		s.asks[id] = state
	}
	if d.Err() != nil {
		return State{}
	}
	if err := s.facts.UnmarshalBinary(d.Rest()); err != nil {
		d.Fail(err.Error())
	}
	return s
}

func (d *decoder) entry() entry {
	en := entry{enrichment: d.Text()}
	flags, reason := d.Byte(), why(d.Byte())
	if flags >= flagsEnd || reason >= whys {
		d.Fail("unknown flags")
		return entry{}
	}
	en.holds, en.drop, en.why = flags&flagHolds != 0, flags&flagDrop != 0, reason
	en.epoch, en.next, en.due, en.settled, en.failures = d.Int(), d.Int(), d.Int(), d.Int(), int(d.Int())
	if flags&flagAsk != 0 {
		en.ask, en.sent, en.asked = d.id(), d.hash(), d.Int()
	}
	en.outcome, en.detail = d.Text(), d.Text()
	return en
}

func (d *decoder) hash() uint64 {
	if b := d.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) id() string {
	if b := d.Take(16); b != nil {
		return uuid.UUID(b).String()
	}
	return ""
}

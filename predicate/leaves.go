package predicate

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/packed"
)

// ErrLeaves says that bytes are no leaves of a condition.
var ErrLeaves = errors.New("predicate: no leaves of this condition")

// maxKeptValue is how many bytes of a value are kept with a leaf. A longer one is left out,
// and Why says so.
const maxKeptValue = 256

// Flags of a leaf: its answer, and what follows.
const (
	leafHolds = 1 << iota
	leafNext
	leafValue
	leafCount
	leafMore
	leafTotal
	leafDate
	leafEvents
	leafWhy
	leafFlags
)

// Flags of an event that a leaf saw.
const (
	seenDecides = 1 << iota
	seenFirst
	seenThen
	seenFlags
)

// AppendLeaves appends what the leaves of a condition answer and saw, for
// [Condition.Explain]: some tens of bytes each.
func (s *Set) AppendLeaves(out []byte, i int, state *State, members Members, now time.Time) []byte {
	c := &s.conditions[i]
	return s.appendLeaves(out, c.Condition.expr, c.node, view{state: state, members: members, now: now.UnixMicro()})
}

func (s *Set) appendLeaves(out []byte, e *expr, n node, v view) []byte {
	if e.kind != kindComposite && e.kind != kindNot {
		o := s.observe(e, n, v)
		return o.append(out, n.eval(v))
	}
	parts := partsOf(n)
	for i, inner := range e.conditions {
		out = s.appendLeaves(out, inner, parts[i], v)
	}
	return out
}

// append writes what was seen. Instants are written as their distance to now.
func (o *observer) append(out []byte, answer verdict) []byte {
	if len(o.saw.Value) > maxKeptValue {
		o.because("a value of %d bytes, which is not kept", len(o.saw.Value))
		o.saw.Value = nil
	}
	flags := uint64(0)
	for i, set := range []bool{
		answer.holds, answer.next != never, o.saw.Value != nil, o.saw.Count != nil, o.saw.More, o.saw.Total != "",
		o.saw.With != nil || o.saw.Date != "", len(o.saw.Events) > 0, o.why != "",
	} {
		if set {
			flags |= 1 << i
		}
	}
	out = binary.AppendUvarint(out, flags)
	if answer.next != never {
		out = binary.AppendVarint(out, answer.next-o.view.now)
	}
	if o.saw.Value != nil {
		out = packed.AppendText(out, []byte(o.saw.Value))
	}
	if o.saw.Count != nil {
		out = binary.AppendUvarint(out, uint64(*o.saw.Count))
	}
	if o.saw.Total != "" {
		out = packed.AppendText(out, string(o.saw.Total))
	}
	if flags&leafDate != 0 {
		out = binary.AppendUvarint(packed.AppendText(packed.AppendText(out, o.saw.Date), o.saw.Zone), uint64(len(o.saw.With)))
		for _, with := range o.saw.With {
			out = packed.AppendText(out, with)
		}
	}
	if len(o.saw.Events) > 0 {
		out = binary.AppendUvarint(out, uint64(len(o.saw.Events)))
		for i := range o.saw.Events {
			out = o.saw.Events[i].append(out, o.view.now)
		}
	}
	if o.why != "" {
		out = packed.AppendText(out, o.why)
	}
	return out
}

func (e *SawEvent) append(out []byte, now int64) []byte {
	flags := byte(0)
	for i, set := range []bool{e.Decides, e.Part == "first", e.Part == "then"} {
		if set {
			flags |= 1 << i
		}
	}
	out = append(append(out, flags), e.ID[:]...)
	return binary.AppendUvarint(binary.AppendVarint(out, e.At.UnixMicro()-now), uint64(e.Nth))
}

// Explain is what [Set.Explain] said at an instant, of the leaves that [Set.AppendLeaves]
// wrote then of the same condition. The error is [ErrLeaves].
func (c Condition) Explain(leaves []byte, now time.Time) (Explanation, error) {
	d := &leafReader{packed.NewReader(leaves, ErrLeaves), now.UnixMicro()}
	out, _ := d.explain(c.expr)
	if len(d.Rest()) > 0 {
		d.Fail("something follows")
	}
	if err := d.Err(); err != nil {
		return Explanation{}, fmt.Errorf("explain %s: %w", c.expr.sentence(), err)
	}
	return out, nil
}

type leafReader struct {
	*packed.Reader
	now int64
}

// explain reads the leaves in their order, and answers for what joins them.
func (d *leafReader) explain(e *expr) (Explanation, verdict) {
	out := Explanation{Type: e.kind, Text: e.words()}
	var answer verdict
	switch e.kind {
	case kindComposite:
		all := e.operator == operatorAnd
		answer = verdict{all, never}
		for _, inner := range e.conditions {
			part, its := d.explain(inner)
			out.Conditions = append(out.Conditions, part)
			if all {
				answer = both(answer, its)
			} else {
				answer = either(answer, its)
			}
		}
	case kindNot:
		part, its := d.explain(e.conditions[0])
		out.Conditions, answer = []Explanation{part}, its.not()
	default:
		answer = d.leaf(&out)
	}
	out.Holds = answer.holds
	if answer.next != never {
		out.Next = instant(answer.next)
	}
	return out, answer
}

func (d *leafReader) leaf(out *Explanation) verdict {
	flags := d.Uint()
	if flags >= leafFlags {
		d.Fail("unknown flags")
	}
	answer := verdict{flags&leafHolds != 0, never}
	saw := &Saw{More: flags&leafMore != 0}
	out.Saw = saw
	if flags&leafNext != 0 {
		answer.next = d.Int() + d.now
	}
	if flags&leafValue != 0 {
		saw.Value = json.RawMessage(d.Text())
	}
	if flags&leafCount != 0 {
		count := int(d.Uint())
		saw.Count = &count
	}
	if flags&leafTotal != 0 {
		saw.Total = json.Number(d.Text())
	}
	if flags&leafDate != 0 {
		saw.Date, saw.Zone = d.Text(), d.Text()
		for range d.Count(1) {
			saw.With = append(saw.With, d.Text())
		}
	}
	if flags&leafEvents != 0 {
		for range d.Count(1 + len(uuid.UUID{}) + 2) {
			saw.Events = append(saw.Events, d.event())
		}
	}
	if flags&leafWhy != 0 {
		out.Why = d.Text()
	}
	return answer
}

func (d *leafReader) event() (e SawEvent) {
	flags := d.Byte()
	if flags >= seenFlags {
		d.Fail("unknown flags")
	}
	copy(e.ID[:], d.Take(len(e.ID)))
	e.At, e.Nth, e.Decides = instant(d.Int()+d.now), int(d.Uint()), flags&seenDecides != 0
	switch {
	case flags&seenFirst != 0:
		e.Part = "first"
	case flags&seenThen != 0:
		e.Part = "then"
	}
	return e
}

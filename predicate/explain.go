package predicate

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Explanation is a condition with its answer for a contact at an instant, and with those of
// the conditions within it. Its JSON is stable: fields are only ever added.
type Explanation struct {
	// Type is the condition's as written, such as composite, not or event.
	Type string `json:"type"`
	// Text says in plain words what is asked: of a leaf all of it, of the others "all of",
	// "any of" and "not".
	Text  string `json:"text"`
	Holds bool   `json:"holds"`
	// Next is when time alone may turn the answer; zero is never. See [Verdict].
	Next time.Time `json:"next,omitzero"`
	// Saw is what a leaf looked at; nil for composite and not.
	Saw *Saw `json:"saw,omitempty"`
	// Why says what was missing, of another type, or out of its window, when the answer
	// comes of that.
	Why string `json:"why,omitempty"`
	// Turned is when the answer of a leaf turned last, and by what, as far as that is known.
	// [Set.Explain] leaves it out, for a state does not say; [Set.Replay] fills it in.
	Turned *Turn `json:"turned,omitempty"`
	// Conditions are those of a composite, or the one of a not.
	Conditions []Explanation `json:"conditions,omitempty"`
}

// Saw is what a leaf of a condition looked at. What does not belong to its type is zero.
type Saw struct {
	// Value is the JSON of the property, of the contact or of the newest event; nil for none.
	// One of more than 4 KiB is {}.
	Value json.RawMessage `json:"value,omitempty"`
	// Count is the number of events, in the window if there is one. More says that there may
	// be more: older ones are not kept.
	Count *int `json:"count,omitempty"`
	More  bool `json:"more,omitempty"`
	// Total is the sum that was compared.
	Total json.Number `json:"total,omitempty"`
	// Date is the date that was compared, and With the dates that it was compared with, at
	// this instant: two for between. Zone is that of calendar dates.
	Date string   `json:"date,omitempty"`
	With []string `json:"with,omitempty"`
	Zone string   `json:"zone,omitempty"`
	// Events are the newest, and those on which the answer hangs.
	Events []SawEvent `json:"events,omitempty"`
}

// SawEvent is an event that a leaf looked at.
type SawEvent struct {
	ID uuid.UUID `json:"id,omitzero"` // zero when it is not kept
	At time.Time `json:"at"`
	// Nth says that it is the n-th newest; 0 for the oldest, and for the parts of a sequence.
	Nth int `json:"nth,omitempty"`
	// Part of a sequence: first or then.
	Part string `json:"part,omitempty"`
	// Decides says that the answer hangs on this event: it is the k-th newest of a count of k,
	// which keeps the answer while it is in the window and turned it when it left; the
	// one with which a total came to its answer, or that will turn it by leaving the window; the
	// newest, whose property was compared; the one whose time was compared; of a sequence the
	// first event that is not followed, or what followed.
	Decides bool `json:"decides,omitempty"`
	// Place is where its record stands, if somebody looked that up.
	Place *Place `json:"place,omitempty"`
}

// Place is where a record stands on the log, in the words of Kafka.
type Place struct {
	Topic      string    `json:"topic"` // without the prefix of a deployment
	Partition  int32     `json:"partition"`
	Offset     int64     `json:"offset"`
	AppendedAt time.Time `json:"appendedAt"`
}

// Explain says of a condition what [Set.Evaluate] says, and why: the tree of the condition
// as it was written, with what each part of it saw. It is for people, and costs more.
func (s *Set) Explain(i int, state *State, members Members, now time.Time) Explanation {
	c := &s.conditions[i]
	return s.explain(c.Condition.expr, c.node, view{state: state, members: members, now: now.UnixMicro()})
}

func (s *Set) explain(e *expr, n node, v view) Explanation {
	answer := n.eval(v)
	out := Explanation{Type: e.kind, Text: e.words(), Holds: answer.holds}
	if answer.next != never {
		out.Next = instant(answer.next)
	}
	if e.kind != kindComposite && e.kind != kindNot {
		o := s.observe(e, n, v)
		out.Saw, out.Why = &o.saw, o.why
		return out
	}
	parts := partsOf(n)
	for i, inner := range e.conditions {
		out.Conditions = append(out.Conditions, s.explain(inner, parts[i], v))
	}
	return out
}

// observe has a leaf say what it looks at.
func (s *Set) observe(e *expr, n node, v view) *observer {
	o := &observer{set: s, view: v, asked: e}
	if all, ok := n.(allNode); ok && e.kind == kindEmail {
		n = all[1] // what became of the mail, not that there was one
	}
	n.observe(o)
	return o
}

// partsOf are the nodes of the conditions within a composite or not.
func partsOf(n node) []node {
	switch n := n.(type) {
	case allNode:
		return n
	case anyNode:
		return n
	case notNode:
		return []node{n.inner}
	}
	return nil
}

func instant(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

package predicate

import (
	"slices"
	"time"
)

// Named is a condition of a set.
type Named struct {
	// ID is the condition's, unique within the set.
	ID string
	// Bucket says that the condition decides who is a member of the bucket ID, which others
	// of the set may then ask for.
	Bucket    bool
	Condition Condition
	// File and Path say where it stands, for faults.
	File, Path string
}

// Options are what conditions are compiled with.
type Options struct {
	Limits Limits
	// Zone is the deployment's, for calendar dates without another; nil is UTC.
	Zone *time.Location
	// Buckets are those that may be asked for beside the buckets of the set.
	Buckets []string
}

// Set is conditions compiled together. It is immutable and safe for concurrent use.
//
// Its conditions are numbered from 0 in an order in which each comes after those whose
// membership it asks for: who evaluates them in this order sees new memberships at once.
type Set struct {
	conditions []compiled
	ids        map[string]int
	zone       *time.Location // the deployment's

	events     map[string]*eventSpec // by name
	legs       map[uint64]*legSpec
	contact    paths            // properties of the contact
	contactIDs []uint64         // of their paths, by slot
	readers    map[uint64][]int // by id of the path: conditions that look at it
	identity   []int            // conditions that look at who it is
	firstSeen  []int
	lastSeen   []int
	membership map[string][]int // by bucket
}

type compiled struct {
	Named
	node   node
	inputs Inputs
}

// eventSpec is what is looked at of the events of a name.
type eventSpec struct {
	paths paths // of the filters and values of its legs
	legs  []*legSpec
}

// legSpec is an event of one name and filter, as some conditions look at it.
type legSpec struct {
	id     uint64
	key    string
	mode   legMode
	size   int  // how many of the newest are kept
	where  node // nil: all
	of     int  // slot of the value; -1: none
	readBy []int

	then   *legSpec   // of modeFollowed: the other event
	firsts []*legSpec // the legs of modeFollowed whose other event this is
}

// Members says of which buckets a contact is a member.
type Members interface {
	Has(bucketID string) bool
}

// Len is how many conditions there are.
func (s *Set) Len() int { return len(s.conditions) }

// ID is the id of a condition.
func (s *Set) ID(i int) string { return s.conditions[i].ID }

// Index is the number of a condition, or -1.
func (s *Set) Index(id string) int {
	if i, known := s.ids[id]; known {
		return i
	}
	return -1
}

// Verdict is the answer of a condition.
type Verdict struct {
	Holds bool
	// Next is when time alone may turn the answer: nothing but a record or a membership
	// turns it before, and then it is to be evaluated again. Zero is never.
	Next time.Time
}

// Evaluate answers for a condition at an instant. It allocates nothing; members may be
// nil for no buckets.
func (s *Set) Evaluate(i int, state *State, members Members, now time.Time) Verdict {
	v := view{state: state, members: members, now: now.UnixMicro()}
	answer := s.conditions[i].node.eval(v)
	out := Verdict{Holds: answer.holds}
	if answer.next != never {
		out.Next = time.UnixMicro(answer.next).UTC()
	}
	return out
}

// OnBucket appends the conditions that look at the membership of a bucket.
func (s *Set) OnBucket(bucketID string, touched []int) []int {
	return append(touched, s.membership[bucketID]...)
}

// Apply brings state up to date with a record, and appends to touched the conditions that
// look at something that is another now, in their order and each once.
func (s *Set) Apply(state *State, r *Record, touched []int) []int {
	start := len(touched)
	touched = s.applyEvent(state, r, touched)
	touched = s.applyIdentity(state, r, touched)
	if r.Contact != "" {
		var few [16]property
		touched = s.replaceProperties(state, s.properties(r.Contact, few[:0]), touched)
	}
	slices.Sort(touched[start:])
	return touched[:start+len(slices.Compact(touched[start:]))]
}

func (s *Set) applyEvent(state *State, r *Record, touched []int) []int {
	spec := s.events[r.Name]
	if spec == nil {
		return touched
	}
	v := view{state: state, event: reading{}}
	if spec.paths.n > 0 {
		v.event = spec.paths.root.read(r.Document(), make(reading, 0, spec.paths.n))
	}
	for _, l := range spec.legs {
		if l.takes(v) {
			touched = l.add(state, r, v.event, touched)
		}
	}
	return touched
}

// takes says whether an event passes the filter.
func (l *legSpec) takes(v view) bool { return l.where == nil || l.where.eval(v).holds }

// add puts the event into the leg; one without an amount adds nothing to a total.
func (l *legSpec) add(state *State, r *Record, properties reading, touched []int) []int {
	e := entry{at: r.At.UnixMicro(), id: r.ID}
	raw := ""
	if l.of >= 0 {
		raw = properties.at(l.of)
	}
	if l.mode == modeAmounts {
		amount, ok := amountIn(raw)
		if !ok {
			return touched
		}
		e.amount = amount
	}
	if l.then != nil {
		e.amount = firstAfter(state.entries(l.then.id), e.at)
	}
	if state.leg(l.id, l.mode).add(e, raw, l.size) {
		touched = append(touched, l.readBy...)
	}
	for _, first := range l.firsts {
		if kept := state.find(first.id); kept != nil && kept.follow(e.at) {
			touched = append(touched, first.readBy...)
		}
	}
	return touched
}

func amountIn(raw string) (int64, bool) {
	v := readValue(raw)
	if v.kind != typeNumber {
		return 0, false
	}
	return amountOf(v.num)
}

// applyIdentity takes in who it is and when it was seen.
func (s *Set) applyIdentity(state *State, r *Record, touched []int) []int {
	if r.HasUserID && !state.hasUserID || r.HasEmail && !state.hasEmail {
		state.hasUserID = state.hasUserID || r.HasUserID
		state.hasEmail = state.hasEmail || r.HasEmail
		touched = append(touched, s.identity...)
	}
	if !r.FirstSeen.IsZero() && state.seenFirst(r.FirstSeen.UnixMicro()) {
		touched = append(touched, s.firstSeen...)
	}
	if !r.LastSeen.IsZero() && state.seenLast(r.LastSeen.UnixMicro()) {
		touched = append(touched, s.lastSeen...)
	}
	return touched
}

func (s *State) seenFirst(at int64) bool {
	if s.firstSeen != 0 && s.firstSeen <= at {
		return false
	}
	s.firstSeen = at
	return true
}

func (s *State) seenLast(at int64) bool {
	if s.lastSeen >= at {
		return false
	}
	s.lastSeen = at
	return true
}

// Merge folds what is known of one contact into another: an event of both counts once.
// Which of the two takes in the other makes no difference, but for the properties of the
// contact, which stay; the record of the merge says what they are then. All conditions
// are to be evaluated.
func (s *Set) Merge(into, from *State) {
	for i := range from.legs {
		other := &from.legs[i]
		if spec := s.legs[other.id]; spec != nil {
			into.leg(other.id, spec.mode).merge(other, spec.size)
		}
	}
	s.followAcross(into)
	into.hasUserID = into.hasUserID || from.hasUserID
	into.hasEmail = into.hasEmail || from.hasEmail
	if from.firstSeen != 0 {
		into.seenFirst(from.firstSeen)
	}
	into.seenLast(from.lastSeen)
}

// Fill gives state what is missing in it of a history, for conditions that are new:
// history is a state that Apply made of the contact's stored events alone. The total of all
// that state has stands, for it may be of more events than are stored; what is missing of the
// newest, for a window, is taken from history.
func (s *Set) Fill(state, history *State) {
	for i := range history.legs {
		other := &history.legs[i]
		spec := s.legs[other.id]
		if spec == nil {
			continue
		}
		kept := state.find(other.id)
		if kept == nil || spec.mode != modeAmounts {
			state.leg(other.id, spec.mode).merge(other, spec.size)
			continue
		}
		kept.entries = union(kept.entries, other.entries)
		kept.trim(spec.size)
	}
	s.followAcross(state)
}

// followAcross looks for the other event of sequences where two histories were joined.
func (s *Set) followAcross(state *State) {
	for i := range state.legs {
		l := &state.legs[i]
		spec := s.legs[l.id]
		if spec == nil || spec.then == nil {
			continue
		}
		thens := state.entries(spec.then.id)
		for j := range l.entries {
			l.entries[j].amount = min(l.entries[j].amount, firstAfter(thens, l.entries[j].at))
		}
	}
}

// Fit drops from state what no condition of the set looks at. A state that another set
// made is fitted first: what is not kept up to date must not be taken for true later.
func (s *Set) Fit(state *State) {
	state.legs = slices.DeleteFunc(state.legs, func(l leg) bool { return s.legs[l.id] == nil })
	for i := range state.legs {
		state.legs[i].trim(s.legs[state.legs[i].id].size)
	}
	state.properties = slices.DeleteFunc(state.properties, func(p property) bool { return s.readers[p.id] == nil })
}

// LooksAt says whether some condition looks at the events or facts of a name.
func (s *Set) LooksAt(name string) bool { return s.events[name] != nil }

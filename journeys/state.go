package journeys

import (
	"cmp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas/packed"
)

// State is what the machine keeps of a contact. Its zero value is a contact of whom nothing
// is known.
type State struct {
	clock   int64 // as of when it was stepped last; it never goes back
	person  person
	contact string // JSON: properties that programs read
	entries []entry
	runs    []run // by entry, then id
	ticks   []tick
	seen    []seen // by memo, newest first

	changes []Change // of the step that made it
}

// person is who it is, for facts.
type person struct{ userID, email, anonymousID string }

// trigger is a record that begins a run.
type trigger struct {
	id  string
	at  int64
	doc string // JSON: what is read of it
	key string
	// hops is how many causes led to it. Of a live run it is how many led to where it is.
	hops int
}

// run is one way through a journey.
type run struct {
	id      uuid.UUID
	journey string
	version string
	key     string // JSON, "" for none
	zone    string
	entered int64
	entry   int64 // which of the contact, journey and key it is, from 1
	failed  bool  // it ended so, and is kept to be tried again
	node    int
	epoch   int64 // how many nodes it has come to
	since   int64 // when it came to this one
	waits   bool  // the node was begun, and is not over; else it begins when it is let
	due     int64 // when the open wait ends by time; 0 for never
	next    int64 // when time may turn a condition that is waited for
	settle  int64 // when the run exits, for it left a bucket
	rule    int   // the exit that is settling

	trigger trigger
	last    trigger // the record that ended the last WaitFor
	answers []answer
	journal []logged // of code: the steps that are over
	open    string   // of code: the step where it is
	asked   asked    // of code: what that step was when it was begun
	wakes   []string // of code: the records that may end its wait; wakesAny for any
}

// asked is what code asked for with a step that it waits for.
type asked struct{ kind, input string }

// answer is what a call got.
type answer struct {
	node int
	doc  string // JSON: what is read of it
}

// tick is when a journey comes again for a member of a bucket.
type tick struct {
	journey string
	next    int64
}

// seen is an event that a wait may look back at.
type seen struct {
	memo uint64
	at   int64
	id   string
	doc  string
}

// clone is a copy that shares nothing that is changed.
func (s *State) clone() State {
	out := *s
	out.entries, out.runs, out.ticks, out.seen = slices.Clone(s.entries), slices.Clone(s.runs), slices.Clone(s.ticks), slices.Clone(s.seen)
	for i := range out.runs {
		out.runs[i].answers = slices.Clone(out.runs[i].answers)
	}
	return out
}

// Clone is a copy that steps of the other leave alone, with its changes.
func (s *State) Clone() State { return s.clone() }

// Known says that anything is known of the contact.
func (s *State) Known() bool {
	return s.clock != 0 || s.contact != "" || len(s.entries)+len(s.runs)+len(s.ticks)+len(s.seen) > 0
}

// GoesOn says that there are runs that live, or times that come again.
func (s *State) GoesOn() bool {
	return len(s.ticks) > 0 || slices.ContainsFunc(s.runs, func(r run) bool { return !r.failed })
}

// Changes are those of the step that made the state, as they happened.
func (s *State) Changes() []Change { return s.changes }

func (s *State) searchEntry(journey, key string) (int, bool) {
	return slices.BinarySearchFunc(s.entries, entry{journey: journey, key: key}, func(a, b entry) int { return compareEntries(&a, &b) })
}

func compareEntries(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.journey, b.journey), cmp.Compare(a.key, b.key))
}

// entry is that of a journey and key, made when it is not there. The pointer holds until
// another is made.
func (s *State) entry(journey, key string) *entry {
	at, found := s.searchEntry(journey, key)
	if !found {
		s.entries = slices.Insert(s.entries, at, entry{journey: journey, key: key})
	}
	return &s.entries[at]
}

// peek is the entry of a journey and key, or one of nothing.
func (s *State) peek(journey, key string) *entry {
	if at, found := s.searchEntry(journey, key); found {
		return &s.entries[at]
	}
	return &entry{journey: journey, key: key}
}

// find is the run of that id, or -1.
func (s *State) find(id uuid.UUID) int {
	return slices.IndexFunc(s.runs, func(r run) bool { return r.id == id })
}

// live is the run of an entry that lives, or -1.
func (s *State) live(journey, key string) int {
	return slices.IndexFunc(s.runs, func(r run) bool { return r.journey == journey && r.key == key && !r.failed })
}

// Change is what happened to a run, for whoever shows and counts it. The facts say the same.
type Change struct {
	Kind    string // Started, Stepped, Exited, Completed, Failed, Skipped, Converted or Retried
	At      time.Time
	Journey string
	Version string
	Key     string // JSON, "" for none
	Run     string // its id; "" of Skipped, and of Converted when it was held out
	Arm     string // treatment or holdout, of a journey with a holdout
	Entry   int64  // which of contact, journey and key it is, from 1
	Entered time.Time
	// Step is the step that is over, or at which the run ended. Outcome is what came of it.
	Step    string
	Outcome string
	Since   time.Time // when the run came to the step
	// Next is the step that the run came to; "" when there is none.
	Next    string
	Reason  string // of an end, and why a trigger did not enrol
	Error   string // of Failed
	Trigger string // the id of the record that began the run, or did not
	// Does is the kind of the step that is over, or failed, when it is one that has done
	// something: email, set, trigger, bucket, call.
	Does string
	// Anew, of Retried: the run begins at its first step.
	Anew bool

	epoch int64 // of the run
}

// Kinds of a Change.
const (
	Started   = "started"
	Stepped   = "step"
	Exited    = "exited"
	Completed = "completed"
	Failed    = "failed"
	Skipped   = "skipped"
	Converted = "converted"
	Retried   = "retried"
)

// Arms of a journey with a holdout.
const (
	ArmTreatment = "treatment"
	ArmHoldout   = "holdout"
)

// RunInfo is a run that lives, or one that failed and may be tried again.
type RunInfo struct {
	ID       string
	Journey  string
	Version  string
	Key      string // JSON, "" for none
	Zone     string
	Entered  time.Time
	Entry    int64
	Node     int       // of its program
	Step     string    // where it is, of code; else "", and Node says it
	Failed   bool      // it ended so
	Waiting  bool      // its step was begun
	Due      time.Time // when time alone ends its step; zero is never
	Settling time.Time // when it exits unless the contact is a member again; zero is never
	Trigger  string    // JSON: what its journey reads of what began it; "" for nothing
}

// Runs are the contact's that live, and those that failed.
func (s *State) Runs() []RunInfo {
	out := make([]RunInfo, len(s.runs))
	for i := range s.runs {
		r := &s.runs[i]
		out[i] = RunInfo{
			ID: r.id.String(), Journey: r.journey, Version: r.version, Key: r.key, Zone: r.zone, Entered: packed.Instant(r.entered), Entry: r.entry,
			Node: r.node, Step: r.open, Failed: r.failed, Waiting: r.waits, Due: packed.Instant(r.due), Settling: packed.Instant(r.settle),
			Trigger: r.trigger.doc,
		}
	}
	return out
}

// Next is when the time of a journey comes again for the contact; zero when it does not.
func (s *State) Next(journey string) time.Time {
	for i := range s.ticks {
		if s.ticks[i].journey == journey {
			return packed.Instant(s.ticks[i].next)
		}
	}
	return time.Time{}
}

// EntryInfo is how the contact has begun a journey, with one key.
type EntryInfo struct {
	Journey   string
	Key       string // JSON, "" for none
	Count     int64
	Last      time.Time // zero is never
	Holdout   bool      // the last was held out
	GoalUntil time.Time // until when the goal counts; zero when it is reached or there is none
	Queued    string    // the id of the trigger that waits, "" for none
	// Of the last trigger that did not enrol: why, when, and its id.
	Skip    string
	SkipAt  time.Time
	Skipped string
}

// Entries are how the contact has begun journeys, by journey and key.
func (s *State) Entries() []EntryInfo {
	out := make([]EntryInfo, len(s.entries))
	for i := range s.entries {
		e := &s.entries[i]
		out[i] = EntryInfo{
			Journey: e.journey, Key: e.key, Count: e.count, Last: packed.Instant(e.last), Holdout: e.holdout, GoalUntil: packed.Instant(e.goalUntil),
			Skip: e.skip, SkipAt: packed.Instant(e.skipAt), Skipped: e.skipped,
		}
		if e.queued != nil {
			out[i].Queued = e.queued.id
		}
	}
	return out
}

// Package derive is the frame of processors that derive state of contacts from what
// processor contacts says on topics events and lifecycle. A processor on it is a state of
// a contact, a pure function of state, record and time, and two set-based statements that
// load and save the states of many contacts.
//
// What the frame promises its processor:
//   - Each numbered record of a contact is stepped once and in the order of its numbers,
//     over both topics, however far apart they are read. What was true before the
//     processor began is taken over from Postgres, silently.
//   - When a contact is merged away, the survivor is given the loser's state in the same
//     step as contact.merged. A contact that was erased stays so.
//   - Timers are told once, at the earliest when they are due, unless they were armed anew
//     or left out by a later step.
//   - Facts are numbered, say after which record they became true, and count their hops;
//     a chain that goes in circles ends in a dead letter.
//   - A record that fails becomes a dead letter and takes its number: the next ones go on.
package derive

import (
	"context"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Processor is what the frame runs. S is its state of a contact, which encodes to JSON
// and back without loss, for it travels to the survivor of a merge. The zero S is that
// of a contact of which nothing is known.
type Processor[S any] interface {
	// Name is the name of the processor, of its group, and in signals, rows and dead
	// letters. It never changes.
	Name() string
	// Wants says whether a derived fact (bucket.*, journey.*, email.*) is of interest,
	// which its own are not. Numbered records come always.
	Wants(factType string) bool
	// TakeOver is the state of a contact of which Postgres knows this, and the timers that
	// follow from it.
	TakeOver(k *Known, now time.Time) (S, []Timer)
	// Step says what follows from a record. It is pure: state, record and now, nothing
	// else, and it changes neither. An error is the record's fault: it becomes a dead
	// letter, and the state stays as it was.
	Step(s S, r *Record[S], now time.Time) (Result[S], error)

	Store[S]
}

// Store loads and saves states. Documents is one.
type Store[S any] interface {
	// Load loads the states of contacts with a fixed number of statements. One without a
	// state is missing in the answer.
	Load(ctx context.Context, tx *storage.Tx, contacts []string) (map[string]S, error)
	// Save writes states with a fixed number of statements.
	Save(ctx context.Context, tx *storage.Tx, changed []Change[S]) error
}

// Change is a state that was changed.
type Change[S any] struct {
	ContactID string
	Partition int32
	State     S
	Forget    bool // the contact ended: nothing of it may be left
}

// Known is what Postgres knows of a contact when it is taken over.
type Known struct {
	// Contact is its row; nil of a contact that was merged away, whose events its survivor
	// is handed.
	Contact *storage.Contact
	// Events are those that are stored of it and of the contacts that were merged into it,
	// by time.
	Events []storage.StoredEvent
}

// Record is what a step is about: one of Event, Fact and Timer is set.
type Record[S any] struct {
	ID         string
	ContactID  string
	OccurredAt time.Time
	// Seq and Era are its place in the order of the contact. A timer and a derived fact
	// have that of the record that was stepped last.
	Seq, Era int64

	Event *schemas.Event
	Fact  *schemas.Fact
	Timer *Timer
	// Loser is beside contact.merged what the loser had; nil when that had been taken in
	// before, by the take-over or with another loser's.
	Loser *Loser[S]
}

// Loser is the state that a contact had when it was merged away.
type Loser[S any] struct {
	ContactID string
	State     S
	Took      []string // the contacts that had been merged into it before
}

// Result is what follows from a step.
type Result[S any] struct {
	State S
	// Outputs are published in this order. A fact is numbered, and what has hops has them
	// counted, by the frame; an id that is left out is derived.
	Outputs []schemas.Message
	// Timers are all that are armed after the step: what is not named here is not told.
	Timers []Timer
}

// Timer asks for a step at a time.
type Timer struct {
	What string // names it among those of the contact and the processor
	Due  time.Time
}

// maxHops is how many facts may follow from one another before it is taken for a circle.
const maxHops = 16

// longWait is the wait after which a chain begins anew.
const longWait = time.Hour

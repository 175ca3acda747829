// Package derive is the frame of processors that derive state of contacts from what
// processor contacts says on topics events and lifecycle. A processor on it is a state of
// a contact and a pure function of state, record and time; the frame keeps the states.
//
// What the frame promises its processor:
//   - Each numbered record of a contact is stepped once and in the order of its numbers,
//     over both topics, however far apart they are read. What was true before the
//     processor began is taken over from Postgres, silently.
//   - When a contact is merged away, the survivor is given the loser's state in the same
//     step as contact.merged. A contact that was erased stays so.
//   - When definitions change, the state of each contact is filled with them from Postgres,
//     as of the record that was stepped last: nothing counts twice, nothing is left out.
//   - Timers are told once, at the earliest when they are due, unless they were armed anew
//     or left out by a later step.
//   - Facts are numbered, say after which record they became true, and count their hops;
//     a chain that goes in circles ends in a dead letter.
//   - What a step puts on outbox bears who asks and about whom; its receipt is a step, also
//     when the contact was merged away meanwhile.
//   - A record of which a step needs what this process lacks and another may have ([Lacking])
//     waits for that one, with what comes after it for the contact.
//   - A record that fails becomes a dead letter and takes its number: the next ones go on.
package derive

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Processor is what the frame runs. S is its state of a contact; the zero S is that of a
// contact of which nothing is known.
type Processor[S any] interface {
	// Name is the name of the processor, of its group, and in signals, rows and dead
	// letters. It never changes.
	Name() string
	// At is the logic as of a transaction: with the definitions that are in use then. It is
	// called for each batch, so it costs little when nothing has changed.
	At(ctx context.Context, tx *storage.Tx) (Logic[S], error)
	// Encode and Decode make bytes of a state and a state of them, without loss: so it is
	// kept, and travels to the survivor of a merge. JSON has both.
	Encode(s S) ([]byte, error)
	Decode(text []byte) (S, error)
	// Clone is a copy that steps of the other leave alone, with what is not encoded.
	Clone(s S) (S, error)
	// Save writes what queries need beside the states, in a fixed number of statements.
	Save(ctx context.Context, tx *storage.Tx, changed []Change[S]) error
}

// Logic is what a processor makes of records. All of it is pure: it knows no clock and no
// database, and the same goes in and comes out.
type Logic[S any] interface {
	// Wants says whether a derived fact (bucket.*, journey.*, email.*) is of interest,
	// which its own are not. Numbered records come always.
	Wants(factType string) bool
	// TakeOver is the state of a contact of which Postgres knows this, and the timers that
	// follow from it. before is what was kept of it when it is taken over anew, with the zero
	// S otherwise: what no history tells is to be carried on from it.
	TakeOver(before S, k *Known, now time.Time) (S, []Timer)
	// Step says what follows from a record. It may change the state that it is given and
	// return it, but not when it returns an error, which is the record's fault: that becomes
	// a dead letter, and the state stays as it was. A panic is as much.
	Step(s S, r *Record[S], now time.Time) (Result[S], error)
	// HandOver is what a contact that is merged away says last, in its own name, and the
	// state that its survivor is given. now is when the last that led to it was put on the log.
	HandOver(s S, contact string, now time.Time) (S, []schemas.Message)
}

// Refills is a Logic whose definitions change. A state that is behind the version in use
// is filled when the contact stands where Postgres has it, at the latest with its next
// record; until then Step goes on with the definitions that have not changed since.
type Refills[S any] interface {
	Logic[S]
	// Version is that of the definitions in use. It grows, from 1 on.
	Version() int64
	// VersionOf is the version that a state is filled with.
	VersionOf(s S) int64
	// Names are the stored events that Refill looks at of a state of a version; nil for none.
	Names(version int64) []string
	// Refill is the state with the definitions in use, and what follows from that. Of k it is
	// given at least the events that Names says, as of the record that was stepped last. It
	// may change s as Step may; after an error the state stays behind.
	Refill(s S, k *Known, now time.Time) (Result[S], error)
}

// JSON keeps states as JSON, and nothing beside them. A Processor embeds it.
type JSON[S any] struct{}

// Encode implements Processor.
func (JSON[S]) Encode(s S) ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode a state: %w", err)
	}
	return text, nil
}

// Decode implements Processor.
func (JSON[S]) Decode(text []byte) (s S, err error) {
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("decode a state: %w", err)
	}
	return s, nil
}

// Clone implements Processor.
func (j JSON[S]) Clone(s S) (S, error) {
	text, err := j.Encode(s)
	if err != nil {
		return s, err
	}
	return j.Decode(text)
}

// Save implements Processor: there is nothing to write.
func (JSON[S]) Save(context.Context, *storage.Tx, []Change[S]) error { return nil }

// Change is a state that was changed.
type Change[S any] struct {
	ContactID string
	Partition int32
	State     S
	// Survivor is whom the contact was merged into just now. State is what it has handed
	// over, and the last that is saved of it.
	Survivor string
	// Forget says that the contact was erased, or that it had been merged into one that was:
	// nothing of it may be left. State is the zero one, and Partition that of the one erased.
	Forget bool
}

// Known is what Postgres knows of a contact when it is taken over.
type Known struct {
	// Contact is its row; nil of a contact that was merged away, whose events its survivor
	// is handed.
	Contact *storage.Contact
	// Events are those that are stored of it and of the contacts that were merged into it,
	// by time.
	Events []storage.StoredEvent
	// Beside are its memberships and whether it unsubscribed, as of now, for a Logic that
	// [LooksBeside]; nil otherwise, and when there is nothing. Facts that say the same may
	// still come.
	Beside *storage.Beside
}

// LooksBeside is a Logic that needs to know more of a contact than its row and its events.
type LooksBeside interface{ LooksBeside() bool }

// Record is what a step is about: one of Event, Fact, Timer, Command and Receipt is set.
type Record[S any] struct {
	ID         string
	ContactID  string
	OccurredAt time.Time
	// Seq and Era are its place in the order of the contact. A timer, a command and a derived
	// fact have that of the record that was stepped last.
	Seq, Era int64
	// Hops is how many causes led to the record, as far as they are counted.
	Hops int

	Event *schemas.Event
	Fact  *schemas.Fact
	Timer *Timer
	// Command is what somebody tells the processor to do with the contact.
	Command *Command
	// Receipt is what came of an outbox record that the processor asked for, under the epoch
	// that it gave it. It may come again, see [Asks]; never does one of a contact that is not
	// known or was erased.
	Receipt      *schemas.Receipt
	ReceiptEpoch int64
	// Loser is beside contact.merged what the loser had; nil when that had been taken in
	// before, by the take-over or with another loser's.
	Loser *Loser[S]
	// Place is where the record stands that led to the step; of what was forwarded or
	// redriven, that of the signal which carries it. A Rehearsal has none.
	Place Place
}

// Place is where a record stands on the log.
type Place struct {
	Topic      schemas.Topic
	Partition  int32
	Offset     int64
	AppendedAt time.Time
}

// Command is a signal of type command.
type Command struct {
	What string // is to be done
	JSON string // with this; empty for nothing
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
	// Same says that the state has not changed: it is not written.
	Same bool
	// Outputs are published in this order: facts; inputs about the contact, which go the
	// usual road; email requests; outbox records; and signals, which are commands to another
	// processor. A fact is numbered, what has hops has them counted, and all are about the
	// contact, by the frame; an id or a time that is left out is made.
	Outputs []schemas.Message
	// Cancel takes outbox records back, by their ids: what was not sent by then is not sent any
	// more, which its receipt says.
	Cancel []string
	// Answer is what somebody is told who waits for it; nil is nothing. It is kept with the
	// state.
	Answer *storage.Answer
	// Timers are all that are armed after the step: what is not named here is not told.
	Timers []Timer
	// Hops is how many causes led to what follows, where the processor knows better than by the
	// record, such as none when it follows because an hour or more has passed; nil: as many as
	// led to the record. Of a timer that was armed an hour ago the frame knows it; it does not of
	// a wait whose timer was armed again meanwhile, for another.
	Hops *int
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

package derive

import "github.com/hogstream/hogstream/schemas"

// Asks are the outbox records of a contact whose receipts are still of interest, by id. A
// state that has them in it takes every receipt once: one may come again after a crash. The
// zero value is empty; of a loser's, [Asks.Join] takes over what it asked for.
type Asks map[string]AskState

// AskState is what is known of an outbox record.
type AskState int

const (
	// AskOpen: there was no receipt yet.
	AskOpen AskState = iota
	// AskGivenUp: it was given up; a final receipt may follow when an operator sends its
	// dead letter again.
	AskGivenUp
)

// Ask notes an outbox record that was published.
func (a *Asks) Ask(id string) {
	if *a == nil {
		*a = Asks{}
	}
	(*a)[id] = AskOpen
}

// Take says whether a receipt tells something new, and notes it.
func (a *Asks) Take(r *schemas.Receipt) bool {
	state, known := (*a)[r.OutboxID]
	switch {
	case !known, r.Final != (state == AskGivenUp):
		return false
	case r.Result == schemas.ReceiptGivenUp:
		(*a)[r.OutboxID] = AskGivenUp
	default:
		delete(*a, r.OutboxID)
	}
	return true
}

// Join takes over what a contact asked for that was merged into this one.
func (a *Asks) Join(loser Asks) {
	for id, state := range loser {
		if *a == nil {
			*a = Asks{}
		}
		(*a)[id] = state
	}
}

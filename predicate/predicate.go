// Package predicate is conditions: what is asked of a contact by buckets, journeys and
// the filters of destinations.
//
// It promises the other packages:
//
//   - A condition written in YAML, in JSON or with the builder is one value, with one
//     canonical form and one hash. What is wrong with a written one is said with file,
//     line, path and, for a mistyped word, what was probably meant ([Faults]).
//   - [Compile] turns a set of conditions into a [Set], which knows what each looks at.
//     [Set.Apply] brings what is known of a contact ([State]) up to date with a record and
//     names the conditions to look at again: none when nothing they look at has changed.
//   - [Set.Evaluate] answers for one condition at one instant, exact to the microsecond,
//     and says when time alone may turn the answer. Nothing turns it before.
//   - not is the exact complement: a value that is missing or of another type makes a
//     comparison false, and its negation true.
//   - The state of a contact is bounded by the conditions and [Limits], whatever the length
//     of its history, and within the limits it does not depend on the order in which records
//     came. A record counts once, also when two contacts that both had it are merged.
//
// Nothing here looks at a clock or does I/O.
package predicate

import (
	"fmt"
	"time"
)

// Limits bound what a condition may ask for, and with it the state of a contact.
type Limits struct {
	// Count is the highest threshold of a count. So many times are kept of an event.
	Count int
	// Sequence is how many of the newest first events a sequence looks at. A first event
	// that comes late, or by a merge, is compared with as many of the newest others.
	Sequence int
	// Total is of how many of the newest events the amounts are kept one by one, for totals
	// within a window, which look at these alone. A total without a window is of all events;
	// of older ones than the newest 100 it does not know a repeat.
	Total int
	// Retention is how long events are kept; no window may be longer. Zero is for ever.
	Retention time.Duration
}

// DefaultLimits are 1,000 events for counts and totals, 100 for sequences, and no
// retention.
func DefaultLimits() Limits { return Limits{Count: 1000, Sequence: 100, Total: 1000} }

// maxLimit is beyond what anybody counts, and bounds a state.
const maxLimit = 100_000

// Validate says which limit cannot be.
func (l Limits) Validate() error {
	for _, bound := range []struct {
		name string
		n    int
	}{{"Count", l.Count}, {"Sequence", l.Sequence}, {"Total", l.Total}} {
		if bound.n < 1 || bound.n > maxLimit {
			return fmt.Errorf("limits: %s is %d: use 1 to 100,000", bound.name, bound.n)
		}
	}
	if l.Retention < 0 {
		return fmt.Errorf("limits: Retention is %s: use zero for ever, or the time for which events are kept", l.Retention)
	}
	return nil
}

package delivery

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/stream"
)

// What follows from an attempt is decided here, by values alone; settle.go carries it
// out.

// A situation is what the consequence of an attempt depends on, beside its outcome.
type situation struct {
	// The attempt.
	records []*stream.Record // what it carried
	letters bool             // it was to append their dead letters, not to send them
	probe   bool             // of an open circuit
	retired bool             // its track has ended: whoever is next starts from the cursor
	tries   int              // attempts at these records, this one included
	// When the first attempt at them that failed began, and when the last one before this
	// one ended: when this one began, if none has failed before.
	firstFailed, lastFailed time.Time
	asked                   time.Time     // until when the receiver has asked to wait
	failing                 time.Duration // how much open time they have failed for
	// Of records of a topic that answers: which they are, nil when none is, and when the first of
	// them is too late.
	asks     []bool
	notAfter time.Time

	// Their key.
	loaded   bool // it is parked: the record came from Postgres
	parkable bool // its track may park

	// The destination.
	halted       bool // nothing starts
	circuitOpen  bool
	mostFail     bool      // of its calls of late, over several contacts
	lastDelivery time.Time // of any key
	refusals     int       // in a row, this one included
	refusedKeys  int       // their contacts, up to suspendKeys
	horizon      time.Duration
}

// A fate is what becomes of the records of an attempt.
type fate int

const (
	// forget: nothing is kept of the attempt.
	forget fate = iota
	// finish: they count as finished at the cursor, and their lanes go on.
	finish
	// retry: their lanes wait for the next attempt.
	retry
	// park: the key, with all its lane holds, waits in Postgres.
	park
	// bury: they become dead letters, and their lanes go on.
	bury
	// split: they are sent in halves, one after the other.
	split
	// divide: each has a fate of its own.
	divide
)

// A consequence is what follows from an attempt.
type consequence struct {
	fate   fate
	reason string    // of dead letters
	failed bool      // it counts as a failure of the records
	at     time.Time // of the next attempt: retry, park
	lookAt time.Time // retry: when, before that, to check whether to park; zero for never

	each []fate  // divide: finish, bury or retry, or forget
	rest Outcome // divide: what came of those to retry

	accepted bool // the destination took something
	circuit  circuitChange
	suspend  string // why the destination is suspended; "" when it is not
}

// A circuitChange is what an attempt does to the destination's circuit.
type circuitChange int

const (
	circuitStays circuitChange = iota
	circuitOpens
	circuitCloses
	circuitProbesLater // it stays open, for longer than after the probe before
)

// The destination is at fault when this many attempts in a row were refused, over
// at least so many contacts: one contact may be refused for its own sake.
const (
	suspendAfter = 20
	suspendKeys  = 5
)

// A key is parked after so many failures of its record, or once it has been
// failing for so long, if the destination accepted another's in between.
const (
	parkAfterTries = 5
	parkAfter      = 10 * time.Second
)

// decide says what follows from an attempt that ended now. chance, in [0, 1), spreads
// the next ones.
func decide(s *situation, out *Outcome, now time.Time, cfg *Config, chance float64) consequence {
	q := s.ofRecords(out, now, cfg, chance)
	if s.retired {
		return q.afterRetirement()
	}
	q.circuit = s.circuitAfter(out)
	q.suspend = s.suspension(out)
	return q
}

func (s *situation) ofRecords(out *Outcome, now time.Time, cfg *Config, chance float64) consequence {
	switch s.verdict(out) {
	case Delivered:
		return consequence{fate: finish, accepted: !s.letters}
	case Skipped, Erased, Expired, Cancelled:
		return consequence{fate: finish}
	case Reject:
		if s.isAsked(0) {
			return consequence{fate: finish} // the receipt says all, and whoever asked decides
		}
		return consequence{fate: bury, reason: "rejected"}
	case Split:
		return consequence{fate: split}
	case Partial:
		return s.dividedBy(out)
	}
	return s.again(out, now, cfg, chance) // Retry, and Refuse and Gone until an operator has mended it
}

// isAsked says whether a record has a receipt.
func (s *situation) isAsked(i int) bool { return s.asks != nil && s.asks[i] }

// inTime is a time to look at the records again: no later than it is too late to send them.
func (s *situation) inTime(at time.Time) time.Time {
	if !s.notAfter.IsZero() && s.notAfter.Before(at) {
		return s.notAfter
	}
	return at
}

// verdict is the outcome's, as far as it can be true of this attempt.
func (s *situation) verdict(out *Outcome) Verdict {
	switch v, one := out.Verdict, len(s.records) == 1; {
	case s.letters && v != Delivered:
		return Retry
	case v == Partial && len(out.Results) != len(s.records):
		return Retry // cannot be: the Deliverer says one for each
	case v == Reject && !one:
		return Split
	case v == Split && one:
		return Reject
	default:
		return v
	}
}

// again is what follows for records that are to be sent again: they are given up when
// they have failed for the whole retry horizon; a key that holds up its lane for its
// own sake is parked; all others wait in their lanes.
func (s *situation) again(out *Outcome, now time.Time, cfg *Config, chance float64) consequence {
	q := consequence{failed: true}
	switch {
	case !s.letters && s.failing >= s.horizon:
		q.fate, q.reason = bury, "expired"
	case s.loaded, s.holdsUp(now) && len(s.records) == 1:
		q.fate, q.at = park, s.inTime(s.parkedUntil(out, now, cfg, chance))
	case s.holdsUp(now):
		q.fate = split // one of the batch is at fault: halves, until it is alone
	default:
		q.fate = retry
		q.at = s.inTime(now.Add(backoff(s.tries, cfg.BackoffBase, cfg.BackoffMax, chance, out.RetryAfter)))
		if parkAt := s.firstFailed.Add(parkAfter); s.parkable && q.at.After(parkAt) && now.Before(parkAt) {
			q.lookAt = parkAt
		}
	}
	return q
}

// whileWaiting is what follows when records that wait until notBefore are checked
// before that: they may have come to hold up their lane.
func (s *situation) whileWaiting(out *Outcome, notBefore, now time.Time, cfg *Config, chance float64) consequence {
	if s.holdsUp(now) && len(s.records) == 1 {
		return consequence{fate: park, at: s.inTime(s.parkedUntil(out, now, cfg, chance))}
	}
	return consequence{fate: retry, at: notBefore}
}

// holdsUp says whether the records, which have just failed again or still wait, hold up
// their lanes for their own sake: the destination accepts others.
func (s *situation) holdsUp(now time.Time) bool {
	if !s.parkable || s.letters || !s.lastDelivery.After(s.lastFailed) {
		return false
	}
	return s.tries >= parkAfterTries || now.Sub(s.firstFailed) >= parkAfter
}

// parkedUntil is when a parked key is tried again.
func (s *situation) parkedUntil(out *Outcome, now time.Time, cfg *Config, chance float64) time.Time {
	wait := backoff(s.tries, cfg.BackoffBase, cfg.ParkedMax, 0.5+chance/2, out.RetryAfter)
	return now.Add(max(wait, s.asked.Sub(now)))
}

// backoff is how long to wait after the n-th failed attempt in a row (1 is the
// first): exponential with full jitter, chance being in [0, 1), and never sooner
// than the receiver asked for. Full jitter spreads the retries of many keys that
// failed at the same moment over the whole delay.
func backoff(n int, base, limit time.Duration, chance float64, retryAfter time.Duration) time.Duration {
	ceiling := limit
	if shift := n - 1; shift < 32 && base<<shift>>shift == base && base<<shift < limit {
		ceiling = base << shift
	}
	return max(time.Duration(chance*float64(ceiling)), retryAfter)
}

// dividedBy is what follows when the receiver answered for each record of a batch: what
// was taken or left out is finished, what was rejected becomes a dead letter, and the
// rest is sent again. Of one contact everything behind a record that is sent again
// is sent again with it, also what the receiver has taken: otherwise it would hear
// the newer word first and the older one last, and the cursor would call the newer
// one delivered before the older one. What it has taken already it knows by its id.
func (s *situation) dividedBy(out *Outcome) consequence {
	q := consequence{fate: divide, each: make([]fate, len(s.records)), rest: *out}
	q.rest.Verdict, q.rest.Results, q.rest.Err = Retry, nil, ""
	waits := map[string]bool{}
	for i, r := range s.records {
		result := out.Results[i]
		q.accepted = q.accepted || result.Verdict == Delivered
		switch key := string(r.Key); {
		case result.Verdict == Reject && !waits[key] && s.isAsked(i):
			q.each[i] = finish
		case result.Verdict == Reject && !waits[key]:
			q.each[i] = bury
		case (result.Verdict == Delivered || result.Verdict == Skipped) && !waits[key]:
			q.each[i] = finish
		default:
			q.each[i] = retry
			q.rest.Err = cmp.Or(q.rest.Err, result.Err, out.Err)
			waits[key] = true
		}
	}
	return q
}

// afterRetirement is what of a consequence still holds when its track has ended
// meanwhile: whoever owns the partition now starts from the cursor, so only a success
// is worth keeping, for it is not repeated then.
func (q consequence) afterRetirement() consequence {
	kept := consequence{}
	switch q.fate {
	case finish:
		kept.fate = finish
	case divide:
		kept.fate, kept.each = divide, slices.Clone(q.each)
		for i, f := range kept.each {
			if f != finish {
				kept.each[i] = forget
			}
		}
	}
	return kept
}

// circuitAfter says what the attempt does to the circuit: any answer but a failure
// closes it.
func (s *situation) circuitAfter(out *Outcome) circuitChange {
	switch {
	case s.letters || out.Verdict == Skipped:
		return circuitStays // it says nothing about the destination
	case s.circuitOpen && !out.failed():
		return circuitCloses
	case s.circuitOpen && s.probe:
		return circuitProbesLater
	case !s.circuitOpen && s.mostFail:
		return circuitOpens
	}
	return circuitStays
}

// suspension is why the destination is suspended now, "" when it is not: a rotated
// secret or a moved URL must not empty a topic into dead letters.
func (s *situation) suspension(out *Outcome) string {
	switch v := s.verdict(out); {
	case s.halted:
		return ""
	case v == Gone:
		return "the receiver is gone: " + out.Class()
	case v == Refuse && s.refusals >= suspendAfter && s.refusedKeys >= suspendKeys:
		return fmt.Sprintf("%d attempts in a row were refused, the last with: %s", s.refusals, out.Class())
	}
	return ""
}

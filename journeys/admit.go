package journeys

// Reasons of not enrolling, in the order in which they are looked at.
const (
	SkipDisabled     = "journey_disabled"           // its definition says so
	SkipByAdmin      = "journey_disabled_by_admin"  // somebody switched it off
	SkipPaused       = "journey_paused"             // somebody paused it
	SkipNoCode       = "code_missing"               // its code is not in the process that has the contact
	SkipWhere        = "trigger_conditions_not_met" // the trigger's where
	SkipNoKey        = "no_key"                     // the trigger has no key, or one that is no scalar or too long
	SkipOnce         = "already_entered_once"       // entryLimit once
	SkipPeriod       = "period_not_elapsed"         // entryLimit once_per_period
	SkipUnsubscribed = "user_unsubscribed"          // from everything
	SkipActive       = "already_active"             // live ignore: a run lives
	SkipQueued       = "already_queued"             // live queue: a trigger waits already
	SkipFull         = "too_many_runs"              // the contact has as many live runs as it may
	SkipHoldout      = "holdout"                    // nothing is done, to compare with
	SkipLate         = "late"                       // a time that comes again was missed by too much
)

// policy is what a journey says of entries.
type policy struct {
	limit        string
	period       int64
	live         string
	unsubscribed bool // the contact is, and the journey leaves such out
	full         bool // the contact has too many runs
}

// entry is how a contact has begun a journey, with one key.
type entry struct {
	journey string
	key     string // JSON, "" for none
	count   int64  // of entries, held-out ones too
	last    int64  // when the last was
	holdout bool   // the last was held out

	goalUntil int64  // until when the goal counts; 0 for no goal, or a reached one
	version   string // of the program whose goal it is
	run       string // its run
	live      bool   // a run lives

	skip    string // why the last trigger that did not enrol did not, "" for none
	skipAt  int64
	skipped string // its id

	queued *trigger // waits until the live run ends
}

// verdict is what comes of a trigger.
type verdict struct {
	enrol   bool
	restart bool   // after the live run has exited
	queue   bool   // when the live run ends
	reason  string // why neither
}

// admit says whether a contact begins a journey now. It is the guards from the entry limit
// on; those before need the record.
func admit(e *entry, p policy, now int64) verdict {
	switch {
	case p.limit == EntryOnce && e.count > 0:
		return verdict{reason: SkipOnce}
	case p.limit == EntryOncePerPeriod && e.count > 0 && e.last > now-p.period:
		return verdict{reason: SkipPeriod}
	case p.unsubscribed:
		return verdict{reason: SkipUnsubscribed}
	case e.live && p.live == LiveRestart:
		return verdict{enrol: true, restart: true}
	case e.live && p.live == LiveQueue && e.queued != nil:
		return verdict{reason: SkipQueued}
	case e.live && p.live == LiveQueue:
		return verdict{queue: true}
	case e.live:
		return verdict{reason: SkipActive}
	case p.full:
		return verdict{reason: SkipFull}
	}
	return verdict{enrol: true}
}

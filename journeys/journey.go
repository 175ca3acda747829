package journeys

import (
	"time"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schedule"
)

// Entry limits: how often a contact may begin a journey, or each key of a contact one that
// has keys.
const (
	EntryOnce          = "once"            // the default
	EntryOncePerPeriod = "once_per_period" // when the last entry is an entry period ago
	EntryUnlimited     = "unlimited"
)

// What comes of a trigger while a run of the same contact, journey and key lives.
const (
	LiveIgnore  = "ignore"  // the default: nothing
	LiveRestart = "restart" // that run exits, and a new one begins
	LiveQueue   = "queue"   // a new one begins when that run ends; one trigger waits
)

// What comes of live runs when their journey is changed or removed.
const (
	OnChangeFinish = "finish" // the default: they go on with the version that they began
	OnChangeExit   = "exit"   // they exit with the reason definition_changed
)

// Journey is steps that begin with a trigger. The zero value of a field that has a default
// means the default.
type Journey struct {
	ID          string // unique and stable: it stands in facts, keys and commands
	Name        string // for people
	Description string // for people
	// Enabled: a journey that is not enrols nobody; its runs go on.
	Enabled bool
	Trigger Trigger
	// Key is a property of the trigger. Runs of one contact with different keys, such as the
	// ids of two carts, are two runs that know nothing of each other. Empty: there is one run
	// of a contact.
	Key predicate.Path

	EntryLimit  string        // EntryOnce (default), EntryOncePerPeriod or EntryUnlimited
	EntryPeriod time.Duration // of EntryOncePerPeriod; 24 hours by default
	Live        string        // LiveIgnore (default), LiveRestart or LiveQueue
	// Zone is whose clock is meant by times of day; nil is that of the contact, as it was when
	// the run began.
	Zone *time.Location
	// Everybody enrols also those who unsubscribed from everything.
	Everybody bool
	// ExitOn are what ends a run before its end.
	ExitOn []Exit
	// Holdout is of how many in a hundred contacts nothing is done, so that others can be
	// compared with them. Who they are follows from contact and journey.
	Holdout float64
	Goal    Goal
	// OnChange is OnChangeFinish (default) or OnChangeExit.
	OnChange string
	// Window is when waits that name a time of day and no window of their own may end.
	Window schedule.Window
	// Version names what a run belongs to; empty: it follows from trigger, key, exits and
	// steps.
	Version string
	Steps   []Step

	// Coded says that the steps are Go code, which [Define] says more of; then there are no
	// Steps, and Version is that of the code. Code is nil in a program that does not have it.
	Coded bool
	Code  func(*Run) error
	// Reads are the properties of the contact that WaitUntil of the code looks at, and
	// Conditions those that it asks for, by the names that Holds takes.
	Reads      []predicate.Path
	Conditions map[string]predicate.Condition
	// Lookbacks are the records at which a WaitFor of the code may look back.
	Lookbacks []Lookback

	// File is where it was defined, for faults. It is no part of the canonical form.
	File string
}

// Trigger is what begins a run: records, or a time that comes again for the members of a
// bucket.
type Trigger struct {
	Records []Match // of which one must be met

	Repeat *schedule.Repeat
	Bucket string // whose members Repeat is for
	// NotAfter is how late Repeat may be; one that is later is skipped. 2 hours by default.
	NotAfter time.Duration
}

// Lookback are records that are kept for a time, so that a WaitFor of code that waits for
// the same event and Where may look back at them: the newest 100 of a contact.
type Lookback struct {
	Match Match         // without Same
	For   time.Duration // at most MaxTimeout; a WaitFor may look back for less
	// Keep are the properties that are kept of each.
	Keep []predicate.Path
}

// Match says which records are meant.
type Match struct {
	// Event is the name of a product event or the type of a fact. bucket.entered:vip is the
	// fact on the bucket vip; so are bucket.left, bucket.dwell (bucket.dwell:vip:after-…) and
	// journey.completed, journey.exited and journey.failed.
	Event string
	// Where is a selector without event and buckets, on the record's properties; zero: all.
	Where predicate.Selector
	// Same are properties that must be the same as a value of the run.
	Same []Same
}

// Same compares a property of a record with a value of the run, by type and value. What is
// missing is the same as nothing.
type Same struct {
	Property string
	Value    Value
}

// Exit is a record that ends a run.
type Exit struct {
	Match
	// Settle, of bucket.left: how long after it the run exits, unless the contact is a member
	// again by then.
	Settle time.Duration
	// Reason is what the run's end says; by default the event.
	Reason string
}

// Goal is what the journey is for. Whoever began it, or was held out, has reached the goal
// with such a record within a time. The zero value is none.
type Goal struct {
	Match
	Within time.Duration
}

// Step is one of its kinds: exactly one of the fields from Wait on is set.
type Step struct {
	// ID names the step in facts and values; by default it is made of kind and place, such as
	// email-1.
	ID string

	Wait      *schedule.Until
	WaitUntil *WaitUntil
	WaitFor   *WaitFor
	Branch    []Arm
	Split     []Share
	Set       *Value // an object: properties of the contact
	Trigger   *Event
	Bucket    *Membership
	Email     *Email
	Call      *Call
	Exit      string // the reason

	job *job // of code, see Do

	// Then are the steps for an outcome of WaitFor, WaitUntil and Call, by its name. After
	// them, and for an outcome without, it goes on behind the step.
	Then map[string][]Step
}

// Outcomes of steps. Those of a WaitFor are the names of its alternatives, those of a
// branch and a split the names of their parts.
const (
	OutcomeNext     = "next"     // of a step that has one outcome
	OutcomeTimeout  = "timeout"  // of a WaitFor
	OutcomeReached  = "reached"  // of a WaitUntil
	OutcomePast     = "past"     // of a WaitUntil: the date was past already
	OutcomeMissing  = "missing"  // of a WaitUntil: there is no date
	OutcomeElse     = "else"     // of a branch: none of its conditions holds
	OutcomeAccepted = "accepted" // of a call
	OutcomeFailed   = "failed"   // of a call and a Do
	OutcomeSkipped  = "skipped"  // of a wait that somebody ended
	OutcomeDone     = "done"     // of a Do
)

// What a WaitUntil does about a date that is past or missing, and a Call and a Job about a
// failure.
const (
	DoContinue = "continue"
	DoExit     = "exit"
	DoWait     = "wait"
	DoFail     = "fail"
)

// WaitUntil waits for a date that stands in a property of the contact, and follows it when
// it changes.
type WaitUntil struct {
	// Property holds an instant with its zone, or a calendar date.
	Property predicate.Path
	Shift    time.Duration // from the date; negative is before it
	// At is the time of day on the date, in the zone of the run; without it, an instant is
	// itself and a calendar date begins at midnight.
	At schedule.TimeOfDay
	// Past says what comes of a date that is past: DoContinue (default) or DoExit.
	Past string
	// Missing says what comes of no date: DoWait (default), DoContinue or DoExit.
	Missing string
}

// WaitFor waits for the first of several things.
type WaitFor struct {
	Any     []Alternative // in order: of two that one record brings about, the first counts
	Timeout time.Duration // at most MaxTimeout
	// Lookback takes also records that came so long before the wait began.
	Lookback time.Duration
}

// Alternative is a record, or a condition on the contact.
type Alternative struct {
	As        string // its name; by default the event, or condition
	Match     Match
	Condition predicate.Condition
}

// Arm is a part of a branch: the first whose conditions hold is taken. One without any is
// the last, and always taken.
type Arm struct {
	As      string              // its name; by default its number from 1, or else
	When    predicate.Condition // on the contact
	Trigger predicate.Selector  // on the properties of what began the run
	Last    predicate.Selector  // on those of the record that ended the last WaitFor
	Do      []Step

	named bool // As is the name of one of the conditions of code
}

// Share is a part of a split. Who takes which follows from contact, journey and step.
type Share struct {
	As      string // its name; by default its number from 1
	Percent float64
	Do      []Step
}

// Event is a product event of the contact, which goes the way of every event.
type Event struct {
	Name       string
	Properties *Value // an object; nil: none
}

// Membership puts the contact into a manual bucket or takes it out: one of the two is set.
type Membership struct{ Add, Remove string }

// Email is a mail that shall be sent.
type Email struct {
	Template string
	Category string // journey by default
	Subject  string // empty: the template's
	Props    *Value // an object; nil: none
	// SkipPreference sends also to those who unsubscribed.
	SkipPreference bool
}

// Call asks a destination, and goes on when it has answered.
type Call struct {
	Destination string // its name, or its id
	Body        *Value // nil: {}
	Headers     map[string]string
	// Timeout is until when it may be tried again; 1 hour by default.
	Timeout time.Duration
	// Failed says what comes of a failure when there are no steps for it: DoFail (default)
	// ends the run, DoContinue goes on.
	Failed string
}

const (
	defaultEntryPeriod = 24 * time.Hour
	defaultNotAfter    = 2 * time.Hour
	defaultTimeout     = time.Hour
	defaultCategory    = "journey"
)

package schemas

// Answer is the outcome of an input whose sender waits, as JSON in table
// answers. Events with an idempotency key and deletions are answered by
// processor identity, property patches by processor contacts; what an event did to runs is
// an answer of its own, [Exits].
type Answer struct {
	// ContactID is the contact that the input went to; empty when there is none.
	ContactID string `json:"id,omitempty"`
	Stored    bool   `json:"stored"`  // event: false for a duplicate
	Deleted   bool   `json:"deleted"` // delete: the contact existed and is gone
	Created   bool   `json:"created"` // contact: it did not exist before
	Linked    bool   `json:"linked"`  // contact: it existed before
	// Merged are the contacts that this input folded into ContactID.
	Merged     []string   `json:"merged,omitempty"`
	Conflicts  []Conflict `json:"conflicts,omitempty"`
	ListsError string     `json:"listsError,omitempty"`
	// Error is one of the Answer… constants, or empty.
	Error string `json:"error,omitempty"`
	// First is, of a duplicate, the input that had the key first.
	First string `json:"first,omitempty"`
}

// Exits is what an event whose sender waits did to the contact's runs of journeys, as JSON
// in table answers under [ExitsID]. Processor journeys says it.
type Exits struct {
	ContactID string `json:"id"`
	// Exits are the runs that lived when the event came and whose journey declares exitOn.
	Exits []Exit `json:"exits"`
}

// Exit is a run that an event might have ended, in the words of the API.
type Exit struct {
	JourneyID string `json:"journeyId"`
	StateID   string `json:"stateId" doc:"The run's id."`
	Exited    bool   `json:"exited" doc:"Whether the event ended it."`
}

// ExitsID is the id under which table answers has the [Exits] of an event.
func ExitsID(eventID string) string { return Derive(eventID, "exits", 0) }

// Why an input had no effect.
const (
	AnswerNotFound = "not_found" // delete: no such contact
	AnswerConflict = "conflict"  // delete: the identifiers name different contacts; see Conflicts
	AnswerErased   = "erased"    // the contact was deleted after the input was sent
)

// NoEmailForLists is the ListsError of a contact without an address.
const NoEmailForLists = "Contact has no email; cannot manage list membership"

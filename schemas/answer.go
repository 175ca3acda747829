package schemas

// Answer is the outcome of an input whose sender waits, as JSON in table
// answers. Events with an idempotency key and deletions are answered by
// processor identity, property patches by processor contacts.
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
}

// Why an input had no effect.
const (
	AnswerNotFound = "not_found" // delete: no such contact
	AnswerConflict = "conflict"  // delete: the identifiers name different contacts; see Conflicts
	AnswerErased   = "erased"    // the contact was deleted after the input was sent
)

// NoEmailForLists is the ListsError of a contact without an address.
const NoEmailForLists = "Contact has no email; cannot manage list membership"

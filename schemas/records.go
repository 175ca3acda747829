package schemas

import "time"

// Message is a value that can be published: it knows its topic, its key and
// what stands in the headers of its record.
type Message interface {
	// Topic is the topic that the message belongs on.
	Topic() Topic
	// Key is the record's key, UTF-8, partitioned by murmur2.
	Key() string
	// Meta is what the headers say, so that a reader can filter without decoding.
	Meta() Meta
}

// Meta is the content of a record's headers (`id`, `type`, `occurred-at`).
type Meta struct {
	ID         string // UUID; v7 for an input, v5 for everything derived
	Type       string
	OccurredAt time.Time
	// Seq and Era are the record's place in the order of its contact; Seq is 0 for
	// one that has none.
	Seq, Era int64
}

// Types of an Input.
const (
	InputEvent   = "event"   // POST /v1/events: a product event, with or without a property patch
	InputContact = "contact" // PUT /v1/contacts: a property patch
	InputDelete  = "delete"  // DELETE /v1/contacts: erase the person
)

// Input is a value of topic ingest: what a sender said, with the subject as sent.
type Input struct {
	ID         string    `avro:"id"`   // UUIDv7 given at ingest
	Type       string    `avro:"type"` // one of the Input… constants
	ReceivedAt time.Time `avro:"receivedAt"`
	OccurredAt time.Time `avro:"occurredAt"`
	Source     string    `avro:"source"` // "api", "import", "journey:<id>", "source:<id>"

	// The subject. At least one is set. Email is normalised (trimmed, lower
	// case), the others are trimmed. ContactID is set from inside only.
	UserID      *string `avro:"userId"`
	Email       *string `avro:"email"`
	AnonymousID *string `avro:"anonymousId"`
	ContactID   *string `avro:"contactId"`

	Event *string `avro:"event"` // the event's name, for type event
	// JSON documents (objects), byte-faithful as sent.
	EventProperties   *string `avro:"eventProperties"`
	ContactProperties *string `avro:"contactProperties"`
	// Lists are list memberships to set, by list id.
	Lists map[string]bool `avro:"lists"`

	// IdempotencyKey is unique within Scope (the API key's id) for the window.
	IdempotencyKey *string `avro:"idempotencyKey"`
	Scope          *string `avro:"scope"`
	// Wait says that the sender waits for the answer.
	Wait bool `avro:"wait"`
	// Hops counts how often the chain event → bucket → journey → event led here.
	Hops int `avro:"hops"`
}

// Identifier is one name that a contact is known by.
type Identifier struct {
	Kind  string `avro:"kind"` // external | email | anonymous
	Value string `avro:"value"`
}

// Kinds of an Identifier, as in spec/01 10.1.
const (
	KindExternal  = "external"
	KindEmail     = "email"
	KindAnonymous = "anonymous"
)

// Conflict says that an identifier could not be attached to a contact.
type Conflict struct {
	Kind   string `avro:"kind" json:"kind"`     // external | email | anonymous | size
	Value  string `avro:"value" json:"value"`   // the identifier as sent; empty for size
	Reason string `avro:"reason" json:"reason"` // e.g. "contact has another external id"
	// OtherContactID is the contact that holds the identifier, if any.
	OtherContactID *string `avro:"otherContactId" json:"otherContactId,omitempty"`
}

// Types of a Resolved record.
const (
	ResolvedInput  = "input"  // an input with its contact
	ResolvedMerge  = "merge"  // keyed by the loser: it is now part of the survivor
	ResolvedAbsorb = "absorb" // keyed by the survivor: a loser's state, or a record of the loser
)

// Resolved is a value of topic resolved: an input with its contact, or a step of a merge.
type Resolved struct {
	ID         string    `avro:"id"`
	Type       string    `avro:"type"` // one of the Resolved… constants
	ContactID  string    `avro:"contactId"`
	OccurredAt time.Time `avro:"occurredAt"`

	Input *Input `avro:"input"`
	// Created says that identity minted the contact for this input.
	Created bool `avro:"created"`
	// Duplicate says that the input's idempotency key was seen before: it is
	// passed on only for its lists and its answer.
	Duplicate bool `avro:"duplicate"`
	// The contact's primary identifiers after this record, as identity decided them.
	UserID      *string `avro:"userId"`
	Email       *string `avro:"email"`
	AnonymousID *string `avro:"anonymousId"`
	// Linked are the identifiers that this record attached to the contact.
	Linked    []Identifier `avro:"linked"`
	Conflicts []Conflict   `avro:"conflicts"`
	// Merging names the losers that are being folded into ContactID because of
	// this input; the answer waits for their absorb records.
	Merging []string `avro:"merging"`

	Merge  *Merge  `avro:"merge"`
	Absorb *Absorb `avro:"absorb"`
}

// Merge tells the owner of a loser that it is now part of a survivor.
type Merge struct {
	Survivor string `avro:"survivor"`
	// InputID is the input that caused the merge.
	InputID string `avro:"inputId"`
}

// Absorb carries a loser's state, or a late record of the loser, to the survivor.
type Absorb struct {
	Loser   string `avro:"loser"`
	InputID string `avro:"inputId"` // the input that caused the merge; empty for a late record
	// State is the loser's last snapshot; nil when the loser was never seen by
	// contacts, or when this carries a late record.
	State *Contact `avro:"state"`
	// Deleted says that the loser had been erased.
	Deleted bool `avro:"deleted"`
	// Record is a late record keyed by the loser, forwarded (type input only).
	Record *ForwardedInput `avro:"record"`
}

// ForwardedInput is a resolved input that reached a contact which had been merged.
type ForwardedInput struct {
	ID        string       `avro:"id"`
	Input     Input        `avro:"input"`
	Duplicate bool         `avro:"duplicate"`
	Linked    []Identifier `avro:"linked"`
	Conflicts []Conflict   `avro:"conflicts"`
	Merging   []string     `avro:"merging"`
}

// Event is a value of topic events: a product event with its contact.
type Event struct {
	ID          string    `avro:"id"`
	ContactID   string    `avro:"contactId"`
	Name        string    `avro:"name"`
	UserID      *string   `avro:"userId"`
	Email       *string   `avro:"email"`
	AnonymousID *string   `avro:"anonymousId"`
	Properties  string    `avro:"properties"` // JSON object, byte-faithful
	OccurredAt  time.Time `avro:"occurredAt"`
	ReceivedAt  time.Time `avro:"receivedAt"`
	Source      string    `avro:"source"`
	Hops        int       `avro:"hops"`
	// Seq is the place in the order of the contact, over topics events and lifecycle:
	// 1, 2, 3 … without holes within an Era; 0 of one that was written before contacts
	// numbered its records.
	Seq int64 `avro:"seq"`
	// Era grows when the contacts are rebuilt, and numbers begin again at 1; mostly 0.
	Era int64 `avro:"era"`
	// Wait says that the sender waits to be told which runs of journeys it ended.
	Wait bool `avro:"wait"`
}

// EventID is the id of the event that comes of an input.
func EventID(inputID string) string { return Derive(inputID, "event", 0) }

// Contact is a value of topic contacts: the state of a contact after a change.
// A tombstone (no value) ends a contact that was deleted or merged away.
type Contact struct {
	ID          string       `avro:"id"`
	Version     int64        `avro:"version"`
	Seq         int64        `avro:"seq"` // of the contact's latest record, as of this snapshot
	Era         int64        `avro:"era"`
	UserID      *string      `avro:"userId"`
	Email       *string      `avro:"email"`
	AnonymousID *string      `avro:"anonymousId"`
	Identifiers []Identifier `avro:"identifiers"` // every identifier, aliases included
	Merged      []string     `avro:"merged"`      // ids of contacts merged into this one
	Properties  string       `avro:"properties"`  // JSON object, byte-faithful
	Preferences []Preference `avro:"preferences"`
	FirstSeenAt time.Time    `avro:"firstSeenAt"`
	LastSeenAt  time.Time    `avro:"lastSeenAt"`
	CreatedAt   time.Time    `avro:"createdAt"`
	UpdatedAt   time.Time    `avro:"updatedAt"`
}

// Preference is what one address of a contact wants to receive (spec/01 11).
type Preference struct {
	Email           string          `avro:"email"`
	UnsubscribedAll bool            `avro:"unsubscribedAll"`
	Suppressed      bool            `avro:"suppressed"`
	BounceCount     int             `avro:"bounceCount"`
	Categories      map[string]bool `avro:"categories"`
	SuppressedAt    *time.Time      `avro:"suppressedAt"`
	LastBounceAt    *time.Time      `avro:"lastBounceAt"`
}

// Types of a Signal.
const (
	SignalMerged  = "merged"  // the contact was merged away
	SignalDeleted = "deleted" // the contact was erased
	// What a processor that derives tells itself.
	SignalTimer    = "timer"    // What is due, as armed under Epoch
	SignalHandover = "handover" // State of a contact that was merged into this one
	SignalRecord   = "record"   // State encloses a record: forwarded by a contact that was merged away, or redriven
	SignalFill     = "fill"     // the contacts of the partition behind What are filled with the definitions of version Epoch
	// What somebody tells it to do with a contact.
	SignalCommand = "command" // What is to be done, as State says
	// What came of an outbox record that it asked for.
	SignalReceipt = "receipt"
)

// Signal is a value of topic signals: something processors tell each other. A type
// with content of its own has a nullable field for it.
type Signal struct {
	ID         string    `avro:"id"`
	Type       string    `avro:"type"` // one of the Signal… constants
	For        string    `avro:"for"`  // the processor that it is addressed to
	ContactID  string    `avro:"contactId"`
	OccurredAt time.Time `avro:"occurredAt"`
	Epoch      int64     `avro:"epoch"`
	// What names what is due (timer) or to be done (command), or is the last contact that was
	// passed, empty at first (fill).
	What string `avro:"what"`
	// State is what is handed over, or what a command says: a JSON document of the processor's own.
	State *string `avro:"state"`

	Merged  *MergedSignal  `avro:"merged"`
	Deleted *DeletedSignal `avro:"deleted"`
	Receipt *Receipt       `avro:"receipt"`
	// Hops, of a command that a processor gave, is as of an Input.
	Hops int `avro:"hops"`
}

// MergedSignal tells of a contact that was merged away. Its last number on topics
// events and lifecycle is Seq, 0 when it has none: whoever has applied that far has
// seen all of it.
type MergedSignal struct {
	Survivor string `avro:"survivor"`
	Seq      int64  `avro:"seq"`
	Era      int64  `avro:"era"`
}

// DeletedSignal tells of a contact that was erased, with its last number. It acts at
// once, whatever of the contact is still on its way.
type DeletedSignal struct {
	Seq int64 `avro:"seq"`
	Era int64 `avro:"era"`
}

// EmailRequest is a value of topic email-requests: an email that shall be sent.
type EmailRequest struct {
	ID             string    `avro:"id"`
	ContactID      string    `avro:"contactId"`
	OccurredAt     time.Time `avro:"occurredAt"`
	Template       string    `avro:"template"`
	To             *string   `avro:"to"`
	From           *string   `avro:"from"`
	Subject        *string   `avro:"subject"`
	ReplyTo        *string   `avro:"replyTo"`
	Category       *string   `avro:"category"`
	Props          string    `avro:"props"` // JSON object
	JourneyID      *string   `avro:"journeyId"`
	JourneyStateID *string   `avro:"journeyStateId"`
	SkipPreference bool      `avro:"skipPreference"`
	Hops           int       `avro:"hops"` // as of an Input
}

// OutboxCall is the kind of an outbox record whose body is sent as a request of its own.
const OutboxCall = "call"

// Outbox is a value of topic outbox: something a processor asks one destination for. The
// processor is told what came of it by a [Receipt].
type Outbox struct {
	ID          string            `avro:"id"` // derived: the same record asked for again is the same
	ContactID   string            `avro:"contactId"`
	OccurredAt  time.Time         `avro:"occurredAt"`
	Destination string            `avro:"destination"` // its id
	Kind        string            `avro:"kind"`        // OutboxCall
	Body        string            `avro:"body"`        // sent as it is
	Headers     map[string]string `avro:"headers"`     // of the request, beside those of the destination
	NotAfter    time.Time         `avro:"notAfter"`    // it is not sent any more from then on
	Asker       string            `avro:"asker"`       // the processor that is told
	Epoch       int64             `avro:"epoch"`       // the asker's, told in the receipt
	Hops        int               `avro:"hops"`        // as of an Input
}

// Results of a Receipt.
const (
	ReceiptAccepted  = "accepted"  // the receiver took it
	ReceiptRefused   = "refused"   // the receiver will not take it, or there is none that could
	ReceiptGivenUp   = "given up"  // tried for as long as the destination retries, or skipped by an operator: there is a dead letter
	ReceiptExpired   = "expired"   // not accepted by NotAfter
	ReceiptCancelled = "cancelled" // the asker took it back in time
	ReceiptErased    = "erased"    // the contact was erased before it was accepted
)

// Receipt is what came of an outbox record. There is one for each; "given up" may be
// followed by a final one.
type Receipt struct {
	OutboxID    string  `avro:"outboxId"`
	Kind        string  `avro:"kind"`        // the outbox record's
	Destination string  `avro:"destination"` // id
	Result      string  `avro:"result"`      // one of the Receipt… constants
	Final       bool    `avro:"final"`       // it follows "given up": the dead letter was redriven
	Attempts    int     `avro:"attempts"`
	Status      *int    `avro:"status"`     // of the last answer over HTTP
	ReceiverID  *string `avro:"receiverId"` // what the receiver calls what it accepted
	Body        *string `avro:"body"`       // the first part of the answer's body, as text
	Reason      string  `avro:"reason"`     // why it was not accepted, without words of the receiver's
	Hops        int     `avro:"hops"`       // those of the outbox record
}

// ReceiptOf makes the signal of a receipt: its id follows from the outbox record and from
// whether it is final, so that a repeat is known by it, whatever it says.
func ReceiptOf(o *Outbox, r Receipt, now time.Time) *Signal {
	r.OutboxID, r.Kind, r.Destination, r.Hops = o.ID, o.Kind, o.Destination, o.Hops
	ordinal := 0
	if r.Final {
		ordinal = 1
	}
	return &Signal{
		ID: Derive(o.ID, SignalReceipt, ordinal), Type: SignalReceipt, For: o.Asker, ContactID: o.ContactID,
		OccurredAt: now, Epoch: o.Epoch, What: o.Kind, Receipt: &r,
	}
}

// DeadLetter is a value of topic dead-letters: what could not be processed or delivered.
type DeadLetter struct {
	ID         string    `avro:"id"`
	OccurredAt time.Time `avro:"occurredAt"` // when it was given up
	Source     string    `avro:"source"`     // "processor:<name>" or "destination:<name>"
	Reason     string    `avro:"reason"`     // a word: undecodable, failed, rejected, expired, skipped, gap, too-large
	Error      string    `avro:"error"`
	Attempts   int       `avro:"attempts"`
	// Where the record stands.
	SourceTopic string `avro:"sourceTopic"`
	Partition   int32  `avro:"partition"`
	Offset      int64  `avro:"offset"`
	// EndOffset is set for a gap: [Offset, EndOffset) was lost to retention.
	EndOffset     *int64            `avro:"endOffset"`
	DestinationID *string           `avro:"destinationId"`
	RecordID      string            `avro:"recordId"`
	RecordType    string            `avro:"recordType"`
	RecordKey     []byte            `avro:"recordKey"`
	RecordValue   []byte            `avro:"recordValue"` // the original bytes
	RecordHeaders map[string]string `avro:"recordHeaders"`
	ResponseCode  *int              `avro:"responseCode"`
	ResponseBody  *string           `avro:"responseBody"`
}

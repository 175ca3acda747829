package schemas

import "time"

// Fact types: the catalog of spec/03 1.1 in its order, then what Hogstream adds.
const (
	FactContactCreated      = "contact.created"
	FactContactUpdated      = "contact.updated"
	FactContactDeleted      = "contact.deleted"
	FactContactUnsubscribed = "contact.unsubscribed"
	FactEmailSent           = "email.sent"
	FactEmailDelivered      = "email.delivered"
	FactEmailOpened         = "email.opened"
	FactEmailClicked        = "email.clicked"
	FactEmailBounced        = "email.bounced"
	FactEmailComplained     = "email.complained"
	FactJourneyCompleted    = "journey.completed"
	FactBucketEntered       = "bucket.entered"
	FactBucketLeft          = "bucket.left"
	FactBucketDwell         = "bucket.dwell"
	FactJourneyStarted      = "journey.started"
	FactJourneyStep         = "journey.step"
	FactJourneyExited       = "journey.exited"
	FactJourneyFailed       = "journey.failed"
	FactJourneySkipped      = "journey.skipped"
	FactContactMerged       = "contact.merged"
	FactContactConflict     = "contact.conflict"

	// TypeEventTracked is what a product event is called towards destinations.
	TypeEventTracked = "event.tracked"
	// TypeWebhookTest is produced by the test route only and cannot be subscribed to.
	TypeWebhookTest = "webhook.test"
)

// Catalog lists the types a destination can subscribe to, in their published order.
func Catalog() []string {
	return []string{
		FactContactCreated, FactContactUpdated, FactContactDeleted, FactContactUnsubscribed,
		FactEmailSent, FactEmailDelivered, FactEmailOpened, FactEmailClicked, FactEmailBounced, FactEmailComplained,
		FactJourneyCompleted, FactBucketEntered, FactBucketLeft, FactBucketDwell,
		FactContactMerged, FactContactConflict,
		FactJourneyStarted, FactJourneyStep, FactJourneyExited, FactJourneyFailed, FactJourneySkipped, TypeEventTracked,
	}
}

// namedOnly are the facts that no pattern covers: there are many of them, and only a
// destination that names them gets them.
var namedOnly = []string{FactJourneyStep, FactJourneySkipped}

// Fact is a value of topic lifecycle: something that became true of a contact.
// Exactly one of the typed fields is set, the one that belongs to Type; a new
// kind is a new nullable field, so that old readers skip what they do not know.
type Fact struct {
	ID          string    `avro:"id"`
	Type        string    `avro:"type"`
	ContactID   string    `avro:"contactId"`
	UserID      *string   `avro:"userId"`
	Email       *string   `avro:"email"`
	AnonymousID *string   `avro:"anonymousId"`
	OccurredAt  time.Time `avro:"occurredAt"`
	// CauseID is the id of the record that this fact was derived from.
	CauseID string `avro:"causeId"`
	// Seq and Era are the place in the order of the contact, as those of an Event; 0
	// of a derived fact.
	Seq int64 `avro:"seq"`
	Era int64 `avro:"era"`
	// CauseSeq, of a derived fact (bucket.*, journey.*, email.*), is the number of the
	// record after which it became true.
	CauseSeq int64 `avro:"causeSeq"`
	// WriterSeq, of a derived fact, is its writer's own number for the contact, without
	// holes, so that a repeat is known.
	WriterSeq int64 `avro:"writerSeq"`
	// Hops counts how often the chain event → fact → event led here.
	Hops int `avro:"hops"`

	Contact      *ContactFact      `avro:"contact"`      // contact.created, contact.updated
	Deleted      *ContactDeleted   `avro:"deleted"`      // contact.deleted
	Merged       *ContactMerged    `avro:"merged"`       // contact.merged
	Conflict     *ContactConflict  `avro:"conflict"`     // contact.conflict
	Unsubscribed *Unsubscribed     `avro:"unsubscribed"` // contact.unsubscribed
	EmailFact    *EmailFact        `avro:"emailFact"`    // email.*
	Journey      *JourneyFact      `avro:"journey"`      // journey.*
	Bucket       *BucketTransition `avro:"bucket"`       // bucket.*
}

// ContactFact is the payload of contact.created and contact.updated.
type ContactFact struct {
	Version     int64     `avro:"version"`
	Properties  string    `avro:"properties"` // JSON object after the change
	Changed     []string  `avro:"changed"`    // property names and identifiers that differ from before
	FirstSeenAt time.Time `avro:"firstSeenAt"`
	LastSeenAt  time.Time `avro:"lastSeenAt"`
	CreatedAt   time.Time `avro:"createdAt"`
	UpdatedAt   time.Time `avro:"updatedAt"`
	// When Changed names userId: the names that other systems may know the contact by
	// until now, beside its own id. Merged are the contacts merged into it before.
	Merged       []string `avro:"merged"`
	AnonymousIDs []string `avro:"anonymousIds"`
}

// ContactDeleted is the payload of contact.deleted; the ids stand in the fact.
type ContactDeleted struct {
	Version int64 `avro:"version"`
}

// ContactMerged is the payload of contact.merged; the fact's contact is the survivor.
type ContactMerged struct {
	LoserID    string       `avro:"loserId"`
	Version    int64        `avro:"version"`
	Properties string       `avro:"properties"` // the survivor's, after the merge
	Gained     []Identifier `avro:"gained"`
	// LoserMerged are the contacts merged into the loser before.
	LoserMerged []string `avro:"loserMerged"`
	// When the survivor gained its user id: the contacts merged into it before, and the
	// anonymous ids that it had.
	Merged       []string `avro:"merged"`
	AnonymousIDs []string `avro:"anonymousIds"`
}

// ContactConflict is the payload of contact.conflict.
type ContactConflict struct {
	Conflicts []Conflict `avro:"conflicts"`
	InputID   string     `avro:"inputId"`
}

// Unsubscribed is the payload of contact.unsubscribed.
type Unsubscribed struct {
	Address  string  `avro:"address"`
	Category *string `avro:"category"` // list id; null when scope is all
	Scope    string  `avro:"scope"`    // all | category
}

// EmailFact is the payload of every email.* fact (spec/03 1.3).
type EmailFact struct {
	EmailSendID       string     `avro:"emailSendId"`
	ProviderMessageID *string    `avro:"providerMessageId"`
	TemplateKey       *string    `avro:"templateKey"`
	To                string     `avro:"to"`
	Category          *string    `avro:"category"`
	Subject           *string    `avro:"subject"`
	JourneyStateID    *string    `avro:"journeyStateId"`
	LinkURL           *string    `avro:"linkUrl"`
	LinkID            *string    `avro:"linkId"`
	BounceType        *string    `avro:"bounceType"`
	BounceReason      *string    `avro:"bounceReason"`
	ComplaintType     *string    `avro:"complaintType"`
	SentAt            *time.Time `avro:"sentAt"`
}

// JourneyFact is the payload of journey.* facts. A run's whole story is its facts.
type JourneyFact struct {
	JourneyID   string     `avro:"journeyId"`
	JourneyName string     `avro:"journeyName"`
	StateID     string     `avro:"stateId"` // the run's id; empty of journey.skipped
	CompletedAt *time.Time `avro:"completedAt"`
	Reason      *string    `avro:"reason"` // of an end, and of journey.skipped: why nobody was enrolled

	Version *string `avro:"version"` // of the definition that the run belongs to
	Key     *string `avro:"key"`     // of the run, of a journey that has one
	Arm     *string `avro:"arm"`     // treatment | holdout, of a journey with a holdout
	// Entry is which run of the contact, journey and key it is, from 1.
	Entry *int64 `avro:"entry"`
	// Of journey.step: which step ended and what came of it. Of an end: the step it was at.
	Step    *string    `avro:"step"`
	Outcome *string    `avro:"outcome"`
	Error   *string    `avro:"error"`   // of journey.failed, and of a step that failed
	Trigger *string    `avro:"trigger"` // the id of the record that enrolled, or did not
	Since   *time.Time `avro:"since"`   // when the step began; of an end, when the run did
}

// BucketTransition is the payload of bucket.entered, bucket.left and bucket.dwell.
type BucketTransition struct {
	BucketID   string  `avro:"bucketId"`
	BucketName string  `avro:"bucketName"`
	Transition string  `avro:"transition"` // entered | left | dwell
	EntryCount int64   `avro:"entryCount"` // epoch of the membership, 1 for the first
	Source     string  `avro:"source"`     // event | reconcile | backfill | manual
	Reason     *string `avro:"reason"`     // of bucket.left: criteria | maxDwell | manual | merged
	// Of bucket.dwell: which of the bucket's it is, such as after-604800000, and how often
	// its time has passed.
	Label      *string `avro:"label"`
	DwellCount *int64  `avro:"dwellCount"`
}

package sinktest

import (
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// What sample records have.
const (
	FactID    = "5f6b1c2e-1111-5222-8333-444455556666"
	ContactID = "0192f000-aaaa-7bbb-8ccc-ddddeeeeffff"
	// Properties that a parser would change: key order, a large integer, an
	// exponent, unicode, an escaped NUL, spaces.
	properties = `{"z": 1, "a": 9007199254740993, "e": 1e2, "ü": "é\u0000", "nested": {"b": [1, {"c": null}]}}`
)

// Fact is a fact of a type, with every field of its payload set.
func Fact(typ string) *schemas.Fact {
	f := &schemas.Fact{
		ID: FactID, Type: typ, ContactID: ContactID, UserID: new("user-1"), Email: new("ann@example.com"),
		AnonymousID: new("anon-1"), OccurredAt: at("2026-01-02T03:04:05.678901Z"), CauseID: "0192f000-0000-7000-8000-000000000001",
	}
	email := &schemas.EmailFact{
		EmailSendID: "0192f000-0000-7000-8000-0000000000aa", ProviderMessageID: new("re_123"), TemplateKey: new("welcome"),
		To: "ann@example.com", Category: new("product"), Subject: new(`Hi "Ann" <3`), JourneyStateID: new("0192f000-0000-7000-8000-0000000000bb"),
		SentAt: new(at("2026-01-02T03:04:00Z")),
	}
	switch typ {
	case schemas.FactContactCreated, schemas.FactContactUpdated:
		f.Contact = &schemas.ContactFact{
			Version: 2, Properties: properties, Changed: []string{"z", "email"},
			FirstSeenAt: at("2026-01-01T00:00:00Z"), LastSeenAt: at("2026-01-02T03:04:05.678Z"),
			CreatedAt: at("2026-01-01T00:00:00.1Z"), UpdatedAt: at("2026-01-02T03:04:05.678Z"),
		}
	case schemas.FactContactDeleted:
		f.Deleted = &schemas.ContactDeleted{Version: 3}
	case schemas.FactContactMerged:
		f.Merged = &schemas.ContactMerged{LoserID: "0192f000-0000-7000-8000-0000000000cc", Version: 3, Properties: properties,
			Gained: []schemas.Identifier{{Kind: schemas.KindAnonymous, Value: "anon-2"}}}
	case schemas.FactContactConflict:
		f.Conflict = &schemas.ContactConflict{InputID: "0192f000-0000-7000-8000-0000000000dd", Conflicts: []schemas.Conflict{
			{Kind: schemas.KindEmail, Value: "b@example.com", Reason: "contact has another external id", OtherContactID: new("0192f000-0000-7000-8000-0000000000ee")},
			{Kind: "size", Reason: "properties would exceed 512 KiB"},
		}}
	case schemas.FactContactUnsubscribed:
		f.Unsubscribed = &schemas.Unsubscribed{Address: "ann@example.com", Category: new("news"), Scope: "category"}
	case schemas.FactEmailSent, schemas.FactEmailDelivered, schemas.FactEmailOpened:
		f.EmailFact = email
	case schemas.FactEmailClicked:
		email.LinkURL, email.LinkID = new("https://example.com/?a=1&b=2"), new("0192f000-0000-7000-8000-0000000000ff")
		f.EmailFact = email
	case schemas.FactEmailBounced:
		email.Category, email.Subject = nil, nil
		email.BounceType, email.BounceReason = new("Permanent"), new("no such user")
		f.EmailFact = email
	case schemas.FactEmailComplained:
		email.ComplaintType = new("abuse")
		f.EmailFact = email
	case schemas.FactJourneyCompleted:
		f.Journey = &schemas.JourneyFact{JourneyID: "onboarding", JourneyName: "Onboarding", StateID: "0192f000-0000-7000-8000-0000000000ab", CompletedAt: new(at("2026-01-02T03:04:05Z"))}
	case schemas.FactJourneyStarted, schemas.FactJourneyStep, schemas.FactJourneyExited, schemas.FactJourneyFailed, schemas.FactJourneySkipped:
		f.Journey = journey(typ)
	case schemas.FactBucketEntered, schemas.FactBucketLeft, schemas.FactBucketDwell:
		f.Bucket = &schemas.BucketTransition{BucketID: "power", BucketName: "Power users", Transition: typ[len("bucket."):], EntryCount: 2, Source: "event"}
		if typ == schemas.FactBucketLeft {
			f.Bucket.Reason = new("criteria")
		}
		if typ == schemas.FactBucketDwell {
			f.Bucket.Label, f.Bucket.DwellCount = new("every-3600000"), new(int64(3))
		}
	}
	return f
}

// journey is what a fact says of a run.
func journey(typ string) *schemas.JourneyFact {
	j := &schemas.JourneyFact{
		JourneyID: "onboarding", JourneyName: "Onboarding", StateID: "0192f000-0000-7000-8000-0000000000ab", Version: new("3f2a51c09d17"), Key: new("cart-7"),
		Arm: new("treatment"), Entry: new(int64(2)), Trigger: new(FactID), Since: new(at("2026-01-01T03:04:05Z")),
	}
	switch typ {
	case schemas.FactJourneyStarted:
		j.Since = nil
	case schemas.FactJourneyStep:
		j.Step, j.Outcome = new("paid"), new("timeout")
	case schemas.FactJourneyExited:
		j.Step, j.Reason = new("paid"), new("event")
	case schemas.FactJourneyFailed:
		j.Step, j.Reason, j.Error = new("call-2"), new("step_failed"), new("HTTP 500")
	case schemas.FactJourneySkipped:
		j.StateID, j.Arm, j.Since, j.Reason = "", nil, nil, new("already_entered_once")
	}
	return j
}

// Event is a product event with every field set.
func Event() *schemas.Event {
	return &schemas.Event{
		ID: FactID, ContactID: ContactID, Name: "order.completed", UserID: new("user-1"), AnonymousID: new("anon-1"),
		Properties: properties, OccurredAt: at("2026-01-02T03:04:05.678901Z"), ReceivedAt: at("2026-01-02T03:04:06Z"), Source: "api",
	}
}

// Record is a message as the log reader hands it over.
func Record(m schemas.Message, offset int64) *stream.Record {
	value, err := schemas.NewCodec().Encode(m)
	if err != nil {
		panic(err) // a test gave what no codec takes
	}
	meta := m.Meta()
	return &stream.Record{
		Topic: m.Topic(), Offset: offset, Key: []byte(m.Key()), Value: value, AppendTime: time.Now(),
		ID: meta.ID, Type: meta.Type, OccurredAt: meta.OccurredAt,
	}
}

// Records are one of each type of the catalog, each with an id of its own.
func Records() []*stream.Record {
	var records []*stream.Record
	for i, typ := range schemas.Catalog() {
		id := fmt.Sprintf("5f6b1c2e-1111-5222-8333-%012d", i)
		if typ == schemas.TypeEventTracked {
			e := Event()
			e.ID = id
			records = append(records, Record(e, int64(i)))
			continue
		}
		f := Fact(typ)
		f.ID = id
		records = append(records, Record(f, int64(i)))
	}
	return records
}

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

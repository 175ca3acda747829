package sinks

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return t
}

const (
	testFactID    = "5f6b1c2e-1111-5222-8333-444455556666"
	testContactID = "0192f000-aaaa-7bbb-8ccc-ddddeeeeffff"
	// Properties that a parser would change: key order, a large integer, an
	// exponent, unicode, an escaped NUL, spaces.
	testProperties = `{"z": 1, "a": 9007199254740993, "e": 1e2, "ü": "é\u0000", "nested": {"b": [1, {"c": null}]}}`
)

// sampleFact is a fact of a type, with every field of its payload set.
func sampleFact(typ string) *schemas.Fact {
	f := &schemas.Fact{
		ID: testFactID, Type: typ, ContactID: testContactID, UserID: ptr("user-1"), Email: ptr("ann@example.com"),
		AnonymousID: ptr("anon-1"), OccurredAt: at("2026-01-02T03:04:05.678901Z"), CauseID: "0192f000-0000-7000-8000-000000000001",
	}
	email := &schemas.EmailFact{
		EmailSendID: "0192f000-0000-7000-8000-0000000000aa", ProviderMessageID: ptr("re_123"), TemplateKey: ptr("welcome"),
		To: "ann@example.com", Category: ptr("product"), Subject: ptr(`Hi "Ann" <3`), JourneyStateID: ptr("0192f000-0000-7000-8000-0000000000bb"),
		SentAt: ptr(at("2026-01-02T03:04:00Z")),
	}
	switch typ {
	case schemas.FactContactCreated, schemas.FactContactUpdated:
		f.Contact = &schemas.ContactFact{
			Version: 2, Properties: testProperties, Changed: []string{"z", "email"},
			FirstSeenAt: at("2026-01-01T00:00:00Z"), LastSeenAt: at("2026-01-02T03:04:05.678Z"),
			CreatedAt: at("2026-01-01T00:00:00.1Z"), UpdatedAt: at("2026-01-02T03:04:05.678Z"),
		}
	case schemas.FactContactDeleted:
		f.Deleted = &schemas.ContactDeleted{Version: 3}
	case schemas.FactContactMerged:
		f.Merged = &schemas.ContactMerged{LoserID: "0192f000-0000-7000-8000-0000000000cc", Version: 3, Properties: testProperties,
			Gained: []schemas.Identifier{{Kind: schemas.KindAnonymous, Value: "anon-2"}}}
	case schemas.FactContactConflict:
		f.Conflict = &schemas.ContactConflict{InputID: "0192f000-0000-7000-8000-0000000000dd", Conflicts: []schemas.Conflict{
			{Kind: schemas.KindEmail, Value: "b@example.com", Reason: "contact has another external id", OtherContactID: ptr("0192f000-0000-7000-8000-0000000000ee")},
			{Kind: "size", Reason: "properties would exceed 512 KiB"},
		}}
	case schemas.FactContactUnsubscribed:
		f.Unsubscribed = &schemas.Unsubscribed{Address: "ann@example.com", Category: ptr("news"), Scope: "category"}
	case schemas.FactEmailSent, schemas.FactEmailDelivered, schemas.FactEmailOpened:
		f.EmailFact = email
	case schemas.FactEmailClicked:
		email.LinkURL, email.LinkID = ptr("https://example.com/?a=1&b=2"), ptr("0192f000-0000-7000-8000-0000000000ff")
		f.EmailFact = email
	case schemas.FactEmailBounced:
		email.Category, email.Subject = nil, nil
		email.BounceType, email.BounceReason = ptr("Permanent"), ptr("no such user")
		f.EmailFact = email
	case schemas.FactEmailComplained:
		email.ComplaintType = ptr("abuse")
		f.EmailFact = email
	case schemas.FactJourneyCompleted:
		f.Journey = &schemas.JourneyFact{JourneyID: "onboarding", JourneyName: "Onboarding", StateID: "0192f000-0000-7000-8000-0000000000ab", CompletedAt: ptr(at("2026-01-02T03:04:05Z"))}
	case schemas.FactBucketEntered, schemas.FactBucketLeft:
		f.Bucket = &schemas.BucketTransition{BucketID: "power", BucketName: "Power users", Transition: typ[len("bucket."):], EntryCount: 2, Source: "event"}
		if typ == schemas.FactBucketLeft {
			f.Bucket.Reason = ptr("criteria")
		}
	}
	return f
}

func sampleEvent() *schemas.Event {
	return &schemas.Event{
		ID: testFactID, ContactID: testContactID, Name: "order.completed", UserID: ptr("user-1"), AnonymousID: ptr("anon-1"),
		Properties: testProperties, OccurredAt: at("2026-01-02T03:04:05.678901Z"), ReceivedAt: at("2026-01-02T03:04:06Z"), Source: "api",
	}
}

// samplePayload is a payload of each type of the catalog.
func samplePayload(t *testing.T, typ string) *Payload {
	t.Helper()
	var p *Payload
	var err error
	if typ == schemas.TypeEventTracked {
		p, err = eventPayload(sampleEvent())
	} else {
		p, err = factPayload(sampleFact(typ))
	}
	require.NoError(t, err)
	return p
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, append(got, '\n'), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(bytes.TrimSuffix(want, []byte("\n"))), string(got))
}

func TestEnvelopeOfEveryCatalogTypeIsAsPublished(t *testing.T) {
	for _, typ := range schemas.Catalog() {
		t.Run(typ, func(t *testing.T) {
			p := samplePayload(t, typ)
			golden(t, "envelope/"+typ+".json", p.Envelope)
			var e struct {
				ID, Type, Timestamp string
				Data                map[string]any
			}
			require.NoError(t, json.Unmarshal(p.Envelope, &e))
			require.Equal(t, "msg_"+testFactID, e.ID)
			require.Equal(t, typ, e.Type)
			require.Equal(t, "2026-01-02T03:04:05.678Z", e.Timestamp, "the time of the fact, not of the sending")
			require.Equal(t, testContactID, e.Data["contactId"])
			require.True(t, json.Valid(p.Data))
			require.True(t, bytes.HasSuffix(p.Envelope, append(bytes.Clone(p.Data), '}')))
		})
	}
}

func TestEnvelopeOfTheTestEvent(t *testing.T) {
	p := testPayload(testFactID, testContactID, at("2026-01-02T03:04:05Z"))
	golden(t, "envelope/webhook.test.json", p.Envelope)
}

func TestPropertiesLeaveByteForByte(t *testing.T) {
	for _, typ := range []string{schemas.TypeEventTracked, schemas.FactContactCreated, schemas.FactContactMerged} {
		require.Contains(t, string(samplePayload(t, typ).Envelope), `"properties":`+testProperties, typ)
	}
}

func TestAbsentIdentifiersAreNullAndThePersonIsStillNamed(t *testing.T) {
	for _, typ := range []string{schemas.FactBucketEntered, schemas.FactJourneyCompleted, schemas.FactEmailOpened} {
		f := sampleFact(typ)
		f.UserID, f.Email = nil, nil
		p, err := factPayload(f)
		require.NoError(t, err)
		require.Contains(t, string(p.Data), `"userId":"`+testContactID+`"`, typ)
	}
	f := sampleFact(schemas.FactContactCreated)
	f.UserID, f.Email = nil, nil
	f.Contact.Properties = ""
	p, err := factPayload(f)
	require.NoError(t, err)
	require.Contains(t, string(p.Data), `"externalId":null,"email":null,"properties":{}`)
}

func TestAFactWithoutItsPayloadIsRefused(t *testing.T) {
	_, err := factPayload(&schemas.Fact{ID: testFactID, Type: schemas.FactContactCreated})
	require.ErrorContains(t, err, "without its payload")
	_, err = eventPayload(&schemas.Event{ID: testFactID, Properties: "[1]"})
	require.ErrorContains(t, err, "not a JSON object")
}

// TestAnyByteAnywhereIsEscapedAsJSONDemands: strings are looked at eight bytes at a
// time, so a byte is tried at each place, alone and after others that need escapes.
func TestAnyByteAnywhereIsEscapedAsJSONDemands(t *testing.T) {
	for c := range 256 {
		for place := range 20 {
			for _, around := range []byte{'a', '"', 0x1f, 0x7f} {
				raw := bytes.Repeat([]byte{around}, 20)
				raw[place] = byte(c)
				requireSameAsJSON(t, string(raw))
			}
		}
	}
}

func FuzzStringsAreJSON(f *testing.F) {
	for _, s := range []string{"", "a\"b\\c", "\x00\x1f\x7f", "é\u2028", "\xff\xfe", "a\xc3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		requireSameAsJSON(t, s)
	})
}

func requireSameAsJSON(t *testing.T, s string) {
	t.Helper()
	b := appendString(nil, s)
	want, err := json.Marshal(s)
	require.NoError(t, err)
	var back, wantBack string
	require.NoError(t, json.Unmarshal(b, &back), "%q", b)
	require.NoError(t, json.Unmarshal(want, &wantBack))
	require.Equal(t, wantBack, back)
}

package schemas

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

func ptr[T any](v T) *T { return &v }

var (
	at    = time.Date(2026, 3, 1, 12, 30, 0, 123456000, time.UTC)
	later = at.Add(1500 * time.Millisecond)
)

const (
	idA = "0195a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
	idB = "b2f0c3d4-1111-5222-8333-444455556666"
	// nasty is a document whose every byte must survive.
	nasty = `{"big":12345678901234567890,"f":1.0,"e":1E+2,"nul":"a\u0000b","uni":"ü\u00fc\ud83d\ude00😀","z":{"b":1,"a":[1, 2 ,{"x":null}]},"esc":"\/\"<>&","":"empty key","dup":1,"dup":2}`
)

func sampleInput() *Input {
	return &Input{
		ID: idA, Type: InputEvent, ReceivedAt: later, OccurredAt: at, Source: "api",
		UserID: ptr("user-1"), Email: ptr("a@example.com"), AnonymousID: ptr("anon-1"), ContactID: ptr(idB),
		Event: ptr("order.completed"), EventProperties: ptr(nasty), ContactProperties: ptr(`{"plan":"pro"}`),
		Lists:          map[string]bool{"news": true},
		IdempotencyKey: ptr("key-1"), Scope: ptr("scope-1"), Wait: true, Hops: 3,
	}
}

func sampleContact() *Contact {
	return &Contact{
		ID: idB, Version: 7, Seq: 40, Era: 2, UserID: ptr("user-1"), Email: ptr("a@example.com"), AnonymousID: ptr("anon-1"),
		Identifiers: []Identifier{{KindExternal, "user-1"}, {KindEmail, "a@example.com"}},
		Merged:      []string{idA}, Properties: nasty,
		Preferences: []Preference{{
			Email: "a@example.com", UnsubscribedAll: true, Suppressed: true, BounceCount: 2,
			Categories: map[string]bool{"news": false}, SuppressedAt: &at, LastBounceAt: &later,
		}},
		FirstSeenAt: at, LastSeenAt: later, CreatedAt: at, UpdatedAt: later,
	}
}

func sampleResolved() *Resolved {
	linked := []Identifier{{KindEmail, "a@example.com"}}
	conflicts := []Conflict{{Kind: KindExternal, Value: "user-2", Reason: "contact has another external id", OtherContactID: ptr(idA)}}
	return &Resolved{
		ID: idA, Type: ResolvedInput, ContactID: idB, OccurredAt: at, Input: sampleInput(),
		Created: true, Duplicate: true, UserID: ptr("user-1"), Email: ptr("a@example.com"), AnonymousID: ptr("anon-1"),
		Linked: linked, Conflicts: conflicts, Merging: []string{idA},
		Merge: &Merge{Survivor: idB, InputID: idA},
		Absorb: &Absorb{Loser: idA, InputID: idB, State: sampleContact(), Deleted: true, Record: &ForwardedInput{
			ID: idA, Input: *sampleInput(), Duplicate: true, Linked: linked, Conflicts: conflicts, Merging: []string{idB},
		}},
	}
}

func sampleEvent() *Event {
	return &Event{
		ID: idA, ContactID: idB, Name: "order.completed", UserID: ptr("user-1"), Email: ptr("a@example.com"),
		AnonymousID: ptr("anon-1"), Properties: nasty, OccurredAt: at, ReceivedAt: later, Source: "api", Hops: 2, Seq: 41, Era: 2, Wait: true,
	}
}

func sampleFact() *Fact {
	return &Fact{
		ID: idA, Type: FactContactUpdated, ContactID: idB, UserID: ptr("user-1"), Email: ptr("a@example.com"),
		AnonymousID: ptr("anon-1"), OccurredAt: at, CauseID: idA, Seq: 42, Era: 2, CauseSeq: 39, WriterSeq: 3, Hops: 1,
		Contact:      &ContactFact{7, nasty, []string{"plan", "email"}, at, later, at, later, []string{idA}, []string{"anon-1", "anon-2"}},
		Deleted:      &ContactDeleted{8},
		Merged:       &ContactMerged{idA, 9, nasty, []Identifier{{KindEmail, "b@example.com"}}, []string{idB}, []string{idA, idB}, []string{"anon-3"}},
		Conflict:     &ContactConflict{[]Conflict{{KindEmail, "c@example.com", "taken", nil}}, idA},
		Unsubscribed: &Unsubscribed{"a@example.com", ptr("news"), "category"},
		EmailFact: &EmailFact{
			idA, ptr("pm"), ptr("welcome"), "a@example.com", ptr("news"), ptr("Hi"), ptr(idB), ptr("https://example.com"),
			ptr("l1"), ptr("hard"), ptr("no such user"), ptr("abuse"), &at,
		},
		Journey: &JourneyFact{
			"onboarding", "Onboarding", idA, &later, ptr("done"), ptr("3f2a"), ptr("cart-7"), ptr("holdout"), ptr(int64(2)),
			ptr("paid"), ptr("timeout"), ptr("HTTP 500"), ptr(idB), &at,
		},
		Bucket: &BucketTransition{"power", "Power users", "entered", 2, "event", ptr("criteria"), ptr("every-3600000"), ptr(int64(3))},
	}
}

func sampleSignal() *Signal {
	return &Signal{
		idA, "timer", "journeys", idB, at, 4, "wait-1", ptr(`{"step":2}`),
		&MergedSignal{idB, 43, 2}, &DeletedSignal{44, 2},
		&Receipt{idA, OutboxCall, idB, ReceiptAccepted, true, 3, ptr(201), ptr("rcv_1"), ptr(`{"id":"rcv_1"}`), "HTTP 500", 2}, 5,
	}
}

func sampleOutbox() *Outbox {
	return &Outbox{idA, idB, at, idB, OutboxCall, nasty, map[string]string{"X-One": "1", "X-Two": "ü"}, later, "journeys", 7, 3}
}

func sampleEmailRequest() *EmailRequest {
	return &EmailRequest{
		idA, idB, at, "welcome", ptr("a@example.com"), ptr("us@example.com"), ptr("Hi"), ptr("re@example.com"),
		ptr("news"), nasty, ptr("onboarding"), ptr(idB), true, 2,
	}
}

func sampleDeadLetter() *DeadLetter {
	return &DeadLetter{
		ID: idA, OccurredAt: at, Source: "processor:identity", Reason: "undecodable", Error: "undecodable record: too short",
		Attempts: 5, SourceTopic: "ingest", Partition: 3, Offset: 1 << 40, EndOffset: ptr(int64(1<<40 + 5)),
		DestinationID: ptr(idB), RecordID: idB, RecordType: "event", RecordKey: []byte("u:1"), RecordValue: []byte{0, 0xff, 1},
		RecordHeaders: map[string]string{"id": idB}, ResponseCode: ptr(422), ResponseBody: ptr("no"),
	}
}

func samples() []Message {
	return []Message{
		sampleInput(), sampleResolved(), sampleEvent(), sampleFact(), sampleContact(), sampleSignal(),
		sampleEmailRequest(), sampleDeadLetter(), sampleOutbox(),
	}
}

// decodeAny decodes a value of a topic to its message.
func decodeAny(c *Codec, topic Topic, value []byte) (Message, error) {
	switch topic {
	case TopicIngest:
		return c.DecodeInput(value)
	case TopicResolved:
		return c.DecodeResolved(value)
	case TopicEvents:
		return c.DecodeEvent(value)
	case TopicLifecycle:
		return c.DecodeFact(value)
	case TopicContacts:
		return c.DecodeContact(value)
	case TopicSignals:
		return c.DecodeSignal(value)
	case TopicEmailRequests:
		return c.DecodeEmailRequest(value)
	case TopicOutbox:
		return c.DecodeOutbox(value)
	}
	return c.DecodeDeadLetter(value)
}

func TestEveryMessageComesBackAsItWas(t *testing.T) {
	c := NewCodec()
	for _, m := range samples() {
		value, err := c.Encode(m)
		require.NoError(t, err)
		got, err := decodeAny(c, m.Topic(), value)
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
}

func TestAnAlmostEmptyMessageComesBack(t *testing.T) {
	c := NewCodec()
	for _, m := range []Message{&Input{}, &Resolved{}, &Event{}, &Fact{}, &Contact{}, &Signal{}, &EmailRequest{}, &DeadLetter{}, &Outbox{}} {
		value, err := c.Encode(m)
		require.NoError(t, err)
		got, err := decodeAny(c, m.Topic(), value)
		require.NoError(t, err)
		require.Equal(t, m.Meta(), got.Meta())
		again, err := c.Encode(got)
		require.NoError(t, err)
		require.Equal(t, value, again)
	}
}

func TestTimesFromYear1To9999KeepMicroseconds(t *testing.T) {
	c := NewCodec()
	for _, want := range []time.Time{
		{}, time.Date(1770, 1, 2, 3, 4, 5, 999999000, time.UTC), time.Date(1969, 12, 31, 23, 59, 59, 1000, time.UTC),
		time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	} {
		value, err := c.Encode(&Event{OccurredAt: want.In(time.FixedZone("x", 3600)).Add(999)})
		require.NoError(t, err)
		got, err := c.DecodeEvent(value)
		require.NoError(t, err)
		require.Equal(t, want, got.OccurredAt)
	}
}

func TestATombstoneHasNoValue(t *testing.T) {
	c := NewCodec()
	value, err := c.Encode(&Tombstone{ContactID: idA})
	require.NoError(t, err)
	require.Nil(t, value)
}

func TestBadBytesAreUndecodableWithAReason(t *testing.T) {
	c := NewCodec()
	good, err := c.Encode(sampleInput())
	require.NoError(t, err)
	signal, err := c.Encode(sampleSignal())
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		value  []byte
		reason string
	}{
		"nothing":           {nil, "too short"},
		"four bytes":        {[]byte{0, 0, 0, 0}, "too short"},
		"another magic":     {append([]byte{1}, good[1:]...), "magic byte"},
		"an unknown id":     {append([]byte{0, 0, 0, 0, 77}, good[5:]...), "unknown schema id 77"},
		"another record":    {signal, "not a record of topic ingest"},
		"a cut record":      {good[:len(good)-3], "ends too early"},
		"something behind":  {append(good[:len(good):len(good)], 0), "1 bytes after the record"},
		"a huge string":     {[]byte{0, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, "ends too early"},
		"a negative length": {[]byte{0, 0, 0, 0, 1, 1}, "length is negative"},
		"an endless number": {append([]byte{0, 0, 0, 0, 1}, []byte(strings.Repeat("\xff", 20))...), "number is too long"},
		"not UTF-8":         {[]byte{0, 0, 0, 0, 1, 2, 0xff}, "not UTF-8"},
		"json":              {[]byte(`{"event":"x"}`), "magic byte"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.DecodeInput(tc.value)
			require.ErrorIs(t, err, ErrUndecodable)
			require.ErrorContains(t, err, tc.reason)
			require.NotErrorIs(t, err, ErrRegistryUnavailable)
		})
	}
}

func TestWhatNoReaderWouldAcceptIsNotEncoded(t *testing.T) {
	_, err := NewCodec().Encode(&Event{Name: "a\xff"})
	require.ErrorContains(t, err, "not UTF-8")
	_, err = NewCodec().Encode((*Event)(nil))
	require.Error(t, err)
}

func TestAnIDIsDerivedAsUUIDv5OfCauseTypeAndOrdinal(t *testing.T) {
	for _, typ := range []string{"event", FactContactUpdated, strings.Repeat("long", 100)} {
		cause := uuid.Must(uuid.NewV7())
		require.Equal(t, uuid.NewSHA1(cause, []byte(typ+":7")).String(), Derive(cause.String(), typ, 7))
		name := uuid.NewSHA1(uuid.NameSpaceOID, []byte("no uuid"))
		require.Equal(t, uuid.NewSHA1(name, []byte(typ+":0")).String(), Derive("no uuid", typ, 0))
	}
}

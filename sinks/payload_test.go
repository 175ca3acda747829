package sinks

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
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

// samplePayload is a payload of each type of the catalog.
func samplePayload(t *testing.T, typ string) *Payload {
	t.Helper()
	var p *Payload
	var err error
	if typ == schemas.TypeEventTracked {
		p, err = eventPayload(sinktest.Event())
	} else {
		p, err = factPayload(sinktest.Fact(typ))
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
			require.Equal(t, "msg_"+sinktest.FactID, e.ID)
			require.Equal(t, typ, e.Type)
			require.Equal(t, "2026-01-02T03:04:05.678Z", e.Timestamp, "the time of the fact, not of the sending")
			require.Equal(t, sinktest.ContactID, e.Data["contactId"])
			require.True(t, json.Valid(p.Data))
			require.True(t, bytes.HasSuffix(p.Envelope, append(bytes.Clone(p.Data), '}')))
		})
	}
}

func TestEnvelopeOfTheTestEvent(t *testing.T) {
	p := TestPayload(sinktest.FactID, sinktest.ContactID, at("2026-01-02T03:04:05Z"))
	golden(t, "envelope/webhook.test.json", p.Envelope)
}

func TestPropertiesLeaveByteForByte(t *testing.T) {
	for _, typ := range []string{schemas.TypeEventTracked, schemas.FactContactCreated, schemas.FactContactMerged} {
		require.Contains(t, string(samplePayload(t, typ).Envelope), `"properties":`+sinktest.Event().Properties, typ)
	}
}

func TestAbsentIdentifiersAreNullAndThePersonIsStillNamed(t *testing.T) {
	for _, typ := range []string{schemas.FactBucketEntered, schemas.FactJourneyCompleted, schemas.FactEmailOpened} {
		f := sinktest.Fact(typ)
		f.UserID, f.Email = nil, nil
		p, err := factPayload(f)
		require.NoError(t, err)
		require.Contains(t, string(p.Data), `"userId":"`+sinktest.ContactID+`"`, typ)
	}
	f := sinktest.Fact(schemas.FactContactCreated)
	f.UserID, f.Email = nil, nil
	f.Contact.Properties = ""
	p, err := factPayload(f)
	require.NoError(t, err)
	require.Contains(t, string(p.Data), `"externalId":null,"email":null,"properties":{}`)
}

func TestAFactWithoutItsPayloadIsRefused(t *testing.T) {
	_, err := factPayload(&schemas.Fact{ID: sinktest.FactID, Type: schemas.FactContactCreated})
	require.ErrorContains(t, err, "without its payload")
	_, err = eventPayload(&schemas.Event{ID: sinktest.FactID, Properties: "[1]"})
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

// Of records from before contacts were numbered nothing is said of it; the golden files
// hold that.
func TestEveryKindTellsThePlaceInTheOrderOfTheContact(t *testing.T) {
	e, f := sinktest.Event(), sinktest.Fact(schemas.FactContactUpdated)
	e.Seq, e.Era, f.Seq, f.Era = 12, 3, 13, 3
	event, err := eventPayload(e)
	require.NoError(t, err)
	fact, err := factPayload(f)
	require.NoError(t, err)
	require.True(t, bytes.HasSuffix(event.Data, []byte(`,"seq":12,"era":3}`)), "%s", event.Data)
	require.True(t, bytes.HasSuffix(fact.Data, []byte(`,"seq":13,"era":3}`)), "%s", fact.Data)
	again, err := EnvelopePayload(event.ID, event.Type, event.OccurredAt, event.Data)
	require.NoError(t, err)
	require.Equal(t, []int64{12, 3}, []int64{again.Seq, again.Era})

	guard := transport.NewGuard(transport.Config{})
	for kind, want := range map[string]struct {
		config      string
		event, fact string
	}{
		"posthog": {`{"apiKey":"phc_x"}`, `"hogstream_seq":12,"hogstream_era":3`, `"seq":13,"era":3`},
		"segment": {`{"writeKey":"wk"}`, `"hogstream":{"seq":12,"era":3}`, `"hogstream":{"seq":13,"era":3}`},
		"slack":   {`{"url":"https://hooks.slack.com/services/T/B/x"}`, `no. 12 of the contact`, `no. 13 of the contact`},
		"kafka":   {`{"brokers":["kafka.example.com:9092"],"topic":"t"}`, `"seq":12,"era":3`, `"seq":13,"era":3`},
	} {
		k, err := builtIn.find(kind)
		require.NoError(t, err)
		sink, err := k.Open(&storage.Destination{Kind: kind, Config: json.RawMessage(want.config)}, guard)
		require.NoError(t, err, kind)
		for text, p := range map[string]*Payload{want.event: event, want.fact: fact} {
			req, err := sink.Build(&Attempt{Now: e.OccurredAt, Payloads: []*Payload{p}})
			require.NoError(t, err)
			require.True(t, json.Valid(req.Body))
			require.Contains(t, string(req.Body), text, kind)
			if kind == "kafka" {
				header := map[string][]string(req.Header) // of Kafka, as they are
				require.Equal(t, []string{strconv.FormatInt(p.Seq, 10)}, header["seq"])
				require.Equal(t, []string{"3"}, header["era"])
			}
		}
	}
}

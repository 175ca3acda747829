package schemas

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hamba/avro/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas/document"
)

var update = flag.Bool("update", false, "write golden files that do not exist yet")

// fileOf names the golden files of a topic after its schema.
var fileOf = map[Topic]string{
	TopicIngest: "input", TopicResolved: "resolved", TopicEvents: "event", TopicLifecycle: "fact",
	TopicContacts: "contact", TopicSignals: "signal", TopicEmailRequests: "email-request", TopicDeadLetters: "dead-letter", TopicOutbox: "outbox",
}

// golden reads a golden file. -update writes a missing one; one that exists is
// what Kafka holds somewhere and is never written again: a new version of a
// schema gets files of its own.
func golden(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	got, err := os.ReadFile(path)
	if *update && os.IsNotExist(err) {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, content, 0o644))
		return content
	}
	require.NoError(t, err)
	return got
}

// newest are the versions of schemas that have more than one.
var newest = map[Topic]int{TopicResolved: 2, TopicEvents: 3, TopicLifecycle: 5, TopicContacts: 2, TopicSignals: 4, TopicEmailRequests: 2}

func TestBytesOnceWrittenDecodeForEver(t *testing.T) {
	c := NewCodec()
	for _, m := range samples() {
		value, err := c.Encode(m)
		require.NoError(t, err)
		text, err := c.JSON(m.Topic(), value)
		require.NoError(t, err)
		name := fmt.Sprintf("%s.v%d", fileOf[m.Topic()], max(1, newest[m.Topic()]))
		schema := golden(t, name+".avsc", []byte(EmbeddedSchemas()[m.Topic()]))
		written := golden(t, name+".bin", value)
		wantText := golden(t, name+".json", append(text, '\n'))

		// As the current schema.
		got, err := decodeAny(c, m.Topic(), written)
		require.NoError(t, err)
		require.Equal(t, m, got)
		require.Equal(t, written, value, "the encoding of %s changed", name)
		gotText, err := c.JSON(m.Topic(), written)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSuffix(string(wantText), "\n"), string(gotText))

		// As another writer's, through its published schema.
		w, err := newWriter(1, string(schema))
		require.NoError(t, err)
		other := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wired)
		require.NoError(t, w.readOther(written[wireHeader:], other))
		require.Equal(t, m, other)
	}
}

// What was written before contacts numbered its records has no number.
func TestRecordsWithoutNumbersStayReadable(t *testing.T) {
	for _, m := range samples() {
		if newest[m.Topic()] < 2 {
			continue
		}
		switch m := m.(type) {
		case *Event:
			m.Seq, m.Era, m.Wait = 0, 0, false
		case *Fact:
			m.Seq, m.Era, m.CauseSeq, m.WriterSeq, m.Hops = 0, 0, 0, 0, 0
			withoutNames(m)
		case *Contact:
			m.Seq, m.Era = 0, 0
		case *Resolved:
			m.Absorb.State.Seq, m.Absorb.State.Era = 0, 0
		case *Signal:
			m.Merged, m.Deleted, m.Receipt, m.Hops = nil, nil, nil, 0
		case *EmailRequest:
			m.Hops = 0
		}
		name := fileOf[m.Topic()] + ".v1"
		w, err := newWriter(1, string(golden(t, name+".avsc", nil)))
		require.NoError(t, err)
		got := reflect.New(reflect.TypeOf(m).Elem()).Interface().(wired)
		require.NoError(t, w.readOther(golden(t, name+".bin", nil)[wireHeader:], got))
		require.Equal(t, m, got)
	}
}

// What was written before facts named what a contact was known by has no names.
func TestFactsWithoutFormerNamesStayReadable(t *testing.T) {
	want := sampleFact()
	withoutNames(want)
	w, err := newWriter(1, string(golden(t, "fact.v2.avsc", nil)))
	require.NoError(t, err)
	var got Fact
	require.NoError(t, w.readOther(golden(t, "fact.v2.bin", nil)[wireHeader:], &got))
	require.Equal(t, want, &got)
}

// Nobody waits for what was written before events said so.
func TestEventsForWhichNobodyWaitsStayReadable(t *testing.T) {
	want := sampleEvent()
	want.Wait = false
	w, err := newWriter(1, string(golden(t, "event.v2.avsc", nil)))
	require.NoError(t, err)
	var got Event
	require.NoError(t, w.readOther(golden(t, "event.v2.bin", nil)[wireHeader:], &got))
	require.Equal(t, want, &got)
}

// What was written before commands counted their hops has none.
func TestSignalsWithoutHopsStayReadable(t *testing.T) {
	want := sampleSignal()
	want.Hops = 0
	w, err := newWriter(1, string(golden(t, "signal.v3.avsc", nil)))
	require.NoError(t, err)
	var got Signal
	require.NoError(t, w.readOther(golden(t, "signal.v3.bin", nil)[wireHeader:], &got))
	require.Equal(t, want, &got)
}

// What was written before a dwell was told has none.
func TestFactsWithoutADwellStayReadable(t *testing.T) {
	want := sampleFact()
	withoutDwell(want)
	w, err := newWriter(1, string(golden(t, "fact.v3.avsc", nil)))
	require.NoError(t, err)
	var got Fact
	require.NoError(t, w.readOther(golden(t, "fact.v3.bin", nil)[wireHeader:], &got))
	require.Equal(t, want, &got)
}

// What was written before runs of journeys told their story has none.
func TestFactsWithoutAStoryStayReadable(t *testing.T) {
	want := sampleFact()
	withoutStory(want)
	w, err := newWriter(1, string(golden(t, "fact.v4.avsc", nil)))
	require.NoError(t, err)
	var got Fact
	require.NoError(t, w.readOther(golden(t, "fact.v4.bin", nil)[wireHeader:], &got))
	require.Equal(t, want, &got)
}

func withoutStory(f *Fact) {
	j := f.Journey
	f.Journey = &JourneyFact{JourneyID: j.JourneyID, JourneyName: j.JourneyName, StateID: j.StateID, CompletedAt: j.CompletedAt, Reason: j.Reason}
}

func withoutDwell(f *Fact) {
	withoutStory(f)
	f.Bucket.Label, f.Bucket.DwellCount = nil, nil
}

func withoutNames(f *Fact) {
	withoutDwell(f)
	f.Contact.Merged, f.Contact.AnonymousIDs = nil, nil
	f.Merged.LoserMerged, f.Merged.Merged, f.Merged.AnonymousIDs = nil, nil, nil
}

func TestPublishedSchemasStayCompatibleInBothDirections(t *testing.T) {
	for topic, name := range fileOf {
		versions, err := filepath.Glob(filepath.Join("testdata", "golden", name+".v*.avsc"))
		require.NoError(t, err)
		require.NotEmpty(t, versions)
		for _, path := range versions {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, fullyCompatible(EmbeddedSchemas()[topic], string(text)), path)
		}
	}
}

// fullyCompatible is what FULL asks between two versions: each reads the other.
func fullyCompatible(a, b string) error {
	la, err := parseLayout(a)
	if err != nil {
		return err
	}
	lb, err := parseLayout(b)
	if err != nil {
		return err
	}
	if err := avro.NewSchemaCompatibility().Compatible(la.schema, lb.schema); err != nil {
		return err
	}
	return avro.NewSchemaCompatibility().Compatible(lb.schema, la.schema)
}

func TestAnIncompatibleChangeIsRefused(t *testing.T) {
	for name, change := range map[string][2]string{
		"a field without a default is added": {`{"name": "id", "type": "string"}`, `{"name": "id", "type": "string"}, {"name": "new", "type": "string"}`},
		"a field without a default is gone":  {`{"name": "id", "type": "string"},`, ``},
		"a type is changed":                  {`{"name": "contactId", "type": "string"}`, `{"name": "contactId", "type": "long"}`},
		"a record is renamed":                {`"name": "BucketTransition"`, `"name": "BucketChange"`},
		"a nullable field is not any more":   {`{"name": "userId", "type": ["null", "string"], "default": null}`, `{"name": "userId", "type": "string", "default": ""}`},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, factSchema, change[0])
			require.Error(t, fullyCompatible(factSchema, strings.Replace(factSchema, change[0], change[1], 1)))
		})
	}
}

// withScore is the fact schema after somebody added a kind of fact.
var withScore = strings.Replace(factSchema,
	`{"name": "bucket", "type":`,
	`{"name": "score", "type": ["null", {"type": "record", "name": "Score", "fields": [{"name": "value", "type": "long"}, {"name": "of", "type": {"type": "array", "items": "Identifier"}, "default": []}]}], "default": null},
    {"name": "bucket", "type":`, 1)

func TestANewKindOfFactIsCompatible(t *testing.T) {
	require.NoError(t, fullyCompatible(factSchema, withScore))
}

func TestAnOldReaderPassesOverANewKindOfFact(t *testing.T) {
	newer, err := parseLayout(withScore)
	require.NoError(t, err)
	fact := map[string]any{
		"id": idA, "type": "score.changed", "contactId": idB, "userId": "user-1", "occurredAt": at,
		"score": map[string]any{"hogstream.Score": map[string]any{"value": int64(9), "of": []any{map[string]any{"kind": "email", "value": "x"}}}},
	}
	for _, f := range newer.schema.Fields() {
		if _, ok := fact[f.Name()]; !ok && f.Type().Type() == avro.Union {
			fact[f.Name()] = nil
		}
	}
	fact["userId"] = map[string]any{"string": "user-1"}
	fact["causeId"] = idA
	body, err := avro.Marshal(newer.schema, fact)
	require.NoError(t, err)

	fake := fakeRegistry(t)
	r := newRegistry(t, RegistryConfig{URLs: []string{fake.URL()}})
	require.NoError(t, r.Register(t.Context()))
	fake.SeedSchema("lifecycle-value", 2, 77, sr.Schema{Schema: withScore})
	value := append([]byte{0, 0, 0, 0, 77}, body...)
	got, err := r.Codec().DecodeFact(value)
	require.NoError(t, err)
	require.Equal(t, &Fact{ID: idA, Type: "score.changed", ContactID: idB, UserID: ptr("user-1"), OccurredAt: at, CauseID: idA}, got)
	text, err := r.Codec().JSON(TopicLifecycle, value)
	require.NoError(t, err)
	require.Contains(t, string(text), `"score":{"value":9,"of":[{"kind":"email","value":"x"}]}`)
	for cut := range body {
		_, err := r.Codec().DecodeFact(value[:5+cut])
		require.ErrorIs(t, err, ErrUndecodable)
	}
}

func TestANewReaderReadsWhatWasWrittenBeforeAFieldExisted(t *testing.T) {
	// The program of today reads the bytes of a writer that had no optional field.
	for topic := range fileOf {
		var schema map[string]any
		require.NoError(t, json.Unmarshal([]byte(EmbeddedSchemas()[topic]), &schema))
		var kept []any
		for _, f := range schema["fields"].([]any) {
			if _, optional := f.(map[string]any)["default"]; !optional {
				kept = append(kept, f)
			}
		}
		schema["fields"] = kept
		text, err := json.Marshal(schema)
		require.NoError(t, err)
		require.NoError(t, fullyCompatible(EmbeddedSchemas()[topic], string(text)), topic)
		w, err := newWriter(1, string(text))
		require.NoError(t, err)
		m := emptyOf(topic)
		require.NoError(t, w.readOther(w.shape.zero(nil), m.(wired)))
		require.Empty(t, m.Meta().ID)
		if c, ok := m.(*Contact); ok {
			require.Equal(t, "{ }", c.Properties)
		}
	}
}

// zero appends the smallest value of a shape; times are 1970.
func (s *shape) zero(b []byte) []byte {
	if s.kind != avro.Record {
		return append(b, 0)
	}
	for _, f := range s.fields {
		b = f.shape.zero(b)
	}
	return b
}

func emptyOf(topic Topic) Message {
	for _, m := range samples() {
		if m.Topic() == topic {
			return reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
		}
	}
	return nil
}

func TestOneRecordIsDefinedAlikeInAllSchemas(t *testing.T) {
	defined := map[string]string{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if v["type"] == "record" {
				delete(v, "namespace")
				fields := map[string]any{}
				for _, f := range v["fields"].([]any) {
					name, _ := json.Marshal(typeName(f.(map[string]any)["type"]))
					fields[f.(map[string]any)["name"].(string)] = string(name)
				}
				text, _ := json.Marshal(fields)
				if before, ok := defined[v["name"].(string)]; ok {
					require.Equal(t, before, string(text), v["name"])
				}
				defined[v["name"].(string)] = string(text)
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	for _, text := range EmbeddedSchemas() {
		var v any
		require.NoError(t, json.Unmarshal([]byte(text), &v))
		walk(v)
	}
	require.Contains(t, defined, "Identifier")
}

// typeName reduces a type to names: a record counts by its name wherever it is defined.
func typeName(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = typeName(v[i])
		}
		return out
	case map[string]any:
		switch v["type"] {
		case "record":
			return v["name"]
		case "array", "map":
			return []any{v["type"], typeName(v["items"]), typeName(v["values"])}
		}
	}
	return v
}

func TestOurEncodingIsWhatTheLibraryReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		for _, m := range samples() {
			typ := reflect.TypeOf(m).Elem()
			m := reflect.New(typ)
			fill(t, m.Elem())
			body, err := appendWire(nil, m.Interface().(wired))
			require.NoError(t, err)
			l := layouts[m.Interface().(Message).Topic()]
			require.NoError(t, l.shape.checkAll(body))
			w := &writer{shape: l.shape, read: l.schema}
			other := reflect.New(typ).Interface().(wired)
			require.NoError(t, w.readOther(body, other))
			require.Equal(t, m.Interface(), other)
			ours := reflect.New(typ).Interface().(wired)
			require.NoError(t, readWire(body, ours))
			require.Equal(t, m.Interface(), ours)
			// And what the library writes, blocks with sizes included, is read by ours.
			theirs, err := api.Marshal(l.schema, m.Interface())
			require.NoError(t, err)
			again := reflect.New(typ).Interface().(wired)
			require.NoError(t, readWire(theirs, again))
			require.Equal(t, m.Interface(), again)
		}
	})
}

// fill gives a message random content.
func fill(t *rapid.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.StringN(0, 6, -1).Draw(t, "string"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int32:
		v.SetInt(int64(rapid.Int32().Draw(t, "int")))
	case reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "long"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "set") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem())
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 2).Draw(t, "n")
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "bytes"))
			return
		}
		for range n {
			item := reflect.New(v.Type().Elem()).Elem()
			fill(t, item)
			v.Set(reflect.Append(v, item))
		}
	case reflect.Map:
		for range rapid.IntRange(0, 2).Draw(t, "n") {
			if v.IsNil() {
				v.Set(reflect.MakeMap(v.Type()))
			}
			item := reflect.New(v.Type().Elem()).Elem()
			fill(t, item)
			v.SetMapIndex(reflect.ValueOf(rapid.String().Draw(t, "key")), item)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeOf(at) {
			v.Set(reflect.ValueOf(at.AddDate(rapid.IntRange(-2000, 7000).Draw(t, "years"), 0, 0)))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	}
}

func TestJSONShowsDocumentsAsTheyAreAndATombstoneAsNull(t *testing.T) {
	c := NewCodec()
	e := sampleEvent()
	e.Email = nil
	value, err := c.Encode(e)
	require.NoError(t, err)
	text, err := c.JSON(TopicEvents, value)
	require.NoError(t, err)
	require.True(t, json.Valid(text))
	require.Contains(t, string(text), `"properties":`+document.Compact(nasty)+`,`)
	require.Contains(t, string(text), `"email":null,`)
	require.Contains(t, string(text), `"occurredAt":"2026-03-01T12:30:00.123456Z"`)
	e.Properties = `{"cut":`
	value, err = c.Encode(e)
	require.NoError(t, err)
	text, err = c.JSON(TopicEvents, value)
	require.NoError(t, err)
	require.Contains(t, string(text), `"properties":"{\"cut\":"`)
	text, err = c.JSON(TopicContacts, nil)
	require.NoError(t, err)
	require.Equal(t, "null", string(text))
}

// FuzzDecode holds three readers of the same bytes against each other.
func FuzzDecode(f *testing.F) {
	c := NewCodec()
	for i, m := range samples() {
		value, err := c.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), value[wireHeader:])
		f.Add(uint8(i), value[wireHeader:len(value)-1])
	}
	topics := Topics()
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		topic := topics[int(which)%len(topics)].Topic
		l := layouts[topic]
		value := append([]byte{0, 0, 0, 0, which%uint8(len(topics)) + 1}, body...)
		m, err := decodeAny(c, topic, value)
		if valid := l.shape.checkAll(body) == nil; valid != (err == nil) {
			t.Fatalf("decoding says %v, the shape says %v", err, valid)
		}
		text, jsonErr := c.JSON(topic, value)
		if (jsonErr == nil) != (err == nil) || jsonErr == nil && !json.Valid(text) {
			t.Fatalf("decoding says %v, JSON %v: %s", err, jsonErr, text)
		}
		if err != nil {
			return
		}
		other := emptyOf(topic).(wired)
		if err := (&writer{shape: l.shape, read: l.schema}).readOther(body, other); err != nil {
			t.Fatalf("the library says %v", err)
		}
		if !reflect.DeepEqual(other, m) {
			t.Fatalf("ours: %+v\nthe library's: %+v", m, other)
		}
	})
}

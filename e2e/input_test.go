package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestFaultBadRequestsAreRefusedByFieldAndLeaveNothing(t *testing.T) {
	beside(t)
	w := newWorld(t)
	w.serve("one")
	c := w.client()
	deep := strings.Repeat(`{"a":`, 65) + `1` + strings.Repeat(`}`, 65)
	for name, bad := range map[string]struct {
		method, path, body string
		status             int
		says               []string // the field, or what is wrong with the whole
	}{
		"a body of 10 MB":                        {"POST", "/v1/events", `{"name":"a","userId":"u","eventProperties":{"a":"` + strings.Repeat("x", 10<<20) + `"}}`, 413, []string{"larger than", `"fix"`}},
		"a batch of 10 MB":                       {"POST", "/v1/events/batch", `{"events":[{"name":"a","userId":"u","eventProperties":{"a":"` + strings.Repeat("x", 10<<20) + `"}}]}`, 413, []string{"larger than", `"fix"`}},
		"invalid UTF-8 in an id":                 {"POST", "/v1/events", "{\"name\":\"a\",\"userId\":\"u\xff\"}", 400, []string{"userId"}},
		"invalid UTF-8 in properties":            {"POST", "/v1/events", "{\"name\":\"a\",\"userId\":\"u\",\"eventProperties\":{\"a\":\"\xc3\x28\"}}", 400, []string{"eventProperties"}},
		"JSON nested deeper than 64":             {"POST", "/v1/events", `{"name":"a","userId":"u","eventProperties":` + deep + `}`, 400, []string{"eventProperties", "nested deeper than 64"}},
		"a contact nested deeper than 64":        {"PUT", "/v1/contacts", `{"userId":"u","properties":` + deep + `}`, 400, []string{"properties", "nested deeper than 64"}},
		"a name that is a number":                {"POST", "/v1/events", `{"name":5,"userId":"u"}`, 400, []string{"name", "expected string"}},
		"a userId that is an object":             {"POST", "/v1/events", `{"name":"a","userId":{}}`, 400, []string{"userId"}},
		"properties that are a list":             {"POST", "/v1/events", `{"name":"a","userId":"u","eventProperties":[]}`, 400, []string{"eventProperties"}},
		"a timestamp that is no time":            {"POST", "/v1/events", `{"name":"a","userId":"u","timestamp":"yesterday"}`, 400, []string{"timestamp"}},
		"a raw NUL byte":                         {"POST", "/v1/events", "{\"name\":\"a\",\"userId\":\"u\x00\"}", 400, []string{"userId"}},
		"an escaped NUL in userId":               {"POST", "/v1/events", `{"name":"a","userId":"u\u0000"}`, 400, []string{"userId"}},
		"an escaped NUL in email":                {"POST", "/v1/events", `{"name":"a","email":"a\u0000@example.com"}`, 400, []string{"email"}},
		"an escaped NUL in anonymousId":          {"POST", "/v1/events", `{"name":"a","anonymousId":"u\u0000"}`, 400, []string{"anonymousId"}},
		"an escaped NUL in a name":               {"POST", "/v1/events", `{"name":"a\u0000","userId":"u"}`, 400, []string{"name"}},
		"an escaped NUL in the userId to delete": {"DELETE", "/v1/contacts", `{"userId":"u\u0000"}`, 400, []string{"userId"}},
		"nobody":                                 {"POST", "/v1/events", `{"name":"a"}`, 400, []string{"userId", `"fix"`}},
		"no name":                                {"POST", "/v1/events", `{"userId":"u"}`, 400, []string{"name"}},
		"a reserved name":                        {"POST", "/v1/events", `{"name":"contact.created","userId":"u"}`, 400, []string{"name"}},
		"half a body":                            {"POST", "/v1/events", `{"name":"a","userId":`, 400, []string{"userId"}},
		"no JSON at all":                         {"POST", "/v1/events", `name=a`, 400, []string{`"fix"`}},
		"an event over 256 KiB":                  {"POST", "/v1/events/batch", `{"events":[{"name":"a","userId":"u","eventProperties":{"a":"` + strings.Repeat("x", 257<<10) + `"}}]}`, 400, []string{"262144", `"fix"`}},
	} {
		t.Run(name, func(t *testing.T) {
			status, text, err := c.call(w.ctx(), bad.method, bad.path, []byte(bad.body))
			require.NoError(t, err)
			require.Equal(t, bad.status, status, "%s", text)
			require.True(t, json.Valid(text), "%s", text)
			require.Contains(t, string(text), `"requestId"`)
			for _, says := range bad.says {
				require.Contains(t, strings.ReplaceAll(string(text), `\"`, `"`), says)
			}
		})
	}
	for name, key := range map[string]string{"no key": "", "an unknown key": "Bearer hsk_unknown"} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(http.MethodPost, w.serving[0].url+"/v1/events", strings.NewReader(`{"name":"a","userId":"u"}`))
			require.NoError(t, err)
			req.Header.Set("Content-Type", "application/json")
			if key != "" {
				req.Header.Set("Authorization", key)
			}
			res, err := c.http.Do(req)
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, http.StatusUnauthorized, res.StatusCode)
		})
	}
	t.Run("the good ones of a batch are taken, the bad ones named by index", func(t *testing.T) {
		status, text, err := c.call(w.ctx(), "POST", "/v1/events/batch", []byte(
			`{"events":[{"name":"good","userId":"batch"},{"name":"","userId":"batch"},{"name":"good","userId":"batch","eventProperties":{"n":2}},{"name":"a","userId":"u\u0000"}]}`))
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, status, "%s", text)
		var answer struct {
			Accepted int
			Rejected []struct {
				Index int
				Path  []any
				Fix   string
			}
		}
		require.NoError(t, json.Unmarshal(text, &answer))
		require.Equal(t, 2, answer.Accepted)
		require.Len(t, answer.Rejected, 2)
		require.Equal(t, 1, answer.Rejected[0].Index)
		require.Contains(t, fmt.Sprint(answer.Rejected[0].Path), "name")
		require.Equal(t, 3, answer.Rejected[1].Index)
		require.Contains(t, fmt.Sprint(answer.Rejected[1].Path), "userId")
	})
	w.eventually("the two good events", func(context.Context) error { return w.wantRecords(schemas.TopicEvents, 2) })
	require.Len(t, w.read(schemas.TopicIngest), 2, "nothing of the bad ones is on the log")
	require.Empty(t, w.read(schemas.TopicDeadLetters))
	var contacts int
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT count(*) FROM contacts`).Scan(&contacts))
	require.Equal(t, 1, contacts)
}

func TestFaultGarbageOnIngestBecomesDeadLettersAndThePartitionGoesOn(t *testing.T) {
	beside(t)
	w := newWorld(t)
	w.serve("one")
	c := w.client()
	require.NoError(t, c.sendOne(w.ctx(), event{Name: "before", UserID: "u", IdempotencyKey: "before"}))
	good := w.read(schemas.TopicIngest)[0]

	unknownID := slices.Clone(good.Value)
	binary.BigEndian.PutUint32(unknownID[1:], 987654)
	garbage := map[string][]byte{
		"not Avro":             []byte("this is not Avro"),
		"unknown schema id":    unknownID,
		"truncated":            good.Value[:len(good.Value)/2],
		"empty":                {},
		"a schema id alone":    good.Value[:5],
		"another topic's":      w.otherSchema(),
		"bytes after the end":  append(slices.Clone(good.Value), 1, 2, 3),
		"a tombstone":          nil,
		"lengths that explode": append(slices.Clone(good.Value[:5]), bytes.Repeat([]byte{0xff}, 40)...),
	}
	for _, name := range slices.Sorted(maps.Keys(garbage)) {
		w.produce(schemas.TopicIngest, string(good.Key), garbage[name])
	}
	require.NoError(t, c.sendOne(w.ctx(), event{Name: "after", UserID: "u", IdempotencyKey: "after"}))
	w.waitProcessed()

	var names []string
	for _, r := range w.read(schemas.TopicEvents) {
		e, err := w.codec.DecodeEvent(r.Value)
		require.NoError(t, err)
		names = append(names, e.Name)
	}
	require.Equal(t, []string{"before", "after"}, names)
	letters := map[string]*schemas.DeadLetter{}
	for _, r := range w.read(schemas.TopicDeadLetters) {
		d, err := w.codec.DecodeDeadLetter(r.Value)
		require.NoError(t, err)
		letters[string(d.RecordValue)] = d
		require.NotEmpty(t, d.Reason)
		require.NotEmpty(t, d.Error)
		require.Equal(t, good.Partition, d.Partition)
		require.Equal(t, string(good.Key), string(d.RecordKey))
		require.Contains(t, d.SourceTopic, string(schemas.TopicIngest))
	}
	for name, value := range garbage {
		if name == "bytes after the end" && letters[string(value)] == nil {
			continue // a reader of Avro may not look behind the value
		}
		require.NotNil(t, letters[string(value)], "dead letter of %s", name)
	}
}

// otherSchema is a good value of another topic.
func (w *world) otherSchema() []byte {
	w.t.Helper()
	w.eventually("a record on resolved", func(context.Context) error { return w.wantRecords(schemas.TopicResolved, 1) })
	return w.read(schemas.TopicResolved)[0].Value
}

func TestFaultWhatGrewBeyondItsSizeIsRefusedWithItsFixAndThePartitionGoesOn(t *testing.T) {
	beside(t)
	w := newWorld(t)
	w.serve("one")
	c := w.client()
	part := strings.Repeat("x", 200<<10)
	for i := range 3 {
		status, err := c.insist(w.ctx(), "PUT", "/v1/contacts", map[string]any{"userId": "big", "properties": map[string]any{fmt.Sprint("part", i): part}}, nil)
		if i < 2 {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, 413, status)
		require.ErrorContains(t, err, "too large")
		require.ErrorContains(t, err, "send less", "the fix")
	}
	// An event that would make the contact too big is an event all the same.
	require.NoError(t, c.sendOne(w.ctx(), event{Name: "grow", UserID: "big", ContactProperties: map[string]any{"more": part}, IdempotencyKey: "grow"}))
	require.NoError(t, c.sendOne(w.ctx(), event{Name: "small", UserID: "big", ContactProperties: map[string]any{"small": true}, IdempotencyKey: "small"}))
	w.waitProcessed()

	var types []string
	for _, r := range w.read(schemas.TopicLifecycle) {
		f, err := w.codec.DecodeFact(r.Value)
		require.NoError(t, err)
		types = append(types, f.Type)
		if f.Type == schemas.FactContactConflict {
			require.Equal(t, "size", f.Conflict.Conflicts[0].Kind)
			require.NotEmpty(t, f.Conflict.Conflicts[0].Reason)
		}
	}
	require.Equal(t, []string{
		schemas.FactContactCreated, schemas.FactContactUpdated, schemas.FactContactConflict,
		schemas.FactContactConflict, schemas.FactContactUpdated,
	}, types)
	require.NoError(t, w.wantRecords(schemas.TopicEvents, 2))
	var small, more *string
	require.NoError(t, storagetest.SQL(w.db).QueryRow(w.ctx(), `SELECT properties->>'small', properties->>'more' FROM contacts`).Scan(&small, &more))
	require.NotNil(t, small)
	require.Nil(t, more, "nothing half-stored")
}

package ingest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

func TestAnEventReachesTheLogAsItWasSent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	properties := `{"b": 12345678901234567890, "a": "\u0000 ünïcödé \ud83d\ude00", "n": {"z": [1.0, 1e3, null]}}`
	got := s.request(http.MethodPost, "/v1/events", `{
		"name": "order.completed", "email": "Ada@Example.com", "userId": " u1 ", "anonymousId": "a1",
		"eventProperties": `+properties+`, "contactProperties": {"plan": "pro"}, "lists": {"news": true, "offers": false},
		"timestamp": "2026-01-31T12:00Z", "somethingElse": [1, {"x": null}]}`).is(http.StatusAccepted).object()
	require.Equal(t, true, got["stored"])
	require.Equal(t, []any{}, got["exits"])

	in := s.log.last(t)
	require.Equal(t, got["id"], in.ID)
	require.Equal(t, schemas.InputEvent, in.Type)
	require.Equal(t, "order.completed", *in.Event)
	require.Equal(t, "u1", *in.UserID)
	require.Equal(t, "ada@example.com", *in.Email)
	require.Equal(t, "a1", *in.AnonymousID)
	require.Equal(t, properties, *in.EventProperties)
	require.Equal(t, `{"plan": "pro"}`, *in.ContactProperties)
	require.Equal(t, map[string]bool{"news": true, "offers": false}, in.Lists)
	require.Equal(t, "2026-01-31T12:00:00Z", in.OccurredAt.Format("2006-01-02T15:04:05Z07:00"))
	require.NotEqual(t, in.OccurredAt, in.ReceivedAt)
	require.Nil(t, in.IdempotencyKey)
	require.False(t, in.Wait)
}

func TestTheReplacementCharacterIsACharacter(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for _, id := range []string{`\ufffd`, `\uFFFD`, "�", `a\\ud800�\ud83d\ude00`} {
		s.request(http.MethodPost, "/v1/events", `{"name":"n\ufffd","userId":"`+id+`"}`).is(http.StatusAccepted)
	}
	all := s.log.all()
	require.Len(t, all, 4)
	require.Equal(t, "�", *all[0].UserID)
	require.Equal(t, "n�", *all[0].Event)
	require.Equal(t, "a\\ud800�😀", *all[3].UserID)

	s.request(http.MethodPost, "/v1/events", event, "Idempotency-Key", "�").is(http.StatusAccepted)
	issues := s.request(http.MethodPost, "/v1/events", event, "Idempotency-Key", "\xff").is(http.StatusBadRequest).issues()
	require.Equal(t, "Invalid text: not UTF-8", issues[0].Message)
}

func TestWhatIsWrongWithAnEventIsNamedWithItsFixAndNothingIsStored(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	deep := strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65)
	cases := map[string]struct{ body, path, code string }{
		"no name":                   {`{"userId":"u"}`, "name", "invalid_type"},
		"an empty name":             {`{"userId":"u","name":""}`, "name", "too_small"},
		"a blank name":              {`{"userId":"u","name":" \t"}`, "name", "too_small"},
		"a name of another type":    {`{"userId":"u","name":7}`, "name", "invalid_type"},
		"a NUL in the name":         {`{"userId":"u","name":"a\u0000b"}`, "name", "invalid_format"},
		"a long name":               {`{"userId":"u","name":"` + strings.Repeat("ü", 256) + `"}`, "name", "too_big"},
		"a reserved name":           {`{"userId":"u","name":"bucket:entered:vip"}`, "name", "invalid_value"},
		"a reserved name disguised": {`{"userId":"u","name":" Email.Opened"}`, "name", "invalid_value"},
		"null for an id":            {`{"name":"n","userId":null}`, "userId", "invalid_type"},
		"a blank id":                {`{"name":"n","userId":"   "}`, "userId", "too_small"},
		"a NUL in an id":            {`{"name":"n","userId":"u\u0000"}`, "userId", "invalid_format"},
		"half a surrogate":          {`{"name":"n","userId":"\ud800"}`, "userId", "invalid_format"},
		"half beside U+FFFD":        {`{"name":"n","userId":"�\ud800"}`, "userId", "invalid_format"},
		"halves the wrong way":      {`{"name":"n","userId":"\udc00\ud800"}`, "userId", "invalid_format"},
		"a bad email":               {`{"name":"n","email":"a@localhost"}`, "email", "invalid_format"},
		"blanks around an email":    {`{"name":"n","email":" a@b.co"}`, "email", "invalid_format"},
		"a NUL in an email":         {`{"name":"n","email":"a\u0000@b.co"}`, "email", "invalid_format"},
		"an array for properties":   {`{"name":"n","userId":"u","eventProperties":[]}`, "eventProperties", "invalid_type"},
		"null for properties":       {`{"name":"n","userId":"u","contactProperties":null}`, "contactProperties", "invalid_type"},
		"deep properties":           {`{"name":"n","userId":"u","eventProperties":` + deep + `}`, "eventProperties", "too_big"},
		"properties not in UTF-8":   {`{"name":"n","userId":"u","eventProperties":{"a":"` + "\xff" + `"}}`, "eventProperties", "invalid_format"},
		"an id not in UTF-8":        {`{"name":"n","userId":"` + "\xc3\x28" + `"}`, "userId", "invalid_format"},
		"a list that is no boolean": {`{"name":"n","userId":"u","lists":{"a":"yes"}}`, "lists.a", "invalid_type"},
		"a list id with a quote":    {`{"name":"n","userId":"u","lists":{"a\"}":true}}`, `lists.a"}`, "invalid_format"},
		"a zoneless time":           {`{"name":"n","userId":"u","timestamp":"2026-01-31T12:00:00"}`, "timestamp", "invalid_format"},
		"a day that does not exist": {`{"name":"n","userId":"u","timestamp":"2026-02-29T12:00:00Z"}`, "timestamp", "invalid_format"},
		"a year that no record has": {`{"name":"n","userId":"u","timestamp":"0000-01-01T00:00:00Z"}`, "timestamp", "invalid_value"},
		"a key of another type":     {`{"name":"n","userId":"u","idempotencyKey":1}`, "idempotencyKey", "invalid_type"},
		"an array":                  {`[1]`, "", "invalid_type"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			issues := s.request(http.MethodPost, "/v1/events", c.body).is(http.StatusBadRequest).issues()
			require.Len(t, issues, 1)
			require.Equal(t, c.code, issues[0].Code)
			require.Equal(t, c.path, dotted(issues[0].Path))
			require.NotEmpty(t, issues[0].Message)
			require.NotEmpty(t, issues[0].Fix)
		})
	}
	require.Empty(t, s.log.all())
}

func dotted(path []any) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = fmt.Sprint(p)
	}
	return strings.Join(parts, ".")
}

func TestAllThatIsWrongIsReportedInTheEnvelopeThatClientsKnow(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	got := s.request(http.MethodPost, "/v1/events", `{"name":"","email":"x"}`, "X-Request-Id", "req-1").is(http.StatusBadRequest)
	require.JSONEq(t, `{"success":false,"requestId":"req-1","error":{"name":"ZodError","message":`+quoted(`[
  {
    "origin": "string",
    "code": "too_small",
    "minimum": 1,
    "inclusive": true,
    "path": [
      "name"
    ],
    "message": "Too small: expected string to have >=1 characters",
    "fix": "give the event a name"
  },
  {
    "origin": "string",
    "code": "invalid_format",
    "format": "email",
    "path": [
      "email"
    ],
    "message": "Invalid email address",
    "fix": "send an address such as ada@example.com"
  }
]`)+`}}`, string(got.body))
}

func quoted(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func TestABodyThatIsNoJSONIsRefusedWithThePlace(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	for name, c := range map[string]struct{ body, path string }{
		"empty object end":        {`{"name":"n",`, ""},
		"a raw NUL in an id":      {"{\"name\":\"n\",\"userId\":\"a\x00b\"}", "userId"},
		"a raw NUL in properties": {"{\"name\":\"n\",\"eventProperties\":{\"a\":\"\x00\"}}", "eventProperties"},
		"a missing comma":         {`{"name":"n" "userId":"u"}`, ""},
		"something behind it":     {`{"name":"n","userId":"u"} x`, ""},
		"a broken number":         {`{"name":"n","userId":"u","x":01}`, "x"},
		"a single quote":          {`'`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.request(http.MethodPost, "/v1/events", c.body).is(http.StatusBadRequest).object()
			require.Equal(t, "Malformed JSON in request body", got["error"])
			require.NotEmpty(t, got["detail"])
			require.NotEmpty(t, got["requestId"])
			if c.path != "" {
				require.Equal(t, []any{c.path}, got["path"])
			}
		})
	}
	require.Empty(t, s.log.all())
}

func TestABodyIsJSONInUTF8AndBounded(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	event := `{"name":"n","userId":"u"}`
	s.request(http.MethodPost, "/v1/events", event, "Content-Type", "-").is(http.StatusUnsupportedMediaType)
	s.request(http.MethodPost, "/v1/events", event, "Content-Type", "text/plain").is(http.StatusUnsupportedMediaType)
	s.request(http.MethodPost, "/v1/events", event, "Content-Type", "application/json; charset=latin1").is(http.StatusUnsupportedMediaType)
	s.request(http.MethodPost, "/v1/events", event, "Content-Type", "application/vnd.api+json; charset=UTF-8").is(http.StatusAccepted)
	s.request(http.MethodPost, "/v1/events", event, "Content-Encoding", "br").is(http.StatusUnsupportedMediaType)
	s.request(http.MethodPost, "/v1/events", "", "Content-Type", "application/json").is(http.StatusBadRequest)

	big := `{"name":"n","userId":"u","eventProperties":{"a":"` + strings.Repeat("x", schemas.MaxEvent) + `"}}`
	s.request(http.MethodPost, "/v1/events", big).is(http.StatusRequestEntityTooLarge)
	s.request(http.MethodPost, "/v1/events", strings.Repeat("x", 10<<20)).is(http.StatusRequestEntityTooLarge)
	s.request(http.MethodPost, "/v1/events/batch", strings.Repeat(" ", 5<<20)+"[]").is(http.StatusRequestEntityTooLarge)
	require.Len(t, s.log.all(), 1)
}

func TestACompressedBodyIsReadAndBoundedAfterDecompression(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.request(http.MethodPost, "/v1/events", gzipped(t, `{"name":"n","userId":"u"}`), "Content-Encoding", "gzip").is(http.StatusAccepted)
	for _, name := range []string{"GZIP", "x-gzip"} { // RFC 9110: names of codings have no case, and this is the same one
		s.request(http.MethodPost, "/v1/events", gzipped(t, `{"name":"n","userId":"u"}`), "Content-Encoding", name).is(http.StatusAccepted)
	}
	s.request(http.MethodPost, "/v1/events", gzipped(t, `{"name":"n","userId":"`+strings.Repeat("u", 64<<20)+`"}`), "Content-Encoding", "gzip").is(http.StatusRequestEntityTooLarge)
	s.request(http.MethodPost, "/v1/events", `{"name":"n","userId":"u"}`, "Content-Encoding", "gzip").is(http.StatusBadRequest)
	require.Len(t, s.log.all(), 3)
}

func TestTheHeaderIdempotencyKeyWinsAndAnEmptyOneSwitchesItOff(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	body := `{"name":"n","userId":"u","idempotencyKey":"from-body"}`
	s.request(http.MethodPost, "/v1/events", body).is(http.StatusAccepted)
	require.Equal(t, "from-body", *s.log.last(t).IdempotencyKey)
	require.Equal(t, "bootstrap", *s.log.last(t).Scope)
	s.request(http.MethodPost, "/v1/events", body, "Idempotency-Key", "from-header").is(http.StatusAccepted)
	require.Equal(t, "from-header", *s.log.last(t).IdempotencyKey)
	s.request(http.MethodPost, "/v1/events", body, "Idempotency-Key", "").is(http.StatusAccepted)
	require.Nil(t, s.log.last(t).IdempotencyKey)
	issues := s.request(http.MethodPost, "/v1/events", body, "Idempotency-Key", strings.Repeat("k", 256)).is(http.StatusBadRequest).issues()
	require.Equal(t, []any{"Idempotency-Key"}, issues[0].Path)
}

// 10. Given a body without email and userId, when POST events, then 400.
func TestAnEventWithoutASubjectIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	got := s.request(http.MethodPost, "/v1/events", `{"name":"n"}`).is(http.StatusBadRequest).object()
	require.Equal(t, "email or userId is required", got["error"])
	s.request(http.MethodPost, "/v1/events", `{"name":"n","anonymousId":"a"}`).is(http.StatusAccepted)
}

func TestInABatchEachEventStandsForItself(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	deep := strings.Repeat(`[`, 200) + strings.Repeat("]", 200)
	body := `{"source": {"x": [1]}, "events": [
		{"name":"a","userId":"u1","idempotencyKey":"k1"},
		{"name":"b"},
		{"name":"c","userId":"u2","eventProperties":{"a":` + deep + `}},
		17,
		{"name":"d","userId":"u3","eventProperties":{"s":"` + "\xff" + `"}},
		{"name":"e","userId":"u4","eventProperties":{"a":"` + strings.Repeat("x", schemas.MaxEvent) + `"}},
		{"name":"contact.created","userId":"u5"},
		{"name":"f","userId":"u6"}
	], "more": null}`
	var got struct {
		Accepted int
		Rejected []struct {
			Index              int
			Path               []any
			Code, Message, Fix string
		}
		IDs []*string
	}
	s.request(http.MethodPost, "/v1/events/batch?ids=true", body).is(http.StatusAccepted).into(&got)
	require.Equal(t, 2, got.Accepted)
	places := map[int]string{}
	for _, r := range got.Rejected {
		places[r.Index] = r.Code + " " + dotted(r.Path)
		require.NotEmpty(t, r.Message)
		require.NotEmpty(t, r.Fix)
	}
	require.Equal(t, map[int]string{
		1: "custom ", 2: "too_big eventProperties", 3: "invalid_type ", 4: "invalid_format eventProperties",
		5: "too_big ", 6: "invalid_value name",
	}, places)
	inputs := s.log.all()
	require.Len(t, inputs, 2)
	require.Equal(t, "a", *inputs[0].Event)
	require.Equal(t, "k1", *inputs[0].IdempotencyKey)
	require.False(t, inputs[0].Wait)
	require.Equal(t, "f", *inputs[1].Event)
	require.Len(t, got.IDs, 8)
	require.Equal(t, inputs[0].ID, *got.IDs[0])
	require.Nil(t, got.IDs[3])
	require.Equal(t, inputs[1].ID, *got.IDs[7])
}

func TestABatchWithoutOneGoodEventIsRefused(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	got := s.request(http.MethodPost, "/v1/events/batch", `[{"name":"a"}]`).is(http.StatusBadRequest).object()
	require.InDelta(t, 0, got["accepted"], 0)
	require.Len(t, got["rejected"], 1)
	for _, body := range []string{`[]`, `{"events":[]}`, `{}`, `{"events":{}}`, `7`, `{"events":[{"name":"a","userId":"u"}`, `[{"name":"a","userId":"u"},]`, `{"events":[{"name":"a","userId":"u"}]}]`,
		`{"events":[{"name":"a","userId":"u"}],"events":[{"name":"b","userId":"u"}]}`} {
		s.request(http.MethodPost, "/v1/events/batch", body).is(http.StatusBadRequest)
	}
	one := `{"name":"a","userId":"u"}`
	s.request(http.MethodPost, "/v1/events/batch", "["+strings.Repeat(one+",", 1000)+one+"]").is(http.StatusBadRequest)
	require.Empty(t, s.log.all())
	s.request(http.MethodPost, "/v1/events/batch", "["+strings.Repeat(one+",", 999)+one+"]").is(http.StatusAccepted)
	require.Len(t, s.log.all(), 1000)
}

func TestEventsTheLogDidNotConfirmAreNotReportedAsAccepted(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.log.fail = func(msgs []schemas.Message) error {
		return &stream.AppendError{Total: len(msgs), Failed: []stream.AppendFailure{{Index: 1, Err: stream.ErrBusy}}}
	}
	body := `[{"name":"a","userId":"u"},{"name":"bad"},{"name":"c","userId":"u"}]`
	var got struct {
		Accepted int
		Rejected []struct {
			Index int
			Code  string
		}
		IDs []*string
	}
	s.request(http.MethodPost, "/v1/events/batch?ids=true", body).is(http.StatusAccepted).into(&got)
	require.Equal(t, 1, got.Accepted)
	require.Len(t, got.Rejected, 2)
	require.Equal(t, 2, got.Rejected[1].Index)
	require.Equal(t, "unavailable", got.Rejected[1].Code)
	require.Nil(t, got.IDs[2])
}

func TestABusyLogIs503WithRetryAfter(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	s.log.fail = func([]schemas.Message) error { return fmt.Errorf("append: %w", stream.ErrBusy) }
	for _, path := range []string{"/v1/events", "/v1/events/batch"} {
		body := `{"name":"a","userId":"u"}`
		if path != "/v1/events" {
			body = "[" + body + "]"
		}
		got := s.request(http.MethodPost, path, body).is(http.StatusServiceUnavailable)
		require.NotEmpty(t, got.header.Get("Retry-After"))
		require.NotEmpty(t, got.object()["requestId"])
	}
	s.log.fail = func([]schemas.Message) error { return errors.New("a defect") }
	s.request(http.MethodPost, "/v1/events", `{"name":"a","userId":"u"}`).is(http.StatusInternalServerError)
}

package destinations

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/document"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/sinktest"
)

func TestAPreviewShowsTheRequestWithoutItsSecrets(t *testing.T) {
	o := newOperations(t)
	for _, s := range []Settings{
		{Name: "hook", URL: "https://example.com/x", Config: json.RawMessage(`{"headers":{"X-Custom":"sesame-1"}}`)},
		{Name: "hog", Kind: "posthog", Config: json.RawMessage(`{"apiKey":"sesame-2"}`)},
		{Name: "seg", Kind: "segment", Config: json.RawMessage(`{"writeKey":"sesame-3"}`)},
		{Name: "slack", Kind: "slack", URL: "https://hooks.slack.com/services/T/B/sesame-4"},
	} {
		s.EventTypes = []string{"contact.*"}
		made, err := o.Create(t.Context(), s)
		require.NoError(t, err)
		v, err := o.Preview(t.Context(), made.ID, Sample{Record: sinktest.Record(sinktest.Fact(schemas.FactContactCreated), 1)})
		require.NoError(t, err)
		require.Equal(t, "sent", v.Result, v.Error)
		require.True(t, v.Subscribed)
		require.Equal(t, "POST", v.Method)
		require.NotEmpty(t, v.URL)
		require.Contains(t, v.Body, "ann@example.com")
		shown, err := json.Marshal(v)
		require.NoError(t, err)
		require.NotContains(t, string(shown), "sesame")
		require.NotContains(t, string(shown), "c2VzYW1l", "nor in base64")
		if s.Name == "hook" {
			require.Contains(t, v.Headers["Webhook-Signature"], "v1,")
			require.Equal(t, string(payloadOf(t, sinktest.Fact(schemas.FactContactCreated)).Envelope), v.Body)
		}
	}
	v, err := o.Preview(t.Context(), "hook", Sample{Record: sinktest.Record(sinktest.Event(), 2)})
	require.NoError(t, err)
	require.False(t, v.Subscribed)
	_, err = o.Update(t.Context(), "hook", Patch{Filter: &Filter{JQ: "false"}})
	require.NoError(t, err)
	v, err = o.Preview(t.Context(), "hook", Sample{Record: sinktest.Record(sinktest.Event(), 2)})
	require.NoError(t, err)
	require.Equal(t, "skipped", v.Result)
}

// shown is a record as topics tail shows it.
func shown(t *testing.T, m schemas.Message) json.RawMessage {
	t.Helper()
	r := sinktest.Record(m, 1)
	value, err := schemas.NewCodec().JSON(r.Topic, r.Value)
	require.NoError(t, err)
	line, err := json.Marshal(map[string]any{"topic": r.Topic, "type": r.Type, "value": json.RawMessage(value)})
	require.NoError(t, err)
	return line
}

func TestAPastedRecordGivesTheRequestOfTheRecordItself(t *testing.T) {
	o := newOperations(t)
	for _, s := range []Settings{
		{Name: "hook", URL: "https://example.com/x"},
		{Name: "hog", Kind: "posthog", Config: json.RawMessage(`{"apiKey":"k"}`)},
		{Name: "seg", Kind: "segment", Config: json.RawMessage(`{"writeKey":"k"}`)},
	} {
		s.EventTypes = []string{"*", "journey.step", "journey.skipped", "event.tracked"}
		_, err := o.Create(t.Context(), s)
		require.NoError(t, err)
		for _, typ := range append(schemas.Catalog(), schemas.FactContactMerged, schemas.TypeEventTracked) {
			var m schemas.Message = sinktest.Event()
			if typ != schemas.TypeEventTracked {
				m = sinktest.Fact(typ)
			}
			want, err := o.Preview(t.Context(), s.Name, Sample{Record: sinktest.Record(m, 1)})
			require.NoError(t, err)
			require.Equal(t, "sent", want.Result, want.Error)
			got, err := o.Preview(t.Context(), s.Name, Sample{Message: shown(t, m)})
			require.NoError(t, err, typ)
			require.Equal(t, document.Compact(want.Body), got.Body, typ)
			require.True(t, got.Subscribed, typ)
			if s.Name == "hook" { // the envelope that a webhook got may be pasted too
				again, err := o.Preview(t.Context(), s.Name, Sample{Message: json.RawMessage(want.Body)})
				require.NoError(t, err, typ)
				require.Equal(t, want.Body, again.Body, typ)
			}
		}
	}
	for _, wrong := range []string{`{}`, `{"data":1,"type":"x"}`, `{"data":{}}`, `{"topic":"ingest","value":{}}`, `{"type":"contact.created"}`} {
		_, err := o.Preview(t.Context(), "hook", Sample{Message: json.RawMessage(wrong)})
		var invalid *InvalidError
		require.ErrorAs(t, err, &invalid, wrong)
		require.Equal(t, "message", invalid.Field)
	}
}

func TestATestOfARecordIsMarkedAndHasAnIDOfItsOwn(t *testing.T) {
	o := newOperations(t)
	r, err := sinktest.New(sinktest.Options{Keep: 10})
	require.NoError(t, err)
	defer r.Close()
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	made, err := o.Create(t.Context(), Settings{Name: "hook", URL: url, EventTypes: []string{"contact.*"}, Filter: Filter{JQ: `.data.email == "ann@example.com"`}})
	require.NoError(t, err)
	require.NoError(t, r.SetSecrets(made.Secret))
	record := sinktest.Record(sinktest.Fact(schemas.FactContactCreated), 3)
	tested, err := o.Test(t.Context(), "hook", Sample{Record: record})
	require.NoError(t, err)
	require.True(t, tested.Delivered, "%+v", tested)
	got := r.Messages()[0]
	require.Empty(t, got.Problem)
	require.Equal(t, "true", got.Header.Get("Hogstream-Test"))
	require.Equal(t, tested.DeliveryID, got.ID)
	require.NotEqual(t, "msg_"+record.ID, got.ID)
	require.Equal(t, tested.Request.Body, string(got.Body))
	require.JSONEq(t, string(payloadOf(t, sinktest.Fact(schemas.FactContactCreated)).Data), string(dataOf(t, got.Body)))

	_, err = o.Update(t.Context(), "hook", Patch{Filter: &Filter{JQ: "false"}})
	require.NoError(t, err)
	tested, err = o.Test(t.Context(), "hook", Sample{Record: record})
	require.NoError(t, err)
	require.Equal(t, "skipped", tested.Verdict)
	require.Contains(t, tested.Error, "filter")
	require.Len(t, r.Messages(), 1, "what the filter leaves out is not sent")
}

func payloadOf(t *testing.T, m schemas.Message) *sinks.Payload {
	t.Helper()
	p, err := sinks.PayloadOf(m)
	require.NoError(t, err)
	return p
}

func dataOf(t *testing.T, envelope []byte) json.RawMessage {
	t.Helper()
	var e struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal(envelope, &e))
	return e.Data
}

func TestAKindThatIsNotEnabledIsRefused(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Name: "seg", Kind: "segment", EventTypes: []string{"*"}, Config: json.RawMessage(`{"writeKey":"k"}`)})
	require.NoError(t, err)
	o.deliverer = newDeliverer(t, sinks.Config{Kinds: []string{"webhook", "posthog"}})
	_, err = o.Create(t.Context(), Settings{Kind: "slack", URL: "https://hooks.slack.com/services/x", EventTypes: []string{"*"}})
	require.ErrorContains(t, err, "ENABLED_DESTINATION_PRESETS")
	v, err := o.Preview(t.Context(), made.ID, Sample{})
	require.NoError(t, err)
	require.Equal(t, "refused", v.Result)
	_, err = sinks.New(sinks.Config{Kinds: []string{"fax"}}, nil, nil, nil)
	require.ErrorContains(t, err, "fax")
}

func TestAPreviewSaysWhetherTheBodyIsSentCompressed(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{Kind: "segment", Config: json.RawMessage(`{"writeKey":"k","gzip":true}`), EventTypes: []string{"*"}})
	require.NoError(t, err)
	large := sinktest.Event()
	large.Properties = `{"text":"` + strings.Repeat("so long ", 200) + `"}`
	v, err := o.Preview(t.Context(), made.ID, Sample{Record: sinktest.Record(large, 1)})
	require.NoError(t, err)
	require.True(t, v.Compressed)
	require.Equal(t, "gzip", v.Headers["Content-Encoding"])
	require.Contains(t, v.Body, "so long so long", "readable")
	v, err = o.Preview(t.Context(), made.ID, Sample{Record: sinktest.Record(sinktest.Event(), 1)})
	require.NoError(t, err)
	require.False(t, v.Compressed, "a small one is sent as it is")
	require.NotContains(t, v.Headers, "Content-Encoding")
}

// A header of one character hid that character in the whole request.
func TestValuesOfHeadersAreHiddenInTheirHeadersAndNowhereElse(t *testing.T) {
	o := newOperations(t)
	made, err := o.Create(t.Context(), Settings{
		URL: "https://example.com/v1", EventTypes: []string{"*"}, Config: json.RawMessage(`{"headers":{"x-version":"1","X-Env":"e"}}`),
	})
	require.NoError(t, err)
	v, err := o.Preview(t.Context(), made.ID, Sample{Record: sinktest.Record(sinktest.Event(), 1)})
	require.NoError(t, err)
	require.Equal(t, "https://example.com/v1", v.URL)
	require.NotContains(t, v.Body, redacted)
	for name, value := range v.Headers {
		if name == "X-Version" || name == "X-Env" {
			require.Equal(t, redacted, value)
			continue
		}
		require.NotContains(t, value, redacted, name)
	}
}

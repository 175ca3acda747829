package sinks

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
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
		v, err := o.Preview(t.Context(), made.ID, sampleFact(schemas.FactContactCreated))
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
			require.Equal(t, string(samplePayload(t, schemas.FactContactCreated).Envelope), v.Body)
		}
	}
	v, err := o.Preview(t.Context(), "hook", sampleEvent())
	require.NoError(t, err)
	require.False(t, v.Subscribed)
	_, err = o.Update(t.Context(), "hook", Patch{Filter: ptr("false")})
	require.NoError(t, err)
	v, err = o.Preview(t.Context(), "hook", sampleEvent())
	require.NoError(t, err)
	require.Equal(t, "skipped", v.Result)
}

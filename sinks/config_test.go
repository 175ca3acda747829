package sinks

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAShownConfigHidesWhatIsSecretAndKeepsTheRest(t *testing.T) {
	slack := &Kind{Name: "slack", SecretURL: true}
	for _, c := range []struct {
		config, want string
		kind         *Kind
	}{
		{`{"apiKey":"k","host":"h","eventNames":{"email.sent":"sent"}}`, `{"apiKey":"***","eventNames":{"email.sent":"sent"},"host":"h"}`, nil},
		{`{"writeKey":"k","write_key":"k","api_key":"k","API-KEY":"k"}`, `{"API-KEY":"***","api_key":"***","writeKey":"***","write_key":"***"}`, nil},
		{`{"headers":{"X-Anything":"v"}}`, `{"headers":{"X-Anything":"***"}}`, nil},
		{`{"nested":[{"clientSecret":"s","password":"p","accessToken":"t"}]}`, `{"nested":[{"accessToken":"***","clientSecret":"***","password":"***"}]}`, nil},
		{`{"url":"https://hooks.slack.com/x","username":"u"}`, `{"url":"***","username":"u"}`, slack},
		{`{"url":"https://example.com"}`, `{"url":"https://example.com"}`, nil},
		{`{"apiKey":null}`, `{"apiKey":null}`, nil},
		{``, ``, nil},
	} {
		require.Equal(t, c.want, string(redactConfig(json.RawMessage(c.config), c.kind)), c.config)
	}
	require.Equal(t, "https://hooks.slack.com/***", redactURL("https://hooks.slack.com/services/T/B/x", slack))
	require.Equal(t, "https://example.com/x", redactURL("https://example.com/x", nil))
}

func TestWritingBackAShownConfigKeepsTheSecrets(t *testing.T) {
	stored := json.RawMessage(`{"apiKey":"k","headers":{"A":"1","B":"2"}}`)
	got, err := restoreConfig(json.RawMessage(`{"apiKey":"***","headers":{"A":"***","C":"3"},"host":"h"}`), stored)
	require.NoError(t, err)
	require.JSONEq(t, `{"apiKey":"k","headers":{"A":"1","C":"3"},"host":"h"}`, string(got))
	_, err = restoreConfig(json.RawMessage(`{"writeKey":"***"}`), stored)
	require.ErrorContains(t, err, "config.writeKey")
	_, err = restoreConfig(json.RawMessage(`{"writeKey":"***"}`), nil)
	require.ErrorContains(t, err, "none is stored")
}

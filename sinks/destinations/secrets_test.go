package destinations

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/sinks"
)

func TestAShownConfigHidesWhatIsSecretAndKeepsTheRest(t *testing.T) {
	slack := &sinks.Kind{Name: "slack", SecretURL: true}
	for _, c := range []struct {
		config, want string
		kind         *sinks.Kind
	}{
		{`{"apiKey":"k","host":"h","eventNames":{"email.sent":"sent"}}`, `{"apiKey":"***","eventNames":{"email.sent":"sent"},"host":"h"}`, nil},
		{`{"writeKey":"k","write_key":"k","api_key":"k","API-KEY":"k"}`, `{"API-KEY":"***","api_key":"***","writeKey":"***","write_key":"***"}`, nil},
		{`{"headers":{"X-Anything":"v"}}`, `{"headers":{"X-Anything":"***"}}`, nil},
		{`{"nested":[{"clientSecret":"s","password":"p","accessToken":"t"}]}`, `{"nested":[{"accessToken":"***","clientSecret":"***","password":"***"}]}`, nil},
		{`{"url":"https://hooks.slack.com/x","username":"u"}`, `{"url":"***","username":"u"}`, slack},
		{`{"url":"https://example.com"}`, `{"url":"https://example.com"}`, nil},
		{`{"brokers":["b:9092"],"topic":"t","password":"p"}`, `{"brokers":["b:9092"],"password":"***","topic":"t"}`, nil},
		{`{"apiKey":null}`, `{"apiKey":null}`, nil},
		{``, ``, nil},
	} {
		require.Equal(t, c.want, string(redactConfig(json.RawMessage(c.config), c.kind)), c.config)
	}
	require.Equal(t, "https://hooks.slack.com/***", redactURL("https://hooks.slack.com/services/T/B/x", slack))
	require.Equal(t, "https://example.com/***", redactURL("https://example.com/x", nil), "of a kind that nobody knows here")
	require.Equal(t, "https://example.com/x?a=1&api_key=***&Token=***", redactURL("https://example.com/x?a=1&api_key=x&Token=y", &sinks.Kind{Name: sinks.Webhook}))
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

func TestSecretsInListsAreKeptAsOthersAre(t *testing.T) {
	stored := json.RawMessage(`{"nested":[{"token":"a","n":1},{"token":"b"}],"tokens":["x"]}`)
	shown := redactConfig(stored, nil)
	require.JSONEq(t, `{"nested":[{"token":"***","n":1},{"token":"***"}],"tokens":"***"}`, string(shown))
	got, err := restoreConfig(shown, stored)
	require.NoError(t, err)
	require.JSONEq(t, string(stored), string(got))
	_, err = restoreConfig(json.RawMessage(`{"nested":[{"token":"***"}]}`), stored)
	require.ErrorContains(t, err, "config.nested[0].token")
}

func TestAHiddenSecretIsNotSentToAnotherReceiverThanTheOneItWasGivenFor(t *testing.T) {
	posthog := Settings{Kind: "posthog", Config: json.RawMessage(`{"apiKey":"phc_secret","host":"https://eu.i.posthog.com"}`)}
	kafka := Settings{Kind: "kafka", Config: json.RawMessage(`{"brokers":["a.example:9093","b.example:9093"],"topic":"t","tls":true,"mechanism":"PLAIN","username":"u","password":"p"}`)}
	hook := Settings{URL: "https://example.com/hook", Config: json.RawMessage(`{"headers":{"Authorization":"Bearer x"}}`)}
	bare := Settings{URL: "https://example.com/hook"}
	config := func(text string) Patch { return Patch{Config: json.RawMessage(text)} }
	for _, c := range []struct {
		say   string
		from  Settings
		to    Patch
		field string // "" is allowed
	}{
		{"another host", posthog, config(`{"apiKey":"***","host":"https://evil.example"}`), "config.apiKey"},
		{"the vendor's default", posthog, config(`{"apiKey":"***"}`), "config.apiKey"},
		{"the same host, written otherwise", posthog, config(`{"apiKey":"***","host":"https://EU.i.posthog.com:443/"}`), ""},
		{"another setting", posthog, config(`{"apiKey":"***","host":"https://eu.i.posthog.com","gzip":true}`), ""},
		{"the key is sent again", posthog, config(`{"apiKey":"phc_secret","host":"https://other.example"}`), ""},
		{"another broker", kafka, config(`{"brokers":["a.example:9093","c.example:9093"],"topic":"t","tls":true,"mechanism":"PLAIN","username":"u","password":"***"}`), "config.password"},
		{"no encryption any more", kafka, config(`{"brokers":["a.example:9093"],"topic":"t","mechanism":"PLAIN","username":"u","password":"***"}`), "config.password"},
		{"a broker less", kafka, config(`{"brokers":["a.example:9093"],"topic":"other","tls":true,"mechanism":"PLAIN","username":"u","password":"***"}`), ""},
		{"another URL, the headers stay", hook, Patch{URL: new("https://other.example/hook")}, "config.headers.Authorization"},
		{"another URL, the headers are written back", hook, Patch{URL: new("https://other.example/hook"), Config: json.RawMessage(`{"headers":{"Authorization":"***"}}`)}, "config.headers.Authorization"},
		{"another URL, other headers", hook, Patch{URL: new("https://other.example/hook"), Config: json.RawMessage(`{"headers":{"Authorization":"Bearer y"}}`)}, ""},
		{"another URL without headers", bare, Patch{URL: new("https://other.example/hook")}, ""},
		{"another path", hook, Patch{URL: new("https://example.com/other")}, ""},
	} {
		t.Run(c.say, func(t *testing.T) {
			o := newOperations(t)
			c.from.EventTypes = []string{"*"}
			made, err := o.Create(t.Context(), c.from)
			require.NoError(t, err)
			_, err = o.Update(t.Context(), made.ID, c.to)
			if c.field == "" {
				require.NoError(t, err)
				return
			}
			var invalid *InvalidError
			require.ErrorAs(t, err, &invalid)
			require.Equal(t, c.field, invalid.Field)
			require.Contains(t, invalid.Message, "send the value again")
			d, err := o.store.Get(t.Context(), made.ID)
			require.NoError(t, err)
			require.JSONEq(t, string(c.from.Config), string(d.Config))
			require.Equal(t, c.from.URL, d.URL)
		})
	}
}

func TestASettingOfTheWrongTypeIsSaidInJSONsWords(t *testing.T) {
	for config, want := range map[string]string{
		`{"headers":["X"]}`:             "config.headers: must be an object, not of type array",
		`{"ed25519":"whsk_secret"}`:     "config.ed25519: must be true or false, not of type string",
		`{"headers":{"X-Team":424242}}`: "config.headers: must be a text, not of type number",
		`[]`:                            "config: must be an object, not of type array",
	} {
		_, err := newOperations(t).Create(t.Context(), Settings{URL: "https://example.com/hook", EventTypes: []string{"*"}, Config: json.RawMessage(config)})
		require.ErrorContains(t, err, want, config)
		require.NotContains(t, err.Error(), "secret")
		require.NotContains(t, err.Error(), "424242")
	}
}

package hogstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/destinations"
)

func TestABooleanOfTheEnvironmentIsAWordForOnOrOff(t *testing.T) {
	for word, want := range map[string]bool{
		"true": true, "1": true, "yes": true, "on": true, "TRUE": true, " On ": true,
		"false": false, "0": false, "no": false, "off": false, "False": false,
	} {
		t.Setenv("ENABLE_POSTHOG_DESTINATION", word)
		cfg, err := hogstream.ConfigFromEnv()
		require.NoError(t, err, word)
		require.Equal(t, want, cfg.Presets.SeedPosthog, word)
	}
	t.Setenv("ENABLE_POSTHOG_DESTINATION", "maybe")
	_, err := hogstream.ConfigFromEnv()
	require.ErrorContains(t, err, "ENABLE_POSTHOG_DESTINATION")
	require.ErrorContains(t, err, "use true, 1, yes or on")
}

func TestPresetsSayWhichKindsMayBeUsed(t *testing.T) {
	all := []string(nil)
	for setting, want := range map[string][]string{
		"": all, "*": all, "slack,*": all,
		"none": {"webhook", "posthog"}, "None": {"webhook", "posthog"},
		"segment": {"webhook", "posthog", "segment"}, " Slack , segment,webhook": {"webhook", "posthog", "slack", "segment"},
	} {
		cfg := hogstream.Config{Presets: hogstream.PresetsConfig{Kinds: setting}}
		kinds, err := cfg.EnabledKinds()
		require.NoError(t, err, setting)
		require.Equal(t, want, kinds, setting)
	}
	wrong := hogstream.Config{Presets: hogstream.PresetsConfig{Kinds: "bogus", SeedPosthog: true, PosthogHost: "eu.posthog"}}
	err := wrong.ValidateServing()
	require.ErrorContains(t, err, `ENABLED_DESTINATION_PRESETS: "bogus"`)
	require.ErrorContains(t, err, "POSTHOG_API_KEY is not set")
	require.ErrorContains(t, err, "POSTHOG_HOST")
}

// endpoints are the destinations that there are.
func endpoints(t *testing.T, r *hogstream.Running) []destinations.View {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, r.URL+"/v1/admin/webhooks", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+r.APIKey)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var page struct{ Endpoints []destinations.View }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&page))
	return page.Endpoints
}

func TestAPosthogDestinationIsMadeOnceAtAStart(t *testing.T) {
	cfg := devConfig(t)
	cfg.Presets = hogstream.PresetsConfig{SeedPosthog: true, PosthogKey: "phc_secret", PosthogHost: "https://eu.i.posthog.com", Kinds: "none"}
	cfg.HTTP.HideDocs = true
	inDev(t, cfg, func(r *hogstream.Running) {
		list := endpoints(t, r)
		require.Len(t, list, 1)
		require.Equal(t, "posthog", list[0].Name)
		require.Len(t, list[0].EventTypes, 6)
		require.NotContains(t, string(list[0].Config), "phc_secret")
		require.Contains(t, string(list[0].Config), "email.link_clicked")
		call(t, r, "/v1/admin/webhooks", "", `{"kind":"slack","url":"https://hooks.slack.com/services/x","eventTypes":["*"]}`, http.StatusBadRequest)
		resp, err := http.Get(r.URL + "/docs")
		require.NoError(t, err)
		defer resp.Body.Close()
		require.Equal(t, http.StatusNotFound, resp.StatusCode)
	})
	inDev(t, cfg, func(r *hogstream.Running) { require.Len(t, endpoints(t, r), 1, "and no second one") })
}

func TestTheRetentionOfEveryTopicCanBeSet(t *testing.T) {
	for _, topic := range schemas.Topics() {
		if topic.Compact {
			continue
		}
		t.Run(string(topic.Topic), func(t *testing.T) {
			variable := "RETENTION_" + strings.ToUpper(strings.ReplaceAll(string(topic.Topic), "-", "_"))
			if topic.Topic == schemas.TopicSignals || topic.Topic == schemas.TopicOutbox {
				variable = "RETENTION_EVENTS" // they are kept as long
			}
			cfg, err := hogstream.ConfigFromEnv()
			require.NoError(t, err)
			require.Equal(t, topic.Retention, cfg.StreamConfig().Retention[topic.Topic], "the default of %s", variable)
			t.Setenv(variable, "11h")
			cfg, err = hogstream.ConfigFromEnv()
			require.NoError(t, err)
			require.Equal(t, 11*time.Hour, cfg.StreamConfig().Retention[topic.Topic], variable)
			t.Setenv(variable, "1s")
			cfg, err = hogstream.ConfigFromEnv()
			require.NoError(t, err)
			require.ErrorContains(t, cfg.ValidateServing(), variable+" is")
		})
	}
}

func TestCompressionAndTheTimeOfAnAppendCanBeSet(t *testing.T) {
	t.Setenv("KAFKA_COMPRESSION", "zstd")
	t.Setenv("KAFKA_APPEND_TIMEOUT", "1ms")
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	require.Equal(t, "zstd", cfg.StreamConfig().Compression)
	require.Equal(t, time.Millisecond, cfg.StreamConfig().AppendTimeout)
	require.ErrorContains(t, cfg.ValidateServing(), "KAFKA_APPEND_TIMEOUT is 1ms: it must be at least 100ms")
}

// Nothing sealed anew what stood under an older key: when that was left out, every
// destination that was there stood still.
func TestAnOldKeyCanBeLeftOutAfterAStartWithTheNewOne(t *testing.T) {
	key := func(b byte) string { return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)) }
	cfg, before, after := devConfig(t), key(1), key(2)
	cfg.EncryptionKey = before
	inDev(t, cfg, func(r *hogstream.Running) {
		call(t, r, "/v1/admin/webhooks", "", `{"name":"crm","url":"https://example.com/hook","eventTypes":["*"],"disabled":true}`, http.StatusCreated)
	})
	for _, keys := range []string{after + "," + before, after} {
		cfg.EncryptionKey = keys
		inDev(t, cfg, func(r *hogstream.Running) {
			found := endpoints(t, r)
			require.Len(t, found, 1)
			require.Empty(t, found[0].StateReason)
		})
	}
}

package destinations

import (
	"encoding/json"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage/storagetest"
)

func posthogSeed(key, host string) Seed {
	config := map[string]any{"apiKey": key}
	if host != "" {
		config["host"] = host
	}
	return Seed{Name: "posthog", Kind: "posthog", EventTypes: []string{"email.*"}, Config: config, Follow: []string{"apiKey", "host"}}
}

// seededConfig is what the destination is delivered with.
func (o *operating) seededConfig(t *testing.T) map[string]any {
	t.Helper()
	d, err := o.store.Find(t.Context(), "posthog")
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, json.Unmarshal(d.Config, &config))
	return config
}

func TestASeedIsMadeOnceByHoweverManyProcesses(t *testing.T) {
	o := newOperations(t)
	var all sync.WaitGroup
	outcomes := make(chan Seeded, 4)
	for range 4 {
		all.Go(func() {
			done, err := o.Seed(t.Context(), posthogSeed("k", ""))
			if err == nil {
				outcomes <- done
			}
		})
	}
	all.Wait()
	close(outcomes)
	made := map[Seeded]int{}
	for done := range outcomes {
		made[done]++
	}
	require.Equal(t, map[Seeded]int{SeedMade: 1, SeedKept: 3}, made)
	var sealed string
	require.NoError(t, storagetest.SQL(o.db).QueryRow(t.Context(), `SELECT convert_from(config, 'UTF8') FROM destinations`).Scan(&sealed))
	require.Contains(t, sealed, "v2:", "the key is encrypted at rest")
}

func TestASeedFollowsTheSettingsButNeverUndoesWhatAnOperatorDid(t *testing.T) {
	o := newOperations(t)
	seed := func(key, host string) Seeded {
		t.Helper()
		done, err := o.Seed(t.Context(), posthogSeed(key, host))
		require.NoError(t, err)
		return done
	}
	require.Equal(t, SeedMade, seed("k1", ""))
	require.Equal(t, SeedKept, seed("k1", ""))
	require.Equal(t, SeedChanged, seed("k2", "https://eu.i.posthog.com"))
	require.Equal(t, map[string]any{"apiKey": "k2", "host": "https://eu.i.posthog.com"}, o.seededConfig(t))

	_, err := o.Update(t.Context(), "posthog", Patch{Config: json.RawMessage(`{"apiKey":"mine","host":"https://eu.i.posthog.com","eventNames":{"a":"b"}}`), EventTypes: []string{"contact.*"}})
	require.NoError(t, err)
	require.Equal(t, SeedChanged, seed("k3", ""), "the host is nobody else's")
	require.Equal(t, map[string]any{"apiKey": "mine", "eventNames": map[string]any{"a": "b"}}, o.seededConfig(t))
	require.Equal(t, SeedKept, seed("k4", ""))
	v, err := o.Get(t.Context(), "posthog")
	require.NoError(t, err)
	require.Equal(t, []string{"contact.*"}, v.EventTypes)

	require.NoError(t, o.Delete(t.Context(), "posthog"))
	require.Equal(t, SeedDeleted, seed("k4", ""), "a deleted one is not made again")
	list, err := o.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestASeedMakesNothingBesideADestinationOfItsKind(t *testing.T) {
	o := newOperations(t)
	_, err := o.Create(t.Context(), Settings{Name: "mine", Kind: "posthog", EventTypes: []string{"*"}, Config: json.RawMessage(`{"apiKey":"k"}`), Disabled: true})
	require.NoError(t, err)
	for range 2 {
		done, err := o.Seed(t.Context(), posthogSeed("other", ""))
		require.NoError(t, err)
		require.Equal(t, SeedExists, done)
	}
}

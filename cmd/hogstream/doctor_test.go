package main

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/schemas/localregistry"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestTheDoctorIsContentWithWhatServeTakesAndNamesEachFixOtherwise(t *testing.T) {
	broker := streamtest.New(t, streamtest.FakeOnly(), streamtest.Partitions(2))
	registry, err := localregistry.Start(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = registry.Close() })
	key := make([]byte, 32)
	_, _ = rand.Read(key)

	well, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	well.Kafka.Brokers, well.Kafka.Prefix, well.Kafka.Partitions = broker.Config.Brokers, broker.Config.Prefix, 2
	well.Registry.URL, well.Database.URL = strings.Replace(registry.URL(), "://", "://operator:hidden@", 1), storagetest.URL(t)
	well.EncryptionKey, well.AdminAPIKey = base64.StdEncoding.EncodeToString(key), strings.Repeat("k", 24)
	require.NoError(t, well.ValidateServing())
	for _, f := range examine(t.Context(), well) {
		require.True(t, f.OK, "%+v", f)
		require.NotContains(t, f.Note, "hidden")
	}

	for what, c := range map[string]struct {
		ill  func(*hogstream.Config)
		fix  string
		note string
	}{
		"settings": {func(c *hogstream.Config) { c.AdminAPIKey = "short" }, "serve does not start with it", "ADMIN_API_KEY has 5 characters"},
		"kafka":    {func(c *hogstream.Config) { c.Kafka.Brokers = nil }, "KAFKA_BROKERS", "not set"},
		"registry": {func(c *hogstream.Config) { c.Registry.URL = "http://127.0.0.1:1" }, "SCHEMA_REGISTRY_URL", "127.0.0.1:1"},
		"postgres": {func(c *hogstream.Config) { c.Database.URL = "postgres://127.0.0.1:1/nothing" }, "DATABASE_URL", "127.0.0.1:1"},
	} {
		t.Run(what, func(t *testing.T) {
			cfg := well
			c.ill(&cfg)
			found := map[string]finding{}
			for _, f := range examine(t.Context(), cfg) {
				if !f.OK {
					found[f.What] = f
				}
			}
			require.Contains(t, found, what)
			require.Contains(t, found[what].Fix, c.fix)
			require.Contains(t, found[what].Note, c.note)
			delete(found, what)
			delete(found, "topics") // they are not checked without Kafka
			delete(found, "settings")
			require.Empty(t, found, "nothing else is ill")
		})
	}
}

func TestBeforeTheFirstServeTheDoctorSaysWhatIsToBeMadeAndRaisesNoAlarm(t *testing.T) {
	broker := streamtest.New(t, streamtest.FakeOnly(), streamtest.Partitions(2))
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	cfg.Kafka.Brokers, cfg.Kafka.Prefix, cfg.Kafka.Partitions = broker.Config.Brokers, "new.", 2
	cfg.Database.URL = storagetest.EmptyURL(t)
	require.Equal(t, toDo("topics", "none under prefix new. yet: the first `hogstream serve` makes them, or `hogstream topics create`"), topicsFinding(t.Context(), cfg))
	todo := 0
	for _, f := range databaseFindings(t.Context(), cfg) {
		require.True(t, f.OK, "%+v", f)
		if f.Todo {
			require.Contains(t, f.Note, "hogstream migrate")
			todo++
		}
	}
	require.Equal(t, 1, todo)

	flags := []string{"--kafka-brokers", broker.Config.Brokers[0], "--kafka-prefix", "new.", "--kafka-partitions", "2", "--data-dir", t.TempDir()}
	text, err := said(t, append([]string{"topics", "create"}, flags...)...)
	require.NoError(t, err)
	require.Contains(t, text, "created new.ingest\n")
	require.True(t, topicsFinding(t.Context(), cfg).OK)
	require.False(t, topicsFinding(t.Context(), cfg).Todo)
	text, err = said(t, append([]string{"topics", "create"}, flags...)...)
	require.NoError(t, err)
	require.Equal(t, "0 created; all topics are as they must be\n", text)

	missing, err := stream.OpenAdmin(cfg.StreamConfig(), zap.NewNop())
	require.NoError(t, err)
	defer missing.Close()
	_, err = missing.Kadm.DeleteTopics(t.Context(), "new.signals")
	require.NoError(t, err)
	found := topicsFinding(t.Context(), cfg)
	require.False(t, found.OK, "one that is missing is a fault")
	require.Contains(t, found.Note, "new.signals is missing")
	require.Contains(t, found.Fix, "hogstream topics create")
}

func TestTheDoctorSaysWhichFormatsAreWrittenAndWhatHoldsAHigherOneBack(t *testing.T) {
	p := processors.Processor{Name: "contacts", Format: 2}
	for name, c := range map[string]struct {
		formats loop.Formats
		note    string
		ill     string
	}{
		"nothing yet":            {loop.Formats{}, "contacts 2", ""},
		"the highest":            {loop.Formats{Partitions: map[int32][]int32{2: {0, 1}}}, "contacts 2", ""},
		"an older instance":      {loop.Formats{Partitions: map[int32][]int32{1: {0, 1}}, Holding: []string{"b"}}, "contacts 1, and 2 when no instance of an older release runs: now b", ""},
		"not all have risen":     {loop.Formats{Partitions: map[int32][]int32{1: {0}, 2: {1}}}, "contacts 1, and 2 when processors run", ""},
		"written by a newer one": {loop.Formats{Partitions: map[int32][]int32{2: {0}, 3: {1, 2}}}, "", "contacts is in format 3 on partitions 1-2, and this binary knows up to 2"},
	} {
		t.Run(name, func(t *testing.T) {
			note, err := judgeFormats(p, c.formats)
			require.Equal(t, c.note, note)
			if c.ill == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, c.ill)
			}
		})
	}
}

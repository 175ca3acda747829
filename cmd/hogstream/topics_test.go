package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/reader"
)

func TestNegativeOffsetsAreTakenAsTheyAreTyped(t *testing.T) {
	for _, from := range []string{"-10", "-2", "-1", "-36h", "7d", "earliest", "latest", "2026-01-31"} {
		_, err := said(t, "topics", "tail", "--from", from, "--kafka-brokers", "127.0.0.1:1", "--data-dir", t.TempDir(), "nope")
		require.ErrorContains(t, err, "SCHEMA_REGISTRY_URL", "%s is understood", from)
	}
	_, err := said(t, "topics", "tail", "--from", "-x")
	require.ErrorContains(t, err, "expected string value")
	require.Equal(t, []string{"a", "--from=-1", "--json", "--", "--from", "-1"}, withNegatives([]string{"a", "--from", "-1", "--json", "--", "--from", "-1"}))
}

func TestTheNumberOfRecordsIsOfTheNewestUnlessItSaysFromWhere(t *testing.T) {
	now := time.Now()
	var opts reader.TailOptions
	require.NoError(t, (&topicsTailCmd{Limit: 3}).newestOrFrom(&opts, now))
	require.Equal(t, reader.TailOptions{Newest: 3}, opts)
	opts = reader.TailOptions{}
	require.NoError(t, (&topicsTailCmd{Limit: 3, From: "-10"}).newestOrFrom(&opts, now))
	require.Equal(t, reader.TailOptions{Limit: 3, From: reader.AtOffset(-10)}, opts)
	opts = reader.TailOptions{}
	require.NoError(t, (&topicsTailCmd{Follow: true}).newestOrFrom(&opts, now))
	require.Equal(t, reader.TailOptions{From: reader.AtEnd()}, opts)
	require.ErrorContains(t, (&topicsTailCmd{From: "soon"}).newestOrFrom(&opts, now), "--from")
}

func TestAPlaceIsPinnedSoThatWhatWasPreviewedIsWhatIsDone(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{"7d": "2026-03-24T12:00:00Z", "live": "live", "": "", "now": "latest", "-10": "-10"} {
		got := text
		require.NoError(t, pin("--to", &got, now))
		require.Equal(t, want, got)
	}
	wrong := "soon"
	require.ErrorContains(t, pin("--to", &wrong, now), "--to")
}

package reader_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/stream/reader"
)

func TestAPlaceIsReadAlikeWhereverItIsWritten(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"start": "start", "earliest": "start", "-2": "start", "Earliest": "start",
		"end": "latest", "latest": "latest", "now": "latest", "-1": "latest",
		"0": "0", "42": "42", "-10": "-10", "-3": "-3",
		"7d": "2026-03-24T12:00:00Z", "36h": "2026-03-30T00:00:00Z", "-1h": "2026-03-31T11:00:00Z", " 2026-01-31 ": "2026-01-31T00:00:00Z",
	} {
		p, err := reader.ParsePosition(text, now)
		require.NoError(t, err, text)
		require.Equal(t, want, p.String(), text)
		again, err := reader.ParsePosition(p.String(), now.Add(time.Hour))
		require.NoError(t, err)
		require.Equal(t, p, again, "it means the same later")
	}
	for _, text := range []string{"", "yesterday", "7 days", "1.5", "start-1"} {
		_, err := reader.ParsePosition(text, now)
		require.ErrorContains(t, err, "write start, latest, an offset", text)
	}
}

func TestANegativeOffsetCountsBackFromTheEndAndStaysOnTheLog(t *testing.T) {
	for offset, want := range map[int64]int64{-10: 15, -100: 5, 0: 5, 7: 7, 99: 25} {
		require.Equal(t, want, reader.AtOffset(offset).Resolve(5, 25, 0), offset)
	}
}

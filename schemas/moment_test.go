package schemas_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestTimesAreReadAsPeopleWriteThem(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.FixedZone("", 2*3600))
	for text, want := range map[string]string{
		"now": "2026-03-31T10:00:00Z", "36h": "2026-03-29T22:00:00Z", "7d": "2026-03-24T10:00:00Z", "-7d": "2026-03-24T10:00:00Z",
		"1w": "2026-03-24T10:00:00Z", "1d12h30m": "2026-03-29T21:30:00Z", "1.5h": "2026-03-31T08:30:00Z", "250ms": "2026-03-31T09:59:59.75Z",
		"2026-01-31": "2026-01-31T00:00:00Z", "2026-01-31T12:00": "2026-01-31T12:00:00Z", "2026-01-31 12:00:05": "2026-01-31T12:00:05Z",
		"2026-01-31T12:00:00+02:00": "2026-01-31T10:00:00Z", "2026-01-31T12:00Z": "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789Z": "2026-01-31T12:00:00.123456789Z",
	} {
		got, ok := schemas.ParseMoment(text, now)
		require.True(t, ok, text)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
	}
	for _, text := range []string{"", "-", "7", "-7", "d", "7 d", "7days", "yesterday", "2026-02-30", "31.01.2026", "1h7d", "99999w99999d", "999999999h", "0001-01-01T00:00:00+02:00", "+7d", "1e3h", "NaN"} {
		_, ok := schemas.ParseMoment(text, now)
		require.False(t, ok, text)
	}
}

func FuzzParseMoment(f *testing.F) {
	for _, text := range []string{"now", "7d", "1w2d3h4m5.5s", "2026-01-31", "2026-01-31T12:00:00Z", "-99999d"} {
		f.Add(text)
	}
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := schemas.ParseMoment(text, now)
		if !ok {
			return
		}
		again, ok := schemas.ParseMoment(at.Format(time.RFC3339Nano), now)
		require.True(t, ok, "what was read cannot be written down: %s", at)
		require.True(t, at.Equal(again))
	})
}

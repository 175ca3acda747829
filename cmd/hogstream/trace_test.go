package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
)

func TestATraceIsDrawnFromWhatWasSentToWhatItCaused(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	record := func(id, cause, typ, topic string) explain.Traced {
		return explain.Traced{ID: id, CauseID: cause, Type: typ, Place: predicate.Place{Topic: topic, Offset: 7, AppendedAt: at}}
	}
	entered := record("e", "c", "bucket.entered", "lifecycle")
	entered.Bucket = "keen"
	trace := &explain.Trace{
		Record: record("c", "", "event.tracked:bought", "events"), Effects: []explain.Traced{entered}, Whole: true,
		Causes: []explain.Traced{record("b", "a", "input", "resolved"), record("a", "", "event", "ingest")},
	}
	var out bytes.Buffer
	printTrace(&out, trace)
	require.Equal(t, `   RECORD                    BUCKET  PLACE          APPENDED              ID
   event                             ingest-0-7     2026-03-01 12:00:00Z  a
     input                           resolved-0-7   2026-03-01 12:00:00Z  b
→      event.tracked:bought          events-0-7     2026-03-01 12:00:00Z  c
         bucket.entered      keen    lifecycle-0-7  2026-03-01 12:00:00Z  e
`, out.String())
	trace.Effects = nil
	out.Reset()
	printTrace(&out, trace)
	require.Contains(t, out.String(), "It caused nothing.")
}

func TestWhatTimeWillDoIsSaidInALineAndByBucket(t *testing.T) {
	at := time.Date(2026, 3, 8, 12, 0, 0, 0, time.UTC)
	var out bytes.Buffer
	printUpcoming(&out, &explain.Upcoming{Until: at, Contacts: 50_000, Buckets: []explain.UpcomingInBucket{
		{BucketID: "keen", Leaves: 200, First: at}, {BucketID: "quiet", Leaves: 12, Joins: 3, First: at},
	}})
	require.Equal(t, `212 leave until 2026-03-08 12:00:00Z by time alone, if no record comes before
(no further: that is when the last of 50000 contacts has something due)

BUCKET  LEAVE  JOIN  FIRST
keen    200    0     2026-03-08 12:00:00Z
quiet   12     3     2026-03-08 12:00:00Z
`, out.String())
}

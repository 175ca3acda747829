package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestTheDemoTimesFactsFromTheEventBehindThem(t *testing.T) {
	at := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	l := &live{
		buckets: map[string]*liveMoves{"cart": {}}, runs: map[string]*liveRuns{"mails": {}, "visits": {}},
		accepted: map[string]time.Time{"event": at}, causes: map[string]string{}, after: map[string][]time.Duration{},
	}
	bucket := func(typ, id, cause string, after time.Duration) {
		l.take(&schemas.Fact{ID: id, Type: typ, CauseID: cause, Bucket: &schemas.BucketTransition{BucketID: "cart"}}, at.Add(after))
	}
	started := func(journey, trigger string, after time.Duration) {
		l.take(&schemas.Fact{Type: schemas.FactJourneyStarted, Journey: &schemas.JourneyFact{JourneyID: journey, Trigger: &trigger}}, at.Add(after))
	}
	bucket(schemas.FactBucketEntered, "entered", "event", 2*time.Millisecond)
	started("mails", "entered", 5*time.Millisecond)
	started("visits", "event", 7*time.Millisecond)
	bucket(schemas.FactBucketLeft, "left", "time", time.Hour)
	bucket(schemas.FactBucketEntered, "again", "time", 2*time.Hour)
	started("mails", "again", 3*time.Hour)
	started("others", "event", time.Hour)
	l.sum()
	require.Equal(t, liveMoves{Entered: 2, Left: 1, P50: 2 * time.Millisecond, P99: 2 * time.Millisecond}, *l.buckets["cart"])
	require.Equal(t, liveRuns{Started: 2, P50: 5 * time.Millisecond, P99: 5 * time.Millisecond}, *l.runs["mails"], "what time began is counted, and not timed")
	require.Equal(t, liveRuns{Started: 1, P50: 7 * time.Millisecond, P99: 7 * time.Millisecond}, *l.runs["visits"])
}

package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/predicate"
)

func TestWhyDrawsTheTreeAndWhatTurnedEachLeaf(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	count := 2
	answer := &explain.Answer{
		BucketID: "keen", UserID: "u1", Next: at.Add(time.Hour),
		Reasons:    []explain.Reason{{Code: "criteria", Text: "it does not satisfy the criteria"}},
		Membership: &explain.Membership{Epoch: 2, EnteredAt: at, Source: "event", LeftAt: at.Add(time.Minute), Reason: "criteria"},
		Criteria: &predicate.Explanation{Text: "all of", Conditions: []predicate.Explanation{
			{Text: "any of", Holds: true, Conditions: []predicate.Explanation{
				{
					Text: "bought at least 2", Holds: true, Saw: &predicate.Saw{Count: &count},
					Turned: &predicate.Turn{At: at, By: predicate.ByRecord, Record: uuid.Max, Place: &predicate.Place{Topic: "events", Partition: 3, Offset: 42}},
				},
				{Text: "seen", Turned: &predicate.Turn{At: at, By: predicate.ByTime, OrBefore: true}},
			}},
			{Text: "plan is \"pro\"", Why: "the contact has no property plan", Turned: &predicate.Turn{At: at, By: predicate.ByRecord, Record: uuid.Max}},
		}},
	}
	var out bytes.Buffer
	printWhy(&out, answer)
	require.Equal(t, `u1 is not in keen
  it does not satisfy the criteria
  joined for the 2nd time at 2026-03-01 12:00:00Z (event), left at 2026-03-01 12:01:00Z (criteria)
  time alone may change that at 2026-03-01 13:00:00Z

✗ all of
├─ ✓ any of
│  ├─ ✓ bought at least 2  2 counted
│  │      turned at 2026-03-01 12:00:00Z by events-3-42
│  └─ ✗ seen
│         turned at the latest at 2026-03-01 12:00:00Z by time alone
└─ ✗ plan is "pro"                    the contact has no property plan
       turned at 2026-03-01 12:00:00Z by record ffffffff-ffff-ffff-ffff-ffffffffffff
`, out.String())
}

package explain

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

// copied is a state that shares nothing.
func copied(t *rapid.T, s buckets.State) buckets.State {
	data, err := buckets.EncodeState(s)
	require.NoError(t, err)
	out, err := buckets.DecodeState(data)
	require.NoError(t, err)
	return out
}

// What is foreseen is compared with what happens when every timer is stepped at its due.
func TestWhatIsForeseenHappensIfNoRecordComes(t *testing.T) {
	seen := predicate.Event("seen")
	define := func(id string, c predicate.Condition, minDwell, maxDwell time.Duration) definition.BucketInUse {
		return definition.BucketInUse{Bucket: definition.Bucket{ID: id, Name: id, Enabled: true, Criteria: c, MinDwell: minDwell, MaxDwell: maxDwell}, InUse: definition.InUse{Revision: 1}}
	}
	logic := buckets.Compile(&definition.Set{Version: 1, Buckets: []definition.BucketInUse{
		define("lately", seen.Within(24*time.Hour).Exists(), 0, 0),
		define("often", seen.Within(48*time.Hour).AtLeast(2), 30*time.Hour, 0),
		define("quiet", predicate.All(seen.Exists(), seen.Within(72*time.Hour).NotExists()), 0, 40*time.Hour),
		define("quiet-and-lately", predicate.Any(predicate.InBucket("quiet"), predicate.InBucket("often")), 0, 0),
	}}, buckets.Options{Limits: predicate.DefaultLimits()})
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		told := map[string]int{} // how often, by bucket and what
		r := derive.NewRehearsal(logic, func(m schemas.Message, _ time.Time) {
			f := m.(*schemas.Fact)
			told[f.Bucket.BucketID+" "+f.Bucket.Transition]++
		})
		for n := range rapid.IntRange(1, 12).Draw(t, "records") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30*60).Draw(t, "minutes")) * time.Minute)
			contact := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, rapid.IntRange(0, 3).Draw(t, "contact"))).String()
			e := &schemas.Event{ID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)).String(), ContactID: contact, Name: "seen", Properties: "{}", OccurredAt: now, ReceivedAt: now}
			require.NoError(t, r.Step(&derive.Record[buckets.State]{ID: e.ID, ContactID: contact, OccurredAt: now, Event: e}, now))
		}
		require.NoError(t, r.Until(now))
		f := forecast{logic: logic, until: now.Add(time.Duration(rapid.IntRange(1, 10*24).Draw(t, "hours")) * time.Hour), whole: true}
		for contact, s := range r.States() {
			require.NoError(t, f.pass(contact, copied(t, s)))
		}
		clear(told)
		require.NoError(t, r.Until(f.until))
		got := map[string]int{}
		for _, b := range f.result(now).Buckets {
			require.False(t, b.First.Before(now))
			got[b.BucketID+" left"], got[b.BucketID+" entered"] = b.Leaves, b.Joins
		}
		for _, b := range []string{"lately", "often", "quiet", "quiet-and-lately"} {
			for _, what := range []string{" left", " entered"} {
				require.Equal(t, told[b+what], got[b+what], "%s%s until %s", b, what, f.until)
			}
		}
	})
}

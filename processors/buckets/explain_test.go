package buckets_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
)

// because are the codes of the reasons, the first with until when.
func (s *stage) because(bucketID string) (codes []string, until time.Time) {
	s.t.Helper()
	e := s.logic.Explain(s.state, bucketID, s.now)
	require.Equal(s.t, s.state.Has(bucketID), e.Member)
	for _, r := range e.Reasons {
		codes = append(codes, r.Code)
	}
	return codes, e.Reasons[0].Until
}

func (s *stage) requireBecause(bucketID string, want ...string) {
	s.t.Helper()
	codes, _ := s.because(bucketID)
	require.Equal(s.t, want, codes)
}

func TestEveryReasonBeyondTheCriteriaIsTold(t *testing.T) {
	quiet := predicate.Event("seen").Within(day).NotExists()
	bought := predicate.Event("bought").Within(day).Exists()
	s := newStage(t,
		bucket("plain", bought),
		bucket("held", bought, func(b *definition.Bucket) { b.MinDwell = 3 * day }),
		bucket("ends", bought, func(b *definition.Bucket) { b.MaxDwell = 2 * time.Hour }),
		bucket("once", bought, func(b *definition.Bucket) { b.EntryLimit = definition.EntryOnce }),
		bucket("records", quiet, func(b *definition.Bucket) { b.ReconcileJoins = new(bool) }),
		bucket("off", bought, func(b *definition.Bucket) { b.Enabled = false }),
		bucket("long", predicate.Event("bought").AtLeast(5000)),
		definition.Bucket{ID: "hand", Enabled: true, Kind: definition.KindManual},
	)
	s.event("seen") // and so it leaves records, if it was in it
	s.requireBecause("plain", "criteria")
	s.requireBecause("off", "disabled")
	s.requireBecause("long", "failing")
	s.requireBecause("hand", "notPutIn")
	s.requireBecause("gone", "undefined")

	s.event("bought")
	entered := s.now
	_, until := s.because("plain")
	require.Equal(t, entered.Add(day+time.Microsecond), until)
	s.requireBecause("ends", "criteria", "stays")

	s.after(2 * time.Hour)
	s.requireBecause("ends", "maxDwell")
	s.after(2 * day)
	codes, until := s.because("held")
	require.Equal(t, []string{"minDwell"}, codes)
	require.Equal(t, entered.Add(3*day), until)
	s.requireBecause("once", "criteria", "entryLimit")
	s.requireBecause("records", "reconcileJoins")

	end := s.now.Add(time.Hour)
	s.member("hand", true, &end)
	codes, until = s.because("hand")
	require.Equal(t, []string{"manual", "stays"}, codes)
	require.Equal(t, end, until)
	s.after(time.Hour)
	s.requireBecause("hand", "takenOut")

	s.event("bought")
	s.now = s.now.Add(2 * day) // nobody has handled what is due
	s.requireBecause("plain", "due")
}

func TestWhoWasNotLookedAtYetIsTold(t *testing.T) {
	seen := predicate.Event("seen").Exists()
	s := newStage(t, bucket("a", seen))
	s.event("seen")
	s.use(bucket("a", seen), bucket("b", seen))
	s.requireBecause("a", "criteria")
	s.requireBecause("b", "filling")
	s.refill()
	s.requireBecause("b", "criteria")

	e := s.logic.Explain(buckets.State{}, "a", s.now)
	require.Equal(t, "unseen", e.Reasons[0].Code)
	require.Nil(t, e.Criteria)
	require.Zero(t, e.Membership)
}

func TestNextIsWhenTimeAloneChangesTheMembership(t *testing.T) {
	s := newStage(t,
		bucket("quiet", predicate.Event("seen").Within(day).NotExists()),
		bucket("lately", predicate.Event("seen").Within(day).Exists(), func(b *definition.Bucket) { b.MinDwell = 3 * day }),
	)
	s.event("seen")
	for _, id := range []string{"quiet", "lately"} {
		for range 3 {
			e := s.logic.Explain(s.state, id, s.now)
			if e.Next.IsZero() {
				break
			}
			s.until(e.Next.Add(-time.Microsecond))
			require.Equal(t, e.Member, s.state.Has(id), id)
			s.until(e.Next)
			require.Equal(t, !e.Member, s.state.Has(id), id)
		}
	}
	require.Zero(t, s.logic.Explain(s.state, "quiet", s.now).Next)
	require.False(t, s.state.Has("lately"))
}

package buckets_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

func pro(more ...func(*definition.Bucket)) definition.Bucket {
	return bucket("pro", p.Prop("plan").Eq("pro"), more...)
}

// quiet is who did something once, and nothing for a week.
func quiet(more ...func(*definition.Bucket)) definition.Bucket {
	return bucket("quiet", p.All(p.Event("active").Exists(), p.Event("active").Within(p.Days(7)).NotExists()), more...)
}

func once(b *definition.Bucket) { b.EntryLimit = definition.EntryOnce }

// Case 11, and what is told of it.
func TestWhoSatisfiesTheCriteriaEntersOnce(t *testing.T) {
	s := newStage(t, pro())
	s.email = "ann@example.com"
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 1 event")
	f := s.facts[0]
	assert.Equal(t, schemas.FactBucketEntered, f.Type)
	assert.Equal(t, "Bucket pro", f.Bucket.BucketName)
	assert.Equal(t, "entered", f.Bucket.Transition)
	assert.Equal(t, "ann@example.com", *f.Email)
	assert.Nil(t, f.UserID)
	assert.Equal(t, start, f.OccurredAt)
	m := s.state.Memberships()
	require.Len(t, m, 1)
	assert.Equal(t, buckets.Membership{BucketID: "pro", Epoch: 1, Active: true, EnteredAt: start}, m[0])
}

// Cases 12 and 13.
func TestAMemberStaysUntilTheCriteriaFailAndLeavesOnce(t *testing.T) {
	s := newStage(t, pro())
	s.updated(`{"plan":"pro"}`)
	s.updated(`{"plan":"pro","seats":3}`)
	s.event("anything")
	s.says("entered pro 1 event")
	s.after(time.Hour)
	s.updated(`{"plan":"free"}`)
	s.updated(`{"plan":"free","seats":3}`)
	s.says("left pro 1 event criteria")
	m := s.state.Memberships()
	assert.Equal(t, []buckets.Membership{{BucketID: "pro", Epoch: 1, EnteredAt: start, LeftAt: start.Add(time.Hour)}}, m)
}

// Case 14.
func TestEachMembershipHasTheNextEpoch(t *testing.T) {
	s := newStage(t, pro())
	for range 3 {
		s.updated(`{"plan":"pro"}`)
		s.updated(`{}`)
	}
	s.says("entered pro 1 event", "left pro 1 event criteria", "entered pro 2 event", "left pro 2 event criteria", "entered pro 3 event", "left pro 3 event criteria")
	ids := map[string]bool{}
	for _, f := range s.facts {
		ids[f.ID] = true
	}
	assert.Len(t, ids, 6)
}

// Cases 15 and 16: what an event carries is not what the contact is.
func TestThePropertiesOfAnEventAreNotThoseOfTheContact(t *testing.T) {
	s := newStage(t, pro())
	s.updated(`{"plan":"free"}`)
	s.send(&schemas.Event{ID: s.identifier(), Name: "plan.changed", Properties: `{"plan":"pro"}`, OccurredAt: s.now, ReceivedAt: s.now})
	s.says()
	s.updated(`{"plan":"pro"}`)
	s.send(&schemas.Event{ID: s.identifier(), Name: "plan.changed", Properties: `{"plan":"free"}`, OccurredAt: s.now, ReceivedAt: s.now})
	s.says("entered pro 1 event")
}

// Case 17, and that a leave of a join that was not told is.
func TestTheEntryLimitGatesTheTellingAndNotTheMembership(t *testing.T) {
	s := newStage(t, pro(once))
	s.updated(`{"plan":"pro"}`)
	s.updated(`{}`)
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 1 event", "left pro 1 event criteria")
	assert.True(t, s.state.Has("pro"))
	assert.Equal(t, []int64{1, 2}, s.epochs("pro"))
	s.updated(`{}`)
	s.says("left pro 2 event criteria")
}

// Case 18.
func TestAnEntryPeriodCountsFromTheLastLeave(t *testing.T) {
	for period, told := range map[time.Duration]bool{25 * time.Hour: false, 24*time.Hour + time.Microsecond: false, 24 * time.Hour: true, 0: true} {
		s := newStage(t, pro(func(b *definition.Bucket) { b.EntryLimit, b.EntryPeriod = definition.EntryOncePerPeriod, period }))
		s.updated(`{"plan":"pro"}`)
		s.updated(`{}`)
		s.after(24 * time.Hour)
		s.updated(`{"plan":"pro"}`)
		want := []string{"entered pro 1 event", "left pro 1 event criteria"}
		if told {
			want = append(want, "entered pro 2 event")
		}
		s.says(want...)
		assert.Equal(t, []int64{1, 2}, s.epochs("pro"))
	}
}

// Case 22.
func TestMaxDwellEndsAMembershipAtItsInstant(t *testing.T) {
	s := newStage(t, pro(func(b *definition.Bucket) { b.MaxDwell = day }))
	s.updated(`{"plan":"pro"}`)
	assert.Equal(t, start.Add(day), s.state.Transitions()[0].MaxDwellAt)
	s.until(start.Add(day - time.Microsecond))
	s.says("entered pro 1 event")
	s.until(start.Add(day))
	s.says("left pro 1 reconcile maxDwell")
	assert.Equal(t, start.Add(day), s.state.Memberships()[0].LeftAt)
}

// 20.4, 9: by time nobody joins again whom maxDwell removed; by a record that the criteria
// look at, yes.
func TestWhoWasRemovedByMaxDwellJoinsAgainByARecordAlone(t *testing.T) {
	s := newStage(t, quiet(func(b *definition.Bucket) { b.MaxDwell = 30 * day }))
	s.event("active")
	s.after(60 * day)
	s.says("entered quiet 1 reconcile", "left quiet 1 reconcile maxDwell")
	s.after(60 * day)
	s.updated(`{"other":1}`)
	s.use(quiet(func(b *definition.Bucket) { b.MaxDwell = 31 * day })) // nor by a definition
	s.refill()
	s.says()
	s.event("active")
	s.after(8 * day)
	s.says("entered quiet 2 reconcile")
}

// Case 23, and where it lies to the microsecond.
func TestWhoLapsedJoinsByTimeAndWhoNeverWasActiveDoesNot(t *testing.T) {
	s := newStage(t, quiet())
	s.after(100 * day)
	s.says()
	s.event("active")
	at := s.now.Add(7 * day)
	s.until(at)
	s.says()
	s.until(at.Add(time.Microsecond))
	s.says("entered quiet 1 reconcile")
	assert.Equal(t, at.Add(time.Microsecond), s.facts[0].OccurredAt)
	s.event("active")
	s.says("left quiet 1 event criteria")
}

// Case 24.
func TestOneOfTwoAbsencesIsEnough(t *testing.T) {
	lapsed := func(name string) p.Condition {
		return p.All(p.Event(name).Exists(), p.Event(name).Within(p.Days(7)).NotExists())
	}
	s := newStage(t, bucket("either", p.Any(lapsed("a"), lapsed("b"))))
	s.happened("b", s.now.Add(-30*day), s.now)
	s.says("entered either 1 event")
	other := newStageOf(t, "bob", bucket("either", p.Any(lapsed("a"), lapsed("b"))))
	other.event("a")
	other.event("b")
	other.says()
}

// Case 25.
func TestAJoinByTimeIsGatedLikeAnyOther(t *testing.T) {
	s := newStage(t, quiet(once))
	s.event("active")
	s.after(8 * day)
	s.event("active")
	s.after(8 * day)
	s.says("entered quiet 1 reconcile", "left quiet 1 event criteria")
	assert.Equal(t, []int64{1, 2}, s.epochs("quiet"))
}

func TestByTimeAloneNobodyJoinsWhereThatIsSwitchedOff(t *testing.T) {
	s := newStage(t, quiet(func(b *definition.Bucket) { b.ReconcileJoins = new(bool) }))
	s.event("active")
	s.after(20 * day)
	s.says()
	s.happened("active", s.now.Add(-9*day), s.now) // a record that the criteria look at
	s.says("entered quiet 1 event")
}

// Case 26: a contact that is not filled yet is not judged by what it is not filled for.
func TestNothingIsToldOfABucketBeforeTheContactIsFilled(t *testing.T) {
	dwelling := quiet(func(b *definition.Bucket) { b.Dwell = []definition.Dwell{{After: time.Hour}} })
	s := newStage(t)
	s.event("active")
	s.use(dwelling)
	s.after(8 * day)
	s.event("other")
	s.says()
	s.refill()
	s.says()
	assert.True(t, s.state.Has("quiet"))
	s.after(time.Hour)
	s.says("dwell quiet 1 reconcile after-3600000 1")
}

// Case 27.
func TestAFillingJoinsSilentlyAndOnce(t *testing.T) {
	keen := bucket("keen", p.Event("active").AtLeast(3))
	for events, member := range map[int]bool{2: false, 3: true} {
		s := newStage(t, pro())
		for range events {
			s.event("active")
		}
		s.use(pro(), keen)
		s.refill()
		s.refill()
		s.says()
		assert.Equal(t, member, s.state.Has("keen"))
		s.event("active")
		if !member {
			s.says("entered keen 1 event")
			continue
		}
		tr := s.state.Transitions()[0]
		assert.Equal(t, [3]any{"backfill", false, int64(1)}, [3]any{tr.Source, tr.Told, tr.Epoch})
		s.says()
	}
}

func TestAFillingTellsJoinsWhereTheBucketSaysSo(t *testing.T) {
	s := newStage(t)
	s.event("active")
	s.use(bucket("seen", p.Event("active").Exists(), func(b *definition.Bucket) { b.Joins = definition.JoinsTold }))
	s.refill()
	s.says("entered seen 1 backfill")
}

// B3, B2's pure part, and case 27 of a contact that was a member before.
func TestAChangedDefinitionTellsWhoLeavesThoughTheyNeverSendAnotherEvent(t *testing.T) {
	s := newStage(t, pro())
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 1 event")
	s.use(bucket("pro", p.Prop("plan").Eq("enterprise")))
	s.refill()
	s.says("left pro 1 backfill criteria")
	s.use(pro())
	s.refill()
	s.says()
	assert.Equal(t, []int64{1, 2}, s.epochs("pro"))
}

// Case 28, but that a dwell counts from the join.
func TestATakeOverIsSilentAndEndsAreSetAsAtAJoin(t *testing.T) {
	s := newStageOf(t, "ann", quiet(func(b *definition.Bucket) { b.MaxDwell, b.Dwell = 30*day, []definition.Dwell{{After: 7 * day}} }))
	s.now = start.Add(20 * day)
	active := storage.StoredEvent{ID: s.identifier(), Name: "active", Properties: "{}", OccurredAt: start, ReceivedAt: start}
	s.state, s.timers = s.logic.TakeOver(buckets.State{}, &derive.Known{Contact: &s.row, Events: []storage.StoredEvent{active}}, s.now)
	tr := s.state.Transitions()
	require.Len(t, tr, 1)
	assert.Equal(t, [3]any{"backfill", false, s.now.Add(30 * day)}, [3]any{tr[0].Source, tr[0].Told, tr[0].MaxDwellAt})
	s.after(31 * day)
	s.says("dwell quiet 1 reconcile after-604800000 1", "left quiet 1 reconcile maxDwell")
}

func TestATakeOverAnewIsSilentAndGoesOnWithEpochsAndWithWhoWasPutInByHand(t *testing.T) {
	beta := definition.Bucket{ID: "beta", Name: "Beta", Enabled: true, Kind: definition.KindManual}
	s := newStage(t, beta, pro())
	s.updated(`{"plan":"pro"}`)
	s.member("beta", true, new(start.Add(time.Hour)))
	s.says("entered pro 1 event", "entered beta 1 manual")
	s.state, s.timers = s.logic.TakeOver(s.state, &derive.Known{Contact: &s.row}, s.now)
	assert.Empty(t, s.state.Transitions(), "nothing has changed")
	s.updated(`{"plan":"free"}`)
	s.until(start.Add(time.Hour))
	s.updated(`{"plan":"pro"}`)
	s.says("left pro 1 event criteria", "left beta 1 reconcile manual", "entered pro 2 event")
}

// Cases 29 and 31.
func TestADwellIsToldOncePerMembership(t *testing.T) {
	s := newStage(t, pro(func(b *definition.Bucket) { b.Dwell = []definition.Dwell{{After: 7 * day}} }))
	s.updated(`{"plan":"pro"}`)
	s.after(6 * day)
	s.updated(`{}`)
	s.updated(`{"plan":"pro"}`)
	s.after(20 * day)
	s.updated(`{}`)
	s.after(20 * day)
	s.says("entered pro 1 event", "left pro 1 event criteria", "entered pro 2 event", "dwell pro 2 reconcile after-604800000 1", "left pro 2 event criteria")
	s.updated(`{"plan":"pro"}`)
	s.after(7 * day)
	s.says("entered pro 3 event", "dwell pro 3 reconcile after-604800000 1")
	assert.NotEqual(t, s.facts[3].ID, s.facts[6].ID, "W16: the epoch is in the id")
}

// Case 30.
func TestOfDwellsThatPassedUnseenOneIsToldWithItsOrdinal(t *testing.T) {
	s := newStage(t, pro(func(b *definition.Bucket) { b.Dwell = []definition.Dwell{{Every: time.Hour}} }))
	s.updated(`{"plan":"pro"}`)
	s.fire(start.Add(3*time.Hour + 30*time.Minute))
	s.says("entered pro 1 event", "dwell pro 1 reconcile every-3600000 3")
	assert.Equal(t, start.Add(3*time.Hour), s.facts[1].OccurredAt)
	s.until(start.Add(4*time.Hour - time.Microsecond))
	s.says()
	s.until(start.Add(4 * time.Hour))
	s.says("dwell pro 1 reconcile every-3600000 4")
	s.fire(start.Add(5*time.Hour + 30*time.Minute))
	s.says("dwell pro 1 reconcile every-3600000 5")
}

// Case 31: at one instant the end comes before the dwell.
func TestAMembershipThatEndsDoesNotDwellAtThatInstant(t *testing.T) {
	for _, after := range []time.Duration{day, 7 * day} {
		s := newStage(t, pro(func(b *definition.Bucket) { b.MaxDwell, b.Dwell = day, []definition.Dwell{{After: after}} }))
		s.updated(`{"plan":"pro"}`)
		s.after(30 * day)
		s.says("entered pro 1 event", "left pro 1 reconcile maxDwell")
	}
}

func TestMinDwellDefersALeaveAndWhoQualifiesAgainStays(t *testing.T) {
	held := pro(func(b *definition.Bucket) { b.MinDwell = time.Hour })
	s := newStage(t, held)
	s.updated(`{"plan":"pro"}`)
	s.after(10 * time.Minute)
	s.updated(`{}`)
	assert.True(t, s.state.Has("pro"))
	s.after(10 * time.Minute)
	s.updated(`{"plan":"pro"}`)
	s.after(2 * time.Hour)
	s.says("entered pro 1 event")
	s.updated(`{}`)
	s.says("left pro 1 event criteria")

	s.updated(`{"plan":"pro"}`)
	joined := s.now
	s.after(time.Minute)
	s.updated(`{}`)
	s.until(joined.Add(time.Hour - time.Microsecond))
	s.says("entered pro 2 event")
	s.until(joined.Add(time.Hour))
	s.says("left pro 2 reconcile criteria")
	assert.Equal(t, joined.Add(time.Hour), s.facts[len(s.facts)-1].OccurredAt)
}

// Issue: stops at once, keeps members; removed and added again repeats no fact.
func TestWhatIsDisabledKeepsItsMembersAndTellsNothing(t *testing.T) {
	off := func(b *definition.Bucket) { b.Enabled = false }
	dwelling := func(b *definition.Bucket) { b.Dwell, b.MaxDwell = []definition.Dwell{{Every: time.Hour}}, 10*time.Hour }
	s := newStage(t, pro(dwelling))
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 1 event")
	for _, gone := range [][]definition.Bucket{{pro(dwelling, off)}, {}} {
		s.use(gone...)
		s.updated(`{"plan":"free"}`)
		s.after(2 * time.Hour)
		s.refill()
		s.after(20 * time.Hour)
		assert.True(t, s.state.Has("pro"))
		s.updated(`{"plan":"pro"}`)
		s.says()
	}
	s.use(pro())
	s.refill()
	s.says()
	s.updated(`{"plan":"free"}`)
	s.says("left pro 1 event criteria")
}

// B6, and 20.4, 3.
func TestAMergeTellsBothSidesAndJudgesTheSurvivorByEverything(t *testing.T) {
	list := []definition.Bucket{pro(), bucket("keen", p.Event("active").AtLeast(3)), bucket("both", p.Event("active").Exists())}
	s, loser := newStage(t, list...), newStageOf(t, "bob", list...)
	loser.updated(`{"plan":"pro"}`)
	loser.updated(`{}`)
	loser.updated(`{"plan":"pro"}`)
	loser.event("active")
	s.event("active")
	s.event("active")
	s.told, loser.told = nil, nil
	s.merge(loser, `{"plan":"free"}`)
	loser.says("left both 1 event merged", "left pro 2 event merged")
	s.says("entered keen 1 event")
	assert.Equal(t, []int64{1}, s.epochs("both"), "no second entering")
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 3 event")
}

func TestAnEntryLimitHoldsAcrossAMerge(t *testing.T) {
	s, loser := newStage(t, pro(once)), newStageOf(t, "bob", pro(once))
	loser.updated(`{"plan":"pro"}`)
	s.merge(loser, `{"plan":"pro"}`)
	s.says()
	assert.Equal(t, []int64{2}, s.epochs("pro"))
}

// B8.
func TestAnEventOfBothContactsCountsOnceAfterTheMerge(t *testing.T) {
	twice := bucket("twice", p.Event("active").AtLeast(2))
	s, loser := newStage(t, twice), newStageOf(t, "bob", twice)
	e := schemas.Event{ID: s.identifier(), Name: "active", Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}
	for _, to := range []*stage{s, s, loser} {
		again := e
		to.send(&again)
	}
	s.merge(loser, `{}`)
	s.says()
	s.event("active")
	s.says("entered twice 1 event")
}

// B10.
func TestTheMembershipOfAnotherBucketIsAnInputLikeAnyOther(t *testing.T) {
	s := newStage(t, bucket("a-vip", p.All(p.Prop("city").Eq("Rome"), p.InBucket("lapsed-pro"))), bucket("lapsed-pro", p.All(p.InBucket("quiet"), p.InBucket("pro"))), pro(), quiet())
	s.event("active")
	s.updated(`{"plan":"pro","city":"Rome"}`)
	s.says("entered pro 1 event")
	s.after(8 * day)
	s.says("entered quiet 1 reconcile", "entered lapsed-pro 1 reconcile", "entered a-vip 1 reconcile")
	s.updated(`{"city":"Rome"}`)
	s.says("left pro 1 event criteria", "left lapsed-pro 1 event criteria", "left a-vip 1 event criteria")
}

// B12.
func TestABucketThatCannotBeCompiledStopsNoOther(t *testing.T) {
	s := newStage(t, pro(), bucket("broken", p.InBucket("nowhere")), bucket("circle", p.InBucket("circle")), bucket("asks", p.InBucket("broken")))
	failing := s.logic.Failing()
	require.Len(t, failing, 2)
	assert.ErrorContains(t, failing["broken"], "nowhere")
	assert.ErrorContains(t, failing["circle"], "circle")
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 1 event")
}

// B14.
func TestACalendarDateTurnsAtTheMidnightOfTheContactsZone(t *testing.T) {
	s := newStage(t, bucket("today", p.Prop("renewsAt").OnDate(p.Today(0))))
	s.updated(`{"renewsAt":"2026-03-29","timezone":"Europe/Berlin"}`)
	s.until(time.Date(2026, 4, 2, 0, 0, 0, 0, time.UTC))
	s.says("entered today 1 reconcile", "left today 1 reconcile criteria")
	assert.Equal(t, time.Date(2026, 3, 28, 23, 0, 0, 0, time.UTC), s.facts[0].OccurredAt)
	assert.Equal(t, time.Date(2026, 3, 29, 22, 0, 0, 0, time.UTC), s.facts[1].OccurredAt, "23 hours later: the clocks changed")
}

// B15.
func TestWhoHasNoValueIsNoMatchAndSoOneOfTheComplement(t *testing.T) {
	for _, properties := range []string{`{}`, `{"plan":null}`, `{"plan":7}`, `{"plan":"pro"}`} {
		s := newStage(t, bucket("a", p.Prop("plan").Prefix("pro")), bucket("b", p.Not(p.Prop("plan").Prefix("pro"))))
		s.updated(properties)
		assert.NotEqual(t, s.state.Has("a"), s.state.Has("b"), properties)
	}
}

// Case 19 changed: facts on buckets are inputs, and case 20: there is one fact.
func TestFactsOnBucketsAreEventsOfConditions(t *testing.T) {
	s := newStage(t, pro(), bucket("again", p.Event("bucket:entered:pro").AtLeast(2)))
	s.updated(`{"plan":"pro"}`)
	s.updated(`{}`)
	s.says("entered pro 1 event", "left pro 1 event criteria")
	s.updated(`{"plan":"pro"}`)
	s.says("entered pro 2 event", "entered again 1 event")
	s.event("bucket.entered") // who sends such an event fakes nothing
	s.says()
}

func TestBucketsThatFollowFromOneAnotherInACircleAreAnErrorThatChangesNothing(t *testing.T) {
	var asOften []p.Condition // b was entered as often as it was left, up to 40 times
	for n := range 40 {
		asOften = append(asOften, p.All(p.Event("bucket:entered:b").Exactly(float64(n)), p.Event("bucket:left:b").Exactly(float64(n))))
	}
	s := newStage(t, bucket("a", p.All(p.Event("go").Exists(), p.Any(asOften...))), bucket("b", p.InBucket("a")))
	before, err := buckets.EncodeState(s.state)
	require.NoError(t, err)
	e := &schemas.Event{ID: s.identifier(), ContactID: s.id, Name: "go", Properties: "{}", OccurredAt: s.now, ReceivedAt: s.now}
	_, err = s.logic.Step(s.state, &derive.Record[buckets.State]{ID: e.ID, ContactID: s.id, OccurredAt: s.now, Event: e}, s.now)
	require.ErrorContains(t, err, "buckets follow from one another in a circle")
	after, err := buckets.EncodeState(s.state)
	require.NoError(t, err)
	assert.Equal(t, before, after)
	assert.Empty(t, s.state.Transitions())
}

// Case 21 changed: there are manual buckets.
func TestMembersOfAManualBucketArePutThereAndExpire(t *testing.T) {
	beta := definition.Bucket{ID: "beta", Name: "Beta", Enabled: true, Kind: definition.KindManual}
	s := newStage(t, beta, bucket("pro-beta", p.All(p.InBucket("beta"), p.Prop("plan").Eq("pro"))))
	s.updated(`{"plan":"pro"}`)
	s.member("beta", true, nil)
	s.says("entered beta 1 manual", "entered pro-beta 1 event")
	s.member("beta", true, new(start.Add(time.Hour)))
	tr := s.state.Transitions()
	assert.True(t, tr[len(tr)-1].Kept)
	assert.Equal(t, start.Add(time.Hour), tr[len(tr)-1].Until)
	s.until(start.Add(time.Hour))
	s.says("left beta 1 reconcile manual", "left pro-beta 1 reconcile criteria")
	s.member("beta", true, nil)
	s.member("beta", false, nil)
	s.member("beta", false, nil)
	s.says("entered beta 2 manual", "entered pro-beta 2 event", "left beta 2 manual manual", "left pro-beta 2 event criteria")
}

func TestASurvivorIsInTheManualBucketsOfBoth(t *testing.T) {
	beta := definition.Bucket{ID: "beta", Name: "Beta", Enabled: true, Kind: definition.KindManual}
	s, loser := newStage(t, beta), newStageOf(t, "bob", beta)
	loser.updated(`{}`)
	loser.member("beta", true, new(start.Add(time.Hour)))
	s.merge(loser, `{}`)
	s.says("entered beta 2 manual")
	s.until(start.Add(time.Hour))
	s.says("left beta 2 reconcile manual")
}

func TestACommandThatCannotBeObeyedSaysWhy(t *testing.T) {
	s := newStage(t, pro())
	for text, want := range map[string]string{
		`{"bucket":"pro","member":true}`: `bucket "pro" is no manual bucket in use`, `{"bucket":"x","member":true}`: `bucket "x" is no manual bucket in use`,
		`{"member":true}`: `bucket "" is no manual bucket in use`, `{"bucket":"pro","who":1}`: "unknown field", `[`: "command member",
	} {
		_, err := s.logic.Step(s.state, &derive.Record[buckets.State]{ContactID: s.id, Command: &derive.Command{What: "member", JSON: text}}, s.now)
		require.ErrorContains(t, err, want)
	}
	_, err := s.logic.Step(s.state, &derive.Record[buckets.State]{ContactID: s.id, Command: &derive.Command{What: "dance"}}, s.now)
	require.ErrorContains(t, err, `"dance" is unknown`)
}

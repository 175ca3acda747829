package predicate_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

const micro = time.Microsecond

// around is the answers one microsecond before an instant, at it, and one after.
type around [3]bool

// Events at 0 and, a day later, at 1d; asked around the end of the window of the first.
// Both edges of a window count: an event leaves one microsecond after.
func TestEveryQuestionAboutAWindowTurnsOneMicrosecondAfterItsEdge(t *testing.T) {
	const w = 7 * 24 * time.Hour
	event := p.Event("a").Within(w)
	leaves := func(before, after bool) around { return around{before, before, after} }
	for _, c := range []struct {
		condition p.Condition
		events    int // at 0, 1d, …, each of amount 10
		want      around
	}{
		{event.Exists(), 1, leaves(true, false)},
		{event.NotExists(), 1, leaves(false, true)},
		{event.AtLeast(2), 2, leaves(true, false)},
		{event.AtLeast(1), 2, leaves(true, true)},
		{event.MoreThan(1), 2, leaves(true, false)},
		{event.AtMost(1), 2, leaves(false, true)},
		{event.LessThan(2), 2, leaves(false, true)},
		{event.Exactly(2), 2, leaves(true, false)},
		{event.Exactly(1), 2, leaves(false, true)},
		{event.Exactly(0), 1, leaves(false, true)},
		{event.AtLeast(1.5), 2, leaves(true, false)},
		{event.Total("amount").Gte(20), 2, leaves(true, false)},
		{event.Total("amount").Gt(10), 2, leaves(true, false)},
		{event.Total("amount").Lte(10), 2, leaves(false, true)},
		{event.Total("amount").Lt(20), 2, leaves(false, true)},
		{event.Total("amount").Eq(20), 2, leaves(true, false)},
		{event.Total("amount").Eq(10), 2, leaves(false, true)},
		{event.Last("amount").Eq(10), 1, leaves(true, false)},
		{event.Last("amount").NotExists(), 1, leaves(false, false)},
		{p.Not(event.Exists()), 1, leaves(false, true)},
		{p.Event("a").Then(p.Event("a")).Lookback(w).Within(p.Days(1)), 2, leaves(true, false)},
		{p.Event("a").Then(p.Event("b")).Lookback(w).NotWithin(p.Days(2)), 1, leaves(true, false)},
		{p.Event("a").Then(p.Event("b")).NotWithin(w), 1, leaves(false, true)},
		{p.Not(p.Event("a").Then(p.Event("b")).NotWithin(w)), 1, leaves(true, false)},
		{p.Event("a").FirstSeen().OnOrAfter(p.Now(-w)), 2, leaves(true, false)},
		{p.Event("a").FirstSeen().Before(p.Now(-w)), 2, leaves(false, true)},
		{p.Event("a").FirstSeen().OnOrBefore(p.Now(-w)), 2, around{false, true, true}},
		{p.Event("a").FirstSeen().After(p.Now(-w)), 2, around{true, false, false}},
		{p.Event("a").LastSeen().Between(p.Now(-w), p.Now(0)), 1, leaves(true, false)},
	} {
		a := ask(t, c.condition)
		for i := range c.events {
			a.happens("a", aNow.Add(p.Days(i)), `{"amount":10}`)
		}
		edge := aNow.Add(w)
		assert.Equal(t, c.want, around{a.at(edge.Add(-micro)).Holds, a.at(edge).Holds, a.at(edge.Add(micro)).Holds}, c.condition.Canonical())
		if c.want[0] != c.want[2] { // it says so in advance, to the microsecond
			turn := edge.Add(micro)
			if c.want[1] != c.want[0] {
				turn = edge
			}
			assert.Equal(t, turn, a.at(edge.Add(-micro)).Next, c.condition.Canonical())
		}
	}
}

// The gap of a sequence is a distance of two events, and time does not touch it.
func TestTheOtherEventMayComeAsLateAsTheGapAndNoLater(t *testing.T) {
	for gap, followed := range map[time.Duration]bool{
		0: false, micro: true, time.Hour - micro: true, time.Hour: true, time.Hour + micro: false, -micro: false,
	} {
		for _, swapped := range []bool{false, true} { // the order of arrival makes no difference
			events := []func(*asked){
				func(a *asked) { a.happens("a", aNow, "{}") },
				func(a *asked) { a.happens("b", aNow.Add(gap), "{}") },
			}
			if swapped {
				events[0], events[1] = events[1], events[0]
			}
			then, without := ask(t, p.Event("a").Then(p.Event("b")).Within(p.Hours(1))), ask(t, p.Event("a").Then(p.Event("b")).NotWithin(p.Hours(1)))
			for _, tell := range events {
				tell(then)
				tell(without)
			}
			late := aNow.Add(2 * time.Hour)
			assert.Equal(t, p.Verdict{Holds: followed}, then.at(late), gap)
			assert.Equal(t, !followed, without.at(late).Holds, gap)
		}
	}
}

// A property that holds an instant, asked around the instant at which it turns.
func TestDatesRelativeToNowTurnExactly(t *testing.T) {
	at := func(c p.Condition, contact string, edge time.Time) around {
		a := ask(t, c)
		a.tell(p.Record{Contact: contact})
		return around{a.at(edge.Add(-micro)).Holds, a.at(edge).Holds, a.at(edge.Add(micro)).Holds}
	}
	when, contact := p.Prop("when"), `{"when":"2026-07-01T12:00:00Z"}`
	three := aNow.Add(p.Days(3))
	assert.Equal(t, around{false, false, true}, at(when.Before(p.Now(-p.Days(3))), contact, three))
	assert.Equal(t, around{false, true, true}, at(when.OnOrBefore(p.Now(-p.Days(3))), contact, three))
	assert.Equal(t, around{true, false, false}, at(when.After(p.Now(-p.Days(3))), contact, three))
	assert.Equal(t, around{true, true, false}, at(when.OnOrAfter(p.Now(-p.Days(3))), contact, three))
	assert.Equal(t, around{true, true, false}, at(when.Between(p.Now(-p.Days(3)), p.Now(0)), contact, three))

	// Calendar dates turn at midnight of the zone: 22:00 UTC in Berlin's summer.
	midnight := time.Date(2026, 6, 30, 22, 0, 0, 0, time.UTC)
	berlin := when.Zone("Europe/Berlin")
	for _, value := range []string{`{"when":"2026-07-01"}`, contact, `{"when":"2026-06-30T22:00:00Z"}`, `{"when":"2026-07-01T23:59:59.999999+02:00"}`} {
		assert.Equal(t, around{false, true, true}, at(berlin.OnDate(p.Today(0)), value, midnight), value)
		assert.Equal(t, around{true, true, false}, at(berlin.OnDate(p.Today(0)), value, midnight.Add(p.Days(1)-micro)), value)
		assert.Equal(t, around{true, true, false}, at(berlin.OnOrAfter(p.Today(0)), value, midnight.Add(p.Days(1)-micro)), value)
		assert.Equal(t, around{true, false, false}, at(berlin.After(p.Today(0)), value, midnight), value)
		assert.Equal(t, around{false, true, true}, at(berlin.OnOrBefore(p.Today(0)), value, midnight), value)
		assert.Equal(t, around{false, false, true}, at(berlin.Before(p.Today(0)), value, midnight.Add(p.Days(1)-micro)), value)
		assert.Equal(t, around{false, true, true}, at(berlin.Between(p.Today(-1), p.Today(0)), value, midnight), value)
		assert.Equal(t, around{true, true, false}, at(berlin.Between(p.Today(-1), p.Today(0)), value, midnight.Add(p.Days(2)-micro)), value)
	}
}

// B14: a relative calendar date has a zone, and its timer is that zone's midnight.
func TestATodayBeginsAtTheMidnightOfItsZone(t *testing.T) {
	today := p.Prop("day").OnDate(p.Today(0))
	for _, c := range []struct {
		zone, date string
		begins     string // UTC
		ends       string
	}{
		{"UTC", "2026-07-01", "2026-07-01T00:00:00Z", "2026-07-02T00:00:00Z"},
		{"Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"},     // 23 hours
		{"Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"},     // 25 hours
		{"America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"}, // began at 01:00
		{"America/Sao_Paulo", "2018-02-18", "2018-02-18T03:00:00Z", "2018-02-19T03:00:00Z"}, // 23:00 came twice before it
		{"Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z"},
		{"Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"},
		{"Africa/Casablanca", "2026-02-15", "2026-02-14T23:00:00Z", "2026-02-16T00:00:00Z"},
		{"Pacific/Kiritimati", "2026-07-01", "2026-06-30T10:00:00Z", "2026-07-01T10:00:00Z"},
		{"America/St_Johns", "2026-07-01", "2026-07-01T02:30:00Z", "2026-07-02T02:30:00Z"},
		{"Asia/Kathmandu", "2026-07-01", "2026-06-30T18:15:00Z", "2026-07-01T18:15:00Z"},
	} {
		begins, err := time.Parse(time.RFC3339, c.begins)
		require.NoError(t, err)
		a := ask(t, today)
		a.tell(p.Record{Contact: `{"day":"` + c.date + `","timezone":"` + c.zone + `"}`})
		before := a.at(begins.Add(-micro))
		assert.Equal(t, p.Verdict{Holds: false, Next: begins}, before, c)
		during := a.at(begins)
		assert.True(t, during.Holds, c)
		assert.Equal(t, c.ends, during.Next.Format(time.RFC3339), c)
		assert.Equal(t, p.Verdict{}, a.at(during.Next), c)
	}
	a := ask(t, today)
	a.tell(p.Record{Contact: `{"day":"2011-12-30","timezone":"Pacific/Apia"}`})
	assert.Equal(t, p.Verdict{}, a.at(time.Date(2011, 12, 1, 0, 0, 0, 0, time.UTC)), "a day that a zone never had is never today")
}

// B14: instants and calendar dates are two types.
func TestACalendarDateIsNoInstant(t *testing.T) {
	day := p.Prop("day")
	for _, c := range []p.Condition{
		day.Before(p.Now(0)), day.OnOrBefore(p.Now(0)), day.After(p.Now(0)), day.OnOrAfter(p.Now(-p.Days(9999))),
		day.Before(p.At(aNow)), day.After(p.At(aNow.AddDate(-50, 0, 0))), day.Between(p.Now(-p.Days(9999)), p.Now(p.Days(9999))),
	} {
		assert.False(t, holdsFor(t, c, `{"day":"2026-06-01"}`), c.Canonical())
		assert.True(t, holdsFor(t, p.Not(c), `{"day":"2026-06-01"}`), c.Canonical())
	}
	assert.True(t, holdsFor(t, day.Before(p.Date(2026, 6, 2)), `{"day":"2026-06-01T23:59:59Z"}`))
	assert.False(t, holdsFor(t, day.Before(p.Date(2026, 6, 2)), `{"day":"2026-06-02T00:00:00Z"}`))
	assert.True(t, holdsFor(t, day.Zone("America/New_York").OnDate(p.Date(2026, 6, 1)), `{"day":"2026-06-02T00:00:00Z"}`))
}

func TestTheZoneIsThatOfTheConditionElseOfTheContactElseOfTheDeployment(t *testing.T) {
	auckland, err := time.LoadLocation("Pacific/Auckland")
	require.NoError(t, err)
	evaluate := func(c p.Condition, contact string) bool {
		set, err := p.Compile([]p.Named{{ID: "x", Condition: c}}, p.Options{Limits: p.DefaultLimits(), Zone: auckland})
		require.NoError(t, err)
		var state p.State
		set.Apply(&state, &p.Record{Contact: contact}, nil)
		return set.Evaluate(0, &state, nil, aNow.Add(2*time.Hour)).Holds // 14:00 UTC: the next day in Auckland
	}
	day := p.Prop("day")
	assert.True(t, evaluate(day.OnDate(p.Today(0)), `{"day":"2026-07-02"}`))
	assert.True(t, evaluate(day.OnDate(p.Today(0)), `{"day":"2026-07-02","timezone":"no zone"}`))
	assert.True(t, evaluate(day.OnDate(p.Today(0)), `{"day":"2026-07-01","timezone":"Europe/Berlin"}`))
	assert.True(t, evaluate(day.OnDate(p.Today(0)), `{"day":"2026-07-02","$timezone":"Pacific/Auckland","$geoip_time_zone":"UTC","timezone":"UTC"}`), "what the browser says first")
	assert.True(t, evaluate(day.OnDate(p.Today(0)), `{"day":"2026-07-01","$timezone":"+05:30","$geoip_time_zone":"Europe/Berlin","timezone":"Pacific/Auckland"}`), "then where the address lies")
	assert.True(t, evaluate(day.Zone("America/New_York").OnDate(p.Today(0)), `{"day":"2026-07-01","timezone":"Pacific/Auckland"}`))
}

// A processor arms one timer for each instant that is named; none is for nothing.
func TestNoTurnIsNamedBeforeTimeAloneCanTurnTheAnswer(t *testing.T) {
	absent := func(name string, days int) p.Condition { return p.Event(name).Within(p.Days(days)).NotExists() }
	present := func(name string, days int) p.Condition { return p.Event(name).Within(p.Days(days)).Exists() }
	leaves := func(days int) time.Time { return aNow.Add(p.Days(days) + micro) }
	for _, c := range []struct {
		condition p.Condition
		next      time.Time
	}{
		{p.All(absent("a", 1), absent("a", 2)), leaves(2)},
		{p.All(present("a", 1), present("a", 2)), leaves(1)},
		{p.Any(present("a", 1), present("a", 2)), leaves(2)},
		{p.Any(absent("a", 1), absent("a", 2)), leaves(1)},
		{p.All(absent("a", 1), p.Prop("plan").Eq("pro")), time.Time{}},
		{p.All(p.Prop("plan").Eq("pro"), absent("a", 1)), time.Time{}},
		{p.Any(present("a", 1), p.Prop("plan").NotExists()), time.Time{}},
		{p.Not(p.Any(absent("a", 1), absent("a", 2))), leaves(1)},
		{p.All(present("a", 3), absent("a", 2)), leaves(2)},
		{p.Event("a").AtLeast(1), time.Time{}},
		{p.Event("a").Within(p.Days(1)).AtLeast(3), time.Time{}},
		{p.Event("a").Within(p.Days(1)).LessThan(5), time.Time{}},
		{p.Event("a").Within(p.Days(1)).Total("amount").Gt(3), time.Time{}}, // 5 and -5 leave together
		{p.Event("a").Within(p.Days(1)).Total("amount").Gte(0), time.Time{}},
		{p.Event("a").Then(p.Event("b")).Lookback(p.Days(1)).Within(p.Days(1)), leaves(1)},
		{p.Event("a").Then(p.Event("b")).NotWithin(p.Minutes(1)), time.Time{}},
		{p.Event("b").Then(p.Event("a")).NotWithin(p.Days(1)), leaves(1).Add(time.Hour)},
	} {
		a := ask(t, c.condition)
		a.happens("a", aNow, `{"amount":5}`)
		a.happens("a", aNow, `{"amount":-5}`)
		a.happens("b", aNow.Add(time.Hour), "{}")
		assert.Equal(t, c.next, a.at(aNow.Add(time.Hour)).Next, c.condition.Canonical())
	}
}

// While one of several first events counts, another one's end turns nothing.
func TestASequenceLastsUntilTheLastOfItsFirstEventsIsTooOld(t *testing.T) {
	a := ask(t, p.Event("a").Then(p.Event("b")).Lookback(p.Days(7)).Ever())
	for i := range 3 {
		a.happens("a", aNow.Add(p.Days(i)), "{}")
	}
	a.happens("b", aNow.Add(p.Days(1)+micro), "{}")
	assert.Equal(t, p.Verdict{Holds: true, Next: aNow.Add(p.Days(8) + micro)}, a.at(aNow.Add(p.Days(2))))
}

// The bounds of numbers are what they say.
func TestNumbersCompareAtTheirBounds(t *testing.T) {
	n := p.Prop("n")
	for _, c := range []struct {
		condition p.Condition
		want      around // of 4, 5 and 6
	}{
		{n.Eq(5), around{false, true, false}},
		{n.Neq(5), around{true, false, true}},
		{n.Gt(5), around{false, false, true}},
		{n.Gte(5), around{false, true, true}},
		{n.Lt(5), around{true, false, false}},
		{n.Lte(5), around{true, true, false}},
		{n.Between(5, 6), around{false, true, true}},
		{n.Between(4, 5), around{true, true, false}},
	} {
		assert.Equal(t, c.want, around{holdsFor(t, c.condition, `{"n":4}`), holdsFor(t, c.condition, `{"n":5}`), holdsFor(t, c.condition, `{"n":6}`)}, c.condition.Canonical())
	}
}

// An event is filtered once, when it comes: in the deployment's zone, wherever the contact is.
func TestAFilterOfEventsKnowsNoZoneOfTheContact(t *testing.T) {
	late := p.Event("a").Where(p.Prop("when").OnDate(p.Date(2026, 7, 1))).Exists()
	a := ask(t, p.All(late, p.Prop("day").OnDate(p.Today(0))))
	a.tell(p.Record{Contact: `{"timezone":"Pacific/Kiritimati","day":"2026-07-02"}`})
	a.happens("a", aNow, `{"when":"2026-07-01T12:00:00Z"}`)
	assert.True(t, a.at(aNow).Holds, "the second of July in Kiritimati")
}

// Whoever was seen within a day of the sign-up was, however often he is seen later.
func TestAnEventThatWasFollowedStaysFollowedHoweverManyCome(t *testing.T) {
	set, err := p.Compile([]p.Named{
		{ID: "activated", Condition: p.Event("signed_up").Then(p.Event("seen")).Within(p.Days(1))},
		{ID: "lost", Condition: p.Event("signed_up").Then(p.Event("seen")).Newest().NotWithin(p.Days(1))},
	}, p.Options{Limits: p.Limits{Count: 3, Sequence: 3, Total: 3}})
	require.NoError(t, err)
	var s p.State
	apply(set, &s, p.Record{ID: uuid.New(), Name: "signed_up", At: aNow})
	for i := range 50 {
		apply(set, &s, p.Record{ID: uuid.New(), Name: "seen", At: aNow.Add(time.Duration(i+1) * time.Hour)})
		now := aNow.Add(p.Days(3))
		assert.True(t, set.Evaluate(set.Index("activated"), &s, nil, now).Holds)
		assert.False(t, set.Evaluate(set.Index("lost"), &s, nil, now).Holds)
	}
}

func TestAMergeKeepsWhatFollowedOnEitherSide(t *testing.T) {
	set, err := p.Compile([]p.Named{{ID: "x", Condition: p.Event("a").Then(p.Event("b")).Within(p.Days(1))}}, p.Options{Limits: p.Limits{Count: 1, Sequence: 2, Total: 1}})
	require.NoError(t, err)
	first := p.Record{ID: uuid.New(), Name: "a", At: aNow}
	for _, swapped := range []bool{false, true} {
		var knows, knowsNot p.State
		apply(set, &knows, first)
		apply(set, &knowsNot, first)
		for i := range 5 { // the one that came in time is not among the newest two
			apply(set, &knows, p.Record{ID: uuid.New(), Name: "b", At: aNow.Add(p.Days(i) + time.Hour)})
		}
		into, from := &knows, &knowsNot
		if swapped {
			into, from = from, into
		}
		set.Merge(into, from)
		assert.True(t, set.Evaluate(0, into, nil, aNow).Holds)
	}
}

// While events come in order, the newest first events are judged by all others, however few
// of these are kept.
func TestASequenceIsExactForTheNewestFirstEventsWhileEventsComeInOrder(t *testing.T) {
	const size = 3
	rapid.Check(t, func(t *rapid.T) {
		gap := time.Duration(rapid.IntRange(1, 4).Draw(t, "gap")) * time.Hour
		newest := rapid.Bool().Draw(t, "newest")
		sequence := p.Event("a").Then(p.Event("b"))
		looked := size
		if newest {
			sequence, looked = sequence.Newest(), 1
		}
		set, err := p.Compile([]p.Named{
			{ID: "then", Condition: sequence.Within(gap)}, {ID: "without", Condition: sequence.NotWithin(gap)},
			{ID: "other", Condition: p.All(p.Event("a").AtLeast(5), p.Event("a").Then(p.Event("b")).Ever())}, // keeps more
		}, p.Options{Limits: p.Limits{Count: 5, Sequence: size, Total: 1}})
		require.NoError(t, err)
		var s p.State
		var firsts, thens []time.Time
		now := aNow
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "later")) * time.Hour)
			name := draw(t, "event", []string{"a", "b", "b", "b"})
			if name == "a" {
				firsts = append(firsts, now)
			} else {
				thens = append(thens, now)
			}
			apply(set, &s, p.Record{ID: uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")), Name: name, At: now})
		}
		now = now.Add(p.Days(1))
		then, without := false, false
		for _, a := range firsts[max(0, len(firsts)-looked):] {
			followed := slices.ContainsFunc(thens, func(b time.Time) bool { return b.After(a) && !b.After(a.Add(gap)) })
			then, without = then || followed, without || !followed
		}
		require.Equal(t, then, set.Evaluate(set.Index("then"), &s, nil, now).Holds)
		require.Equal(t, without, set.Evaluate(set.Index("without"), &s, nil, now).Holds)
	})
}

package predicate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	assert.True(t, evaluate(day.Zone("America/New_York").OnDate(p.Today(0)), `{"day":"2026-07-01","timezone":"Pacific/Auckland"}`))
}

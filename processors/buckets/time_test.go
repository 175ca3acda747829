package buckets_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/definition"
	p "github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

// around is the answers one microsecond before an instant, at it, and one after.
type around [3]bool

// Whatever time turns is turned through steps, timers alone, at its very instant. Events: a
// twice at the start, c a millisecond later, b never.
func TestWhateverTimeTurnsIsTurnedAtItsMicrosecond(t *testing.T) {
	const w = time.Hour
	ends, begins := around{true, true, false}, around{false, false, true}     // both edges of a window count
	endsAt, beginsAt := around{true, false, false}, around{false, true, true} // at the instant itself
	a, b, c := p.Event("a"), p.Event("b"), p.Event("c")
	in, since := a.Within(w), p.Now(-w)
	when, day := p.Prop("when"), p.Prop("day")
	midnight := 12 * time.Hour // after the start
	for _, row := range []struct {
		name string
		c    p.Condition
		edge time.Duration // from the start
		want around
	}{
		{"exists", in.Exists(), w, ends},
		{"not exists", in.NotExists(), w, begins},
		{"at least", in.AtLeast(2), w, ends},
		{"more than", in.MoreThan(1), w, ends},
		{"at most", in.AtMost(1), w, begins},
		{"less than", in.LessThan(2), w, begins},
		{"exactly, of more", in.Exactly(0), w, begins},
		{"exactly, of less", in.Exactly(2), w, ends},
		{"where", a.Where(p.Prop("amount").Gt(4)).Within(w).AtLeast(1), w, ends},
		{"total at least", in.Total("amount").Gte(10), w, ends},
		{"total more", in.Total("amount").Gt(9), w, ends},
		{"total at most", in.Total("amount").Lte(9), w, begins},
		{"total less", in.Total("amount").Lt(10), w, begins},
		{"total equal", in.Total("amount").Eq(10), w, ends},
		{"last equal", in.Last("amount").Eq(5), w, ends},
		{"last exists", in.Last("amount").Exists(), w, ends},
		{"last seen before", a.LastSeen().Before(since), w, begins},
		{"last seen on or before", a.LastSeen().OnOrBefore(since), w, beginsAt},
		{"last seen after", a.LastSeen().After(since), w, endsAt},
		{"last seen on or after", a.LastSeen().OnOrAfter(since), w, ends},
		{"last seen between", a.LastSeen().Between(since, p.Now(0)), w, ends},
		{"first seen before", a.FirstSeen().Before(since), w, begins},
		{"first seen on or after", a.FirstSeen().OnOrAfter(since), w, ends},
		{"contact first seen after", p.FirstSeen().After(since), w, endsAt},
		{"contact first seen before", p.FirstSeen().Before(since), w, begins},
		{"contact last seen on or before", p.LastSeen().OnOrBefore(since), w + time.Millisecond, beginsAt},
		{"not", p.Not(in.Exists()), w, begins},
		{"all", p.All(in.Exists(), a.Exists()), w, ends},
		{"any", p.Any(in.Exists(), b.Exists()), w, ends},
		{"followed, looking back", a.Then(c).Lookback(w).Within(time.Minute), w, ends},
		{"ever followed, looking back", a.Then(c).Lookback(w).Ever(), w, ends},
		{"the newest followed, looking back", a.Then(c).Newest().Lookback(w).Within(time.Minute), w, ends},
		{"not followed", a.Then(b).NotWithin(w), w, begins},
		{"not followed, looking back, begins", a.Then(b).Lookback(w).NotWithin(w / 2), w / 2, begins},
		{"not followed, looking back, ends", a.Then(b).Lookback(w).NotWithin(w / 2), w, ends},
		{"the newest not followed", a.Then(b).Newest().NotWithin(w), w, begins},
		{"instant before", when.Before(since), w, begins},
		{"instant on or before", when.OnOrBefore(since), w, beginsAt},
		{"instant after", when.After(since), w, endsAt},
		{"instant on or after", when.OnOrAfter(since), w, ends},
		{"instant between", when.Between(since, p.Now(0)), w, ends},
		{"date is today", day.OnDate(p.Today(0)), midnight, beginsAt},
		{"date is today no more", day.OnDate(p.Today(0)), midnight + 24*w, endsAt},
		{"date before today", day.Before(p.Today(0)), midnight + 24*w, beginsAt},
		{"date on or before today", day.OnOrBefore(p.Today(0)), midnight, beginsAt},
		{"date after today", day.After(p.Today(0)), midnight, endsAt},
		{"date on or after today", day.OnOrAfter(p.Today(0)), midnight + 24*w, endsAt},
		{"date between", day.Between(p.Today(-1), p.Today(0)), midnight + 2*24*w, endsAt},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newStage(t, bucket("x", row.c), bucket("of-x", p.All(p.InBucket("x"), a.Exists())))
			require.Empty(t, s.logic.Failing())
			for range 2 {
				s.send(&schemas.Event{ID: s.identifier(), Name: "a", Properties: `{"amount":5}`, OccurredAt: start, ReceivedAt: start})
			}
			s.updated(`{"when":"2026-03-02T12:00:00Z","day":"2026-03-03"}`)
			s.happened("c", start.Add(time.Millisecond), start.Add(time.Millisecond))
			edge := start.Add(row.edge)
			var is, of around
			for i, at := range []time.Time{edge.Add(-time.Microsecond), edge, edge.Add(time.Microsecond)} {
				s.until(at)
				is[i], of[i] = s.state.Has("x"), s.state.Has("of-x")
			}
			assert.Equal(t, row.want, is)
			assert.Equal(t, row.want, of, "who asks for the membership follows at once")
			turn := edge.Add(time.Microsecond)
			if row.want[0] != row.want[1] {
				turn = edge
			}
			tr := s.state.Transitions()
			assert.Equal(t, turn, tr[len(tr)-1].At)
		})
	}
}

// How far two events are apart is a distance, and time does not touch it.
func TestTheOtherEventOfASequenceMayComeAsLateAsTheGapAndNoLater(t *testing.T) {
	const gap = time.Hour
	for off, followed := range map[time.Duration]bool{-time.Microsecond: true, 0: true, time.Microsecond: false} {
		then := p.Event("a").Then(p.Event("b"))
		s := newStage(t, bucket("then", then.Within(gap)), bucket("without", then.NotWithin(gap)))
		s.event("a")
		s.until(start.Add(gap + off))
		s.event("b")
		s.after(day)
		assert.Equal(t, followed, s.state.Has("then"), off)
		assert.Equal(t, !followed, s.state.Has("without"), off)
	}
}

// Records that waited for an hour are judged as they would have been in time.
func TestWhoWasActiveDuringAnOutageIsNotQuiet(t *testing.T) {
	idle := bucket("idle", p.All(p.Event("active").Exists(), p.Event("active").Within(30*time.Minute).NotExists()))
	s := newStage(t, idle)
	s.event("active")
	s.now = start.Add(55 * time.Minute)
	for minute := 10; minute <= 50; minute += 10 {
		at := start.Add(time.Duration(minute) * time.Minute)
		s.happened("active", at, at)
	}
	s.until(start.Add(80 * time.Minute))
	s.says()
	s.until(start.Add(80*time.Minute + time.Microsecond))
	s.says("entered idle 1 reconcile")
}

func TestOnlyBucketsAreEvaluatedWhoseInputsChanged(t *testing.T) {
	var list []definition.Bucket
	for i := range 25 {
		list = append(list, bucket(fmt.Sprint("b", i), p.Event(fmt.Sprint("e", i/5)).Within(p.Days(7)).AtLeast(3)))
	}
	s := newStage(t, list...)
	evaluated := 0
	s.logic.Observe(func(string) { evaluated++ })
	s.event("e2")
	assert.Equal(t, 5, evaluated)
	s.event("other")
	s.updated(`{"x":1}`)
	assert.Equal(t, 5, evaluated)
}

// Of a total without a window fewer single events are kept than of one within.
func TestATotalWithinAWindowIsFilledThoughTheTotalOfAllIsKnown(t *testing.T) {
	all := bucket("all", p.Event("buy").Total("amount").Gte(151))
	month := bucket("month", p.Event("buy").Within(p.Days(30)).Total("amount").Gte(150))
	s := newStage(t, all)
	for i := range 150 {
		s.send(&schemas.Event{ID: s.identifier(), Name: "buy", Properties: `{"amount":1}`, OccurredAt: start.Add(time.Duration(i) * time.Second), ReceivedAt: start})
	}
	s.use(all, month)
	s.refill()
	assert.True(t, s.state.Has("month"))
	assert.False(t, s.state.Has("all"), "nothing counts twice")
}

func FuzzState(f *testing.F) {
	s := newStage(f, pro(), quiet(func(b *definition.Bucket) { b.Dwell = []definition.Dwell{{Every: time.Hour}} }))
	s.event("active")
	s.updated(`{"plan":"pro"}`)
	s.after(8*day + time.Hour)
	data, err := buckets.EncodeState(s.state)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := buckets.DecodeState(data)
		if err != nil {
			require.ErrorIs(t, err, buckets.ErrState)
			return
		}
		once, err := buckets.EncodeState(state)
		require.NoError(t, err)
		again, err := buckets.DecodeState(once)
		require.NoError(t, err)
		twice, err := buckets.EncodeState(again)
		require.NoError(t, err)
		require.Equal(t, once, twice)
	})
}

// Five of the buckets look at each event, three of these within a window.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{25, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var list []definition.Bucket
			for i := range n {
				name := "e"
				if i >= 5 {
					name = fmt.Sprint("other", i)
				}
				event := p.Event(name)
				if i < 3 {
					event = event.Within(p.Days(7))
				}
				list = append(list, bucket(fmt.Sprintf("b%04d", i), event.AtLeast(float64(3+i%5))))
			}
			s := newStage(b, list...)
			for range 200 {
				s.now = s.now.Add(time.Second)
				s.event("e")
			}
			state := s.state
			id := uuid.MustParse(s.id)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				at := s.now.Add(time.Duration(i) * time.Second)
				e := &schemas.Event{ID: uuid.NewSHA1(id, fmt.Append(nil, i)).String(), ContactID: s.id, Name: "e", Properties: "{}", OccurredAt: at, ReceivedAt: at}
				r := &derive.Record[buckets.State]{ID: e.ID, ContactID: s.id, OccurredAt: at, Event: e}
				b.StartTimer()
				result, err := s.logic.Step(state, r, at)
				if err != nil {
					b.Fatal(err)
				}
				state = result.State
			}
		})
	}
}

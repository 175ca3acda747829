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

// Each ends, or begins, to hold a microsecond after the edge of its window.
func TestEveryWindowTurnsAMicrosecondAfterItsEdge(t *testing.T) {
	const w = time.Hour
	a, in := p.Event("a"), p.Event("a").Within(w)
	for name, c := range map[string]struct {
		c    p.Condition
		then bool // whether it holds after the edge; before it is the other
	}{
		"exists":                 {in.Exists(), false},
		"not exists":             {in.NotExists(), true},
		"at least":               {in.AtLeast(2), false},
		"more than":              {in.MoreThan(1), false},
		"at most":                {in.AtMost(1), true},
		"less than":              {in.LessThan(2), true},
		"exactly, of more":       {in.Exactly(0), true},
		"exactly, of less":       {in.Exactly(2), false},
		"total at least":         {in.Total("amount").Gte(10), false},
		"total less":             {in.Total("amount").Lt(10), true},
		"last":                   {in.Last("amount").Eq(5), false},
		"last seen before":       {a.LastSeen().Before(p.Now(-w)), true},
		"first seen on or after": {a.FirstSeen().OnOrAfter(p.Now(-w)), false},
		"not":                    {p.Not(in.Exists()), true},
		"not followed":           {a.Then(p.Event("b")).NotWithin(w), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, bucket("x", c.c))
			for range 2 {
				s.send(&schemas.Event{ID: s.identifier(), Name: "a", Properties: `{"amount":5}`, OccurredAt: start, ReceivedAt: start})
			}
			s.until(start.Add(w - time.Microsecond))
			assert.Equal(t, !c.then, s.state.Has("x"), "W - 1 µs")
			s.until(start.Add(w))
			assert.Equal(t, !c.then, s.state.Has("x"), "W")
			s.until(start.Add(w + time.Microsecond))
			assert.Equal(t, c.then, s.state.Has("x"), "W + 1 µs")
			tr := s.state.Transitions()
			assert.Equal(t, start.Add(w+time.Microsecond), tr[len(tr)-1].At)
		})
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
	data, err := buckets.Encode(s.state)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte{1, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		state, err := buckets.Decode(data)
		if err != nil {
			require.ErrorIs(t, err, buckets.ErrState)
			return
		}
		once, err := buckets.Encode(state)
		require.NoError(t, err)
		again, err := buckets.Decode(once)
		require.NoError(t, err)
		twice, err := buckets.Encode(again)
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

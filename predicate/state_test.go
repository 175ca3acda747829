package predicate_test

import (
	"encoding/hex"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	p "github.com/hogstream/hogstream/predicate"
)

// everyLeg looks at each kind of leg.
func everyLeg(t require.TestingT, limits p.Limits) *p.Set {
	a := p.Event("a")
	set, err := p.Compile([]p.Named{
		{ID: "count", Condition: a.Within(p.Days(1)).AtLeast(3)},
		{ID: "total", Condition: a.Total("amount").Gte(10)},
		{ID: "last", Condition: a.Last("amount").Gt(5)},
		{ID: "first", Condition: a.FirstSeen().Before(p.Now(-p.Days(1)))},
		{ID: "seen", Condition: p.FirstSeen().Before(p.Now(-p.Days(1)))},
		{ID: "plan", Condition: p.Prop("plan").Eq("pro")},
		{ID: "known", Condition: p.HasUserID()},
		{ID: "sequence", Condition: a.Then(a).Within(p.Hours(1))},
		{ID: "filtered", Condition: a.Where(p.Prop("amount").Gt(1)).Exists()},
	}, p.Options{Limits: limits})
	require.NoError(t, err)
	return set
}

func apply(set *p.Set, state *p.State, records ...p.Record) {
	for i := range records {
		set.Apply(state, &records[i], nil)
	}
}

func encoded(t require.TestingT, s *p.State) []byte {
	data, err := s.MarshalBinary()
	require.NoError(t, err)
	return data
}

func drawRecords(t *rapid.T) []p.Record {
	id := rapid.IntRange(0, 20)
	var out []p.Record
	for range rapid.IntRange(0, 10).Draw(t, "records") {
		n := id.Draw(t, "id") // an id names one record
		out = append(out, p.Record{
			ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)), Name: "a", At: aNow.Add(time.Duration(n%7) * time.Hour),
			Properties: fmt.Sprintf(`{"amount":%d.5}`, n), HasUserID: n == 3,
			FirstSeen: aNow.Add(time.Duration(n) * time.Minute), LastSeen: aNow.Add(time.Duration(n) * time.Minute),
		})
	}
	return out
}

func TestAStateDoesNotDependOnTheOrderOfRecordsNorOnWhereTheyWereMerged(t *testing.T) {
	set := everyLeg(t, p.Limits{Count: 3, Sequence: 100, Total: 100})
	rapid.Check(t, func(t *rapid.T) {
		records := [3][]p.Record{drawRecords(t), drawRecords(t), drawRecords(t)}
		var one p.State
		var parts [3]p.State
		all := []p.Record{}
		for i, list := range records {
			apply(set, &parts[i], list...)
			all = append(all, list...)
		}
		apply(set, &one, rapid.Permutation(all).Draw(t, "order")...)
		merged := func(order ...int) []byte {
			into := stored(t, &parts[order[0]])
			for _, i := range order[1:] {
				set.Merge(&into, &parts[i])
			}
			return encoded(t, &into)
		}
		want := encoded(t, &one)
		require.Equal(t, want, merged(0, 1, 2))
		require.Equal(t, want, merged(2, 0, 1))
		require.Equal(t, want, merged(1, 2, 0))
		nested := stored(t, &parts[1])
		set.Merge(&nested, &parts[2])
		set.Merge(&nested, &parts[0])
		set.Merge(&nested, &parts[1]) // again: an event counts once
		require.Equal(t, want, encoded(t, &nested))
	})
}

// B8, for a merge.
func TestAnEventThatBothContactsHadCountsOnceAfterTheMerge(t *testing.T) {
	set := everyLeg(t, p.DefaultLimits())
	same := p.Record{ID: uuid.New(), Name: "a", At: aNow, Properties: `{"amount":6}`}
	var a, b p.State
	apply(set, &a, same, same)
	apply(set, &b, same)
	set.Merge(&a, &b)
	assert.False(t, set.Evaluate(set.Index("count"), &a, nil, aNow).Holds)
	assert.False(t, set.Evaluate(set.Index("total"), &a, nil, aNow).Holds)
	apply(set, &b, p.Record{ID: uuid.New(), Name: "a", At: aNow, Properties: `{"amount":4}`})
	set.Merge(&a, &b)
	assert.True(t, set.Evaluate(set.Index("total"), &a, nil, aNow).Holds)
}

func TestTheStateOfAContactIsBoundedWhateverItsHistory(t *testing.T) {
	set := everyLeg(t, p.Limits{Count: 3, Sequence: 3, Total: 10})
	var s p.State
	size := 0
	for i := range 10_000 {
		apply(set, &s, p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(time.Duration(i) * time.Hour), Properties: `{"amount":1}`})
		if i == 100 {
			size = len(encoded(t, &s))
		}
	}
	assert.InDelta(t, size, len(encoded(t, &s)), 20)
	assert.Less(t, size, 900)
}

// Beyond the limit the amounts are added up, and the total is still the whole one.
func TestATotalIsThatOfTheWholeHistory(t *testing.T) {
	condition := func(n float64) p.Condition { return p.Event("a").Total("amount").Eq(n) }
	rapid.Check(t, func(t *rapid.T) {
		amounts := rapid.SliceOfN(rapid.IntRange(-500, 500), 1, 30).Draw(t, "cents")
		total := 0
		var a, b p.State
		for _, n := range amounts {
			total += n
		}
		set, err := p.Compile([]p.Named{{ID: "x", Condition: condition(float64(total) / 100)}}, p.Options{Limits: p.Limits{Count: 3, Sequence: 3, Total: 4}})
		require.NoError(t, err)
		for i, n := range amounts {
			into := &a
			if rapid.Bool().Draw(t, "of the other") {
				into = &b
			}
			at := aNow.Add(time.Duration(rapid.IntRange(0, 5).Draw(t, "at")) * time.Hour)
			apply(set, into, p.Record{ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), Name: "a", At: at, Properties: fmt.Sprintf(`{"amount":%v}`, float64(n)/100)})
		}
		set.Merge(&a, &b)
		require.True(t, set.Evaluate(0, &a, nil, aNow).Holds)
	})
}

func TestATotalWithinAWindowIsOfTheNewestEvents(t *testing.T) {
	set, err := p.Compile([]p.Named{{ID: "x", Condition: p.Event("a").Within(p.Days(30)).Total("amount").Eq(2)}}, p.Options{Limits: p.Limits{Count: 1, Sequence: 1, Total: 2}})
	require.NoError(t, err)
	var s p.State
	for i := range 5 {
		apply(set, &s, p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(-p.Days(i)), Properties: `{"amount":1}`})
	}
	assert.True(t, set.Evaluate(0, &s, nil, aNow).Holds)
}

func TestWhatNoConditionLooksAtIsDroppedByFit(t *testing.T) {
	big, small := everyLeg(t, p.Limits{Count: 5, Sequence: 5, Total: 5}), everyLeg(t, p.Limits{Count: 3, Sequence: 3, Total: 2})
	other, err := p.Compile([]p.Named{{ID: "x", Condition: p.Identified()}}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	var s, fresh, empty p.State
	for i := range 9 {
		r := p.Record{ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), Name: "a", At: aNow.Add(time.Duration(i) * time.Hour), Properties: `{"amount":2}`, Contact: `{"plan":"pro"}`}
		apply(big, &s, r)
		apply(small, &fresh, r)
	}
	small.Fit(&s)
	assert.Equal(t, encoded(t, &fresh), encoded(t, &s))
	other.Fit(&s)
	assert.Equal(t, encoded(t, &empty), encoded(t, &s))
}

func TestAnEventThatIsOlderThanWhatIsKeptStillChangesATotal(t *testing.T) {
	set, err := p.Compile([]p.Named{{ID: "x", Condition: p.Event("a").Total("amount").Gte(3)}}, p.Options{Limits: p.Limits{Count: 1, Sequence: 1, Total: 1}})
	require.NoError(t, err)
	var s p.State
	for i, want := range []bool{false, false, true} {
		r := p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(-time.Duration(i) * time.Hour), Properties: `{"amount":1}`}
		assert.Equal(t, []int{0}, set.Apply(&s, &r, nil))
		assert.Equal(t, want, set.Evaluate(0, &s, nil, aNow).Holds)
	}
	r := p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(-p.Days(1)), Properties: `{"amount":0}`}
	assert.Empty(t, set.Apply(&s, &r, nil), "nothing was added")
}

func TestOfOneEventAsMuchIsKeptAsTheGreediestConditionNeeds(t *testing.T) {
	for _, order := range [][]p.Condition{
		{p.Event("a").AtLeast(3), p.Event("a").Exists()}, {p.Event("a").Exists(), p.Event("a").AtLeast(3)},
	} {
		set, err := p.Compile([]p.Named{{ID: "0", Condition: order[0]}, {ID: "1", Condition: order[1]}}, p.Options{Limits: p.DefaultLimits()})
		require.NoError(t, err)
		var s p.State
		for range 3 {
			apply(set, &s, p.Record{ID: uuid.New(), Name: "a", At: aNow})
		}
		assert.True(t, set.Evaluate(0, &s, nil, aNow).Holds && set.Evaluate(1, &s, nil, aNow).Holds)
	}
}

// A new condition is filled from stored events, also those that were counted already.
func TestFillingANewConditionCountsNothingTwice(t *testing.T) {
	records := []p.Record{}
	for i := range 150 {
		records = append(records, p.Record{ID: uuid.New(), Name: "a", At: aNow.Add(time.Duration(i) * time.Minute), Properties: `{"amount":1}`})
	}
	total := p.Named{ID: "total", Condition: p.Event("a").Total("amount").Eq(150)}
	before, err := p.Compile([]p.Named{total}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	after, err := p.Compile([]p.Named{
		total, {ID: "count", Condition: p.Event("a").Exactly(150)}, {ID: "first", Condition: p.Event("a").FirstSeen().OnOrBefore(p.At(aNow))},
	}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	var s, history p.State
	apply(before, &s, records...)
	apply(after, &history, records[20:]...) // some are not stored any more
	apply(after, &s, records[149])
	after.Fill(&s, &history)
	after.Fill(&s, &history)
	assert.True(t, after.Evaluate(after.Index("total"), &s, nil, aNow).Holds)
	assert.False(t, after.Evaluate(after.Index("count"), &s, nil, aNow).Holds, "130 are stored")
	apply(after, &history, records[:20]...)
	after.Fill(&s, &history)
	assert.True(t, after.Evaluate(after.Index("count"), &s, nil, aNow).Holds)
	assert.True(t, after.Evaluate(after.Index("first"), &s, nil, aNow).Holds)
}

func TestFillingFindsWhatFollowedWhatIsKnown(t *testing.T) {
	set, err := p.Compile([]p.Named{{ID: "x", Condition: p.Event("a").Then(p.Event("b")).Ever()}}, p.Options{Limits: p.DefaultLimits()})
	require.NoError(t, err)
	var s, history p.State
	apply(set, &s, p.Record{ID: uuid.New(), Name: "a", At: aNow})
	apply(set, &history, p.Record{ID: uuid.New(), Name: "b", At: aNow.Add(time.Hour)})
	set.Fill(&s, &history)
	assert.True(t, set.Evaluate(0, &s, nil, aNow).Holds)
}

// golden is a state as version 1 wrote it; it decodes for ever.
const golden = "testdata/state-v1.hex"

func goldenState(t *testing.T) p.State {
	set := everyLeg(t, p.DefaultLimits())
	var s p.State
	for i := range 3 {
		apply(set, &s, p.Record{
			ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), Name: "a", At: aNow.Add(time.Duration(i) * time.Minute),
			Properties: fmt.Sprintf(`{"amount":%d.25}`, i), HasUserID: true, HasEmail: true,
			FirstSeen: aNow, LastSeen: aNow.Add(time.Hour), Contact: `{"plan":"pro"}`,
		})
	}
	return s
}

func TestAStateThatWasWrittenOnceIsReadForEver(t *testing.T) {
	s := goldenState(t)
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), hex.EncodeToString(encoded(t, &s))+"\n")
	data, err := hex.DecodeString(string(want[:len(want)-1]))
	require.NoError(t, err)
	var read p.State
	require.NoError(t, read.UnmarshalBinary(data))
	assert.Equal(t, s, read)
}

func TestBytesThatAreNoStateAreRefused(t *testing.T) {
	s := goldenState(t)
	data := encoded(t, &s)
	var into p.State
	for n := range data {
		require.ErrorIs(t, into.UnmarshalBinary(data[:n]), p.ErrState, n)
	}
	require.ErrorIs(t, into.UnmarshalBinary(append(data, 0)), p.ErrState)
	require.ErrorContains(t, into.UnmarshalBinary(append([]byte{2}, data[1:]...)), "version 2, this program knows 1")
	assert.Equal(t, p.State{}, into)
}

func FuzzState(f *testing.F) {
	set := everyLeg(f, p.DefaultLimits())
	var s p.State
	apply(set, &s, p.Record{ID: uuid.UUID{1}, Name: "a", At: aNow, Properties: `{"amount":1}`, Contact: `{"plan":[1]}`})
	f.Add(encoded(f, &s))
	f.Add([]byte{1, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s p.State
		if err := s.UnmarshalBinary(data); err != nil {
			require.ErrorIs(t, err, p.ErrState)
			return
		}
		again := stored(t, &s) // the same
		require.Equal(t, encoded(t, &s), encoded(t, &again))
		apply(set, &s, p.Record{ID: uuid.UUID{2}, Name: "a", At: aNow, Properties: `{"amount":1}`})
		set.Merge(&s, &again)
		for i := range set.Len() { // whatever stands in it, nothing panics
			set.Evaluate(i, &s, nil, aNow)
		}
		set.Fit(&s)
		stored(t, &s)
	})
}

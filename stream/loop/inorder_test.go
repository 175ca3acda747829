package loop

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"
)

const overdueAfter = 10 * time.Second

var midnight = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// Whatever is fetched of which topic first, everything is released once and in order, and
// little waits: a share and a fetch of each topic's partition.
func TestRecordsOfSeveralTopicsAreReleasedInTheOrderInWhichTheyWereAppended(t *testing.T) {
	const fetch, share = 40, 4000
	rapid.Check(t, func(rt *rapid.T) {
		logs := map[string][]*kgo.Record{"a": nil, "b": nil, "c": nil}
		var all []*kgo.Record
		now := midnight
		for range rapid.IntRange(0, 300).Draw(rt, "records") {
			topic := rapid.SampledFrom([]string{"a", "a", "a", "b", "b", "c"}).Draw(rt, "topic")
			now = now.Add(time.Millisecond)
			r := &kgo.Record{Topic: topic, Partition: 7, Offset: int64(2 * len(logs[topic])), Timestamp: now}
			logs[topic], all = append(logs[topic], r), append(all, r)
		}
		o := newInOrder([]string{"a", "b", "c"}, 3*share, overdueAfter, zaptest.NewLogger(t))
		start := map[string]logPlace{}
		for topic, log := range logs {
			start[topic] = logPlace{end: int64(2*len(log) - 1)}
		}
		o.read(7, start)
		at := map[string]int{}
		var released []*kgo.Record
		for len(released) < len(all) {
			var open []string
			for _, q := range o.parts[7] {
				if !q.paused && at[q.topic] < len(logs[q.topic]) {
					open = append(open, q.topic)
				}
			}
			require.NotEmpty(rt, open, "%d of %d are released, and what is left is not fetched", len(released), len(all))
			topic := rapid.SampledFrom(open).Draw(rt, "fetched")
			n := min(rapid.IntRange(1, fetch).Draw(rt, "n"), len(logs[topic])-at[topic])
			o.add(topic, &kgo.FetchPartition{Partition: 7, LastStableOffset: int64(2*len(logs[topic]) - 1), Records: logs[topic][at[topic] : at[topic]+n]})
			at[topic] += n
			released = o.release(released, midnight)
			o.throttle()
			for _, q := range o.parts[7] {
				require.LessOrEqual(rt, q.size, share+fetch*recordOverhead)
			}
		}
		require.Equal(rt, all, released)
	})
}

func TestATopicAtItsEndHoldsUpNobody(t *testing.T) {
	o := newInOrder([]string{"a", "b", "c"}, 1<<20, overdueAfter, zaptest.NewLogger(t))
	o.read(0, map[string]logPlace{"a": {offset: 5, end: 5}, "b": {end: 3}})
	o.add("b", fetched("b", 0, 1))
	require.Equal(t, []int64{0, 1}, offsetsOf(o.release(nil, midnight)))
	require.Zero(t, o.due())
}

func TestATopicThatBringsNothingIsWaitedForAWhileAndAgainOnceItBringsSomething(t *testing.T) {
	o := newInOrder([]string{"a", "b", "c"}, 1<<20, overdueAfter, zaptest.NewLogger(t))
	o.read(0, map[string]logPlace{"a": {end: 100}, "b": {end: 100}})
	release := func(after time.Duration) []int64 { return offsetsOf(o.release(nil, midnight.Add(after))) }
	o.add("b", fetched("b", 1))
	require.Empty(t, release(0))
	require.Equal(t, midnight.Add(overdueAfter), o.due())
	o.add("b", fetched("b", 2))
	require.Empty(t, release(overdueAfter-1))
	require.Equal(t, []int64{1, 2}, release(overdueAfter))
	require.Zero(t, o.due())
	o.add("b", fetched("b", 3))
	require.Equal(t, []int64{3}, release(overdueAfter), "it is away, and nobody waits for it each time anew")

	o.add("a", fetched("a", 3))
	o.add("b", fetched("b", 4))
	require.Equal(t, []int64{3}, release(overdueAfter))
	require.Equal(t, midnight.Add(2*overdueAfter), o.due())
}

func TestAPartitionThatIsNoLongerReadLeavesNothingBehind(t *testing.T) {
	o := newInOrder([]string{"a", "b", "c"}, 2*recordOverhead, overdueAfter, zaptest.NewLogger(t))
	o.read(0, map[string]logPlace{"a": {end: 100}, "b": {end: 100}})
	o.add("b", fetched("b", 0, 1))
	require.Empty(t, o.release(nil, midnight))
	pause, _ := o.throttle()
	require.Equal(t, map[string][]int32{"b": {0}}, pause)
	require.Equal(t, []string{"b"}, o.forget(0))
	o.add("b", fetched("b", 2))
	require.Empty(t, o.release(nil, midnight.Add(time.Hour)))
	require.Zero(t, o.due())
}

// fetched are records of a topic's partition 0 that is read up to 100; each was appended
// as many seconds after midnight as its offset says.
func fetched(topic string, offsets ...int64) *kgo.FetchPartition {
	p := &kgo.FetchPartition{LastStableOffset: 100}
	for _, o := range offsets {
		p.Records = append(p.Records, &kgo.Record{Topic: topic, Offset: o, Timestamp: midnight.Add(time.Duration(o) * time.Second)})
	}
	return p
}

func offsetsOf(records []*kgo.Record) (all []int64) {
	for _, r := range records {
		all = append(all, r.Offset)
	}
	return slices.Clip(all)
}

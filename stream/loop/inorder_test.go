package loop

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/stream"
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
			for _, q := range o.queuesOf(7) {
				if !q.paused && at[q.topic] < len(logs[q.topic]) {
					open = append(open, q.topic)
				}
			}
			require.NotEmpty(rt, open, "%d of %d are released, and what is left is not fetched", len(released), len(all))
			topic := rapid.SampledFrom(open).Draw(rt, "fetched")
			n := min(rapid.IntRange(1, fetch).Draw(rt, "n"), len(logs[topic])-at[topic])
			o.add(topic, &kgo.FetchPartition{Partition: 7, LastStableOffset: int64(2*len(logs[topic]) - 1), Records: logs[topic][at[topic] : at[topic]+n]})
			at[topic] += n
			for topic, log := range logs {
				if at[topic] == len(log) { // a fetch brings nothing but where it ends
					o.add(topic, &kgo.FetchPartition{Partition: 7, LastStableOffset: int64(2*len(log) - 1)})
				}
			}
			released = o.release(released, midnight)
			o.throttle()
			for _, q := range o.queuesOf(7) {
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

// One writer numbers what it says of a contact across two topics; what it wrote in one
// transaction is about as old on both. However the topics are fetched, the numbers of each
// contact are released in their order.
func TestNumberedRecordsOfAContactAreReleasedInTheOrderOfTheirNumbers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		topics := []string{"a", "b"}
		logs, numbers := map[string][]*kgo.Record{}, map[string]int64{}
		now, all := midnight, 0
		for range rapid.IntRange(1, 20).Draw(rt, "transactions") {
			now = now.Add(2 * headStart)
			appended := map[string]time.Time{}
			for _, topic := range topics {
				appended[topic] = now.Add(time.Duration(rapid.IntRange(0, int(headStart/time.Millisecond)-1).Draw(rt, "appended")) * time.Millisecond)
			}
			for range rapid.IntRange(1, 20).Draw(rt, "records") {
				topic := rapid.SampledFrom(topics).Draw(rt, "topic")
				contact := rapid.SampledFrom([]string{"c1", "c2", "c3", "c4"}).Draw(rt, "contact")
				if numbers[contact]++; numbers[contact] == 1 {
					topic = "a" // as contact.created; of who is not known yet, those of b are not waited for
				}
				logs[topic] = append(logs[topic], numbered(topic, int64(len(logs[topic])), contact, 100+numbers[contact], appended[topic]))
				all++
			}
		}
		o := newInOrder(topics, 1<<30, overdueAfter, zaptest.NewLogger(t))
		o.read(0, map[string]logPlace{"a": {end: int64(len(logs["a"]))}, "b": {end: int64(len(logs["b"]))}})
		at, last := map[string]int{}, map[string]int64{}
		for released := 0; released < all; {
			topic := rapid.SampledFrom(topics).Draw(rt, "fetched")
			n := min(rapid.IntRange(0, 30).Draw(rt, "n"), len(logs[topic])-at[topic])
			o.add(topic, &kgo.FetchPartition{LastStableOffset: int64(len(logs[topic])), Records: logs[topic][at[topic] : at[topic]+n]})
			at[topic] += n
			for _, r := range o.release(nil, midnight) {
				contact, seq := string(r.Key), stream.HeaderNumber(string(r.Headers[0].Value))
				if before := last[contact]; before > 0 {
					require.Equal(rt, before+1, seq, "of contact %s", contact)
				}
				last[contact] = seq
				released++
			}
		}
	})
}

func TestARecordThatLacksTheOneBeforeItWaitsAMomentForTheTopicThatIsAtItsEnd(t *testing.T) {
	begin := func() (*inOrder, func(after time.Duration) []int64) {
		o := newInOrder([]string{"a", "b"}, 1<<20, overdueAfter, zaptest.NewLogger(t))
		o.read(0, map[string]logPlace{"a": {end: 0}, "b": {end: 0}})
		o.add("b", &kgo.FetchPartition{LastStableOffset: 1, Records: []*kgo.Record{numbered("b", 0, "c", 1, midnight)}})
		o.add("a", &kgo.FetchPartition{LastStableOffset: 2, Records: []*kgo.Record{numbered("a", 0, "c", 2, midnight), numbered("a", 1, "c", 4, midnight)}})
		return o, func(after time.Duration) []int64 { return offsetsOf(o.release(nil, midnight.Add(after))) }
	}
	o, release := begin()
	require.Equal(t, []int64{0, 0}, release(0), "2, which nothing is known of, with a head start; then 1")
	require.Equal(t, midnight.Add(gapWait), o.due())
	o.add("b", &kgo.FetchPartition{LastStableOffset: 2, Records: []*kgo.Record{numbered("b", 1, "c", 3, midnight)}})
	require.Equal(t, []int64{1, 1}, release(1), "3, then 4")
	require.Zero(t, o.due())

	o, release = begin()
	require.Len(t, release(0), 2)
	require.Empty(t, release(gapWait-1))
	require.Equal(t, []int64{1}, release(gapWait), "it waits at the processor")
	require.Zero(t, o.due())
}

func TestATopicThatWasNotFetchedForAWhileIsAtItsEndOnlyWhenHeardOfAgain(t *testing.T) {
	begin := func() (*inOrder, func(after time.Duration) []int64) {
		o := newInOrder([]string{"a", "b"}, 2*recordOverhead, overdueAfter, zaptest.NewLogger(t))
		o.read(0, map[string]logPlace{"a": {end: 100}, "b": {end: 0}})
		first := fetched("a", 0, 1)
		first.LastStableOffset = 2
		o.parts[0].queues[0].end = 2
		o.add("a", first)
		pause, _ := o.throttle()
		require.Equal(t, map[string][]int32{"a": {0}}, pause)
		require.Equal(t, []int64{0, 1}, offsetsOf(o.release(nil, midnight)))
		_, resume := o.throttle()
		require.Equal(t, map[string][]int32{"a": {0}}, resume)
		o.add("b", fetched("b", 5))
		release := func(after time.Duration) []int64 { return offsetsOf(o.release(nil, midnight.Add(after))) }
		require.Empty(t, release(0), "there may be more of a by now")
		require.Equal(t, midnight.Add(unheardWait), o.due())
		return o, release
	}
	o, release := begin()
	o.add("a", &kgo.FetchPartition{LastStableOffset: 2})
	require.Equal(t, []int64{5}, release(1))

	o, release = begin()
	o.add("a", fetched("a", 3, 9))
	require.Equal(t, []int64{3, 5}, release(1))

	_, release = begin()
	require.Empty(t, release(unheardWait-1))
	require.Equal(t, []int64{5}, release(unheardWait))
}

// numbered is a record with a number of a contact.
func numbered(topic string, offset int64, contact string, seq int64, appended time.Time) *kgo.Record {
	return &kgo.Record{Topic: topic, Offset: offset, Key: []byte(contact), Timestamp: appended,
		Headers: []kgo.RecordHeader{{Key: stream.HeaderSeq, Value: strconv.AppendInt(nil, seq, 10)}}}
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

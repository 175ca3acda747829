package loop_test

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// formatted is the processor of a release that knows formats up to highest.
type formatted struct {
	copier
	highest int32
}

func (f formatted) Format() int32 { return f.highest }

// formats notes in which format the records of a partition were applied last.
type formats struct {
	mu sync.Mutex
	of map[string]int32 // by topic/partition/offset
}

func (f *formats) note(b *loop.Batch, r *stream.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil {
		f.of = map[string]int32{}
	}
	f.of[copied{r}.text()] = b.Format(r.Partition)
	return nil
}

func (f *formats) all() map[string]int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.of)
}

// release makes an instance of a release that knows formats up to highest.
func (f *formats) release(highest int32) func(*loop.Config) {
	return func(c *loop.Config) {
		c.Processor = formatted{copier{topics: []schemas.Topic{schemas.TopicIngest}, extra: f.note}, highest}
	}
}

func TestASingleInstanceWritesTheHighestFormatFromItsFirstRecordOn(t *testing.T) {
	r, f := newRig(t, 1), &formats{}
	r.give(schemas.TopicIngest, 0, 3)
	a := r.start("a", f.release(3))
	r.awaitOutputs(3)
	require.Equal(t, map[string]int32{"ingest/0/0": 3, "ingest/0/1": 3, "ingest/0/2": 3}, f.all())
	a.stop()
	require.EqualValues(t, 3, r.row(0).Format)
	require.Empty(t, r.fault())
}

func TestNothingIsWrittenInAFormatThatOneMemberOfTheGroupCannotRead(t *testing.T) {
	r, f := newRig(t, 2), &formats{}
	older := r.start("older", f.release(1))
	newer := r.start("newer", f.release(2))
	give := func() {
		for p := range r.partitions {
			r.give(schemas.TopicIngest, p, 1)
		}
	}
	r.eventually("both are members", func() bool { return r.members() == 2 })
	give()
	r.awaitOutputs(2)
	require.Equal(t, []int32{1, 1}, slices.Collect(maps.Values(f.all())))

	older.stop() // it stays a member, for it may come back
	give()
	r.awaitOutput("ingest/0/1")
	require.EqualValues(t, 1, f.all()["ingest/0/1"])
	r.expel("older") // as the coordinator does when its session has run out
	r.awaitOutputs(4)
	r.eventually("both partitions rise", func() bool {
		give()
		return r.row(0).Format == 2 && r.row(1).Format == 2
	})
	newer.stop()
	require.Empty(t, r.fault())
}

func TestAMemberOfAnOlderReleaseThatTakesThePlaceOfANewerOneIsHeardOf(t *testing.T) {
	r, f := newRig(t, 2), &formats{}
	r.start("a", f.release(2))
	b, c := r.start("b", f.release(2)), r.start("c", f.release(1)) // c holds the format back
	r.eventually("all are members", func() bool { return r.members() == 3 })
	b.stop()
	r.start("b", f.release(1)) // within its session: a static member comes back to its place
	r.eventually("it is of the older release", func() bool { return slices.Equal([]int32{1, 1, 2}, slices.Sorted(slices.Values(r.knows()))) })
	c.stop()
	r.start("c", f.release(2))
	r.eventually("it holds nothing back", func() bool { return slices.Equal([]int32{1, 2, 2}, slices.Sorted(slices.Values(r.knows()))) })
	for p := range r.partitions {
		r.give(schemas.TopicIngest, p, 1)
	}
	r.awaitOutputs(2)
	require.Equal(t, map[string]int32{"ingest/0/0": 1, "ingest/1/0": 1}, f.all())
	require.Empty(t, r.fault())
}

func TestAPartitionOfANewerFormatIsLeftAloneAndTheOthersGoOn(t *testing.T) {
	r, f := newRig(t, 2), &formats{}
	for p := range r.partitions {
		r.give(schemas.TopicIngest, p, 2)
	}
	first := r.start("a", f.release(1))
	first.stopAfter(4)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `UPDATE processor_progress SET format = 2 WHERE partition = 1`)
	require.NoError(t, err)

	older := r.start("a", f.release(1))
	for p := range r.partitions {
		r.give(schemas.TopicIngest, p, 2)
	}
	r.awaitOutput("ingest/0/3")
	r.eventually("it says so", func() bool { return len(older.loop.Stopped()) == 1 })
	stopped := older.loop.Stopped()[0]
	require.EqualValues(t, 1, stopped.Partition)
	require.True(t, stopped.Newer)
	require.Equal(t, "its state is in format 2, which a newer release writes, and this one knows up to 1: "+
		"it is left to the instances of that release; upgrade this one", stopped.Reason)
	require.NoError(t, older.loop.Ready(), "it is no outage")
	seen, err := loop.ListFormats(t.Context(), r.openAdmin(), r.db, "copier", 2)
	require.NoError(t, err)
	require.Equal(t, loop.Formats{Partitions: map[int32][]int32{1: {0}, 2: {1}}, Holding: []string{"a-copier-0"}}, seen)
	older.stop()
	require.EqualValues(t, 2, r.row(1).Ranges["ingest"].Next, "nothing of it was touched")
	require.Nil(t, r.row(1).Pending)

	r.start("a", f.release(2))
	r.awaitOutputs(8)
	require.EqualValues(t, 2, f.all()["ingest/1/3"])
	require.Empty(t, r.fault())
}

func TestAPartitionThatANewerReleaseRaisedBehindAStaleOwnersBackIsLeftAlone(t *testing.T) {
	r, f := newRig(t, 1), &formats{}
	r.give(schemas.TopicIngest, 0, 1)
	stale := r.prepare("a", unaware, f.release(1))
	applying := stale.at(loop.StepApplying)
	stale.run()
	applying.await(t)
	r.expel("a")
	r.start("b", f.release(2))
	r.awaitOutput("ingest/0/0")
	require.EqualValues(t, 2, r.row(0).Format)
	applying.pass(nil)
	r.eventually("it says so", func() bool { return len(stale.loop.Stopped()) == 1 })
	r.give(schemas.TopicIngest, 0, 1)
	r.awaitOutput("ingest/0/1")
	require.Equal(t, map[string]int32{"ingest/0/0": 2, "ingest/0/1": 2}, f.all())
	require.Empty(t, r.fault())
}

// members is how many members the group has, once it is stable.
func (r *rig) members() int { return len(r.knows()) }

// knows are the highest formats of the members; nil while the group rebalances.
func (r *rig) knows() []int32 {
	r.t.Helper()
	groups, err := r.admin.DescribeGroups(r.t.Context(), r.direct.Group("copier"))
	require.NoError(r.t, err)
	group := groups[r.direct.Group("copier")]
	if group.State != "Stable" {
		return nil
	}
	var all []int32
	for _, m := range group.Members {
		joined, ok := m.Join.AsConsumer()
		require.True(r.t, ok)
		var format int32
		_, err := fmt.Sscanf(string(joined.UserData), "hogstream format %d", &format)
		require.NoError(r.t, err)
		all = append(all, format)
	}
	return all
}

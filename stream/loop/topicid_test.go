package loop_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestAProcessorStopsVisiblyOnALogThatWasMadeAnewUntilAnOperatorNamesAPlace(t *testing.T) {
	for name, down := range map[string]bool{"while the process runs": false, "while it is down": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			r.giveBoth(10)
			a := r.start("a")
			r.awaitOutputs(20)
			if down {
				a.stop()
			}
			r.recreate(schemas.TopicIngest)
			r.giveBoth(15)
			if down {
				a = r.start("a")
			}
			r.eventually("both partitions are stopped", func() bool { return len(a.loop.Stopped()) == 2 })
			for _, stopped := range a.loop.Stopped() {
				require.Contains(t, stopped.Reason, "topic ingest was deleted and made anew")
				require.Contains(t, stopped.Reason, "hogstream processors accept copier --partition")
				require.Contains(t, stopped.Reason, "hogstream processors rebuild copier")
			}
			admin := r.openAdmin()
			list, err := loop.ListProcessor(t.Context(), admin, r.db, "copier")
			require.NoError(t, err)
			for _, p := range list {
				require.EqualValues(t, 15, p.Topics[0].Lag)
				require.Contains(t, p.Topics[0].Stopped, "made anew")
			}
			r.awaitLag(admin, 30)
			require.Equal(t, 20, r.applied(), "nothing of the log made anew")

			for p := range r.partitions {
				require.NoError(t, loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, p, map[schemas.Topic]int64{schemas.TopicIngest: 0}))
			}
			r.awaitOutputs(50) // without a restart
			require.Empty(t, a.loop.Stopped())
			r.giveBoth(5)
			r.awaitOutputs(60)
			r.awaitLag(admin, 0)
			a.stop()
			require.Equal(t, 60, r.count())
			now, err := admin.TopicIDs(t.Context(), schemas.TopicIngest)
			require.NoError(t, err)
			require.Equal(t, now[schemas.TopicIngest], r.row(0).Ranges["ingest"].TopicID)
		})
	}
}

// One partition after the other is accepted: what one reads is never read for the
// other at its former offset.
func TestAPartitionThatIsAcceptedLeavesTheOthersOfItsTopicStopped(t *testing.T) {
	r := newRig(t, 2)
	r.giveBoth(10)
	a := r.start("a")
	r.awaitOutputs(20)
	r.recreate(schemas.TopicIngest)
	r.giveBoth(15)
	r.eventually("both partitions are stopped", func() bool { return len(a.loop.Stopped()) == 2 })
	admin := r.openAdmin()
	require.NoError(t, loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, 1, map[schemas.Topic]int64{schemas.TopicIngest: 0}))
	r.awaitOutputs(35)
	require.Len(t, a.loop.Stopped(), 1)
	require.NoError(t, loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, 0, map[schemas.Topic]int64{schemas.TopicIngest: 5}))
	r.awaitOutputs(45)
	require.Empty(t, a.loop.Stopped())
}

func TestProgressFromBeforeIdsWereKeptLearnsThemAtItsNextWrite(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(3)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `UPDATE processor_progress SET ranges = ranges #- '{ingest,topicId}'`)
	require.NoError(t, err)
	require.Equal(t, uuid.Nil, r.row(0).Ranges["ingest"].TopicID)
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(6)
	require.NotEqual(t, uuid.Nil, r.row(0).Ranges["ingest"].TopicID)
	require.Empty(t, r.fault())
}

// giveBoth appends n records to each partition of `ingest`.
func (r *rig) giveBoth(n int) {
	r.t.Helper()
	for p := range r.partitions {
		r.give(schemas.TopicIngest, p, n)
	}
}

func (r *rig) recreate(topic schemas.Topic) {
	r.t.Helper()
	r.env.Recreate(topic)
	r.client.PurgeTopicsFromClient(r.direct.Topic(topic))
}

// awaitLag waits until the processor's group is so many records behind.
func (r *rig) awaitLag(admin *stream.Admin, want int64) {
	r.t.Helper()
	r.eventually("the lag", func() bool {
		lags, err := admin.LagWithOrphans(r.t.Context(), r.db)
		require.NoError(r.t, err)
		for _, g := range lags {
			if g.Group == "copier" {
				return g.Lag == want
			}
		}
		return false
	})
}

func TestABrokerThatReportsNoIdsStopsNoProcessor(t *testing.T) {
	r := newRigOn(t, storagetest.New(t), 1, streamtest.WithoutTopicIDs())
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(3)
	require.Equal(t, uuid.Nil, r.row(0).Ranges["ingest"].TopicID)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `UPDATE processor_progress SET ranges = jsonb_set(ranges, '{ingest,topicId}', to_jsonb(gen_random_uuid()))`)
	require.NoError(t, err)
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(6)
	require.Empty(t, r.fault())
}

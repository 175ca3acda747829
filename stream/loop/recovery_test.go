package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

func reads(topics ...schemas.Topic) func(*loop.Config) {
	return func(c *loop.Config) { c.Processor = copier{topics: topics} }
}

func idleSoon(c *loop.Config) { c.Timing().Idle = 20 * time.Millisecond }

// moveGroup sets the group's offset by hand, as kafka-consumer-groups would.
func (r *rig) moveGroup(instance string, topic schemas.Topic, partition int32, at int64) {
	r.t.Helper()
	r.expel(instance)
	set := kadm.Offsets{}
	set.AddOffset(r.direct.Topic(topic), partition, at, -1)
	require.NoError(r.t, r.admin.CommitAllOffsets(r.t.Context(), r.direct.Group("copier"), set))
}

func (r *rig) openAdmin() *stream.Admin {
	r.t.Helper()
	a, err := stream.OpenAdmin(r.direct, nil)
	require.NoError(r.t, err)
	r.t.Cleanup(a.Close)
	return a
}

func TestAProcessorStartsAtTheStartOfTheLog(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	r.truncate(schemas.TopicIngest, 0, 4)
	r.start("a").stopAfter(6)
	require.Empty(t, r.fault())
	require.Equal(t, 6, r.applied())
}

// truncate moves the start of the log, as retention does.
func (r *rig) truncate(topic schemas.Topic, partition int32, to int64) {
	r.t.Helper()
	set := kadm.Offsets{}
	set.AddOffset(r.direct.Topic(topic), partition, to, -1)
	done, err := r.admin.DeleteRecords(r.t.Context(), set)
	require.NoError(r.t, err)
	require.NoError(r.t, done.Error())
}

func TestAnOffsetMovedByHandStopsThePartitionUntilAnOperatorNamesAPlace(t *testing.T) {
	r := newRig(t, 2)
	r.give(schemas.TopicIngest, 0, 10)
	r.give(schemas.TopicIngest, 1, 10)
	r.start("a").stopAfter(20)
	r.moveGroup("a", schemas.TopicIngest, 0, 3)
	r.give(schemas.TopicIngest, 0, 5)
	r.give(schemas.TopicIngest, 1, 5)

	a := r.start("a")
	r.awaitOutputs(25) // the other partition goes on
	r.eventually("the partition is stopped", func() bool { return len(a.loop.Stopped()) == 1 })
	why := a.loop.Stopped()[0]
	require.EqualValues(t, 0, why.Partition)
	require.Contains(t, why.Reason, "the group stands at 3, the row at [10,10)", "it names both offsets")
	require.Contains(t, why.Reason, "hogstream processors accept copier --partition 0")
	require.Contains(t, why.Reason, "hogstream processors rebuild copier")

	admin := r.openAdmin()
	err := loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, 0, map[schemas.Topic]int64{schemas.TopicIngest: 99})
	require.ErrorIs(t, err, loop.ErrOffset)
	err = loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, 99, map[schemas.Topic]int64{schemas.TopicIngest: 0})
	require.ErrorContains(t, err, "no such partition")
	require.NoError(t, loop.AcceptOffsets(t.Context(), admin, r.db, "copier", 1, 0, map[schemas.Topic]int64{schemas.TopicIngest: 10}))
	r.awaitOutputs(30) // without a restart
	require.Empty(t, a.loop.Stopped())
	a.stop()
	require.Empty(t, r.fault())

	list, err := loop.ListProcessor(t.Context(), admin, r.db, "copier")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, []loop.TopicPosition{{Topic: schemas.TopicIngest, From: 15, Next: 15, Committed: 15, Start: 0, End: 15}}, list[0].Topics)
	require.True(t, list[0].Published)
}

func TestALostDatabaseStopsThePartition(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(3)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `DELETE FROM processor_progress`)
	require.NoError(t, err)
	a := r.start("a")
	r.eventually("the partition is stopped", func() bool { return len(a.loop.Stopped()) == 1 })
	require.Contains(t, a.loop.Stopped()[0].Reason, "the group stands at 3, no row")
}

func TestRecordsLostToRetentionStopThePartition(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a").stopAfter(3)
	r.give(schemas.TopicIngest, 0, 5)
	r.truncate(schemas.TopicIngest, 0, 5)
	a := r.start("a")
	r.eventually("the partition is stopped", func() bool { return len(a.loop.Stopped()) == 1 })
	require.Contains(t, a.loop.Stopped()[0].Reason, "now starts at 5; records from 3 on were removed")
}

func TestExpiredOffsetsWithAnUnpublishedRangeStopThePartition(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 3)
	a := r.prepare("a")
	applied := a.at(loop.StepApplied)
	a.run()
	applied.await(t)
	applied.pass(loop.ErrCrash)
	a.wait()
	r.expireOffsets("a", schemas.TopicIngest)
	a = r.start("a")
	r.eventually("the partition is stopped", func() bool { return len(a.loop.Stopped()) == 1 })
	require.Contains(t, a.loop.Stopped()[0].Reason, "no offset, the row at [0,3)")
}

func TestAnIdlePartitionMovesOverTransactionMarkersAndOutlivesRetentionAndExpiry(t *testing.T) {
	r := newRig(t, 1)
	// Two transactions: markers at offsets 3 and 7, the second is aborted.
	r.giveInTransaction(schemas.TopicIngest, 0, 3, kgo.TryCommit)
	r.giveInTransaction(schemas.TopicIngest, 0, 3, kgo.TryAbort)
	a := r.prepare("a", idleSoon)
	tidied := a.at(loop.StepTidied)
	a.run()
	r.awaitOutputs(3)
	tidied.await(t)
	tidied.pass(nil)
	r.eventually("the committed offset is the log's end", func() bool { return r.committed(schemas.TopicIngest, 0) == 8 })
	r.eventually("the row is published", func() bool { return r.row(0).Published })
	a.kill() // no graceful stop is needed
	a.wait()

	r.truncate(schemas.TopicIngest, 0, 8)
	r.expireOffsets("a", schemas.TopicIngest)
	r.give(schemas.TopicIngest, 0, 2)
	r.start("a").stopAfter(5)
	require.Empty(t, r.fault())
}

// giveInTransaction appends n records in a transaction of their own.
func (r *rig) giveInTransaction(topic schemas.Topic, partition int32, n int, end kgo.TransactionEndTry) {
	r.t.Helper()
	client := r.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("input"))
	defer client.Close()
	require.NoError(r.t, client.BeginTransaction())
	for range n {
		require.NoError(r.t, client.ProduceSync(r.t.Context(), r.input(topic, partition, "x")).FirstErr())
	}
	require.NoError(r.t, client.EndTransaction(r.t.Context(), end))
}

func TestAProcessorOfSeveralTopicsCommitsThemTogether(t *testing.T) {
	topics := reads(schemas.TopicIngest, schemas.TopicSignals)
	for _, step := range stepsOfABatch {
		t.Run("crash when "+step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 5)
			a := r.start("a", topics)
			r.awaitOutputs(5)
			a.stop() // from here on each apply reads one topic, the other, or both
			r.give(schemas.TopicSignals, 0, 5)
			a = r.prepare("a", topics)
			g := a.at(step)
			a.run()
			g.await(t)
			g.pass(loop.ErrCrash)
			a.wait()
			r.give(schemas.TopicIngest, 0, 5)
			r.give(schemas.TopicSignals, 0, 5)
			r.start("a", topics).stopAfter(20)
			require.Empty(t, r.fault())
			require.EqualValues(t, 10, r.committed(schemas.TopicIngest, 0))
			require.EqualValues(t, 10, r.committed(schemas.TopicSignals, 0))
		})
	}
}

func TestAProcessorThatGainsATopicInAnUpgradeGoesOnByItself(t *testing.T) {
	for _, step := range []string{loop.StepCommitted, loop.StepApplied} {
		t.Run("the old version died when "+step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 5)
			r.give(schemas.TopicSignals, 0, 5)
			a := r.prepare("a")
			g := a.at(step)
			a.run()
			g.await(t)
			g.pass(loop.ErrCrash)
			a.wait()
			r.start("a", reads(schemas.TopicIngest, schemas.TopicSignals)).stopAfter(10)
			require.Empty(t, r.fault())
			require.Equal(t, 10, r.applied())
		})
	}
}

func TestAProcessorThatLosesATopicInAnUpgradeStillPublishesWhatItAppliedOfIt(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicSignals, 0, 5)
	a := r.prepare("a", reads(schemas.TopicIngest, schemas.TopicSignals))
	g := a.at(loop.StepApplied)
	a.run()
	g.await(t)
	g.pass(loop.ErrCrash)
	a.wait()
	r.give(schemas.TopicIngest, 0, 5)
	r.start("a").stopAfter(10)
	require.Empty(t, r.fault())
}

func TestARecordThatFailsIsFoundByHalvingAndBecomesADeadLetter(t *testing.T) {
	for name, kind := range map[string]struct {
		fail func() error
		text string
	}{
		"error": {func() error { return errors.New("seventh heaven") }, "seventh heaven"},
		"panic": {func() error { panic("ada@example.com") }, "panic: a value of type string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			poison := r.input(schemas.TopicIngest, 0, "poison")
			r.give(schemas.TopicIngest, 0, 40)
			require.NoError(t, r.client.ProduceSync(t.Context(), poison).FirstErr())
			r.give(schemas.TopicIngest, 0, 40)
			r.give(schemas.TopicIngest, 1, 40)
			calls := 0
			a := r.start("a", func(c *loop.Config) {
				c.Processor = copier{topics: []schemas.Topic{schemas.TopicIngest}, before: func() { calls++ }, extra: func(_ *loop.Batch, rec *stream.Record) error {
					if string(rec.Value) == "poison" {
						return kind.fail()
					}
					return nil
				}}
			})
			r.awaitOutputs(120)
			a.stop()
			require.Empty(t, r.fault())
			letters := r.env.ReadAll(schemas.TopicDeadLetters, true)
			require.Len(t, letters, 1, "exactly once, like any output")
			require.Contains(t, string(letters[0].Value), "failed ingest/0/40")
			require.Contains(t, string(letters[0].Value), kind.text)
			require.Equal(t, string(poison.Key), string(letters[0].Key))
			require.Less(t, calls, 40, "by halving, not one by one")
		})
	}
}

// megabytes encodes outputs of a MiB each.
type megabytes struct{ plainText }

func (e megabytes) Encode(m schemas.Message) ([]byte, error) {
	text, err := e.plainText.Encode(m)
	if _, ok := m.(copied); ok {
		text = append(text, make([]byte, 1<<20)...)
	}
	return text, err
}

func TestABacklogOfLargeOutputsIsWorkedOffInSmallerBatches(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 150)
	largest, calls := 0, 0
	a := r.start("a", func(c *loop.Config) {
		c.Encoder = megabytes{}
		emitted := 0
		c.Processor = copier{topics: []schemas.Topic{schemas.TopicIngest}, before: func() { emitted, calls = 0, calls+1 },
			extra: func(*loop.Batch, *stream.Record) error {
				emitted++
				largest = max(largest, emitted)
				return nil
			}}
	})
	r.eventually("all are applied", func() bool { return r.committed(schemas.TopicIngest, 0) == 150 })
	a.stop()
	require.Equal(t, 150, r.applied())
	require.LessOrEqual(t, largest, 64, "a batch ends where it becomes too large")
	require.Less(t, calls, 20)
	require.Empty(t, r.env.ReadAll(schemas.TopicDeadLetters, true))
}

func TestABatchThatLostARaceInPostgresIsRunAgain(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	failures := 3
	a := r.start("a", func(c *loop.Config) {
		c.Processor = copier{topics: []schemas.Topic{schemas.TopicIngest}, tx: func(ctx context.Context, tx *storage.Tx) error {
			if failures--; failures >= 0 {
				_, err := storagetest.SQL(tx).Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$`)
				return err
			}
			return nil
		}}
	})
	a.stopAfter(10)
	require.Empty(t, r.fault())
	require.Empty(t, r.env.ReadAll(schemas.TopicDeadLetters, true))
}

func TestADefectOfOursInPostgresIsWaitedOutAndIsNoPoison(t *testing.T) {
	r := newRig(t, 1)
	_, err := storagetest.SQL(r.db).Exec(t.Context(), `ALTER TABLE applied RENAME TO missing`)
	require.NoError(t, err)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.start("a")
	r.eventually("it says what it waits for", func() bool { return a.loop.Ready() != nil })
	require.ErrorContains(t, a.loop.Ready(), `relation "applied" does not exist`)
	_, err = storagetest.SQL(r.db).Exec(t.Context(), `ALTER TABLE missing RENAME TO applied`)
	require.NoError(t, err)
	a.stopAfter(10)
	require.NoError(t, a.loop.Ready())
	require.Empty(t, r.fault())
	require.Empty(t, r.env.ReadAll(schemas.TopicDeadLetters, true))
}

func TestAnOutageOfTheRegistryIsWaitedOutWhateverItAnswers(t *testing.T) {
	for _, status := range []int{503, 429, 401, 404} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			var down atomic.Bool
			down.Store(true)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if down.Load() {
					http.Error(w, "<html>a proxy</html>", status)
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]string{"schema": `"string"`})
			}))
			t.Cleanup(server.Close)
			registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{server.URL}})
			require.NoError(t, err)
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 10)
			a := r.start("a", func(c *loop.Config) {
				c.Processor = copier{topics: []schemas.Topic{schemas.TopicIngest}, extra: func(*loop.Batch, *stream.Record) error {
					_, err := registry.Codec().DecodeEvent([]byte{0, 0, 0, 0, 99, 0})
					if errors.Is(err, schemas.ErrUndecodable) {
						return nil // the registry has spoken
					}
					return err
				}}
			})
			r.eventually("it says what it waits for", func() bool { return a.loop.Ready() != nil })
			require.ErrorIs(t, a.loop.Ready(), schemas.ErrRegistryUnavailable)
			down.Store(false)
			a.stopAfter(10)
			require.Empty(t, r.fault())
			require.Empty(t, r.env.ReadAll(schemas.TopicDeadLetters, true))
		})
	}
}

func TestAnOutageOfPostgresIsWaitedOut(t *testing.T) {
	server := storagetest.NewServer(t)
	r := newRigOn(t, server.DB(), 1)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.start("a")
	r.awaitOutputs(10)
	server.Stop()
	r.give(schemas.TopicIngest, 0, 10)
	r.eventually("it says that it waits", func() bool { return a.loop.Ready() != nil })
	server.Start()
	a.stopAfter(20)
	require.Empty(t, r.fault())
}

func TestAnOutageOfTheBrokerIsWaitedOut(t *testing.T) {
	for _, step := range []string{loop.StepApplied, loop.StepBegun, loop.StepSent} {
		t.Run("it begins when "+step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 10)
			a := r.prepare("a", func(c *loop.Config) { c.Timing().Txn = 500 * time.Millisecond })
			g := a.at(step)
			a.run()
			g.await(t)
			r.env.Network.Cut()
			g.pass(nil)
			r.eventually("it says that it waits", func() bool { return a.loop.Ready() != nil })
			r.env.Network.Heal()
			r.give(schemas.TopicIngest, 0, 10)
			a.stopAfter(20)
			require.Empty(t, r.fault())
			require.Equal(t, 20, r.applied())
		})
	}
}

func TestATwinOfThisInstanceEndsTheProcess(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.start("a")
	r.awaitOutputs(10)
	b := r.start("a")
	a.wait() // the later one goes on
	require.ErrorIs(t, a.err, stream.ErrTwin)
	r.give(schemas.TopicIngest, 0, 10)
	b.stopAfter(20)
	require.Empty(t, r.fault())
}

func TestAFencedOrTimedOutProducerIsMadeAnewAndIsNoTwin(t *testing.T) {
	r := newRig(t, 1)
	r.give(schemas.TopicIngest, 0, 10)
	a := r.prepare("a")
	produced := a.at(loop.StepBegun)
	a.run()
	produced.await(t)
	// Somebody takes the transactional id, as an operator's abort would.
	thief := r.newClient(kgo.TransactionalID(r.direct.Group("a.copier.0")))
	_, _, err := thief.ProducerID(t.Context())
	require.NoError(t, err)
	produced.pass(nil)
	a.stopAfter(10)
	require.Empty(t, r.fault())
}

func TestWorkersShareThePartitions(t *testing.T) {
	r := newRig(t, 4)
	for p := range int32(4) {
		r.give(schemas.TopicIngest, p, 10)
	}
	a := r.start("a", func(c *loop.Config) { c.Workers = 2 })
	r.awaitOutputs(40)
	a.stop()
	require.Empty(t, r.fault())
}

func TestAGracefulRestartMovesNoPartition(t *testing.T) {
	r := newRig(t, 2)
	r.give(schemas.TopicIngest, 0, 1)
	a, b := r.start("a"), r.start("b")
	r.awaitOutputs(1)
	generation := func() string {
		groups, err := r.admin.DescribeGroups(t.Context(), r.direct.Group("copier"))
		require.NoError(t, err)
		g := groups[r.direct.Group("copier")]
		owners := ""
		for _, m := range g.Members {
			owners += fmt.Sprint(*m.InstanceID, " ")
		}
		return g.State + " " + owners
	}
	r.eventually("both are members", func() bool { return generation() == "Stable a-copier-0 b-copier-0 " })
	a.stop()
	require.Equal(t, "Stable a-copier-0 b-copier-0 ", generation())
	a = r.start("a")
	r.give(schemas.TopicIngest, 0, 5)
	r.give(schemas.TopicIngest, 1, 5)
	r.awaitOutputs(11)
	require.Equal(t, "Stable a-copier-0 b-copier-0 ", generation())
	a.stop()
	b.stop()
	require.Empty(t, r.fault())
}

func TestOutputsCarryTheHeadersOfTheirMessageAndTheTraceOfTheirCause(t *testing.T) {
	for _, crash := range []bool{false, true} {
		t.Run(fmt.Sprintf("published after a crash: %v", crash), func(t *testing.T) {
			r := newRig(t, 1)
			r.give(schemas.TopicIngest, 0, 1)
			a := r.prepare("a")
			if crash {
				g := a.at(loop.StepApplied)
				a.run()
				g.await(t)
				g.pass(loop.ErrCrash)
				a.wait()
				a = r.prepare("a")
			}
			a.run()
			r.awaitOutputs(1)
			out := r.env.ReadAll(schemas.TopicEvents, true)[0]
			require.Equal(t, "ingest/0/0", out.ID)
			require.Equal(t, "copied", out.Type)
			require.Equal(t, "00-trace-01", out.TraceParent)
			require.Equal(t, outputTime, out.OccurredAt)
			require.Equal(t, string(r.keys[0]), string(out.Key))
		})
	}
}

package loop_test

import (
	"math"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Redpanda answers so to offsets in a transaction while a group rebalances.
func TestARebalanceThatAnswersConcurrentTransactionsIsNoOutage(t *testing.T) {
	for name, refusals := range map[string]int64{"for a moment": 3, "for longer than a transaction waits": 45} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, streamtest.FakeOnly())
			a := r.start("a")
			r.give(schemas.TopicIngest, 0, 1)
			r.awaitOutputs(1)
			asked, _ := r.refuseOffsets(refusals)
			aborts := r.countAborts()
			r.give(schemas.TopicIngest, 0, 1)
			r.eventually("the offsets to be taken", func() bool {
				require.NoError(t, a.loop.Ready(), "a rebalance is no trouble")
				return asked.Load() > refusals
			})
			r.awaitOutput("ingest/0/1")
			require.Empty(t, r.fault())
			require.Equal(t, name != "for a moment", aborts.Load() > 0, "a transaction is given up only when the answer stays")
			a.stop()
		})
	}
}

func TestAnOwnerThatIsAnsweredConcurrentTransactionsPublishesNothingOnceItIsExpelled(t *testing.T) {
	r := newRig(t, 1, streamtest.FakeOnly())
	a := r.prepare("a", unaware)
	applied := a.at(loop.StepApplied)
	asked, takeThem := r.refuseOffsets(math.MaxInt64)
	a.run()
	r.give(schemas.TopicIngest, 0, 1)
	applied.await(t)
	applied.pass(nil)
	r.eventually("a to ask", func() bool { return asked.Load() > 0 })
	r.expel("a")
	takeThem()
	r.start("b")
	r.awaitOutput("ingest/0/0")
	require.Empty(t, r.fault())
	require.Equal(t, 1, r.count())
}

// refuseOffsets answers so many requests with offsets in a transaction with
// CONCURRENT_TRANSACTIONS, and takes those after them, or all once takeThem is
// called. It counts all of them.
func (r *rig) refuseOffsets(times int64) (asked *atomic.Int64, takeThem func()) {
	asked = new(atomic.Int64)
	var refused atomic.Int64
	refused.Store(times)
	r.env.Cluster.ControlKey(int16(kmsg.TxnOffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		r.env.Cluster.KeepControl()
		if asked.Add(1) > refused.Load() {
			return nil, nil, false
		}
		req := kreq.(*kmsg.TxnOffsetCommitRequest)
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, topic := range req.Topics {
			rt := kmsg.NewTxnOffsetCommitResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.ConcurrentTransactions.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	return asked, func() { refused.Store(0) }
}

// countAborts counts how often a transactional id is taken anew, which aborts what
// it has open.
func (r *rig) countAborts() *atomic.Int64 {
	var aborts atomic.Int64
	r.env.Cluster.ControlKey(int16(kmsg.InitProducerID), func(kmsg.Request) (kmsg.Response, error, bool) {
		aborts.Add(1)
		r.env.Cluster.KeepControl()
		return nil, nil, false
	})
	return &aborts
}

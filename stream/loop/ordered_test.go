package loop_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// heard notes when records were appended, in the order in which they are applied.
type heard struct {
	mu    sync.Mutex
	times []time.Time
}

func (h *heard) note(_ *loop.Batch, r *stream.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.times = append(h.times, r.AppendTime)
	return nil
}

// early is how many were applied before one that was appended earlier.
func (h *heard) early() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := time.Now().Add(time.Hour)
	for i := len(h.times) - 1; i >= 0; i-- {
		if h.times[i].After(first) {
			n++
		}
		if h.times[i].Before(first) {
			first = h.times[i]
		}
	}
	return n
}

// One of two topics has much larger records, so that a fetch brings far more of the other;
// the process dies in the middle.
func TestABacklogOfSeveralTopicsIsAppliedInTheOrderInWhichItWasAppended(t *testing.T) {
	for name, large := range map[string]schemas.Topic{"events are large": schemas.TopicResolved, "lifecycle is large": schemas.TopicIngest} {
		t.Run(name, func(t *testing.T) {
			run := func(opts ...func(*loop.Config)) int {
				r, h := newRig(t, 1), &heard{}
				client := r.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))
				for range 400 {
					for _, topic := range []schemas.Topic{schemas.TopicResolved, schemas.TopicIngest} {
						value := "x"
						if topic == large {
							value = strings.Repeat("x", 20_000)
						}
						require.NoError(t, client.ProduceSync(t.Context(), r.input(topic, 0, value)).FirstErr())
					}
				}
				opts = append(opts, func(c *loop.Config) {
					c.Processor = copier{topics: []schemas.Topic{schemas.TopicResolved, schemas.TopicIngest}, extra: h.note}
					c.MaxBatchRecords = 50
				})
				p := r.prepare("a", opts...)
				held := p.at(loop.StepBegun)
				p.run()
				held.await(t)
				held.pass(loop.ErrCrash)
				p.wait()
				before := h.early()
				h.times = nil
				p = r.start("a", opts...)
				p.stopAfter(800)
				require.Empty(t, r.fault())
				return before + h.early()
			}
			require.Zero(t, run())
			require.Greater(t, run((*loop.Config).Unordered), 100)
		})
	}
}

// A topic whose leader is away holds the others up for a while, not for ever.
func TestATopicThatCannotBeReadDoesNotHoldUpTheOthersForEver(t *testing.T) {
	r := newRig(t, 1)
	topics := []schemas.Topic{schemas.TopicResolved, schemas.TopicIngest}
	open := r.newClient(kgo.TransactionalID("open"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, open.BeginTransaction())
	require.NoError(t, open.ProduceSync(t.Context(), r.input(schemas.TopicResolved, 0, "not to be read yet")).FirstErr())
	r.give(schemas.TopicIngest, 0, 3)
	r.start("a", func(c *loop.Config) {
		c.Processor = copier{topics: topics}
		c.Timing().Overdue = 100 * time.Millisecond
	})
	r.awaitOutputs(3)
	require.NoError(t, open.EndTransaction(t.Context(), kgo.TryCommit))
	r.awaitOutputs(4)
	require.Empty(t, r.fault())
}

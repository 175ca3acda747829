package loop_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// passer publishes an output for each record and keeps no state of its own, so
// that what is measured is the loop: fetch, progress rows, publish.
type passer struct {
	copier
	payload []byte
}

func (p passer) Apply(_ context.Context, _ *storage.Tx, b *loop.Batch) error {
	for _, r := range b.Records {
		if err := b.Emit(r, passed{r, p.payload}); err != nil {
			return err
		}
	}
	return nil
}

type passed struct {
	from  *stream.Record
	value []byte
}

func (passed) Topic() schemas.Topic { return schemas.TopicEvents }
func (p passed) Key() string        { return string(p.from.Key) }
func (p passed) Meta() schemas.Meta {
	return schemas.Meta{ID: p.from.ID, Type: "passed", OccurredAt: outputTime}
}

// passEncoder takes the value as it is.
type passEncoder struct{}

func (passEncoder) Encode(m schemas.Message) ([]byte, error) { return m.(passed).value, nil }

// BenchmarkLoop passes records of a KiB through a processor without state, one
// output each, and reports records/s.
func BenchmarkLoop(b *testing.B) {
	const partitions = 12
	r := newRig(b, partitions)
	payload := make([]byte, 1024)
	for i := range payload {
		payload[i] = byte('a' + i*7%26)
	}
	ctx := context.Background()
	inputs := r.newClient(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(100_000))
	for i := range b.N {
		inputs.Produce(ctx, r.input(schemas.TopicIngest, int32(i%partitions), string(payload)), nil)
	}
	require.NoError(b, inputs.Flush(ctx))
	b.ResetTimer()
	begun := time.Now()
	reg := prometheus.NewRegistry()
	p := r.start("a", func(c *loop.Config) {
		c.Processor, c.Encoder = passer{copier{topics: []schemas.Topic{schemas.TopicIngest}}, payload}, passEncoder{}
		c.Registerer = reg
	})
	r.eventually(fmt.Sprintf("%d records are through", b.N), func() bool {
		var sum int64
		for n := range int32(partitions) {
			sum += max(r.committed(schemas.TopicIngest, n), 0)
		}
		return sum >= int64(b.N)
	})
	b.ReportMetric(float64(b.N)/time.Since(begun).Seconds(), "records/s")
	p.stop()
	families, err := reg.Gather()
	require.NoError(b, err)
	for _, f := range families {
		for name, unit := range map[string]string{
			"hogstream_processor_apply_seconds": "apply-ms/batch", "hogstream_processor_publish_seconds": "publish-ms/batch",
		} {
			if f.GetName() == name {
				h := f.GetMetric()[0].GetHistogram()
				b.ReportMetric(1000*h.GetSampleSum()/float64(h.GetSampleCount()), unit)
			}
		}
		if f.GetName() == "hogstream_processor_batch_records" {
			h := f.GetMetric()[0].GetHistogram()
			b.ReportMetric(h.GetSampleSum()/float64(h.GetSampleCount()), "records/batch")
		}
	}
}

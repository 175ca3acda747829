package stream_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Batches of 100 one-KiB events from 32 senders, acknowledged by a broker in the
// same process.
func BenchmarkAppendBatches(b *testing.B) {
	for _, disk := range []bool{false, true} {
		b.Run(fmt.Sprintf("disk=%t", disk), func(b *testing.B) {
			opts := []streamtest.Option{streamtest.Partitions(12)}
			if disk {
				opts = append(opts, streamtest.WithKfake(kfake.DataDir(b.TempDir())))
			}
			e := streamtest.New(b, opts...)
			l, err := stream.OpenLog(context.Background(), e.Config, e.Codec, e.Logger, prometheus.NewRegistry())
			require.NoError(b, err)
			defer l.Close(context.Background())
			const batch = 100
			text := `{"text":"` + strings.Repeat("abcdefghij klmnop 0123456789 ", 34) + `"}`
			var sender atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				id := sender.Add(1)
				msgs := make([]schemas.Message, batch)
				for i := range msgs {
					in := streamtest.Input(fmt.Sprintf("user-%d-%d", id, i), i)
					in.EventProperties = &text
					msgs[i] = in
				}
				for pb.Next() {
					if err := l.Append(context.Background(), msgs...); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// One event at a time: the latency of an idle log.
func BenchmarkAppendOne(b *testing.B) {
	e := streamtest.New(b, streamtest.Partitions(12))
	l := e.Log()
	msg := streamtest.Input("a", 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Append(context.Background(), msg); err != nil {
			b.Fatal(err)
		}
	}
}

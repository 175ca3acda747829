package sinks

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

type countingDecoder struct {
	*schemas.Codec
	n atomic.Int64
}

func (c *countingDecoder) DecodeEvent(value []byte) (*schemas.Event, error) {
	c.n.Add(1)
	return c.Codec.DecodeEvent(value)
}

func TestARecordIsDecodedOnceForAllDestinationsAndAttempts(t *testing.T) {
	codec := &countingDecoder{Codec: schemas.NewCodec()}
	d, err := New(Config{AllowLoopback: true}, codec, zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	defer d.Close()
	var dests []*storage.Destination
	for i := range 5 {
		_, dest := receiving(t, sinktest.Options{})
		dest.ID = fmt.Sprint("d", i)
		dests = append(dests, dest)
	}
	for offset := range int64(20) {
		rec := recordOf(t, sampleEvent(), offset)
		for _, dest := range dests {
			require.Equal(t, stream.Delivered, d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: []*stream.Record{rec}}).Verdict)
		}
	}
	require.EqualValues(t, 20, codec.n.Load())

	// Another record at the same place is another record.
	again := sampleEvent()
	again.Name = "other"
	p, err := d.payload(recordOf(t, again, 1))
	require.NoError(t, err)
	require.Equal(t, "other", p.Name())
}

package sinks

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"weak"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

type countingDecoder struct {
	*schemas.Codec
	n atomic.Int64
}

func (c *countingDecoder) DecodeSent(topic schemas.Topic, value []byte) (schemas.Message, error) {
	c.n.Add(1)
	return c.Codec.DecodeSent(topic, value)
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
		rec := sinktest.Record(sinktest.Event(), offset)
		for _, dest := range dests {
			require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{rec}}).Verdict)
		}
	}
	require.EqualValues(t, 20, codec.n.Load())

	// Another record at the same place is another record.
	again := sinktest.Event()
	again.Name = "other"
	p, err := d.Payload(sinktest.Record(again, 1))
	require.NoError(t, err)
	require.Equal(t, "other", p.Name())
}

func TestDestinationsThatNeedARecordInTheSameMomentDecodeItOnce(t *testing.T) {
	codec := &countingDecoder{Codec: schemas.NewCodec()}
	d, err := New(Config{}, codec, zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	defer d.Close()
	const records, readers = 500, 8
	all := make([]*stream.Record, records)
	for i := range all {
		all[i] = sinktest.Record(sinktest.Event(), int64(i))
		all[i].Partition = int32(i % 12)
	}
	var tasks sync.WaitGroup
	for range readers {
		tasks.Go(func() {
			for _, r := range all {
				p, err := d.Payload(r)
				assert.NoError(t, err)
				assert.NotNil(t, p)
			}
		})
	}
	tasks.Wait()
	require.LessOrEqual(t, codec.n.Load(), int64(records*105/100), "a race may cost one more")
}

func TestAPayloadIsRememberedForCopiesOfItsRecordAndHoldsNoneOfThem(t *testing.T) {
	codec := &countingDecoder{Codec: schemas.NewCodec()}
	d, err := New(Config{}, codec, zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	defer d.Close()
	rec := sinktest.Record(sinktest.Event(), 1)
	ago, value := weak.Make(rec), weak.Make(&rec.Value[0])
	another := *rec
	another.Value = bytes.Clone(rec.Value)
	for _, r := range []*stream.Record{rec, &another} {
		_, err := d.Payload(r)
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, codec.n.Load())
	runtime.GC()
	require.Nil(t, ago.Value())
	require.Nil(t, value.Value())
	_, err = d.Payload(&another)
	require.NoError(t, err)
	require.EqualValues(t, 1, codec.n.Load(), "the payload is still there")
}

func TestARecordThatCannotBeDecodedIsTriedAgain(t *testing.T) {
	codec := &countingDecoder{Codec: schemas.NewCodec()}
	d, err := New(Config{}, codec, zap.NewNop(), prometheus.NewRegistry())
	require.NoError(t, err)
	defer d.Close()
	broken := sinktest.Record(sinktest.Event(), 1)
	broken.Value = broken.Value[:7]
	for range 2 {
		_, err := d.Payload(broken)
		require.Error(t, err)
	}
	require.EqualValues(t, 2, codec.n.Load())
}

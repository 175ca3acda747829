package localbroker

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// StampAppendTime makes the cluster give records its own time, as a broker does
// under message.timestamp.type=LogAppendTime; kfake itself keeps that setting
// and ignores it. All topics are stamped, whatever their setting. The newest
// record of a batch gets the broker's time and the others keep their distance
// from it, which is how long they waited in the producer; a broker would give
// the same time to all.
func StampAppendTime(c *kfake.Cluster) {
	// An observing fault sees each request on the cluster's own goroutine just
	// before it is handled; a control function would cost two goroutine
	// switches a request.
	c.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1,
		When: func(req kmsg.Request) bool {
			if p, ok := req.(*kmsg.ProduceRequest); ok {
				stampRequest(p, time.Now().UnixMilli())
			}
			return false
		},
	})
}

// stampRequest may see a request several times.
func stampRequest(req *kmsg.ProduceRequest, now int64) {
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			stampBatch(req.Topics[i].Partitions[j].Records, now)
		}
	}
}

// Places in a record batch of format 2.
const (
	batchMagic          = 16
	batchCRC            = 17
	batchAttributes     = 21 // the checksum covers what begins here
	batchFirstTimestamp = 27
	batchMaxTimestamp   = 35
	batchHeader         = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func stampBatch(b []byte, now int64) {
	if len(b) < batchHeader || b[batchMagic] != 2 {
		return // the broker will refuse it
	}
	first := int64(binary.BigEndian.Uint64(b[batchFirstTimestamp:]))
	newest := int64(binary.BigEndian.Uint64(b[batchMaxTimestamp:]))
	// Stamped a moment ago, by an earlier partition of this request.
	if age := now - newest; age >= 0 && age <= 1 || newest < first {
		return
	}
	if crc32.Checksum(b[batchAttributes:], castagnoli) != binary.BigEndian.Uint32(b[batchCRC:]) {
		return // corrupt as sent; the broker must see that
	}
	binary.BigEndian.PutUint64(b[batchFirstTimestamp:], uint64(now-(newest-first)))
	binary.BigEndian.PutUint64(b[batchMaxTimestamp:], uint64(now))
	binary.BigEndian.PutUint32(b[batchCRC:], crc32.Checksum(b[batchAttributes:], castagnoli))
}

package sinks

import (
	"errors"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Sizes of a memo: how many payloads, and how large one may be to be kept.
// Together they bound it to 32 MiB.
const (
	memoSets     = 512
	memoWays     = 4
	memoEnvelope = 16 << 10
)

// memo keeps the payloads of the records that were delivered last, so that a
// record is decoded once for all destinations at the same place of the log, and
// for all attempts: the first that needs it decodes, others that come meanwhile
// wait for it. A record may stand in one of a few slots, chosen by a hash of its
// place; what comes later takes over the slot that was taken longest ago. Safe
// for concurrent use.
type memo struct {
	sets [memoSets]memoSet
}

type memoSet struct {
	slots [memoWays]atomic.Pointer[remembered]
	next  atomic.Uint32 // the slot that is taken over next
}

// remembered is a payload, once it is decoded. It holds nothing of the record,
// which may be a slice of all that was read with it.
type remembered struct {
	record  identity
	once    sync.Once
	payload *Payload
	err     error
}

// identity is what makes a record this very one: a topic made anew has others at
// the same places.
type identity struct {
	topic     schemas.Topic
	partition int32
	offset    int64
	appended  int64
	id        string
	size      int
	value     uint64 // hash
}

var memoSeed = maphash.MakeSeed()

func identityOf(r *stream.Record) identity {
	return identity{r.Topic, r.Partition, r.Offset, r.AppendTime.UnixNano(), r.ID, len(r.Value), maphash.Bytes(memoSeed, r.Value)}
}

// set spreads records: those of two partitions must not meet again and again.
func (m *memo) set(r identity) *memoSet {
	h := uint64(r.offset)*0x9E3779B97F4A7C15 + uint64(r.partition)*0xC2B2AE3D27D4EB4F + uint64(len(r.topic))
	return &m.sets[(h>>32)%memoSets]
}

// find returns the slot of this very record.
func (s *memoSet) find(r identity) *remembered {
	for i := range s.slots {
		if kept := s.slots[i].Load(); kept != nil && kept.record == r {
			return kept
		}
	}
	return nil
}

// errUndecoded is what those get that waited for a decoding that panicked.
var errUndecoded = errors.New("the record could not be decoded")

// payload returns the payload of a record, decoded now or before. What failed is
// tried again by whoever comes next.
func (m *memo) payload(r *stream.Record, decode func(*stream.Record) (*Payload, error)) (*Payload, error) {
	which := identityOf(r)
	s := m.set(which)
	kept := s.find(which)
	if kept == nil {
		kept = s.take(which)
	}
	kept.once.Do(func() {
		kept.err = errUndecoded
		kept.payload, kept.err = decode(r)
	})
	if kept.err != nil || len(kept.payload.Envelope) > memoEnvelope {
		s.drop(kept)
	}
	return kept.payload, kept.err
}

// take makes room for a record. Two that come in the same moment agree on one.
func (s *memoSet) take(r identity) *remembered {
	slot := &s.slots[s.next.Load()%memoWays]
	before, fresh := slot.Load(), &remembered{record: r}
	if before != nil && before.record == r {
		return before
	}
	if !slot.CompareAndSwap(before, fresh) {
		if kept := s.find(r); kept != nil {
			return kept
		}
		return fresh // not kept: one more decoding
	}
	s.next.Add(1)
	return fresh
}

func (s *memoSet) drop(kept *remembered) {
	for i := range s.slots {
		s.slots[i].CompareAndSwap(kept, nil)
	}
}

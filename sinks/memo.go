package sinks

import (
	"errors"
	"sync"
	"sync/atomic"

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

// remembered is a payload, once it is decoded.
type remembered struct {
	record  *stream.Record
	once    sync.Once
	payload *Payload
	err     error
}

// set spreads records: those of two partitions must not meet again and again.
func (m *memo) set(r *stream.Record) *memoSet {
	h := uint64(r.Offset)*0x9E3779B97F4A7C15 + uint64(r.Partition)*0xC2B2AE3D27D4EB4F + uint64(len(r.Topic))
	return &m.sets[(h>>32)%memoSets]
}

// find returns the slot of this very record. The pointer is compared, so that a
// topic made anew cannot give an old payload.
func (s *memoSet) find(r *stream.Record) *remembered {
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
	s := m.set(r)
	kept := s.find(r)
	if kept == nil {
		kept = s.take(r)
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
func (s *memoSet) take(r *stream.Record) *remembered {
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

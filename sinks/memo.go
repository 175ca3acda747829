package sinks

import (
	"sync/atomic"

	"github.com/hogstream/hogstream/stream"
)

// Sizes of a memo: how many payloads, and how large one may be. Together they
// bound it to 32 MiB.
const (
	memoSlots    = 2048
	memoEnvelope = 16 << 10
)

// memo keeps the payloads of the records that were delivered last, so that a
// record is decoded once for all destinations at the same place of the log, and
// for all attempts. Each place has one slot: what comes later takes it over. It
// is safe for concurrent use; a race costs one more decoding.
type memo struct {
	slots [memoSlots]atomic.Pointer[remembered]
}

type remembered struct {
	record  *stream.Record
	payload *Payload
}

// slot spreads neighbours of a partition over neighbouring slots.
func (m *memo) slot(r *stream.Record) *atomic.Pointer[remembered] {
	i := uint64(r.Offset) + uint64(r.Partition)*0x9E3779B97F4A7C15 + uint64(len(r.Topic))<<7
	return &m.slots[i%memoSlots]
}

// get returns the payload of this very record, nil when it is not kept. The
// pointer is compared, so that a topic made anew cannot give an old payload.
func (m *memo) get(r *stream.Record) *Payload {
	if kept := m.slot(r).Load(); kept != nil && kept.record == r {
		return kept.payload
	}
	return nil
}

func (m *memo) put(r *stream.Record, p *Payload) {
	if len(p.Envelope) <= memoEnvelope {
		m.slot(r).Store(&remembered{record: r, payload: p})
	}
}

package sinks

import (
	"sync"

	"github.com/hogstream/hogstream/schemas"
)

// A room is the memory that the records of a backfill's request are decoded into: a
// backfill has very many of them, which nobody needs any more once the request is
// built, and to collect them as garbage would slow down live deliveries. nil gives
// memory that is used once. It is not safe for concurrent use.
type room struct {
	decoded   schemas.Room
	payloads  []Payload
	used      int
	envelopes []byte
}

var rooms = sync.Pool{New: func() any { return &room{} }}

// Sizes of a room that is kept.
const (
	roomPayloads  = 1000
	roomEnvelopes = 2 << 20
)

// newRoom is one for so many records.
func newRoom(records int) *room {
	in := rooms.Get().(*room)
	if len(in.payloads) < records {
		in.payloads = make([]Payload, records)
	}
	return in
}

// release gives the room back, and ends the life of all that stands in it.
func (in *room) release() {
	clear(in.payloads[:in.used])
	in.used, in.envelopes = 0, in.envelopes[:0]
	in.decoded.Reset()
	if len(in.payloads) <= roomPayloads && cap(in.envelopes) <= roomEnvelopes {
		rooms.Put(in)
	}
}

// payload is one to be filled.
func (in *room) payload() *Payload {
	if in == nil || in.used == len(in.payloads) {
		return &Payload{}
	}
	in.used++
	return &in.payloads[in.used-1]
}

// bytes is where an envelope of about that size is appended, and keep takes what
// became of it.
func (in *room) bytes(size int) []byte {
	if in == nil {
		return make([]byte, 0, size)
	}
	return in.envelopes
}

func (in *room) keep(b []byte) {
	if in != nil {
		in.envelopes = b
	}
}

// roomDecoder is a Decoder that decodes into a room.
type roomDecoder interface {
	DecodeFactIn(room *schemas.Room, value []byte) (*schemas.Fact, error)
	DecodeEventIn(room *schemas.Room, value []byte) (*schemas.Event, error)
}

var _ roomDecoder = (*schemas.Codec)(nil)

func (in *room) fact(codec Decoder, value []byte) (*schemas.Fact, error) {
	if d, ok := codec.(roomDecoder); ok && in != nil {
		return d.DecodeFactIn(&in.decoded, value)
	}
	return codec.DecodeFact(value)
}

func (in *room) event(codec Decoder, value []byte) (*schemas.Event, error) {
	if d, ok := codec.(roomDecoder); ok && in != nil {
		return d.DecodeEventIn(&in.decoded, value)
	}
	return codec.DecodeEvent(value)
}

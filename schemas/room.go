package schemas

import "unsafe"

// A Room is memory that facts and events are decoded into and that is used again:
// who decodes very many of them, a batch at a time, makes no garbage of them. What
// was decoded into it lives until Reset; strings live as long as they are kept, for
// they are parts of the values themselves: a value must not be changed after it was
// decoded. The zero Room is empty and ready. It is not safe for concurrent use.
type Room struct {
	facts    slab[Fact]
	contacts slab[ContactFact]
	events   slab[Event]
	strings  slab[string] // of nullable fields
	wire     wire
}

// Reset ends the life of all that was decoded into the room.
func (r *Room) Reset() {
	r.facts.reset()
	r.contacts.reset()
	r.events.reset()
	r.strings.reset()
	r.wire = wire{}
}

// DecodeFactIn is DecodeFact into a room.
func (c *Codec) DecodeFactIn(room *Room, value []byte) (*Fact, error) {
	return decodeIn(c, TopicLifecycle, value, room, &room.facts)
}

// DecodeEventIn is DecodeEvent into a room.
func (c *Codec) DecodeEventIn(room *Room, value []byte) (*Event, error) {
	return decodeIn(c, TopicEvents, value, room, &room.events)
}

func decodeIn[T any, P interface {
	*T
	wired
}](c *Codec, topic Topic, value []byte, room *Room, items *slab[T]) (*T, error) {
	w, body, err := c.open(topic, value)
	if err != nil {
		return nil, err
	}
	if w.read != nil {
		return decode[T, P](c, topic, value) // another writer's
	}
	out := P(items.next())
	room.wire = wire{buf: body, reading: true, room: room}
	if len(body) > 0 {
		room.wire.text = unsafe.String(&body[0], len(body)) // #nosec G103 -- values are not changed, as Room demands
	}
	out.wire(&room.wire)
	if err := room.wire.ended(); err != nil {
		return nil, undecodable(err)
	}
	return (*T)(out), nil
}

// A slab gives out zero values, one after the other. When there are no more it takes
// a larger piece of memory; those given out stay where they are.
type slab[T any] struct {
	all  []T
	used int
}

// slabMin is how many values the first piece has, and slabMax how many are kept.
const (
	slabMin = 64
	slabMax = 4096
)

func (s *slab[T]) next() *T {
	if s.used == len(s.all) {
		s.all, s.used = make([]T, max(slabMin, min(2*len(s.all), slabMax))), 0
	}
	s.used++
	return &s.all[s.used-1]
}

// reset takes all values back.
func (s *slab[T]) reset() {
	clear(s.all[:s.used])
	s.used = 0
}

// fresh is a new value, of the room when there is one and it has such values.
func fresh[T any](w *wire) *T {
	if w.room != nil {
		if s, ok := any(&w.room.contacts).(*slab[T]); ok {
			return s.next()
		}
	}
	return new(T)
}

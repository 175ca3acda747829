package schemas

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/hamba/avro/v2"
)

// Wire format of Confluent's serializers: a zero byte, the schema's id in four
// bytes big endian, then the Avro encoding.
const (
	wireMagic  = 0
	wireHeader = 5
)

// api is the library's entry, with a cache of decoders inside. The limit on the size of strings is off because every value is checked against
// its length beforehand (shape).
var api = avro.Config{MaxByteSliceSize: -1}.Freeze()

// Codec encodes messages to record values and decodes them. It is safe for
// concurrent use.
//
// Times keep microseconds, are UTC after decoding, and lie in the years 1 to
// 9999 (ValidTime); the zero time survives. An empty list or map is decoded as
// nil. Decoded strings of a short record share one allocation of at most 4 KiB.
type Codec struct {
	ids     atomic.Pointer[schemaIDs] // nil until the registry has given them
	writers sync.Map                  // id (int) to *writer or error
	// fetch asks the registry for a schema's text; nil without one.
	fetch func(id int) (string, error)
}

// schemaIDs are the ids of our own schemas.
type schemaIDs struct {
	byTopic map[Topic]int
	byID    map[int]*writer
}

// writer is a writer's schema, ready to be read as our own.
type writer struct {
	topic Topic
	shape *shape
	read  avro.Schema // the writer's schema resolved to ours; nil for our own
}

// NewCodec returns a codec without a registry: its schema ids are 1, 2, 3… in
// the order of Topics, as an empty registry would give them. It serves tests
// and tools; a process that talks to Kafka takes Registry.Codec.
func NewCodec() *Codec {
	ids := make(map[Topic]int)
	for i, t := range Topics() {
		ids[t.Topic] = i + 1
	}
	c := &Codec{}
	c.setIDs(ids)
	return c
}

func (c *Codec) setIDs(byTopic map[Topic]int) {
	ids := &schemaIDs{byTopic: byTopic, byID: make(map[int]*writer, len(byTopic))}
	for topic, id := range byTopic {
		l := layouts[topic]
		ids.byID[id] = &writer{topic: topic, shape: l.shape}
	}
	c.ids.Store(ids)
}

// Encode returns the record value of a message, nil for a *Tombstone. It fails
// with ErrRegistryUnavailable while the schema ids are not known, and for
// what no reader would accept: a string that is not UTF-8, a time out of range.
func (c *Codec) Encode(m Message) ([]byte, error) {
	if _, ok := m.(*Tombstone); ok {
		return nil, nil
	}
	topic := m.Topic()
	ids := c.ids.Load()
	if ids == nil {
		return nil, fmt.Errorf("encode for topic %s: %w: schemas are not registered yet", topic, ErrRegistryUnavailable)
	}
	record, ok := m.(wired)
	if !ok || reflect.ValueOf(m).IsNil() {
		return nil, fmt.Errorf("encode for topic %s: %T is no record", topic, m)
	}
	out := append(make([]byte, 0, usualValue), wireMagic)
	out = binary.BigEndian.AppendUint32(out, uint32(ids.byTopic[topic]))
	out, err := appendWire(out, record)
	if err != nil {
		return nil, fmt.Errorf("encode for topic %s: %w", topic, err)
	}
	return out, nil
}

// usualValue is what most values have room in.
const usualValue = 1 << 10

// DecodeInput decodes a value of topic ingest. Like all Decode methods it
// fails with ErrUndecodable for bytes that are no such record, and with
// ErrRegistryUnavailable when the writer's schema had to be asked for and the
// registry did not answer: an outage, to be tried again.
func (c *Codec) DecodeInput(value []byte) (*Input, error) {
	return decode[Input](c, TopicIngest, value)
}

// DecodeResolved decodes a value of topic resolved; errors as DecodeInput.
func (c *Codec) DecodeResolved(value []byte) (*Resolved, error) {
	return decode[Resolved](c, TopicResolved, value)
}

// DecodeEvent decodes a value of topic events; errors as DecodeInput.
func (c *Codec) DecodeEvent(value []byte) (*Event, error) {
	return decode[Event](c, TopicEvents, value)
}

// DecodeFact decodes a value of topic lifecycle; errors as DecodeInput.
func (c *Codec) DecodeFact(value []byte) (*Fact, error) {
	return decode[Fact](c, TopicLifecycle, value)
}

// DecodeContact decodes a value of topic contacts; errors as DecodeInput. A
// tombstone has no value and is the caller's to tell apart.
func (c *Codec) DecodeContact(value []byte) (*Contact, error) {
	return decode[Contact](c, TopicContacts, value)
}

// DecodeSignal decodes a value of topic signals; errors as DecodeInput.
func (c *Codec) DecodeSignal(value []byte) (*Signal, error) {
	return decode[Signal](c, TopicSignals, value)
}

// DecodeEmailRequest decodes a value of topic email-requests; errors as DecodeInput.
func (c *Codec) DecodeEmailRequest(value []byte) (*EmailRequest, error) {
	return decode[EmailRequest](c, TopicEmailRequests, value)
}

// DecodeOutbox decodes a value of topic outbox; errors as DecodeInput.
func (c *Codec) DecodeOutbox(value []byte) (*Outbox, error) {
	return decode[Outbox](c, TopicOutbox, value)
}

// DecodeDeadLetter decodes a value of topic dead-letters; errors as DecodeInput.
func (c *Codec) DecodeDeadLetter(value []byte) (*DeadLetter, error) {
	return decode[DeadLetter](c, TopicDeadLetters, value)
}

// decode reads a record of our own schema directly, and one of another writer
// with the library.
func decode[T any, P interface {
	*T
	wired
}](c *Codec, topic Topic, value []byte) (*T, error) {
	w, body, err := c.open(topic, value)
	if err != nil {
		return nil, err
	}
	out := P(new(T))
	if w.read == nil {
		err = readWire(body, out)
	} else {
		err = w.readOther(body, out)
	}
	if err != nil {
		return nil, undecodable(err)
	}
	return (*T)(out), nil
}

// readOther reads a record of another version of the schema. What the library
// gives is written and read once more as our own, so that a caller cannot tell:
// empty lists are nil, times are in range.
func (w *writer) readOther(body []byte, out wired) (err error) {
	defer recovered(&err, "decode")
	if err := w.shape.checkAll(body); err != nil {
		return err
	}
	other := reflect.New(reflect.TypeOf(out).Elem()).Interface().(wired)
	if err := api.Unmarshal(w.read, body, other); err != nil {
		return err
	}
	own, err := appendWire(nil, other)
	if err != nil {
		return err
	}
	return readWire(own, out)
}

// open takes the header off a value and finds its writer.
func (c *Codec) open(topic Topic, value []byte) (*writer, []byte, error) {
	if len(value) < wireHeader {
		return nil, nil, undecodable(errAvro("too short"))
	}
	if value[0] != wireMagic {
		return nil, nil, undecodable(fmt.Errorf("magic byte is %d", value[0]))
	}
	id := int(binary.BigEndian.Uint32(value[1:]))
	w, err := c.writer(id)
	if err != nil {
		return nil, nil, err
	}
	if w.topic != topic {
		return nil, nil, undecodable(fmt.Errorf("schema id %d is %s, not a record of topic %s", id, w.shape.name, topic))
	}
	return w, value[wireHeader:], nil
}

// writer returns the schema with an id: one of ours, one seen before, or one
// that the registry knows. A schema never changes under its id, so what was
// learned, also that it cannot be read, is kept for ever.
func (c *Codec) writer(id int) (*writer, error) {
	if ids := c.ids.Load(); ids != nil {
		if w := ids.byID[id]; w != nil {
			return w, nil
		}
	}
	if known, ok := c.writers.Load(id); ok {
		if w, ok := known.(*writer); ok {
			return w, nil
		}
		return nil, known.(error)
	}
	if c.fetch == nil {
		return nil, unknownID(id)
	}
	text, err := c.fetch(id)
	if err != nil {
		return nil, err
	}
	w, err := newWriter(id, text)
	if err != nil {
		c.writers.Store(id, err)
		return nil, err
	}
	c.writers.Store(id, w)
	return w, nil
}

// newWriter resolves a writer's schema to the topic whose record it names.
func newWriter(id int, text string) (w *writer, err error) {
	defer recovered(&err, "resolve schema")
	l, err := parseLayout(text)
	if err != nil {
		return nil, undecodable(fmt.Errorf("schema id %d: %w", id, err))
	}
	for topic, ours := range layouts {
		if ours.shape.name != l.shape.name {
			continue
		}
		read, err := avro.NewSchemaCompatibility().Resolve(ours.schema, l.schema)
		if err != nil {
			return nil, undecodable(fmt.Errorf("schema id %d: %w", id, err))
		}
		return &writer{topic: topic, shape: l.shape, read: read}, nil
	}
	return nil, undecodable(fmt.Errorf("schema id %d is %s, not a record of ours", id, l.shape.name))
}

func unknownID(id int) error { return undecodable(fmt.Errorf("unknown schema id %d", id)) }

func undecodable(err error) error {
	if errors.Is(err, ErrUndecodable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUndecodable, err)
}

// recovered turns a panic of the library into an error: it works on memory
// through unsafe and was found to panic on schemas that resolve to themselves.
// The bytes are to blame, not the process.
func recovered(err *error, doing string) {
	if p := recover(); p != nil {
		*err = undecodable(fmt.Errorf("%s: panic: %s", doing, PanicText(p)))
	}
}

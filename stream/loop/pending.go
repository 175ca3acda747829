package loop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Pending outputs as they stand in a progress row: a version byte, then an s2
// block of length-prefixed fields. A new version is added beside the old one,
// for a row may have been written before an upgrade. Outputs without numbers are
// written as the first version, which binaries before numbering read.
const (
	pendingPlain    = 1
	pendingNumbered = 2 // each output also has its place in the order of its contact
)

var errPending = errors.New("pending outputs are malformed")

// encodePending returns nil for no outputs.
func encodePending(outputs []*Output) []byte {
	if len(outputs) == 0 {
		return nil
	}
	size := 0
	for i := range outputs {
		size += len(outputs[i].Value) + usualFrame
	}
	fields := binary.AppendUvarint(make([]byte, 0, size), uint64(len(outputs)))
	version := byte(pendingPlain)
	if slices.ContainsFunc(outputs, func(o *Output) bool { return o.Meta.Seq > 0 }) {
		version = pendingNumbered
	}
	for _, o := range outputs {
		fields = o.appendTo(fields, version)
	}
	row := make([]byte, 1+s2.MaxEncodedLen(len(fields)))
	row[0] = version
	return row[:1+len(s2.Encode(row[1:], fields))]
}

// usualFrame is what an output has beside its value, mostly.
const usualFrame = 160

func (o *Output) appendTo(b []byte, version byte) []byte {
	b = appendField(b, string(o.Topic))
	b = appendField(b, o.Key)
	if o.Value == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = appendField(b, o.Value)
	}
	b = appendField(b, o.Meta.ID)
	b = appendField(b, o.Meta.Type)
	if o.Meta.OccurredAt.IsZero() {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.AppendVarint(b, o.Meta.OccurredAt.Unix())
		b = binary.AppendUvarint(b, uint64(o.Meta.OccurredAt.Nanosecond()))
	}
	if version == pendingNumbered {
		b = binary.AppendUvarint(b, uint64(o.Meta.Seq))
		b = binary.AppendUvarint(b, uint64(o.Meta.Era))
	}
	b = appendField(b, o.Trace.Parent)
	return appendField(b, o.Trace.State)
}

func appendField[T string | []byte](b []byte, field T) []byte {
	b = binary.AppendUvarint(b, uint64(len(field)))
	return append(b, field...)
}

// decodePending returns the records of pending outputs, ready to be produced.
func decodePending(cfg stream.Config, pending []byte) ([]*kgo.Record, error) {
	if len(pending) == 0 {
		return nil, nil
	}
	version := pending[0]
	if version != pendingPlain && version != pendingNumbered {
		return nil, fmt.Errorf("%w: version %d, this build knows up to %d", errPending, version, pendingNumbered)
	}
	block, err := s2.Decode(nil, pending[1:])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPending, err)
	}
	r := fieldReader{b: block}
	count := r.uvarint()
	var records []*kgo.Record
	for range count {
		records = append(records, r.record(cfg, version))
		if r.bad {
			return nil, fmt.Errorf("%w: cut off", errPending)
		}
	}
	return records, nil
}

// fieldReader reads fields until one is cut off; from then on bad is set.
type fieldReader struct {
	b   []byte
	bad bool
}

func (r *fieldReader) record(cfg stream.Config, version byte) *kgo.Record {
	topic, key := r.text(), r.text()
	var value []byte
	if r.flag() {
		value = r.bytes()
	}
	m := schemas.Meta{ID: r.text(), Type: r.text()}
	if r.flag() {
		m.OccurredAt = time.Unix(r.varint(), int64(r.uvarint())).UTC()
	}
	if version == pendingNumbered {
		m.Seq, m.Era = int64(r.uvarint()), int64(r.uvarint())
	}
	return stream.NewKafkaRecord(cfg.Topic(schemas.Topic(topic)), key, value, m, stream.Trace{Parent: r.text(), State: r.text()})
}

func (r *fieldReader) uvarint() uint64 {
	x, n := binary.Uvarint(r.b)
	return consume(r, x, n)
}

func (r *fieldReader) varint() int64 {
	x, n := binary.Varint(r.b)
	return consume(r, x, n)
}

func consume[T any](r *fieldReader, x T, n int) T {
	if n <= 0 {
		var zero T
		r.b, r.bad = nil, true
		return zero
	}
	r.b = r.b[n:]
	return x
}

func (r *fieldReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *fieldReader) text() string { return string(r.bytes()) }

func (r *fieldReader) flag() bool {
	if len(r.b) == 0 {
		r.bad = true
		return false
	}
	set := r.b[0] == 1
	r.b = r.b[1:]
	return set
}

// kafkaRecords makes the outputs ready to be produced. Records, headers and
// their values come from a few large allocations, for they live and die together.
func kafkaRecords(cfg stream.Config, outputs []Output) []*kgo.Record {
	topics := make(map[schemas.Topic]string)
	arena := make([]kgo.Record, len(outputs))
	headers := make([]kgo.RecordHeader, 0, stream.MaxHeaders*len(outputs))
	text := make([]byte, 0, headerBytes*len(outputs))
	records := make([]*kgo.Record, len(outputs))
	for i := range outputs {
		o := &outputs[i]
		topic, ok := topics[o.Topic]
		if !ok {
			topic = cfg.Topic(o.Topic)
			topics[o.Topic] = topic
		}
		start, first := len(text), len(headers)
		text = append(text, o.Key...)
		key := text[start:len(text):len(text)]
		headers, text = stream.AppendHeaders(headers, text, o.Meta, o.Trace)
		arena[i] = kgo.Record{Topic: topic, Key: key, Value: o.Value, Headers: headers[first:len(headers):len(headers)]}
		records[i] = &arena[i]
	}
	return records
}

// headerBytes is what key and headers of an output take, without a trace state.
const headerBytes = 208

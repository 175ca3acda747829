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
	"github.com/hogstream/hogstream/schemas/packed"
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
	b = packed.AppendText(b, string(o.Topic))
	b = packed.AppendText(b, o.Key)
	if o.Value == nil {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = packed.AppendText(b, o.Value)
	}
	b = packed.AppendText(b, o.Meta.ID)
	b = packed.AppendText(b, o.Meta.Type)
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
	b = packed.AppendText(b, o.Trace.Parent)
	return packed.AppendText(b, o.Trace.State)
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
	r := packed.NewReader(block, errPending)
	count := r.Uint()
	var records []*kgo.Record
	for range count {
		records = append(records, readOutput(r, cfg, version))
		if err := r.Err(); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func readOutput(r *packed.Reader, cfg stream.Config, version byte) *kgo.Record {
	topic, key := r.Text(), r.Text()
	var value []byte
	if r.Byte() == 1 {
		value = r.Bytes()
	}
	m := schemas.Meta{ID: r.Text(), Type: r.Text()}
	if r.Byte() == 1 {
		m.OccurredAt = time.Unix(r.Int(), int64(r.Uint())).UTC()
	}
	if version == pendingNumbered {
		m.Seq, m.Era = int64(r.Uint()), int64(r.Uint())
	}
	return stream.NewKafkaRecord(cfg.Topic(schemas.Topic(topic)), key, value, m, stream.Trace{Parent: r.Text(), State: r.Text()})
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

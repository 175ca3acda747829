package stream

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/hogstream/hogstream/schemas"
)

// Headers of a record, so that a reader can filter and link traces without
// decoding the value.
const (
	headerID          = "id"
	headerType        = "type"
	HeaderOccurredAt  = "occurred-at" // RFC 3339 with nanoseconds, UTC
	HeaderTraceParent = "traceparent" // W3C trace context
	HeaderTraceState  = "tracestate"
	// HeaderSeq and HeaderEra are a record's place in the order of its contact, as
	// decimal numbers; without them it has none.
	HeaderSeq = "seq"
	HeaderEra = "era"
	// HeaderFirstAppended is on records that were redriven: when they were appended
	// for the first time, in the format of occurred-at.
	HeaderFirstAppended = "first-appended"
)

// MaxHeaders is how many headers a record of ours has at most.
const MaxHeaders = 7

// Trace is the W3C trace context that a record carries.
type Trace struct{ Parent, State string }

// TraceFrom returns the trace context of the span in ctx; empty without one.
func TraceFrom(ctx context.Context) Trace {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return Trace{}
	}
	// Written by hand: the propagator's carrier costs a map per call.
	const hexDigits = "0123456789abcdef"
	b := make([]byte, 0, 55)
	tid, sid := sc.TraceID(), sc.SpanID()
	b = append(b, "00-"...)
	for _, x := range tid {
		b = append(b, hexDigits[x>>4], hexDigits[x&15])
	}
	b = append(b, '-')
	for _, x := range sid {
		b = append(b, hexDigits[x>>4], hexDigits[x&15])
	}
	flags := byte(sc.TraceFlags())
	b = append(b, '-', hexDigits[flags>>4], hexDigits[flags&15])
	return Trace{Parent: string(b), State: sc.TraceState().String()}
}

// Trace returns the trace context that the record arrived with.
func (r *Record) Trace() Trace { return Trace{Parent: r.TraceParent, State: r.TraceState} }

// NewKafkaRecord makes the record of an encoded message, ready to be produced.
// value is kept, not copied; nil makes a tombstone.
func NewKafkaRecord(topic, key string, value []byte, m schemas.Meta, t Trace) *kgo.Record {
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: value}
	r.Headers, _ = AppendHeaders(make([]kgo.RecordHeader, 0, MaxHeaders), make([]byte, 0, 160), m, t)
	return r
}

// AppendHeaders appends the headers of m and t to hs, with their values in buf,
// and returns both. Empty ones are left out. Slices of buf taken earlier stay
// valid when it grows.
func AppendHeaders(hs []kgo.RecordHeader, buf []byte, m schemas.Meta, t Trace) ([]kgo.RecordHeader, []byte) {
	add := func(key, value string) {
		if value == "" {
			return
		}
		start := len(buf)
		buf = append(buf, value...)
		hs = append(hs, kgo.RecordHeader{Key: key, Value: buf[start:len(buf):len(buf)]})
	}
	add(headerID, m.ID)
	add(headerType, m.Type)
	if !m.OccurredAt.IsZero() {
		start := len(buf)
		buf = m.OccurredAt.UTC().AppendFormat(buf, time.RFC3339Nano)
		hs = append(hs, kgo.RecordHeader{Key: HeaderOccurredAt, Value: buf[start:len(buf):len(buf)]})
	}
	number := func(key string, n int64) {
		start := len(buf)
		buf = strconv.AppendInt(buf, n, 10)
		hs = append(hs, kgo.RecordHeader{Key: key, Value: buf[start:len(buf):len(buf)]})
	}
	if m.Seq > 0 {
		number(HeaderSeq, m.Seq)
		number(HeaderEra, m.Era)
	}
	add(HeaderTraceParent, t.Parent)
	add(HeaderTraceState, t.State)
	return hs, buf
}

// FromKafka makes a Record of a fetched one. Headers that are absent leave their
// field empty, as does a time that is malformed; what is no text is made one; of a
// repeated header the last counts. Key
// and Value are shared with kr. ok is false for a topic that is not of this
// deployment.
func (c Config) FromKafka(kr *kgo.Record) (r *Record, ok bool) {
	topic, ok := c.TopicOf(kr.Topic)
	if !ok {
		return nil, false
	}
	r = fromKafka(topic, kr)
	_ = Describe(r, c.Contents) // without the registry it is shown as far as its headers go
	return r, true
}

func fromKafka(topic schemas.Topic, kr *kgo.Record) *Record {
	r := &Record{}
	FillRecord(r, topic, kr, "")
	return r
}

// FillRecord fills r; the type is taken from like when it is the same, as that of
// neighbours often is.
func FillRecord(r *Record, topic schemas.Topic, kr *kgo.Record, like string) {
	*r = Record{
		Topic: topic, Partition: kr.Partition, Offset: kr.Offset,
		Key: kr.Key, Value: kr.Value, AppendTime: kr.Timestamp.UTC(),
	}
	for i := range kr.Headers {
		h := &kr.Headers[i]
		switch h.Key {
		case headerID:
			r.ID = headerText(h.Value)
		case headerType:
			if r.Type = like; string(h.Value) != like {
				r.Type = headerText(h.Value)
			}
		case HeaderOccurredAt:
			r.OccurredAt = HeaderTime(h.Value)
		case HeaderSeq:
			r.Seq = HeaderNumber(string(h.Value))
		case HeaderEra:
			r.Era = HeaderNumber(string(h.Value))
		case HeaderTraceParent:
			r.TraceParent = traceText(h.Value)
		case HeaderTraceState:
			r.TraceState = traceText(h.Value)
		case HeaderFirstAppended:
			// It can only make a record older.
			if at := HeaderTime(h.Value); at.Before(r.AppendTime) {
				r.FirstAppended = at
			}
		}
	}
}

// HeaderTime is zero for what is no time.
func HeaderTime(value []byte) time.Time {
	at, err := time.Parse(time.RFC3339Nano, string(value))
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}

// HeaderNumber is a number of 0 and more, and 0 for what is none.
func HeaderNumber(value string) int64 {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0
	}
	return int64(n)
}

// OriginallyAppended is when the record was appended, or before it was redriven.
func (r *Record) OriginallyAppended() time.Time {
	if !r.FirstAppended.IsZero() {
		return r.FirstAppended
	}
	return r.AppendTime
}

// headerText is a header as everything behind can take it. Anybody may write to a
// topic, and bytes that are no text would be refused by Avro and by Postgres far
// from here, for a whole batch and at every try. So would be more than a record can
// carry: headers are copied to what follows from theirs, and into dead letters.
func headerText(value []byte) string { return CleanText(string(value[:min(len(value), maxHeader)])) }

// traceText is a header of the trace context; one that was cut off would say nothing.
func traceText(value []byte) string {
	if len(value) > maxHeader {
		return ""
	}
	return CleanText(string(value))
}

// maxHeader is how much of a header's value counts.
const maxHeader = 4 << 10

// CleanText makes a text that came from outside fit for Postgres and Avro: valid
// UTF-8 without NUL.
func CleanText(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// IsText says whether it may stand in a text as it is.
func IsText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

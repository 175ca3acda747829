// Package stream is the only road to and from Kafka: append, the processor loop
// (apply in Postgres, publish in a Kafka transaction, exactly once), the log
// reader with cursors and lanes for destinations, dead letters, replay, and the
// creation and checking of topics. It is the only importer of franz-go clients.
//
// It promises: an appended record is on all in-sync replicas or an error says
// otherwise; a processor's outputs appear once, in order, and its state changes
// exactly when they do; records of one key are handled one at a time, in offset
// order; memory is bounded.
package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Record is one record as it stands on a topic. It is read-only: processors and
// destinations share it.
type Record struct {
	Topic      schemas.Topic // without the deployment's prefix
	Partition  int32
	Offset     int64
	Key        []byte
	Value      []byte    // nil for a tombstone
	AppendTime time.Time // the broker's (LogAppendTime)
	// FirstAppended is the append time that a record had before it was redriven from
	// a dead letter; zero for one that was not.
	FirstAppended time.Time

	// From the headers; empty or zero when absent. Of records that destinations are
	// sent, the first three are from the content when the headers do not say them.
	ID          string
	Type        string
	OccurredAt  time.Time
	TraceParent string
	TraceState  string

	unreadable error // neither headers nor content say what it is
}

// Appender appends messages to the log. Implemented by *Log.
type Appender interface {
	// Append returns when all in-sync replicas have the messages, in the order
	// given for each key. ErrBusy means that the bounded buffer is full or the
	// broker did not answer in time: the fate of the messages is unknown, and a
	// retry is safe only under the same idempotency key.
	Append(ctx context.Context, msgs ...schemas.Message) error
}

// Processor derives records and state from records. A processor is one consumer
// group; its state in Postgres is written by nobody else.
type Processor interface {
	// Name is the group's name without prefix, and the name in progress rows,
	// metrics and dead letters. It never changes.
	Name() string
	// Topics are what it consumes. With several, all have the same number of
	// partitions, and partition i of all of them has one owner.
	Topics() []schemas.Topic
	// Apply handles a batch within tx: a constant number of statements, whatever
	// the batch's size. It may be called again with the same records when tx
	// could not be committed, so it changes nothing but tx and b.
	//
	// What becomes of an error: when the batch holds too much (ErrBatchTooLarge from
	// Emit, storage.ErrTooMuch) the records come again in smaller ones. What passes
	// (storage.IsRetryable, storage.IsUnavailable, schemas.ErrRegistryUnavailable) or
	// is ours to mend (a refusal of Postgres that is not about the data) is waited
	// out. Any other is deterministic: the batch is halved until the record at fault
	// is alone, and that record goes to dead-letters.
	Apply(ctx context.Context, tx *storage.Tx, b *Batch) error
}

// Encoder turns messages into record values. Implemented by *schemas.Codec.
type Encoder interface {
	Encode(m schemas.Message) ([]byte, error)
}

// Batch is what Apply is given and where it leaves its outputs. Not safe for
// concurrent use.
type Batch struct {
	// Records are in offset order for each topic and partition.
	Records []*Record
	// Now is the time of the decision, the same for the whole batch.
	Now time.Time

	enc     Encoder
	outputs []Output
	size    int // of the outputs' values
	// whenDecided is told that no more outputs come; nil outside a loop.
	whenDecided func()
	decided     bool
	traces      map[*Record]Trace // the spans of traced records; nil for none
}

// Output is an encoded message and the record that caused it.
type Output struct {
	Cause *Record
	Topic schemas.Topic
	Key   string
	Value []byte // nil for a tombstone
	Meta  schemas.Meta
	Trace Trace // what its record carries
}

// NewBatch makes a batch; used by the loop and by processors' tests.
func NewBatch(enc Encoder, now time.Time, records []*Record) *Batch {
	return &Batch{Records: records, Now: now, enc: enc, outputs: make([]Output, 0, 2*len(records))}
}

// ErrTooLarge is returned by Emit for a message beyond schemas.MaxRecord.
var ErrTooLarge = fmt.Errorf("message is larger than %d bytes", schemas.MaxRecord)

// Emit adds an output, published after the batch is applied and in the order of
// the calls for each partition of cause. It encodes at once and checks the size,
// so that publishing cannot fail for content. When the outputs of several records
// become too large together it fails with ErrBatchTooLarge, which Apply returns:
// the records come again in smaller batches.
func (b *Batch) Emit(cause *Record, m schemas.Message) error {
	if b.decided {
		return fmt.Errorf("emit %s %s for %s: %w", m.Topic(), m.Meta().Type, m.Key(), errDecided)
	}
	value, err := b.enc.Encode(m)
	if err != nil {
		return fmt.Errorf("encode %s for %s: %w", m.Topic(), m.Key(), err)
	}
	o := Output{Cause: cause, Topic: m.Topic(), Key: m.Key(), Value: value, Meta: m.Meta(), Trace: b.traceOf(cause)}
	if err := fits(o.Topic, o.Key, o.Meta, o.Trace); err != nil {
		return err
	}
	if len(value) > maxValue {
		return fmt.Errorf("%s %s for %s has %d bytes: %w", o.Topic, o.Meta.Type, o.Key, len(value), ErrTooLarge)
	}
	if b.size += len(value) + len(o.Key); b.tooLarge() {
		return fmt.Errorf("%s %s for %s: %w", o.Topic, o.Meta.Type, o.Key, ErrBatchTooLarge)
	}
	b.outputs = append(b.outputs, o)
	return nil
}

// maxFrame is what key and headers may take of the room that maxValue leaves them.
const maxFrame = 48 << 10

// fits refuses a message whose key or headers are too large to be appended: the type
// of an event has its name in it.
func fits(topic schemas.Topic, key string, m schemas.Meta, t Trace) error {
	if size := len(key) + len(m.ID) + len(m.Type) + len(t.Parent) + len(t.State); size > maxFrame {
		return fmt.Errorf("%s: key and headers have %d bytes, more than %d: %w", topic, size, maxFrame, ErrTooLarge)
	}
	return nil
}

// maxPending bounds the outputs of a batch of more than one record.
const maxPending = 64 << 20

// ErrBatchTooLarge is returned by Emit when what a batch of several records holds in
// memory becomes too much.
var ErrBatchTooLarge = fmt.Errorf("the outputs of the batch have more than %d bytes", maxPending)

func (b *Batch) tooLarge() bool { return b.size > maxPending && len(b.Records) > 1 }

// Decided says that all outputs are emitted, so that they are packed while the
// processor writes its state; a later Emit fails. It may be left out.
func (b *Batch) Decided() {
	if b.decided {
		return
	}
	b.decided = true
	if b.whenDecided != nil {
		b.whenDecided()
	}
}

var errDecided = errors.New("the batch is decided")

// traceOf is the span of a record in this batch, else the trace it came with.
func (b *Batch) traceOf(cause *Record) Trace {
	if t, ok := b.traces[cause]; ok {
		return t
	}
	return cause.Trace()
}

// DeadLetter gives up a record for a reason that will not change, e.g. because
// it cannot be decoded. The rest of the batch goes on.
func (b *Batch) DeadLetter(cause *Record, source, reason string, failure error) error {
	letter := NewDeadLetter(cause, source, reason, failure, b.Now)
	err := b.Emit(cause, letter)
	if errors.Is(err, ErrTooLarge) {
		// A record at the limit has no room for its own dead letter; it can still
		// be read where it stands, until its topic's retention.
		letter.RecordValue = nil
		letter.Error += fmt.Sprintf(" (the value of %d bytes is left out: too large)", len(cause.Value))
		err = b.Emit(cause, letter)
	}
	return err
}

// Outputs are what Emit collected, in order.
func (b *Batch) Outputs() []Output { return b.outputs }

// NewDeadLetter makes the dead letter of a record. Its id is derived from the
// record's place, so giving the same record up again gives the same id.
func NewDeadLetter(r *Record, source, reason string, failure error, now time.Time) *schemas.DeadLetter {
	headers := map[string]string{}
	for k, v := range map[string]string{
		headerID: r.ID, headerType: r.Type, headerTraceParent: r.TraceParent, headerTraceState: r.TraceState,
		headerOccurredAt: timeText(r.OccurredAt), headerFirstAppended: timeText(r.firstAppended()),
	} {
		if v != "" {
			headers[k] = v
		}
	}
	text := failure.Error()
	text = cleanText(text[:min(len(text), maxLetterError)])
	if len(r.Key) > maxLetterKey {
		text += fmt.Sprintf(" (the key of %d bytes is cut off)", len(r.Key))
	}
	return &schemas.DeadLetter{
		ID:         schemas.Derive(fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), source, 0),
		OccurredAt: now, Source: source, Reason: reason, Error: text,
		SourceTopic: string(r.Topic), Partition: r.Partition, Offset: r.Offset,
		RecordID: r.ID, RecordType: r.Type, RecordKey: letterKey(r.Key), RecordValue: r.Value, RecordHeaders: headers,
	}
}

// maxLetterKey is how much of a record's key stands in its dead letter, and is the
// letter's own key: there must be room for both.
const maxLetterKey = 8 << 10

// maxLetterError is how much of an error stands in a dead letter; one may quote what
// it is about.
const maxLetterError = 8 << 10

func letterKey(key []byte) []byte { return key[:min(len(key), maxLetterKey)] }

// timeText is a time as headers have it; empty for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

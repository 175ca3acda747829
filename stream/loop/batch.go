package loop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Processor derives records and state from records. A processor is one consumer
// group; its state in Postgres is written by nobody else.
type Processor interface {
	// Name is the group's name without prefix, and the name in progress rows,
	// metrics and dead letters. It never changes.
	Name() string
	// Topics are what it consumes. With several, all have the same number of
	// partitions, and partition i of all of them has one owner; records come in the order
	// in which they were appended, as far as that is known, and of the same time in the
	// order of the topics.
	Topics() []schemas.Topic
	// Apply handles a batch within tx: a constant number of statements, whatever
	// the batch's size. It may be called again with the same records when tx
	// could not be committed, so it changes nothing but tx and b. tx is one of
	// storage.InBatch, in which sequential scans, hash joins and merge joins are off:
	// a statement reaches its rows by an index.
	//
	// What becomes of an error: ErrElsewhere has it found out where the partition stands. When the batch holds too much (ErrBatchTooLarge from
	// Emit, storage.ErrTooMuch) the records come again in smaller ones. What passes
	// (storage.IsRetryable, storage.IsUnavailable, schemas.ErrRegistryUnavailable) or
	// is ours to mend (a refusal of Postgres that is not about the data) is waited
	// out. Any other is deterministic: the batch is halved until the record at fault
	// is alone, and that record goes to dead-letters.
	Apply(ctx context.Context, tx *storage.Tx, b *Batch) error
}

// TakesOver is a Processor that begins with what Postgres knows, not with the log's start:
// at its first start the ends of its topics are noted, of all partitions at once; then each
// partition is taken over; and then it is read from the noted ends on.
type TakesOver interface {
	Processor
	// TakeOver takes over some of what Postgres knows of a partition, in the order of ids
	// and from the first above after on, within tx and with a fixed number of statements. It
	// returns the id up to which it came, or the zero id when nothing is left. Outputs are
	// caused by a record of which the partition counts; they may be published more than once.
	TakeOver(ctx context.Context, tx *storage.Tx, b *Batch, partition int32, after uuid.UUID) (uuid.UUID, error)
}

// GivesUp is a Processor that has to know which records were given up.
type GivesUp interface {
	Processor
	// GaveUp notes within tx that a record of its topics became a dead letter because Apply
	// failed with it alone.
	GaveUp(ctx context.Context, tx *storage.Tx, b *Batch, r *stream.Record) error
}

// Batch is what Apply is given and where it leaves its outputs. Not safe for
// concurrent use.
type Batch struct {
	// Records are in offset order for each topic and partition.
	Records []*stream.Record
	// Now is the time of the decision, the same for the whole batch.
	Now time.Time
	// Log is for what an operator should hear of. A batch that is run again says it again.
	Log *zap.Logger

	enc     stream.Encoder
	outputs []Output
	size    int // of the outputs' values
	// whenDecided is told that no more outputs come; nil outside a loop.
	whenDecided func()
	decided     bool
	traces      map[*stream.Record]stream.Trace // the spans of traced records; nil for none
	formats     map[int32]int32                 // by partition; nil outside a loop
}

// Output is an encoded message and the record that caused it.
type Output struct {
	Cause *stream.Record
	Topic schemas.Topic
	Key   string
	Value []byte // nil for a tombstone
	Meta  schemas.Meta
	Trace stream.Trace // what its record carries
}

// NewBatch makes a batch; used by the loop and by processors' tests.
func NewBatch(enc stream.Encoder, now time.Time, records []*stream.Record) *Batch {
	return &Batch{Records: records, Now: now, Log: zap.NewNop(), enc: enc, outputs: make([]Output, 0, 2*len(records))}
}

// Format is the format in which state and outputs of the records of a partition are
// read and written: at most the processor's highest (Formatted), and lower while members
// of the group are of a release that cannot read it. It never sinks, but rises: state that
// was written in a lower one is found then too. In a batch that no loop made it is the
// highest there can be.
func (b *Batch) Format(partition int32) int32 {
	if b.formats == nil {
		return math.MaxInt32
	}
	return b.formats[partition]
}

// Emit adds an output, published after the batch is applied and in the order of
// the calls for each partition of cause. It encodes at once and checks the size,
// so that publishing cannot fail for content. When the outputs of several records
// become too large together it fails with ErrBatchTooLarge, which Apply returns:
// the records come again in smaller batches.
func (b *Batch) Emit(cause *stream.Record, m schemas.Message) error {
	if b.decided {
		return fmt.Errorf("emit %s %s for %s: %w", m.Topic(), m.Meta().Type, m.Key(), errDecided)
	}
	value, err := b.enc.Encode(m)
	if err != nil {
		return fmt.Errorf("encode %s for %s: %w", m.Topic(), m.Key(), err)
	}
	o := Output{Cause: cause, Topic: m.Topic(), Key: m.Key(), Value: value, Meta: m.Meta(), Trace: b.traceOf(cause)}
	if err := stream.Fits(o.Topic, o.Key, o.Meta, o.Trace); err != nil {
		return err
	}
	if len(value) > stream.MaxValue {
		return fmt.Errorf("%s %s for %s has %d bytes: %w", o.Topic, o.Meta.Type, o.Key, len(value), stream.ErrTooLarge)
	}
	if b.size += len(value) + len(o.Key); b.tooLarge() {
		return fmt.Errorf("%s %s for %s: %w", o.Topic, o.Meta.Type, o.Key, ErrBatchTooLarge)
	}
	b.outputs = append(b.outputs, o)
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
func (b *Batch) traceOf(cause *stream.Record) stream.Trace {
	if t, ok := b.traces[cause]; ok {
		return t
	}
	return cause.Trace()
}

// DeadLetter gives up a record for a reason that will not change, e.g. because
// it cannot be decoded. The rest of the batch goes on.
func (b *Batch) DeadLetter(cause *stream.Record, source, reason string, failure error) error {
	letter := stream.NewDeadLetter(cause, source, reason, failure, b.Now)
	err := b.Emit(cause, letter)
	if errors.Is(err, stream.ErrTooLarge) {
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

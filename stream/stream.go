// Package stream is the only road to and from Kafka: clients, records and their headers,
// the log that is appended to, the creation and checking of topics, offsets and lag. The
// packages below it are the only other users of Kafka's client: loop runs processors,
// reader reads the log, delivery delivers to destinations, replay sends again.
//
// It promises: an appended record is on all in-sync replicas, or an error says
// otherwise; a topic that is not as it must be is refused, with the command that mends
// it; memory is bounded.
package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/schemas"
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
	Seq, Era    int64 // its place in the order of its contact; Seq is 0 without one

	Unreadable error // neither headers nor content say what it is
}

// Appender appends messages to the log. Implemented by *Log.
type Appender interface {
	// Append returns when all in-sync replicas have the messages, in the order
	// given for each key. ErrBusy means that the bounded buffer is full or the
	// broker did not answer in time: the fate of the messages is unknown, and a
	// retry is safe only under the same idempotency key.
	Append(ctx context.Context, msgs ...schemas.Message) error
}

// ErrTooLarge is returned by Emit for a message beyond schemas.MaxRecord.
var ErrTooLarge = fmt.Errorf("message is larger than %d bytes", schemas.MaxRecord)

// maxFrame is what key and headers may take of the room that maxValue leaves them.
const maxFrame = 48 << 10

// Fits refuses a message whose key or headers are too large to be appended: the type
// of an event has its name in it.
func Fits(topic schemas.Topic, key string, m schemas.Meta, t Trace) error {
	if size := len(key) + len(m.ID) + len(m.Type) + len(t.Parent) + len(t.State); size > maxFrame {
		return fmt.Errorf("%s: key and headers have %d bytes, more than %d: %w", topic, size, maxFrame, ErrTooLarge)
	}
	return nil
}

// TimeText is a time as headers have it; empty for none.
func TimeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// Encoder turns messages into record values. Implemented by *schemas.Codec.
type Encoder interface {
	Encode(m schemas.Message) ([]byte, error)
}

// ErrTwin says that another process runs under the same instance name: the
// group fenced this one. Two processes need two names.
var ErrTwin = errors.New("another process runs under this instance name")

package stream

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hogstream/hogstream/schemas"
)

// NewDeadLetter makes the dead letter of a record. Its id is derived from the
// record's place, so giving the same record up again gives the same id.
func NewDeadLetter(r *Record, source, reason string, failure error, now time.Time) *schemas.DeadLetter {
	headers := map[string]string{}
	for k, v := range map[string]string{
		headerID: r.ID, headerType: r.Type, HeaderTraceParent: r.TraceParent, HeaderTraceState: r.TraceState,
		HeaderOccurredAt: TimeText(r.OccurredAt), HeaderFirstAppended: TimeText(r.OriginallyAppended()),
	} {
		if v != "" {
			headers[k] = v
		}
	}
	if r.Seq > 0 {
		headers[HeaderSeq], headers[HeaderEra] = strconv.FormatInt(r.Seq, 10), strconv.FormatInt(r.Era, 10)
	}
	text := failure.Error()
	text = CleanText(text[:min(len(text), maxLetterError)])
	if len(r.Key) > maxLetterKey {
		text += fmt.Sprintf(" (the key of %d bytes is cut off)", len(r.Key))
	}
	return &schemas.DeadLetter{
		ID:         schemas.Derive(fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), source, 0),
		OccurredAt: now, Source: source, Reason: reason, Error: text,
		SourceTopic: string(r.Topic), Partition: r.Partition, Offset: r.Offset,
		RecordID: r.ID, RecordType: r.Type, RecordKey: LetterKey(r.Key), RecordValue: r.Value, RecordHeaders: headers,
	}
}

// maxLetterKey is how much of a record's key stands in its dead letter, and is the
// letter's own key: there must be room for both.
const maxLetterKey = 8 << 10

// maxLetterError is how much of an error stands in a dead letter; one may quote what
// it is about.
const maxLetterError = 8 << 10

// LetterKey is as much of a record's key as stands in its dead letter.
func LetterKey(key []byte) []byte { return key[:min(len(key), maxLetterKey)] }

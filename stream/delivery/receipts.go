package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A record of a topic that answers (schemas.Feed) is addressed to one destination by a
// processor, which is told what came of it: by a receipt on topic signals. It is appended
// before the flush that moves the cursor beyond the record, or removes its parked row; so a
// crash may repeat a receipt, under the same id, and never loses one.

// OutboxCodec decodes outbox records and encodes them again. Implemented by *schemas.Codec.
type OutboxCodec interface {
	stream.Encoder
	DecodeOutbox(value []byte) (*schemas.Outbox, error)
}

// A told is a receipt, with the lease under which its record ended.
type told struct {
	signal  *schemas.Signal
	holding *holding
}

// ReceiptOf is what an asker is told of an outbox record that has ended by an attempt, the
// last of so many. gaveUp says that it will not be tried again for now, whatever the outcome.
func ReceiptOf(out *Outcome, attempts int, gaveUp bool) schemas.Receipt {
	r := schemas.Receipt{Result: resultOf(out.Verdict, gaveUp), Attempts: attempts}
	switch r.Result {
	case schemas.ReceiptAccepted:
		r.ReceiverID = receiverID(out.Answer)
	case schemas.ReceiptRefused, schemas.ReceiptGivenUp:
		r.Reason = cmp.Or(out.Reason, out.Class())
	}
	if out.Status != 0 {
		status := out.Status
		r.Status = &status
	}
	if len(out.Answer) > 0 {
		body := stream.CleanText(string(out.Answer))
		r.Body = &body
	}
	return r
}

func resultOf(v Verdict, gaveUp bool) string {
	switch {
	case v == Erased:
		return schemas.ReceiptErased
	case v == Expired:
		return schemas.ReceiptExpired
	case v == Cancelled:
		return schemas.ReceiptCancelled
	case gaveUp:
		return schemas.ReceiptGivenUp
	case v == Delivered:
		return schemas.ReceiptAccepted
	}
	return schemas.ReceiptRefused
}

// maxReceiverID is the longest id of a receiver's that is passed on.
const maxReceiverID = 256

// receiverID is what a receiver calls what it took: the member id of an answer in JSON.
func receiverID(answer []byte) *string {
	var a struct {
		ID json.RawMessage `json:"id"`
	}
	if len(answer) == 0 || answer[0] != '{' || json.Unmarshal(answer, &a) != nil {
		return nil
	}
	id := string(a.ID)
	if text := ""; json.Unmarshal(a.ID, &text) == nil {
		id = text
	} else if strings.ContainsAny(id, "{[") || id == "true" || id == "false" {
		return nil
	}
	if id == "" || id == "null" || len(id) > maxReceiverID || !utf8.ValidString(id) {
		return nil
	}
	return &id
}

// tell notes the receipts of a flight whose records have ended with this outcome.
func (f *flight) tell(out *Outcome, now time.Time) {
	gaveUp := f.dead != nil && out.Verdict == Delivered // its dead letters are appended
	if gaveUp {
		out = &f.lastOut
	}
	for i, it := range f.items {
		if it.ask == nil {
			continue
		}
		one := *out
		if len(out.Results) == len(f.items) {
			one.Verdict, one.Err = out.Results[i].Verdict, out.Results[i].Err
		}
		attempts := f.tries
		if gaveUp {
			attempts = f.madeTries
		} else if !one.Verdict.sent() {
			attempts-- // none was made
		}
		f.track.tell(it.ask, ReceiptOf(&one, attempts, gaveUp), now)
	}
}

// tell notes a receipt, to be appended with the next flush.
func (t *track) tell(o *schemas.Outbox, r schemas.Receipt, now time.Time) {
	t.receipts = append(t.receipts, schemas.ReceiptOf(o, r, now))
	t.courier.env.metrics.receipts.WithLabelValues(r.Result).Inc()
}

// ended is how a record ends that is not to be sent any more; false when it may be sent.
func (env *courierEnv) ended(it *item, now time.Time) (Verdict, bool) {
	switch {
	case env.erased.has(it.record):
		return Erased, true
	case it.ask == nil:
		return 0, false
	case env.cancelled.hasKey(it.ask.ID):
		return Cancelled, true
	case !now.Before(it.ask.NotAfter):
		return Expired, true
	}
	return 0, false
}

// ask is what was asked for in a record of a topic that answers, by its value.
func (env *courierEnv) ask(r *stream.Record) (*schemas.Outbox, error) {
	o, err := env.codec.DecodeOutbox(r.Value)
	if err != nil {
		return nil, fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return o, nil
}

// askOfParked is what was asked for in a record that was parked; nil of a topic that does not
// answer, or when that cannot be read.
func (env *courierEnv) askOfParked(r *storage.ParkedRecord) *schemas.Outbox {
	for _, value := range [][]byte{r.Ask, r.Value} {
		if r.NotAfter != nil && value != nil {
			if o, err := env.codec.DecodeOutbox(value); err == nil {
				return o
			}
		}
	}
	return nil
}

// parkAsk has a parked record say who asks for it, without what is to be sent.
func (env *courierEnv) parkAsk(r *storage.ParkedRecord, o *schemas.Outbox) {
	if o == nil {
		return
	}
	bare := *o
	bare.Body, bare.Headers = "", nil
	r.NotAfter = &bare.NotAfter
	r.Ask, _ = env.codec.Encode(&bare) // what was decoded is encoded; without it the value says so
}

// answers says whether the track reads a topic whose records have receipts.
func (t *track) answers() bool {
	return slices.ContainsFunc(t.places, func(p *place) bool { return p.answers })
}

// asks says which records of a flight have receipts; nil when none has.
func (f *flight) asks() []bool {
	if !slices.ContainsFunc(f.items, func(it item) bool { return it.ask != nil }) {
		return nil
	}
	asks := make([]bool, len(f.items))
	for i, it := range f.items {
		asks[i] = it.ask != nil
	}
	return asks
}

// notAfter is when the first record of a flight is too late; zero when none has an end.
func (f *flight) notAfter() (first time.Time) {
	for _, it := range f.items {
		if it.ask != nil && (first.IsZero() || it.ask.NotAfter.Before(first)) {
			first = it.ask.NotAfter
		}
	}
	return first
}

// appendReceipts appends the receipts of what is about to be flushed. Those of a lease that was
// lost are left out: whoever has it now begins at the cursor.
func (fl *flusher) appendReceipts(ctx context.Context) error {
	signals := make([]schemas.Message, 0, len(fl.kept.receipts))
	for _, r := range fl.kept.receipts {
		if !r.holding.lost.Load() {
			signals = append(signals, r.signal)
		}
	}
	if len(signals) > 0 {
		if err := fl.appender.Append(ctx, signals...); err != nil {
			return fmt.Errorf("append %d receipts: %w", len(signals), err)
		}
	}
	for _, r := range fl.kept.receipts {
		if id := r.signal.Receipt.OutboxID; fl.cancelled.hasKey(id) {
			fl.kept.cancels = append(fl.kept.cancels, id)
		}
	}
	fl.kept.receipts = fl.kept.receipts[:0]
	return nil
}

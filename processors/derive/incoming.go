package derive

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// incoming is a record as the frame reads it: one of event, fact and signal is set, or
// none of one that is given up.
type incoming struct {
	cause  *stream.Record
	id     string
	event  *schemas.Event
	fact   *schemas.Fact
	signal *schemas.Signal

	seq, era int64
	redriven bool // it was given up before
	fresh    bool // it came in this batch, and is no row yet
}

// decode reads a record of one of the frame's topics.
func decode(codec *schemas.Codec, r *stream.Record) (*incoming, error) {
	in := &incoming{cause: r, id: r.ID, seq: r.Seq, era: r.Era}
	var err error
	switch r.Topic {
	case schemas.TopicEvents:
		if in.event, err = codec.DecodeEvent(r.Value); err == nil {
			in.id, in.seq, in.era = in.event.ID, in.event.Seq, in.event.Era
		}
	case schemas.TopicLifecycle:
		if in.fact, err = codec.DecodeFact(r.Value); err == nil {
			in.id, in.seq, in.era = in.fact.ID, in.fact.Seq, in.fact.Era
		}
	case schemas.TopicSignals:
		if in.signal, err = codec.DecodeSignal(r.Value); err == nil {
			in.id, in.seq, in.era = in.signal.ID, 0, 0
		}
	default:
		err = fmt.Errorf("topic %s is none that a derived processor reads: %w", r.Topic, schemas.ErrUndecodable)
	}
	return in, err
}

// kind is what a record is to the order of its contact.
type kind int

const (
	unordered kind = iota // from before there were numbers
	numbered              // by contacts; takes its place
	derived               // a fact of another processor, which waits for its cause
	handover              // waits for contact.merged
	receipt               // waits while a hand-over does, which may have what was asked for
	direct                // a signal that acts when it is read
)

func (in *incoming) kind() kind {
	switch {
	case in.signal != nil && in.signal.Type == schemas.SignalHandover:
		return handover
	case in.isOf(schemas.SignalReceipt) && in.signal.Receipt != nil:
		return receipt
	case in.signal != nil:
		return direct
	case in.seq > 0:
		return numbered
	case in.fact != nil && in.fact.WriterSeq > 0:
		return derived
	}
	return unordered
}

// isOf says that the record is a signal of a type.
func (in *incoming) isOf(typ string) bool { return in.signal != nil && in.signal.Type == typ }

// hops is how many facts led to the record.
func (in *incoming) hops() int {
	switch {
	case in.event != nil:
		return in.event.Hops
	case in.fact != nil:
		return in.fact.Hops
	case in.kind() == receipt:
		return in.signal.Receipt.Hops
	case in.isOf(schemas.SignalCommand):
		return in.signal.Hops
	}
	return 0
}

// merges is the loser that a contact.merged names; empty for another record.
func (in *incoming) merges() string {
	if in.fact != nil && in.fact.Type == schemas.FactContactMerged && in.fact.Merged != nil {
		return in.fact.Merged.LoserID
	}
	return ""
}

// handed is what a loser hands over: the State of a signal.
type handed struct {
	Loser string   `json:"loser"`
	Took  []string `json:"took,omitempty"`
	State []byte   `json:"state"`
}

func (in *incoming) handed() (handed, error) {
	var h handed
	if in.kind() != handover || in.signal.State == nil {
		return h, errors.New("a hand-over without a state")
	}
	if err := json.Unmarshal([]byte(*in.signal.State), &h); err != nil {
		return h, fmt.Errorf("hand-over: %w", err)
	}
	if h.Loser == "" {
		return h, errors.New("a hand-over that names no loser")
	}
	return h, nil
}

// loser is whose hand-over it is; empty for another record, and for one that cannot be read.
func (in *incoming) loser() string {
	h, err := in.handed()
	if err != nil {
		return ""
	}
	return h.Loser
}

// open reads the record that a signal carries. It has the signal's place: a dead letter
// of it can be redriven again.
func (in *incoming) open(codec *schemas.Codec) (*incoming, error) {
	r, redriven, err := stream.Enclosed(in.signal)
	if err != nil {
		return nil, err
	}
	inner, err := decode(codec, r)
	if err != nil {
		return nil, fmt.Errorf("enclosed record: %w", err)
	}
	inner.cause, inner.redriven = in.cause, redriven
	return inner, nil
}

// writer is who wrote a derived fact, as its type says, and of which contact.
func writer(f *schemas.Fact, contact string) string {
	name, _, _ := strings.Cut(f.Type, ".")
	if f.ContactID != contact {
		name += "/" + f.ContactID
	}
	return name
}

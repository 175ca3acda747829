package explain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// Errors of who asks for what is not on the log.
var (
	ErrNoRecord = errors.New("no such record is among the newest on the log: give its place (lifecycle-3-1204), which finds it however old it is")
	ErrNoLog    = errors.New("there are no brokers to ask")
	ErrRecord   = errors.New("neither the id of a record nor its place: write an id, or topic-partition-offset such as lifecycle-3-1204")
)

// How far is looked for causes and effects. A read is 64 KiB, a range 500 offsets.
const (
	rangesForCause  = 8
	readsForEffects = 64
	mostCauses      = 32
	mostEffects     = 200
)

// tracedTopics are those whose records lead from what was sent to what is told, in this order.
var tracedTopics = []schemas.Topic{schemas.TopicIngest, schemas.TopicResolved, schemas.TopicSignals, schemas.TopicEvents, schemas.TopicLifecycle}

// Trace is a record with what led to it and what it caused, by the ids and causes on the log.
type Trace struct {
	Record Traced `json:"record"`
	// Causes led to it, the nearest first: each was caused by the one after it.
	Causes []Traced `json:"causes"`
	// Effects were caused by it, or by one of them; each comes after its cause.
	Effects []Traced `json:"effects"`
	// Whole says that the log was read for effects to its end, or to as many as there may be;
	// else there may be more.
	Whole bool `json:"whole"`
}

// Traced is a record of a Trace.
type Traced struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	ContactID  string          `json:"contactId,omitempty"` // none of what was sent, before it is resolved
	OccurredAt time.Time       `json:"occurredAt"`
	Place      predicate.Place `json:"place"`
	// CauseID is the id of the record that caused it; empty of what was sent, of a timer, and
	// of a command.
	CauseID string `json:"causeId,omitempty"`
	// Bucket is that of a bucket.* fact.
	Bucket string `json:"bucket,omitempty"`
}

// Trace finds a record by its id or its place (topic-partition-offset), what led to it, and
// what it caused. Errors are ErrRecord and ErrNoRecord, and ErrNoLog without brokers.
func (x *Explainer) Trace(ctx context.Context, record string) (*Trace, error) {
	if x.admin == nil {
		return nil, ErrNoLog
	}
	r, err := x.findRecord(ctx, record)
	if err != nil {
		return nil, err
	}
	scan, err := reader.NewScanner(ctx, x.admin, tracedTopics...)
	if err != nil {
		return nil, err
	}
	t := &tracer{x: x, scan: scan}
	out := &Trace{Causes: []Traced{}, Effects: []Traced{}}
	if out.Record, err = t.describe(r); err != nil {
		return nil, err
	}
	if out.Causes, err = t.causes(ctx, out.Record); err != nil {
		return nil, err
	}
	out.Effects, out.Whole, err = t.effects(ctx, out.Record)
	return out, err
}

// findRecord reads a record by its id or its place.
func (x *Explainer) findRecord(ctx context.Context, record string) (r *stream.Record, err error) {
	if place, ok := readPlace(record); ok {
		r, err = reader.ReadRecord(ctx, x.admin, schemas.Topic(place.Topic), place.Partition, place.Offset)
	} else if uuid.Validate(record) == nil {
		r, err = reader.FindRecord(ctx, x.admin, strings.ToLower(record), reader.SoughtByID, tracedTopics...)
	} else {
		return nil, ErrRecord
	}
	if err == nil && (r == nil || r.Value == nil) {
		err = ErrNoRecord
	}
	return r, err
}

// readPlace reads topic-partition-offset, of a topic that is traced.
func readPlace(text string) (p predicate.Place, ok bool) {
	parts := strings.Split(text, "-")
	if len(parts) != 3 || !slices.Contains(tracedTopics, schemas.Topic(parts[0])) {
		return p, false
	}
	partition, err := strconv.ParseInt(parts[1], 10, 32)
	offset, err2 := strconv.ParseInt(parts[2], 10, 64)
	return predicate.Place{Topic: parts[0], Partition: int32(partition), Offset: offset}, err == nil && err2 == nil && partition >= 0 && offset >= 0
}

// tracer follows causes.
type tracer struct {
	x    *Explainer
	scan *reader.Scanner
}

// describe says what a record is, and what caused it. Of an event that is the input from whose
// id its own is derived, which the event does not say.
func (t *tracer) describe(r *stream.Record) (Traced, error) {
	out := Traced{ID: r.ID, Type: r.Type, OccurredAt: r.OccurredAt.UTC(), Place: *placeOf(r), ContactID: string(r.Key)}
	switch r.Topic {
	case schemas.TopicIngest:
		out.ContactID = ""
	case schemas.TopicResolved:
		resolved, err := t.x.codec.DecodeResolved(r.Value)
		if err != nil {
			return out, fmt.Errorf("decode %s-%d-%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		switch {
		case resolved.Input != nil:
			out.CauseID = resolved.Input.ID
		case resolved.Merge != nil:
			out.CauseID = resolved.Merge.InputID
		}
	case schemas.TopicLifecycle:
		fact, err := t.x.codec.DecodeFact(r.Value)
		if err != nil {
			return out, fmt.Errorf("decode %s-%d-%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		out.CauseID = fact.CauseID
		if fact.Bucket != nil {
			out.Bucket = fact.Bucket.BucketID
		}
	}
	return out, nil
}

// causes goes back from a record, as far as causes are found.
func (t *tracer) causes(ctx context.Context, of Traced) (all []Traced, err error) {
	all = []Traced{}
	for range mostCauses {
		cause, err := t.cause(ctx, of)
		if err != nil || cause == nil {
			return all, err
		}
		all, of = append(all, *cause), *cause
	}
	return all, nil
}

// cause finds the record that caused one; nil when there is none, or it is not found.
func (t *tracer) cause(ctx context.Context, of Traced) (*Traced, error) {
	switch schemas.Topic(of.Place.Topic) {
	case schemas.TopicResolved:
		return t.input(ctx, of)
	case schemas.TopicEvents:
		return t.before(ctx, of, schemas.TopicResolved, func(r *Traced) bool { return schemas.EventID(r.CauseID) == of.ID })
	case schemas.TopicLifecycle:
		for _, topic := range []schemas.Topic{schemas.TopicEvents, schemas.TopicSignals, schemas.TopicLifecycle, schemas.TopicResolved} {
			cause, err := t.before(ctx, of, topic, func(r *Traced) bool {
				return r.ID == of.CauseID || topic == schemas.TopicResolved && r.CauseID == of.CauseID // facts name the input
			})
			if err != nil || cause != nil {
				return cause, err
			}
		}
	}
	return nil, nil
}

// before looks for a record of the same contact that was appended before another.
func (t *tracer) before(ctx context.Context, of Traced, topic schemas.Topic, is func(*Traced) bool) (found *Traced, err error) {
	key := t.key(of.ContactID, topic)
	end, err := t.end(ctx, key, of.Place.AppendedAt)
	if err != nil {
		return nil, err
	}
	var failed error
	_, err = t.scan.Before(ctx, key, end, rangesForCause, func(r *stream.Record) bool {
		if string(r.Key) != of.ContactID || r.Value == nil {
			return true
		}
		var cause Traced
		if cause, failed = t.describe(r); failed == nil && is(&cause) {
			found = &cause
		}
		return failed == nil && found == nil
	})
	return found, errors.Join(err, failed)
}

// end is the offset behind what had been appended at a time.
func (t *tracer) end(ctx context.Context, key stream.TopicPartition, at time.Time) (int64, error) {
	return t.scan.OffsetAfter(ctx, key, at.Add(time.Millisecond))
}

// input finds what was sent of a resolved record: it has another key.
func (t *tracer) input(ctx context.Context, of Traced) (*Traced, error) {
	for p := range t.scan.Partitions(schemas.TopicIngest) {
		key := stream.TopicPartition{Topic: schemas.TopicIngest, Partition: int32(p)}
		end, err := t.end(ctx, key, of.Place.AppendedAt)
		if err != nil {
			return nil, err
		}
		var found *Traced
		_, err = t.scan.Before(ctx, key, end, rangesForCause, func(r *stream.Record) bool {
			if r.ID != of.CauseID {
				return true
			}
			found = &Traced{ID: r.ID, Type: r.Type, OccurredAt: r.OccurredAt.UTC(), Place: *placeOf(r)}
			return false
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

// effects are what a record caused, and what they did.
func (t *tracer) effects(ctx context.Context, of Traced) (all []Traced, whole bool, err error) {
	all, whole = []Traced{}, true
	if of.ContactID == "" {
		resolved, err := t.resolved(ctx, of)
		if err != nil || resolved == nil {
			return all, true, err
		}
		all, of.ContactID = append(all, *resolved), resolved.ContactID
	}
	caused := map[string]bool{of.ID: true}
	from := schemas.Topic(of.Place.Topic)
	if from == schemas.TopicResolved {
		caused[of.CauseID] = true // facts and events name the input
	}
	for _, topic := range []schemas.Topic{schemas.TopicEvents, schemas.TopicLifecycle} {
		if from == schemas.TopicLifecycle && topic == schemas.TopicEvents {
			continue
		}
		through, err := t.follow(ctx, of, topic, caused, &all)
		if err != nil {
			return nil, false, err
		}
		whole = whole && through
	}
	return all, whole, nil
}

// follow reads a topic from the time of a record on, for what was caused by those that are
// known.
func (t *tracer) follow(ctx context.Context, of Traced, topic schemas.Topic, caused map[string]bool, all *[]Traced) (whole bool, err error) {
	var failed error
	_, whole, err = t.scan.After(ctx, t.key(of.ContactID, topic), of.Place.AppendedAt.Add(-earlier), readsForEffects, func(r *stream.Record) bool {
		if string(r.Key) != of.ContactID || r.ID == of.ID || r.Value == nil {
			return true
		}
		var effect Traced
		if effect, failed = t.describe(r); failed != nil {
			return false
		}
		for _, input := range []string{of.ID, of.CauseID} {
			if topic == schemas.TopicEvents && schemas.EventID(input) == r.ID {
				effect.CauseID = input
			}
		}
		if caused[effect.CauseID] {
			caused[effect.ID] = true
			*all = append(*all, effect)
		}
		return len(*all) < mostEffects
	})
	return whole, errors.Join(err, failed)
}

// resolved finds what became of an input.
func (t *tracer) resolved(ctx context.Context, of Traced) (found *Traced, err error) {
	for p := range t.scan.Partitions(schemas.TopicResolved) {
		key := stream.TopicPartition{Topic: schemas.TopicResolved, Partition: int32(p)}
		_, _, err = t.scan.After(ctx, key, of.Place.AppendedAt.Add(-earlier), readsForEffects, func(r *stream.Record) bool {
			if r.ID != schemas.Derive(of.ID, "resolved", 0) {
				return true
			}
			found = &Traced{ID: r.ID, Type: r.Type, ContactID: string(r.Key), OccurredAt: r.OccurredAt.UTC(), Place: *placeOf(r), CauseID: of.ID}
			return false
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, nil
}

func (t *tracer) key(contact string, topic schemas.Topic) stream.TopicPartition {
	return stream.TopicPartition{Topic: topic, Partition: stream.PartitionOf([]byte(contact), t.scan.Partitions(topic))}
}

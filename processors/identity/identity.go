// Package identity answers "who is this?": it reads topic ingest, maps each
// input's subject to a contact id, and passes the input on, keyed by contact, on
// topic resolved.
//
// What it promises the others:
//   - It is the only writer of identifiers. An identifier belongs to at most one
//     contact, also when two members resolve two subjects of one person at once.
//   - Every link, merge and deletion stands on topic resolved.
//   - Two different user ids never become one contact. What contradicts that is
//     a conflict: the input goes to the contact of its strongest identifier
//     (user id, then email, then anonymous id), the others stay where they are.
//   - An id that programs send by mistake (undefined, null, …) is nobody's: it neither
//     finds nor names a contact, and a conflict says so.
//   - An input whose idempotency key was seen within the window changes nobody:
//     it is passed on as a duplicate, for its lists.
//   - After a deletion, an input appended before it cannot bring the person back.
//
// The decision is [view.resolve], a function of what is known and the input; the
// rest of the package loads before and writes after it.
package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// Name is the processor's name, which never changes.
const Name = "identity"

// Config is what can be set. The zero value is the default.
type Config struct {
	// IdempotencyWindow is how long an idempotency key keeps others away; 0
	// means 24 h. At most the retention of topic ingest makes sense.
	IdempotencyWindow time.Duration
}

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.IdempotencyWindow < 0 {
		return fmt.Errorf("identity: IdempotencyWindow %s: must be positive, or 0 for 24 h", c.IdempotencyWindow)
	}
	return nil
}

// Processor implements loop.Processor. It keeps nothing between batches and is
// safe for concurrent use by several members of the group.
type Processor struct {
	window time.Duration
	codec  *schemas.Codec
	inputs *prometheus.CounterVec
}

var _ loop.Processor = (*Processor)(nil)

// New makes the processor. Its figures are registered on reg unless that is nil.
func New(cfg Config, codec *schemas.Codec, reg prometheus.Registerer) (*Processor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Processor{window: cfg.IdempotencyWindow, codec: codec, inputs: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "identity", Name: "inputs_total",
		Help: "Inputs by what became of them: resolved, created, linked, merged, duplicate, deleted, not_found, erased, refused. A batch that is run again counts again.",
	}, []string{"outcome"})}
	if p.window == 0 {
		p.window = 24 * time.Hour
	}
	if reg != nil {
		if err := reg.Register(p.inputs); err != nil {
			return nil, fmt.Errorf("identity: register figures: %w", err)
		}
	}
	return p, nil
}

// Name implements loop.Processor.
func (p *Processor) Name() string { return Name }

// Topics are what the processor reads.
func Topics() []schemas.Topic { return []schemas.Topic{schemas.TopicIngest} }

// Topics implements loop.Processor.
func (p *Processor) Topics() []schemas.Topic { return Topics() }

// input is a record of the batch beside what stands in it.
type input struct {
	*schemas.Input
	record  *stream.Record
	place   storage.Place
	subject []schemas.Identifier // strongest first
	// mistaken are ids that were sent and that are none; see schemas.MistakenID.
	mistaken []schemas.Conflict
	again    bool // redriven, and so was another record of the same input
}

// placeOf is where an input counts as sent. One that was redriven from a dead letter
// was sent when it was appended first, so a deletion since then wins over it; a
// deletion itself counts from now on.
func placeOf(in *schemas.Input, r *stream.Record) storage.Place {
	if r.FirstAppended.IsZero() || in.Type == schemas.InputDelete {
		return storage.Place{Partition: r.Partition, Offset: r.Offset, AppendTime: r.AppendTime}
	}
	return storage.Place{Partition: -2, AppendTime: r.FirstAppended} // no partition, as its offset says nothing of its order
}

// redriven is the claim of a redriven input: a redrive whose outcome was unknown is
// made again, and the second record changes nobody. It is by the record's place, for
// a record that is applied again is no other.
func (in *input) redriven() (storage.Claim, bool) {
	if r := in.record; !r.FirstAppended.IsZero() {
		return storage.Claim{
			Key:     storage.IdempotencyKey{Scope: redrivenScope, Key: in.ID},
			InputID: schemas.Derive(in.ID, redrivenScope, int(r.Offset)), At: r.AppendTime,
		}, true
	}
	return storage.Claim{}, false
}

// redrivenScope is no scope that a sender can have.
const redrivenScope = "\x01redriven"

// Apply implements loop.Processor.
func (p *Processor) Apply(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
	inputs, err := p.decode(b)
	if err != nil || len(inputs) == 0 {
		return err
	}
	v, err := p.load(ctx, tx, inputs)
	if err != nil {
		return err
	}
	var answers []storage.Answer
	outcomes := make(map[string]int)
	for i := range inputs {
		in := &inputs[i]
		d := v.resolve(in)
		outcomes[d.outcome]++
		if err := emit(b, in, d); err != nil {
			return err
		}
		if d.answer != nil && in.Wait {
			text, err := json.Marshal(d.answer)
			if err != nil {
				return fmt.Errorf("encode the answer to input %s: %w", in.ID, err)
			}
			answers = append(answers, storage.Answer{InputID: in.ID, JSON: text})
		}
	}
	for outcome, n := range outcomes {
		p.inputs.WithLabelValues(outcome).Add(float64(n))
	}
	b.Decided()
	if err := v.save(ctx, tx, b.Now); err != nil {
		return err
	}
	return tx.SaveAnswers(ctx, answers, b.Now)
}

// decode gives up records that are no inputs, cannot be, or have no subject.
func (p *Processor) decode(b *loop.Batch) ([]input, error) {
	inputs := make([]input, 0, len(b.Records))
	for _, r := range b.Records {
		m, err := p.codec.DecodeInput(r.Value)
		switch {
		case errors.Is(err, schemas.ErrUndecodable):
			if err := b.DeadLetter(r, "processor:"+Name, "undecodable", err); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		in := input{Input: m, record: r, place: placeOf(m, r)}
		in.subject, in.mistaken = normalise(m)
		if err = m.Validate(); err == nil {
			err = in.checkSubject()
		}
		if err != nil {
			if err := b.DeadLetter(r, "processor:"+Name, "failed", err); err != nil {
				return nil, err
			}
			continue
		}
		inputs = append(inputs, in)
	}
	return inputs, nil
}

// checkSubject says why an input is about nobody. An event whose ids were all sent by
// mistake is kept, with a contact of its own.
func (in *input) checkSubject() error {
	switch {
	case len(in.subject) > 0 || in.ContactID != nil:
		return nil
	case len(in.mistaken) == 0:
		return errors.New("the input names no subject")
	case in.Type == schemas.InputEvent:
		return nil
	}
	m := in.mistaken[0]
	return fmt.Errorf("the input names no subject: the %s id %s", m.Kind, m.Reason)
}

// load reads everything that the batch's decisions depend on.
func (p *Processor) load(ctx context.Context, tx *storage.Tx, inputs []input) (*view, error) {
	var claims []storage.Claim
	var contacts []string
	ids := make([]schemas.Identifier, 0, 2*len(inputs))
	seen := make(map[schemas.Identifier]bool, 2*len(inputs))
	since := inputs[0].place.AppendTime
	for i := range inputs {
		in := &inputs[i]
		if in.IdempotencyKey != nil {
			key := storage.IdempotencyKey{Scope: value(in.Scope), Key: *in.IdempotencyKey}
			claims = append(claims, storage.Claim{Key: key, InputID: in.ID, At: in.place.AppendTime})
		}
		if claim, ok := in.redriven(); ok {
			claims = append(claims, claim)
		}
		if in.ContactID != nil {
			contacts = append(contacts, *in.ContactID)
		}
		for _, id := range in.subject {
			if !seen[id] {
				seen[id] = true
				ids = append(ids, id)
			}
		}
		if in.place.AppendTime.Before(since) {
			since = in.place.AppendTime
		}
	}
	// Keys are taken before anybody is looked up, so that of two members with
	// the same key the second waits here and sees what the first one did.
	duplicates, err := tx.ClaimKeys(ctx, claims, p.window)
	if err != nil {
		return nil, err
	}
	for i := range inputs {
		if claim, ok := inputs[i].redriven(); ok {
			inputs[i].again = duplicates[claim.InputID] != ""
		}
	}
	found, err := tx.LoadIdentities(ctx, ids, contacts, since)
	if err != nil {
		return nil, err
	}
	v := newView(found, duplicates)
	v.since = since
	if found.HasErasure {
		if v.erased, err = tx.ErasedIdentifiers(ctx, ids, since); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// emit publishes what was decided about an input.
func emit(b *loop.Batch, in *input, d decision) error {
	if d.poison != nil {
		return b.DeadLetter(in.record, "processor:"+Name, "failed", d.poison)
	}
	for i := range d.out {
		if err := b.Emit(in.record, &d.out[i]); err != nil {
			return err
		}
	}
	return nil
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func pointer(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

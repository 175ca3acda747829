package derive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// takenAtOnce bounds the memory of a step of the take-over, and how much of it a crash repeats.
const takenAtOnce = 1000

// Topics are what a derived processor reads: all that is numbered of a contact, and its
// own signals. A change comes before the event that brought it, and signals after both.
func Topics() []schemas.Topic {
	return []schemas.Topic{schemas.TopicLifecycle, schemas.TopicEvents, schemas.TopicSignals}
}

// Frame is a Processor as the loop runs it. Between batches it keeps nothing but how fast
// fillings may go, and is safe for concurrent use by several members of the group.
type Frame[S any] struct {
	p     Processor[S]
	codec *schemas.Codec
	seen  *prometheus.CounterVec
	took  prometheus.Histogram
	chunk int // how many contacts a step of the take-over reads

	pace   pacing
	live   atomic.Int64 // when there were records last, in Unix nanoseconds
	failed atomic.Bool  // the last step of a filling: the next ones are small, until one goes through
}

var (
	_ loop.TakesOver = (*Frame[int])(nil)
	_ loop.GivesUp   = (*Frame[int])(nil)
)

// New puts a processor into the frame. Its figures are registered on reg unless that is nil.
func New[S any](p Processor[S], codec *schemas.Codec, reg prometheus.Registerer) (*Frame[S], error) {
	f := &Frame[S]{p: p, codec: codec, chunk: takenAtOnce, pace: fillPace, seen: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "derive", Name: "records_total", ConstLabels: prometheus.Labels{"processor": p.Name()},
		Help: "Records of a derived processor by what became of them: handled, held (they wait for earlier ones of their contact), undecodable; and contacts: taken_over, filled, unfilled (it failed). A batch that is run again counts again.",
	}, []string{"outcome"}), took: prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: "hogstream", Subsystem: "derive", Name: "step_seconds", ConstLabels: prometheus.Labels{"processor": p.Name()},
		Help: "Time of the processor's own work on a record, without loading and saving: the mean of each batch.", Buckets: prometheus.ExponentialBuckets(1e-6, 4, 8),
	})}
	if reg != nil {
		if err := errors.Join(reg.Register(f.seen), reg.Register(f.took)); err != nil {
			return nil, fmt.Errorf("processor %s: register figures: %w", p.Name(), err)
		}
	}
	return f, nil
}

// Name implements loop.Processor.
func (f *Frame[S]) Name() string { return f.p.Name() }

// Topics implements loop.Processor.
func (f *Frame[S]) Topics() []schemas.Topic { return Topics() }

// States are the states of contacts, as of the last batch that was applied.
func (f *Frame[S]) States(ctx context.Context, tx *storage.Tx, contacts []string) (map[string]S, error) {
	found, err := tx.LoadDerived(ctx, f.p.Name(), contacts)
	if err != nil {
		return nil, err
	}
	states := make(map[string]S, len(found.Contacts))
	for id, row := range found.Contacts {
		if row.State == nil {
			continue
		}
		if states[id], err = f.p.Decode(row.State); err != nil {
			return nil, fmt.Errorf("state of contact %s: %w", id, err)
		}
	}
	return states, nil
}

// Apply implements loop.Processor.
func (f *Frame[S]) Apply(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
	logic, err := f.p.At(ctx, tx)
	if err != nil {
		return err
	}
	batch, fills, err := f.decode(b, logic)
	if err != nil || len(batch)+len(fills) == 0 {
		return err
	}
	w, err := f.load(ctx, tx, b, logic, batch)
	if err != nil {
		return err
	}
	passes, err := w.passes(ctx, tx, fills)
	if err != nil {
		return err
	}
	atOnce, times := f.paceOf(b.Now, len(batch))
	passes.start(ctx, atOnce, times)
	defer passes.stop()
	if err := w.handle(ctx, tx, batch); err != nil {
		return err
	}
	if err := f.noteFailure(passes.run(ctx)); err != nil {
		return err
	}
	if err := passes.moveOn(); err != nil {
		return err
	}
	f.seen.WithLabelValues("handled").Add(float64(len(batch)))
	f.seen.WithLabelValues("filled").Add(float64(w.machine.filled))
	f.seen.WithLabelValues("unfilled").Add(float64(w.machine.unfilled))
	if w.machine.unfilled > 0 {
		b.Log.Warn("derive.unfilled", zap.Int("contacts", w.machine.unfilled), zap.NamedError("last", w.machine.why))
	}
	b.Decided()
	return w.save(ctx, tx, w.changed())
}

// handle fills those of the batch that are behind, and handles its records.
func (w *work[S]) handle(ctx context.Context, tx *storage.Tx, batch []*incoming) error {
	if err := w.fill(ctx, tx); err != nil {
		return err
	}
	begun := time.Now()
	for _, in := range batch {
		if w.of(in).isOfFormerEra(in) {
			return fmt.Errorf("%s of contact %s is of era %d, which began without %s: %w", in.cause.Type, in.cause.Key, in.era, w.f.p.Name(), loop.ErrElsewhere)
		}
		if err := w.machine.handle(w.of(in), in); err != nil {
			return fmt.Errorf("handle %s of contact %s: %w", in.cause.Type, in.cause.Key, err)
		}
	}
	if len(batch) > 0 {
		w.f.took.Observe(time.Since(begun).Seconds() / float64(len(batch)))
	}
	return w.fillAgain(ctx, tx)
}

// GaveUp implements loop.GivesUp: the record takes its number, so that those behind it go
// on. A step of a filling is passed over: its contacts are filled with their next records.
func (f *Frame[S]) GaveUp(ctx context.Context, tx *storage.Tx, b *loop.Batch, r *stream.Record) error {
	logic, err := f.p.At(ctx, tx)
	if err != nil {
		return err
	}
	var batch, fills []*incoming
	switch {
	case r.Topic == schemas.TopicSignals:
		if in, err := decode(f.codec, r); err == nil && f.isFill(in) {
			fills = append(fills, in)
		}
	case r.Seq > 0 && uuid.Validate(string(r.Key)) == nil:
		batch = append(batch, &incoming{cause: r, id: r.ID, seq: r.Seq, era: r.Era, fresh: true})
	}
	if len(batch)+len(fills) == 0 {
		return nil
	}
	w, err := f.load(ctx, tx, b, logic, batch)
	if err != nil {
		return err
	}
	for _, in := range batch {
		if err := w.machine.handle(w.of(in), in); err != nil {
			return fmt.Errorf("go on after what contact %s was to be given: %w", r.Key, err)
		}
	}
	passes, err := w.passes(ctx, tx, fills)
	if err != nil {
		return err
	}
	passes.over = true
	passes.start(ctx, f.pace.atOnce, 1)
	defer passes.stop()
	if err := passes.run(ctx); err != nil {
		return err
	}
	if err := passes.moveOn(); err != nil {
		return err
	}
	return w.save(ctx, tx, w.changed())
}

// TakeOver implements loop.TakesOver.
func (f *Frame[S]) TakeOver(ctx context.Context, tx *storage.Tx, b *loop.Batch, partition int32, after uuid.UUID) (uuid.UUID, error) {
	now, err := tx.Clock(ctx)
	if err != nil {
		return uuid.Nil, err
	}
	logic, err := f.p.At(ctx, tx)
	if err != nil {
		return uuid.Nil, err
	}
	w := &work[S]{f: f, machine: machine[S]{p: f.p, l: logic, codec: f.codec, out: b, now: now.UTC()}}
	if looksBeside(logic) {
		ids, err := tx.ContactsAfter(ctx, partition, after, f.chunk)
		if err != nil {
			return uuid.Nil, err
		}
		if w.machine.beside, err = tx.BesideContacts(ctx, ids); err != nil {
			return uuid.Nil, err
		}
	}
	cause := &stream.Record{Topic: schemas.TopicSignals, Partition: partition} // what is handed over has no other
	last, err := tx.TakeContacts(ctx, f.p.Name(), partition, after, f.chunk, func(t *storage.Taken) error {
		c, err := w.machine.takeOver(t, cause)
		if err == nil {
			w.order = append(w.order, c)
		}
		return err
	})
	if err != nil {
		return uuid.Nil, err
	}
	first := after == uuid.Nil || after == storage.TakeNobody
	if err := w.noteTakeOver(ctx, tx, partition, first, last == uuid.Nil); err != nil {
		return uuid.Nil, err
	}
	f.seen.WithLabelValues("taken_over").Add(float64(len(w.order)))
	if err := w.save(ctx, tx, w.changed()); err != nil || last != uuid.Nil {
		return last, err
	}
	return last, f.forgetUntaken(ctx, tx, partition)
}

func looksBeside[S any](logic Logic[S]) bool {
	l, ok := logic.(LooksBeside)
	return ok && l.LooksBeside()
}

// forgetUntaken forgets whom a take-over anew did not come to.
func (f *Frame[S]) forgetUntaken(ctx context.Context, tx *storage.Tx, partition int32) error {
	gone, err := tx.ForgetUntaken(ctx, f.p.Name(), partition)
	if err != nil || len(gone) == 0 {
		return err
	}
	forget := make([]Change[S], len(gone))
	for i, id := range gone {
		forget[i] = Change[S]{ContactID: id, Partition: partition, Forget: true}
	}
	return f.p.Save(ctx, tx, forget)
}

// Clear has everybody taken over anew (storage.TakeOverAnew), with the state from before.
// What is said later has numbers that were not used before.
func (f *Frame[S]) Clear(ctx context.Context, tx *storage.Tx) error {
	return tx.ClearDerived(ctx, f.p.Name())
}

// decode reads the batch, gives up what nobody can read, and sorts it: what is numbered
// comes first and by number, so that nearly nothing has to wait. Steps of a filling are
// apart: they are about many contacts.
func (f *Frame[S]) decode(b *loop.Batch, logic Logic[S]) (batch, fills []*incoming, err error) {
	batch = make([]*incoming, 0, len(b.Records))
	for _, r := range b.Records {
		if isUnwanted(r, logic) {
			continue
		}
		in, err := decode(f.codec, r)
		if err == nil && uuid.Validate(string(r.Key)) != nil {
			err = fmt.Errorf("the key is no contact's id: %w", schemas.ErrUndecodable)
			in.seq = 0
		}
		switch {
		case errors.Is(err, schemas.ErrUndecodable):
			f.seen.WithLabelValues("undecodable").Inc()
			if err := b.DeadLetter(r, "processor:"+f.p.Name(), "undecodable", err); err != nil {
				return nil, nil, err
			}
			if in.seq == 0 || uuid.Validate(string(r.Key)) != nil {
				continue
			}
		case err != nil:
			return nil, nil, fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		switch {
		case f.isFill(in):
			fills = append(fills, in)
		case f.concerns(in, logic):
			in.fresh = true
			batch = append(batch, in)
		}
	}
	slices.SortStableFunc(batch, func(a, b *incoming) int {
		if c := cmp.Compare(a.kind(), b.kind()); c != 0 || a.kind() != numbered {
			return c
		}
		return cmp.Or(cmp.Compare(a.era, b.era), cmp.Compare(a.seq, b.seq))
	})
	return batch, fills, nil
}

// isUnwanted says, by its headers alone, that a record is a derived fact of no interest, as
// most that are told of runs are to buckets, and all of its own to a processor: it is not
// decoded.
func isUnwanted[S any](r *stream.Record, logic Logic[S]) bool {
	return r.Topic == schemas.TopicLifecycle && r.Seq == 0 && r.Type != "" && !logic.Wants(r.Type)
}

func (f *Frame[S]) isFill(in *incoming) bool {
	return in.isOf(schemas.SignalFill) && in.signal.For == f.p.Name()
}

// concerns says that the record is for this processor.
func (f *Frame[S]) concerns(in *incoming, logic Logic[S]) bool {
	switch in.kind() {
	case handover, direct, receipt:
		return in.signal.For == f.p.Name()
	case derived:
		return logic.Wants(in.fact.Type)
	}
	return in.kind() == numbered
}

// work is a batch in hand.
type work[S any] struct {
	f        *Frame[S]
	machine  machine[S]
	contacts map[string]*contact[S]
	order    []*contact[S]  // each once; those of a batch in the order of the indexes (read)
	moved    []storage.Fill // where fillings stand now
}

// of is the contact of a record.
func (w *work[S]) of(in *incoming) *contact[S] { return w.contacts[string(in.cause.Key)] }

// load reads the state of everybody in the batch.
func (f *Frame[S]) load(ctx context.Context, tx *storage.Tx, b *loop.Batch, logic Logic[S], batch []*incoming) (*work[S], error) {
	w := &work[S]{
		f: f, contacts: make(map[string]*contact[S], len(batch)),
		machine: machine[S]{p: f.p, l: logic, codec: f.codec, out: b, alone: len(b.Records) == 1},
	}
	for _, in := range batch {
		w.add(string(in.cause.Key), in.cause).inBatch = true
	}
	return w, w.read(ctx, tx)
}

// add takes a contact into the batch.
func (w *work[S]) add(id string, cause *stream.Record) *contact[S] {
	c := w.contacts[id]
	if c == nil {
		c = &contact[S]{row: storage.Derived{ContactID: id, Partition: cause.Partition}, cause: cause}
		w.contacts[id], w.order = c, append(w.order, c)
	}
	return c
}

// read loads what is kept of the contacts of the batch. They are looked up in the order of the
// indexes, and saved so: with a million contacts that saves a tenth of what buckets adds to an
// event (bench crowd: 57.9 and 52.7 µs).
func (w *work[S]) read(ctx context.Context, tx *storage.Tx) error {
	slices.SortFunc(w.order, func(a, b *contact[S]) int { return strings.Compare(a.row.ContactID, b.row.ContactID) })
	ids := make([]string, len(w.order))
	for i, c := range w.order {
		ids[i] = c.row.ContactID
	}
	found, err := tx.LoadDerived(ctx, w.f.p.Name(), ids)
	if err != nil {
		return err
	}
	for _, c := range w.order {
		if err := w.f.adopt(c, found); err != nil {
			return err
		}
	}
	w.machine.now = found.Now
	return nil
}

// adopt has a contact stand where it was found.
func (f *Frame[S]) adopt(c *contact[S], found *storage.DerivedStates) (err error) {
	id := c.row.ContactID
	if row := found.Contacts[id]; row != nil {
		c.row, c.loaded, c.exists = *row, row.State, true
		c.row.State = nil
	}
	if c.state, err = decodeState(f.p, c.loaded); err != nil {
		return fmt.Errorf("state of contact %s: %w", id, err)
	}
	c.timers, c.stored = found.Timers[id], found.Timers[id]
	for _, h := range found.Held[id] {
		in, err := f.waiting(h)
		if err != nil {
			return err
		}
		i, _ := slices.BinarySearchFunc(c.held, in, byPlace)
		c.held = slices.Insert(c.held, i, in)
	}
	return nil
}

// waiting is a record that waits, as it was read.
func (f *Frame[S]) waiting(h storage.HeldRecord) (*incoming, error) {
	r := &stream.Record{
		Topic: schemas.Topic(h.Topic), Partition: h.Partition, Offset: h.Offset, Key: []byte(h.ContactID), Value: h.Value,
		ID: h.Headers.ID, Type: h.Headers.Type, OccurredAt: h.Headers.OccurredAt, AppendTime: h.Headers.AppendTime,
		TraceParent: h.Headers.TraceParent, TraceState: h.Headers.TraceState, Seq: h.Seq, Era: h.Era,
	}
	if h.Value == nil {
		return &incoming{cause: r, id: r.ID, seq: r.Seq, era: r.Era}, nil
	}
	in, err := decode(f.codec, r)
	if err != nil { // it was decoded before it was held
		return nil, fmt.Errorf("decode %s/%d/%d, which waits: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return in, nil
}

// heldRow is a record that waits, as Postgres keeps it.
func heldRow(in *incoming) storage.HeldRecord {
	r := in.cause
	h := storage.HeldRecord{
		ContactID: string(r.Key), Topic: string(r.Topic), Partition: r.Partition, Offset: r.Offset, Seq: in.seq, Era: in.era,
		Headers: storage.HeldHeaders{
			ID: r.ID, Type: r.Type, OccurredAt: r.OccurredAt, AppendTime: r.AppendTime, TraceParent: r.TraceParent, TraceState: r.TraceState,
		},
	}
	if in.event != nil || in.fact != nil || in.signal != nil {
		h.Value = r.Value
	}
	return h
}

// changed is what is to be saved.
type changed[S any] struct {
	contacts  []*contact[S]
	fills     []storage.Fill
	cancelled []string
	answers   []storage.Answer
}

// changed is what was changed since it was asked last.
func (w *work[S]) changed() changed[S] {
	ch := changed[S]{w.order, w.moved, w.machine.cancelled, w.machine.answers}
	w.order, w.moved, w.machine.cancelled, w.machine.answers = nil, nil, nil, nil
	return ch
}

// save writes changes.
func (w *work[S]) save(ctx context.Context, tx *storage.Tx, all changed[S]) error {
	ch := storage.DerivedChanges{Fills: all.fills}
	var states []Change[S]
	for _, c := range all.contacts {
		if err := w.encode(c); err != nil {
			return err
		}
		if c.touched {
			if c.exists && !c.whole {
				ch.Moved = append(ch.Moved, &c.row)
			} else {
				ch.Contacts = append(ch.Contacts, &c.row)
			}
			ch.Armed = append(ch.Armed, missing(c.timers, c.stored, sameEpoch)...)
			ch.Disarmed = append(ch.Disarmed, missing(c.stored, c.timers, sameName)...)
		}
		states = append(states, c.changes()...)
		for _, in := range c.dropped {
			ch.Released = append(ch.Released, heldRow(in))
		}
		for _, in := range c.held {
			if in.fresh {
				ch.Held = append(ch.Held, heldRow(in))
			}
		}
	}
	w.f.seen.WithLabelValues("held").Add(float64(len(ch.Held)))
	if err := tx.SaveDerived(ctx, w.f.p.Name(), &ch); err != nil {
		return err
	}
	if err := tx.CancelOutbox(ctx, all.cancelled); err != nil {
		return err
	}
	if err := tx.SaveAnswers(ctx, all.answers, w.machine.now); err != nil {
		return err
	}
	if len(states) == 0 {
		return nil
	}
	return w.f.p.Save(ctx, tx, states)
}

// encode makes the state of a contact that was changed part of its row.
func (w *work[S]) encode(c *contact[S]) (err error) {
	if !c.stepped || c.row.Ended {
		return nil
	}
	text, err := w.f.p.Encode(c.state)
	if err != nil {
		return fmt.Errorf("state of contact %s: %w", c.row.ContactID, err)
	}
	if !bytes.Equal(text, c.loaded) {
		c.row.State, c.touched = text, true
	}
	return nil
}

// changes are what Save is told of a contact.
func (c *contact[S]) changes() (all []Change[S]) {
	if c.stepped && (!c.row.Ended || c.row.Survivor != "") {
		change := Change[S]{ContactID: c.row.ContactID, Partition: c.row.Partition, State: c.state}
		if c.row.Ended {
			change.State, change.Survivor = c.last, c.row.Survivor
		}
		all = append(all, change)
	}
	for _, id := range c.forget {
		all = append(all, Change[S]{ContactID: id, Partition: c.row.Partition, Forget: true})
	}
	return all
}

func sameEpoch(a, b storage.Timer) bool { return a.Epoch == b.Epoch }
func sameName(a, b storage.Timer) bool  { return a.What == b.What }

// missing are those timers that others lack.
func missing(timers, others []storage.Timer, same func(a, b storage.Timer) bool) (lacking []storage.Timer) {
	for _, t := range timers {
		if !slices.ContainsFunc(others, func(o storage.Timer) bool { return same(t, o) }) {
			lacking = append(lacking, t)
		}
	}
	return lacking
}

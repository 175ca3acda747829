// Package processors_test runs identity and contacts against each other, on a
// real Postgres and without Kafka: a pump carries records from partition to
// partition in any interleaving.
package processors_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

const partitions = 4

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// lane is one partition of a consumed topic and how far it is consumed.
type lane struct {
	records []*stream.Record
	next    int
}

type pump struct {
	t        require.TestingT
	ctx      context.Context
	db       *storage.DB
	codec    *schemas.Codec
	identity *identity.Processor
	contacts *contacts.Processor
	clock    time.Time

	ingest, resolved [partitions]lane

	facts     []*schemas.Fact
	events    []*schemas.Event
	snapshots map[string]*schemas.Contact // newest value by contact; nil after a tombstone
	history   []snapshot
	signals   []*schemas.Signal
	dead      []*schemas.DeadLetter
	sent      []*schemas.Input
	// late holds back what followed from the last batch of a partition until release:
	// what one member applied before another may be published after it.
	late bool
	held map[*lane][]loop.Output
	// log is what was published on topics events, lifecycle, contacts and signals.
	log []published
	// last are the outputs that were published last of a partition.
	last map[*lane][]loop.Output
	// refused are ids of events that are too large, as the encoder has it.
	refused map[string]bool
	// resolvedLog is everything ever appended to topic resolved.
	resolvedLog []*stream.Record
}

// published is a message and the offset of the record that it follows from.
type published struct {
	cause int64
	key   string
	m     schemas.Message // nil for a tombstone
}

// Encode implements stream.Encoder.
func (p *pump) Encode(m schemas.Message) ([]byte, error) {
	if p.refused[m.Meta().ID] {
		return nil, fmt.Errorf("event: %w", stream.ErrTooLarge)
	}
	return p.codec.Encode(m)
}

type snapshot struct {
	key   string
	value *schemas.Contact
}

func newPump(t testing.TB, cfg contacts.Config) *pump {
	t.Helper()
	return newPumpOn(t.Context(), t, storagetest.New(t), cfg)
}

func newPumpOn(ctx context.Context, t require.TestingT, db *storage.DB, cfg contacts.Config) *pump {
	codec := schemas.NewCodec()
	id, err := identity.New(identity.Config{}, codec, nil)
	require.NoError(t, err)
	co, err := contacts.New(cfg, codec, nil)
	require.NoError(t, err)
	return &pump{
		t: t, ctx: ctx, db: db, codec: codec, identity: id, contacts: co,
		clock: start, snapshots: map[string]*schemas.Contact{}, held: map[*lane][]loop.Output{}, last: map[*lane][]loop.Output{}, refused: map[string]bool{},
	}
}

func partitionOf(key string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return int32(h.Sum32() % partitions)
}

// send appends an input to topic ingest, a millisecond after the one before.
func (p *pump) send(in *schemas.Input) *schemas.Input {
	p.clock = p.clock.Add(time.Millisecond)
	if in.ID == "" {
		in.ID = uuid.Must(uuid.NewV7()).String()
	}
	in.ReceivedAt, in.Source = p.clock, "test"
	if in.OccurredAt.IsZero() {
		in.OccurredAt = p.clock
	}
	value, err := p.codec.Encode(in)
	require.NoError(p.t, err)
	p.append(&p.ingest, &stream.Record{Topic: schemas.TopicIngest, Key: []byte(in.Key()), Value: value, ID: in.ID, Type: in.Type})
	p.sent = append(p.sent, in)
	return in
}

func (p *pump) append(lanes *[partitions]lane, r *stream.Record) {
	r.Partition = partitionOf(string(r.Key))
	l := &lanes[r.Partition]
	r.Offset, r.AppendTime = int64(len(l.records)), p.clock
	l.records = append(l.records, r)
}

// step consumes at most n records of a partition and publishes what follows.
func (p *pump) step(proc loop.Processor, l *lane, n int) {
	end := min(l.next+n, len(l.records))
	if end == l.next {
		return
	}
	p.release(l) // nobody applies a batch before the one before is published
	p.held[l] = p.apply(proc, l.records[l.next:end])
	l.next = end
	if !p.late {
		p.release(l)
	}
}

// release publishes what is held back of a partition.
func (p *pump) release(l *lane) {
	for _, o := range p.held[l] {
		p.publish(o)
	}
	if p.held[l] != nil {
		p.last[l] = p.held[l]
	}
	delete(p.held, l)
}

func (p *pump) apply(proc loop.Processor, records []*stream.Record) []loop.Output {
	var outputs []loop.Output
	for range 5 {
		b := loop.NewBatch(p, p.clock, records)
		err := p.db.InTx(p.ctx, func(tx *storage.Tx) error { return proc.Apply(p.ctx, tx, b) })
		if storage.IsRetryable(err) {
			continue
		}
		if errors.Is(err, stream.ErrTooLarge) {
			return p.narrowed(proc, records, err)
		}
		require.NoError(p.t, err)
		outputs = b.Outputs()
		break
	}
	return outputs
}

// narrowed halves a batch as the loop does, until the record at fault is alone.
func (p *pump) narrowed(proc loop.Processor, records []*stream.Record, failure error) []loop.Output {
	if half := len(records) / 2; half > 0 {
		return append(p.apply(proc, records[:half]), p.apply(proc, records[half:])...)
	}
	b := loop.NewBatch(p.codec, p.clock, records)
	require.NoError(p.t, b.DeadLetter(records[0], "processor:"+proc.Name(), "failed", failure))
	return b.Outputs()
}

// repeat publishes once more what was published last of a partition, as a broker may
// that was killed at the end of a transaction.
func (p *pump) repeat(l *lane) {
	for _, o := range p.last[l] {
		p.publish(o)
	}
}

func (p *pump) note(o loop.Output, m schemas.Message) {
	p.log = append(p.log, published{o.Cause.Offset, o.Key, m})
}

func (p *pump) publish(o loop.Output) {
	require := require.New(p.t)
	switch o.Topic {
	case schemas.TopicResolved:
		m, err := p.codec.DecodeResolved(o.Value)
		require.NoError(err)
		p.publishResolved(m, o.Value)
	case schemas.TopicLifecycle:
		f, err := p.codec.DecodeFact(o.Value)
		require.NoError(err)
		p.facts = append(p.facts, f)
		p.note(o, f)
	case schemas.TopicEvents:
		e, err := p.codec.DecodeEvent(o.Value)
		require.NoError(err)
		p.events = append(p.events, e)
		p.note(o, e)
	case schemas.TopicContacts:
		var c *schemas.Contact
		if o.Value != nil {
			var err error
			c, err = p.codec.DecodeContact(o.Value)
			require.NoError(err)
			p.note(o, c)
		}
		p.snapshots[o.Key] = c
		p.history = append(p.history, snapshot{o.Key, c})
	case schemas.TopicSignals:
		s, err := p.codec.DecodeSignal(o.Value)
		require.NoError(err)
		p.signals = append(p.signals, s)
		p.note(o, s)
	case schemas.TopicDeadLetters:
		d, err := p.codec.DecodeDeadLetter(o.Value)
		require.NoError(err)
		p.dead = append(p.dead, d)
	default:
		require.Fail("unexpected topic " + string(o.Topic))
	}
}

func (p *pump) publishResolved(m *schemas.Resolved, value []byte) {
	r := &stream.Record{Topic: schemas.TopicResolved, Key: []byte(m.Key()), Value: value, ID: m.ID, Type: m.Type}
	p.append(&p.resolved, r)
	p.resolvedLog = append(p.resolvedLog, r)
}

// drain consumes everything, identity first.
func (p *pump) drain() {
	for p.busy() {
		for i := range p.ingest {
			p.step(p.identity, &p.ingest[i], 1000)
		}
		for i := range p.resolved {
			p.step(p.contacts, &p.resolved[i], 1000)
		}
	}
}

func (p *pump) busy() bool {
	for i := range partitions {
		if p.ingest[i].next < len(p.ingest[i].records) || p.resolved[i].next < len(p.resolved[i].records) {
			return true
		}
	}
	return len(p.held) > 0
}

// do sends inputs one after the other, each handled before the next is sent.
func (p *pump) do(inputs ...*schemas.Input) {
	for _, in := range inputs {
		p.send(in)
		p.drain()
	}
}

// answer returns the stored answer to an input, or nil.
func (p *pump) answer(in *schemas.Input) *schemas.Answer {
	var text string
	err := storagetest.SQL(p.db).QueryRow(p.ctx, `SELECT answer::text FROM answers WHERE input_id = $1::text::uuid`, in.ID).Scan(&text)
	if storage.IsNotFound(err) {
		return nil
	}
	require.NoError(p.t, err)
	var a schemas.Answer
	require.NoError(p.t, json.Unmarshal([]byte(text), &a))
	return &a
}

func (p *pump) count(table, where string, args ...any) int {
	var n int
	require.NoError(p.t, storagetest.SQL(p.db).QueryRow(p.ctx, fmt.Sprintf(`SELECT count(*) FROM %s WHERE %s`, table, where), args...).Scan(&n))
	return n
}

// find returns the one contact known by an identifier, or nil.
func (p *pump) find(kind, value string) *storage.Contact {
	found, err := p.db.FindContacts(p.ctx, []schemas.Identifier{{Kind: kind, Value: value}})
	require.NoError(p.t, err)
	require.LessOrEqual(p.t, len(found), 1)
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

func (p *pump) factTypes() []string {
	var types []string
	for _, f := range p.facts {
		types = append(types, f.Type)
	}
	return types
}

type option func(*schemas.Input)

func text(s string) *string { return &s }

func user(id string) option { return func(in *schemas.Input) { in.UserID = &id } }
func email(a string) option { return func(in *schemas.Input) { in.Email = &a } }
func anon(id string) option { return func(in *schemas.Input) { in.AnonymousID = &id } }
func props(s string) option { return func(in *schemas.Input) { in.ContactProperties = &s } }
func key(k string) option {
	return func(in *schemas.Input) { in.IdempotencyKey, in.Scope = &k, text("key-1") }
}
func waits(in *schemas.Input)        { in.Wait = true }
func lists(m map[string]bool) option { return func(in *schemas.Input) { in.Lists = m } }

func put(options ...option) *schemas.Input    { return newInput(schemas.InputContact, options) }
func remove(options ...option) *schemas.Input { return newInput(schemas.InputDelete, options) }
func event(name string, options ...option) *schemas.Input {
	in := newInput(schemas.InputEvent, options)
	in.Event = &name
	return in
}

func newInput(typ string, options []option) *schemas.Input {
	in := &schemas.Input{Type: typ}
	for _, o := range options {
		o(in)
	}
	return in
}

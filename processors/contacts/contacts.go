// Package contacts answers "what do we know of them?": it reads topic resolved
// and owns the contacts: properties, preferences, lifecycle facts, snapshots.
//
// What it promises the others:
//   - One partition, one writer: the newest snapshot on topic contacts is the
//     contact's state, and versions only grow.
//   - contact.created stands before anything else of a contact, and each product
//     event appears once, on topic events and (if so configured) in Postgres.
//   - A change is a difference: an identical write, or a later LastSeenAt alone,
//     makes no version, no snapshot and no fact.
//   - What it says of a contact on topics events and lifecycle is numbered: 1, 2, 3 …
//     without holes within an era, over both topics. A record that is given up, or
//     skipped as repeated, takes no number.
//   - Records reach a contact in any order of the partitions that they come
//     from. A contact that was merged forwards what is keyed by it to its
//     survivor; one that was deleted stays deleted, also when the deletion is
//     the first thing heard of it.
//
// The way of a record through a merge of L into S:
//
//	identity ── merge, key L ──► owner of L: row away, mark, tombstone
//	                                   │ absorb, key S (L's state; then every late record of L)
//	                                   ▼
//	                             owner of S: folds it in, contact.merged
package contacts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// Name is the processor's name, which never changes.
const Name = "contacts"

// Format is the format in which what is said of contacts is numbered, the processor's
// highest; in the one before, 1, it is not.
const Format = 2

// Which product events are kept in Postgres.
const (
	EventsAll        = "all"
	EventsReferenced = "referenced" // those that Config.Referenced accepts
	EventsNone       = "none"
)

// Config is what can be set. The zero value is the default.
type Config struct {
	// Events is one of the Events… constants; empty means all.
	Events string
	// Referenced returns who says whether some definition needs the history of an event
	// name, as of the transaction; for EventsReferenced. What it says holds until the
	// transaction ends.
	Referenced func(ctx context.Context, tx *storage.Tx) (func(name string) bool, error)
	// Followers are the later processors that hold state of contacts: they are
	// told of merges and deletions by a signal each.
	Followers []string
	// Repeats is how many of the last records of each partition are remembered, so that
	// one which comes again is skipped: for a broker that may repeat a transaction when
	// it is killed together with the processors. 0 remembers none.
	Repeats int
}

// Validate reports what is wrong.
func (c Config) Validate() error {
	if c.Repeats < 0 {
		return fmt.Errorf("contacts: Repeats %d: must not be negative", c.Repeats)
	}
	switch c.Events {
	case "", EventsAll, EventsNone:
	case EventsReferenced:
		if c.Referenced == nil {
			return errors.New("contacts: Events is referenced, but Referenced is not set")
		}
	default:
		return fmt.Errorf("contacts: Events %q: must be all, referenced or none", c.Events)
	}
	return nil
}

// Processor implements loop.Processor. It keeps nothing between batches and is
// safe for concurrent use by several members of the group.
type Processor struct {
	cfg     Config
	codec   *schemas.Codec
	records *prometheus.CounterVec
}

var _ loop.Formatted = (*Processor)(nil)

// New makes the processor. Its figures are registered on reg unless that is nil.
func New(cfg Config, codec *schemas.Codec, reg prometheus.Registerer) (*Processor, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := &Processor{cfg: cfg, codec: codec, records: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hogstream", Subsystem: "contacts", Name: "records_total",
		Help: "Records of topic resolved by what became of them: applied, forwarded, erased (their contact was deleted), repeated. A batch that is run again counts again.",
	}, []string{"outcome"})}
	if reg != nil {
		if err := reg.Register(p.records); err != nil {
			return nil, fmt.Errorf("contacts: register figures: %w", err)
		}
	}
	return p, nil
}

// Name implements loop.Processor.
func (p *Processor) Name() string { return Name }

// Topics are what the processor reads.
func Topics() []schemas.Topic { return []schemas.Topic{schemas.TopicResolved} }

// Topics implements loop.Processor.
func (p *Processor) Topics() []schemas.Topic { return Topics() }

// Apply implements loop.Processor.
func (p *Processor) Apply(ctx context.Context, tx *storage.Tx, b *loop.Batch) error {
	records, err := p.decode(b)
	if err != nil || len(records) == 0 {
		return err
	}
	w, err := p.load(ctx, tx, b, records)
	if err != nil {
		return err
	}
	if records, err = p.withoutRepeats(ctx, tx, records, w.taken); err != nil {
		return err
	}
	if w.stores, err = p.cfg.stores(ctx, tx); err != nil {
		return err
	}
	outcomes := make(map[string]int)
	for i := range records {
		outcome, err := w.handle(&records[i])
		if err != nil {
			return fmt.Errorf("handle %s of contact %s: %w", records[i].Type, records[i].ContactID, err)
		}
		outcomes[outcome]++
	}
	for outcome, n := range outcomes {
		p.records.WithLabelValues(outcome).Add(float64(n))
	}
	b.Decided()
	return w.save(ctx, tx)
}

// Format implements loop.Formatted.
func (p *Processor) Format() int32 { return Format }

// withoutRepeats leaves out records that stand on the log for the second time, and
// remembers the others. taken are the offsets at which records were taken before, by id.
func (p *Processor) withoutRepeats(ctx context.Context, tx *storage.Tx, records []record, taken map[string]int64) ([]record, error) {
	if p.cfg.Repeats == 0 {
		return records, nil
	}
	kept := make([]record, 0, len(records))
	recent := make([]storage.RecentInput, 0, len(records))
	for _, r := range records {
		// At the same offset, or a later one, it is read again because an operator says so.
		if offset, known := taken[r.ID]; known && offset < r.cause.Offset {
			continue
		}
		kept = append(kept, r)
		if uuid.Validate(r.ID) == nil { // others are not ours
			taken[r.ID] = r.cause.Offset
			recent = append(recent, storage.RecentInput{ID: r.ID, Partition: r.cause.Partition, Offset: r.cause.Offset})
		}
	}
	p.records.WithLabelValues("repeated").Add(float64(len(records) - len(kept)))
	return kept, tx.KeepRecentInputs(ctx, recent, p.cfg.Repeats)
}

// record is a decoded record of the batch.
type record struct {
	*schemas.Resolved
	cause *stream.Record
}

// decode gives up records that are nothing to work with.
func (p *Processor) decode(b *loop.Batch) ([]record, error) {
	records := make([]record, 0, len(b.Records))
	for _, r := range b.Records {
		m, err := p.codec.DecodeResolved(r.Value)
		reason := "undecodable"
		if err == nil {
			if err = m.Validate(); err != nil {
				reason = "failed"
			}
		} else if !errors.Is(err, schemas.ErrUndecodable) {
			return nil, fmt.Errorf("decode %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
		}
		if err != nil {
			if err := b.DeadLetter(r, "processor:"+Name, reason, err); err != nil {
				return nil, err
			}
			continue
		}
		records = append(records, record{Resolved: m, cause: r})
	}
	return records, nil
}

// load reads the state of everybody in the batch.
func (p *Processor) load(ctx context.Context, tx *storage.Tx, b *loop.Batch, records []record) (*work, error) {
	ids := make([]string, 0, len(records))
	partitions := make(map[string]int32, len(records))
	var inputs []string   // whose answers may wait for an absorb of this batch
	var repeated []string // what may have been taken before
	for i := range records {
		r := &records[i]
		if p.cfg.Repeats > 0 && uuid.Validate(r.ID) == nil {
			repeated = append(repeated, r.ID)
		}
		if _, seen := partitions[r.ContactID]; !seen {
			partitions[r.ContactID] = r.cause.Partition
			ids = append(ids, r.ContactID)
		}
		if r.Absorb != nil && r.Absorb.InputID != "" {
			inputs = append(inputs, r.Absorb.InputID)
		}
	}
	states, err := tx.LoadContacts(ctx, ids, repeated)
	if err != nil {
		return nil, err
	}
	pending, err := tx.LoadPendingAnswers(ctx, inputs)
	if err != nil {
		return nil, err
	}
	w := &work{cfg: &p.cfg, batch: b, era: states.Era, taken: states.Taken, states: make(map[string]*state, len(ids)), order: make([]*state, 0, len(ids)), pending: pending}
	if p.cfg.Events != EventsNone {
		w.events = make([]storage.StoredEvent, 0, len(records))
	}
	arena := make([]state, len(ids)) // one allocation for all
	for i, id := range ids {
		st := &arena[i]
		*st = state{id: id, partition: partitions[id], row: states.Contacts[id], preferences: states.Preferences[id]}
		if st.existed = st.row != nil; st.existed {
			st.row.Partition = st.partition
		}
		if mark, ended := states.Marks[id]; ended {
			st.ended, st.survivor = true, mark.Survivor
		}
		w.states[id] = st
		w.order = append(w.order, st)
	}
	return w, nil
}

// work is a batch in hand: the states of its contacts and what is to be written.
type work struct {
	cfg     *Config
	batch   *loop.Batch
	states  map[string]*state
	order   []*state // each once, as they came
	pending map[string]*storage.PendingAnswer
	taken   map[string]int64 // offsets of what was taken before, by id

	era    int64                  // of contacts that are new
	stores func(name string) bool // events of which name are kept

	changedPending []*storage.PendingAnswer
	answers        []storage.Answer
	events         []storage.StoredEvent
	forget         []string
}

// state is a contact as the batch sees it.
type state struct {
	id          string
	partition   int32
	row         *storage.Contact // nil when it was never seen, or ended
	preferences []schemas.Preference
	ended       bool
	survivor    string // of one that ended by a merge; empty when it was deleted

	existed            bool // in the table, before the batch
	marked             bool // ended in this batch
	changed            change
	preferencesChanged bool
}

// change says how much of a row is to be written.
type change int

const (
	nothing   change = iota
	seen             // LastSeenAt, Seq
	patched          // and properties, version, UpdatedAt
	rewritten        // everything
)

func (st *state) change(c change) { st.changed = max(st.changed, c) }

// handle decides what a record means to its contact, as that is now.
func (w *work) handle(r *record) (outcome string, err error) {
	st := w.states[r.ContactID]
	switch {
	case st.ended && st.survivor == "":
		return "erased", w.discard(r)
	case st.ended:
		return "forwarded", w.forward(st, r)
	case r.Type == schemas.ResolvedMerge:
		return "applied", w.handOver(st, r)
	case r.Type == schemas.ResolvedAbsorb && r.Absorb.Record == nil:
		return "applied", w.absorb(st, r)
	}
	in := inputOf(r)
	if in.Type == schemas.InputDelete {
		return "applied", w.delete(st, r, in.Input)
	}
	return "applied", w.apply(st, r, in)
}

// save writes what the batch changed.
func (w *work) save(ctx context.Context, tx *storage.Tx) error {
	ch := storage.ContactChanges{ForgetEvents: w.forget}
	for _, st := range w.order {
		if st.marked {
			ch.Marks = append(ch.Marks, storage.Mark{ContactID: st.id, Survivor: st.survivor, Partition: st.partition})
		}
		if st.ended {
			if st.existed {
				ch.Ended = append(ch.Ended, st.id)
			}
			continue
		}
		if st.preferencesChanged {
			if ch.Preferences == nil {
				ch.Preferences = make(map[string][]schemas.Preference)
			}
			ch.Preferences[st.id] = st.preferences
		}
		switch {
		case st.changed == nothing:
		case st.changed == rewritten || !st.existed:
			ch.Saved = append(ch.Saved, st.row)
		case st.changed == patched:
			ch.Patched = append(ch.Patched, st.row)
		default:
			ch.Seen = append(ch.Seen, st.row)
		}
	}
	if err := tx.SaveContacts(ctx, &ch, w.batch.Now); err != nil {
		return err
	}
	if err := tx.StoreEvents(ctx, w.events); err != nil {
		return err
	}
	if err := tx.SavePendingAnswers(ctx, w.changedPending, w.batch.Now); err != nil {
		return err
	}
	return tx.SaveAnswers(ctx, w.answers, w.batch.Now)
}

// answer gives the answer to an input whose sender waits.
func (w *work) answer(inputID string, a schemas.Answer) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode the answer to input %s: %w", inputID, err)
	}
	w.answers = append(w.answers, storage.Answer{InputID: inputID, JSON: text})
	return nil
}

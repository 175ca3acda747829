package processors

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/reader"
)

// rebuildBatch is how many records are restored by one call.
const rebuildBatch = 5000

// ErrRunning is wrapped by errors that say which processors run, or published, while
// the state of one was to be rebuilt.
var ErrRunning = errors.New("processors are alive")

// RebuildDeps are what a state is rebuilt from.
type RebuildDeps struct {
	Deps    // a Registerer is not used
	DB      *storage.DB
	Admin   *stream.Admin
	Kafka   stream.Config
	Session time.Duration // KAFKA_SESSION_TIMEOUT, for the error that names who is alive

	// Progress, which may be nil, is told how many records were read so far.
	Progress func(records int)
}

// rebuildFunc restores the state of a processor in tx, up to the offsets at which its
// group stands.
type rebuildFunc func(ctx context.Context, r *rebuilding, tx *storage.Tx, at offsets) error

// offsets are offsets of partitions, by topic.
type offsets map[schemas.Topic]map[int32]int64

// Rebuild restores a processor's state from the log and publishes nothing.
// After the loss of a database, contacts is rebuilt
// before identity. A processor that derives state of contacts takes over anew what contacts
// knows when it is started next, as it does at its first start; so do all of them when
// contacts is rebuilt. No processor may be alive meanwhile, also an idle one; when one is,
// nothing is changed and the error, which wraps ErrRunning, names it.
func Rebuild(ctx context.Context, name string, d RebuildDeps) error {
	p, err := Find(name)
	if err != nil {
		return err
	}
	d.Registerer = nil // it is the running processor's
	r := &rebuilding{RebuildDeps: d, now: time.Now(), derived: slices.DeleteFunc(All(), func(p Processor) bool { return !p.Derives() })}
	switch {
	case p.Derives():
		err = r.takeOverAnew(ctx, p)
	case p.rebuild != nil:
		err = r.run(ctx, p)
	default:
		return fmt.Errorf("the state of processor %s cannot be rebuilt from the log", name)
	}
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", name, err)
	}
	return nil
}

// rebuilding is a rebuild under way.
type rebuilding struct {
	RebuildDeps
	now     time.Time
	read    int
	derived []Processor // that hold state of contacts
}

// rebuildContacts restores the snapshots, which are the state at the group's committed
// offsets, the marks of contacts that ended, and stored events that are missing. Contacts
// are numbered in a new era from then on.
func rebuildContacts(ctx context.Context, r *rebuilding, tx *storage.Tx, at offsets) error {
	p, err := contacts.New(contacts.Config{Events: r.Events, Referenced: r.Definitions.Referenced}, r.Codec, nil)
	if err != nil {
		return err
	}
	// Before this transaction touches the table, for it is locked to make partitions.
	if err := r.DB.CreateEventPartitions(ctx, r.now.AddDate(0, 0, -rebuildDays), rebuildDays+1); err != nil {
		return err
	}
	if err := p.Clear(ctx, tx, r.now); err != nil {
		return err
	}
	err = r.each(ctx, schemas.TopicContacts, nil, func(records []*stream.Record) error { return p.Restore(ctx, tx, records, r.now) })
	if err != nil {
		return err
	}
	before := func(rec *stream.Record) bool { return rec.Offset < at[rec.Topic][rec.Partition] }
	err = r.each(ctx, schemas.TopicResolved, before, func(records []*stream.Record) error { return p.RestoreMarks(ctx, tx, records, r.now) })
	if err != nil {
		return err
	}
	if p.StoresEvents() {
		err = r.each(ctx, schemas.TopicEvents, nil, func(records []*stream.Record) error { return p.RestoreEvents(ctx, tx, records) })
		if err != nil {
			return err
		}
	}
	if err := p.FinishRebuild(ctx, tx, r.now); err != nil {
		return err
	}
	return r.clearDerived(ctx, tx)
}

// rebuildDays are days whose events are stored in partitions of their own; those of older
// ones go where events outside of partitions go.
const rebuildDays = 31

// rebuildIdentity restores identity from contacts, and from what topic resolved says
// beyond the offsets that contacts stands at.
func rebuildIdentity(ctx context.Context, r *rebuilding, tx *storage.Tx, _ offsets) error {
	p, err := identity.New(identity.Config{}, r.Codec, nil)
	if err != nil {
		return err
	}
	if err := p.Rebuild(ctx, tx, r.now); err != nil {
		return err
	}
	committed, err := loop.Committed(ctx, r.Admin, contacts.Name, schemas.TopicResolved)
	if err != nil {
		return err
	}
	known, err := loop.GoOnFrom(ctx, r.Admin, r.DB, contacts.Name, schemas.TopicResolved, committed)
	if err != nil {
		return err
	}
	beyond := func(rec *stream.Record) bool { return rec.Offset >= known[rec.Partition].Next }
	err = r.each(ctx, schemas.TopicResolved, beyond, func(records []*stream.Record) error { return p.Restore(ctx, tx, records, r.now) })
	if err != nil {
		return err
	}
	return p.FinishRebuild(ctx, tx, r.now)
}

// run restores the state in one transaction that also makes the processor go on from
// its committed offsets, or from the start of a topic that was made anew, and undoes
// it when somebody began to run or the committed offsets moved meanwhile.
func (r *rebuilding) run(ctx context.Context, p Processor) error {
	if err := r.nobodyAlive(ctx); err != nil {
		return err
	}
	committed, err := r.committed(ctx, p)
	if err != nil {
		return err
	}
	at, goOn, err := r.goOnFrom(ctx, p, committed)
	if err != nil {
		return err
	}
	return r.DB.InLongTx(ctx, func(tx *storage.Tx) error {
		if err := p.rebuild(ctx, r, tx, at); err != nil {
			return err
		}
		if err := tx.AcceptProgress(ctx, p.Name, goOn, p.Format); err != nil {
			return err
		}
		if err := r.nobodyAlive(ctx); err != nil {
			return err
		}
		again, err := r.committed(ctx, p)
		if err == nil && !maps.EqualFunc(committed, again, maps.Equal[map[int32]int64, map[int32]int64]) {
			err = fmt.Errorf("nothing is changed, for %w: offsets were committed meanwhile", ErrRunning)
		}
		return err
	})
}

// takeOverAnew clears the state of a processor that derives. The rest is done by whoever
// owns a partition next, a step at a time.
func (r *rebuilding) takeOverAnew(ctx context.Context, p Processor) error {
	if err := r.nobodyAlive(ctx); err != nil {
		return err
	}
	return r.DB.InLongTx(ctx, func(tx *storage.Tx) error {
		if err := r.clear(ctx, tx, p); err != nil {
			return err
		}
		return r.nobodyAlive(ctx)
	})
}

// clearDerived clears all processors that derive: what they know counts in an era that is
// over.
func (r *rebuilding) clearDerived(ctx context.Context, tx *storage.Tx) error {
	for _, p := range r.derived {
		if err := r.clear(ctx, tx, p); err != nil {
			return err
		}
	}
	return nil
}

// clears is a processor whose state can be taken over anew. Implemented by *derive.Frame.
type clears interface {
	Clear(ctx context.Context, tx *storage.Tx) error
}

// clear removes the state of a processor that derives, and has it begin at the ends of its
// topics as they are now.
func (r *rebuilding) clear(ctx context.Context, tx *storage.Tx, p Processor) error {
	made, err := p.New(r.Deps)
	if err != nil {
		return err
	}
	cleared, ok := made.(clears)
	if !ok {
		return fmt.Errorf("processor %s reads signals, and its state cannot be cleared", p.Name)
	}
	ends, err := loop.NoteEnds(ctx, r.Admin.Client, r.Kafka, p.Topics)
	if err != nil {
		return err
	}
	if err := cleared.Clear(ctx, tx); err != nil {
		return err
	}
	return tx.TakeOverAnew(ctx, p.Name, ends, p.Format)
}

// committed are the offsets that a processor's group has committed.
func (r *rebuilding) committed(ctx context.Context, p Processor) (offsets, error) {
	all := make(offsets, len(p.Topics))
	for _, topic := range p.Topics {
		at, err := loop.Committed(ctx, r.Admin, p.Name, topic)
		if err != nil {
			return nil, err
		}
		all[topic] = at
	}
	return all, nil
}

// goOnFrom is where a processor goes on after a rebuild, and the same as its progress
// keeps it.
func (r *rebuilding) goOnFrom(ctx context.Context, p Processor, committed offsets) (offsets, map[int32]storage.Ranges, error) {
	at, progress := make(offsets, len(p.Topics)), map[int32]storage.Ranges{}
	for _, topic := range p.Topics {
		places, err := loop.GoOnFrom(ctx, r.Admin, r.DB, p.Name, topic, committed[topic])
		if err != nil {
			return nil, nil, err
		}
		at[topic] = make(map[int32]int64, len(places))
		for partition, place := range places {
			at[topic][partition] = place.Next
			if progress[partition] == nil {
				progress[partition] = storage.Ranges{}
			}
			progress[partition][string(topic)] = place
		}
	}
	return at, progress, nil
}

// nobodyAlive returns an error when a group of a processor has members: each reads what
// another writes, so none may run.
func (r *rebuilding) nobodyAlive(ctx context.Context) error {
	members, err := r.Admin.Members(ctx, Names()...)
	if err != nil || len(members) == 0 {
		return err
	}
	return stillAlive(members, r.Session)
}

// stillAlive is what an operator is told of members.
func stillAlive(members []stream.GroupMember, session time.Duration) error {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = "  " + m.String()
	}
	return fmt.Errorf("nothing is changed, for %w:\n%s\nstop every process that plays `processors`, and run this again; "+
		"one that was stopped or killed is a member until its session runs out, %s after its last heartbeat (KAFKA_SESSION_TIMEOUT)",
		ErrRunning, strings.Join(names, "\n"), session)
}

// each reads a topic from its start to its end, in the order of append times as
// far as fetches go, and calls f with batches of the records that wanted accepts.
func (r *rebuilding) each(ctx context.Context, topic schemas.Topic, wanted func(*stream.Record) bool, f func([]*stream.Record) error) error {
	batch := make([]*stream.Record, 0, rebuildBatch)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := f(batch)
		batch = batch[:0]
		return err
	}
	opts := reader.TailOptions{Topics: []schemas.Topic{topic}, From: reader.AtStart()}
	err := reader.Tail(ctx, r.Kafka, opts, zap.NewNop(), func(rec *stream.Record) error {
		if r.read++; r.Progress != nil {
			r.Progress(r.read)
		}
		if wanted != nil && !wanted(rec) {
			return nil
		}
		if batch = append(batch, rec); len(batch) < rebuildBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return fmt.Errorf("read topic %s: %w", topic, err)
	}
	return flush()
}

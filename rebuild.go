package hogstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/processors/contacts"
	"github.com/hogstream/hogstream/processors/identity"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// rebuildBatch is how many records are restored by one call.
const rebuildBatch = 5000

// ErrProcessorRuns is wrapped by errors that say which processors run, or published,
// while the state of one was to be rebuilt.
var ErrProcessorRuns = errors.New("processors are alive")

// Rebuild restores a processor's state from the log and publishes nothing
// (DESIGN section 3, Rebuild). After the loss of a database, contacts is rebuilt
// before identity. No processor may be alive meanwhile, also an idle one; when one is,
// nothing is changed and the error, which wraps ErrProcessorRuns, names it. progress, which may be nil, is
// told how many records were read so far.
func (c *Config) Rebuild(ctx context.Context, processor string, progress func(records int)) error {
	codec, err := c.Codec()
	if err != nil {
		return err
	}
	db, err := storage.Open(ctx, storage.Config{URL: c.Database.URL, MaxConns: 4})
	if err != nil {
		return fmt.Errorf("open Postgres: %w", err)
	}
	defer db.Close()
	if err := db.RequireSchema(ctx); err != nil {
		return err
	}
	admin, err := stream.OpenAdmin(c.StreamConfig(), zap.NewNop())
	if err != nil {
		return err
	}
	defer admin.Close()
	r := rebuild{cfg: c, codec: codec, db: db, admin: admin, now: time.Now(), progress: progress}
	switch processor {
	case contacts.Name:
		return r.contacts(ctx)
	case identity.Name:
		return r.identity(ctx)
	}
	return fmt.Errorf("no processor %q whose state can be rebuilt: use %s or %s", processor, contacts.Name, identity.Name)
}

type rebuild struct {
	cfg      *Config
	codec    *schemas.Codec
	db       *storage.DB
	admin    *stream.Admin
	now      time.Time
	read     int
	progress func(records int)
}

// contacts restores the snapshots, which are the state at the group's committed
// offsets, and the marks of contacts that ended.
func (r *rebuild) contacts(ctx context.Context) error {
	p, err := contacts.New(contacts.Config{Events: r.cfg.Database.EventsMode, Referenced: referenced}, r.codec, nil)
	if err != nil {
		return err
	}
	return r.restore(ctx, contacts.Name, schemas.TopicResolved, func(tx *storage.Tx, at map[int32]int64) error {
		if err := p.Clear(ctx, tx); err != nil {
			return err
		}
		err := r.each(ctx, schemas.TopicContacts, nil, func(records []*stream.Record) error { return p.Restore(ctx, tx, records, r.now) })
		if err != nil {
			return err
		}
		before := func(rec *stream.Record) bool { return rec.Offset < at[rec.Partition] }
		err = r.each(ctx, schemas.TopicResolved, before, func(records []*stream.Record) error { return p.RestoreMarks(ctx, tx, records, r.now) })
		if err != nil {
			return err
		}
		return p.FinishRebuild(ctx, tx, r.now)
	})
}

// identity is restored from contacts, and from what topic resolved says beyond
// the offsets that contacts stands at.
func (r *rebuild) identity(ctx context.Context) error {
	p, err := identity.New(identity.Config{}, r.codec, nil)
	if err != nil {
		return err
	}
	return r.restore(ctx, identity.Name, schemas.TopicIngest, func(tx *storage.Tx, _ map[int32]int64) error {
		if err := p.Rebuild(ctx, tx, r.now); err != nil {
			return err
		}
		committed, err := r.admin.Committed(ctx, contacts.Name, schemas.TopicResolved)
		if err != nil {
			return err
		}
		known, err := r.admin.GoOnFrom(ctx, tx, contacts.Name, schemas.TopicResolved, committed)
		if err != nil {
			return err
		}
		beyond := func(rec *stream.Record) bool { return rec.Offset >= known[rec.Partition].Next }
		err = r.each(ctx, schemas.TopicResolved, beyond, func(records []*stream.Record) error { return p.Restore(ctx, tx, records, r.now) })
		if err != nil {
			return err
		}
		return p.FinishRebuild(ctx, tx, r.now)
	})
}

// nobodyAlive returns an error when a group of a processor has members: each reads what
// the other writes, so neither may run.
func (r *rebuild) nobodyAlive(ctx context.Context) error {
	members, err := r.admin.Members(ctx, identity.Name, contacts.Name)
	if err != nil || len(members) == 0 {
		return err
	}
	return stillAlive(members, r.cfg.Kafka.SessionTimeout)
}

// stillAlive is what an operator is told of members.
func stillAlive(members []stream.GroupMember, session time.Duration) error {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = "  " + m.String()
	}
	return fmt.Errorf("nothing is changed, for %w:\n%s\nstop every process that plays `processors`, and run this again; "+
		"one that was stopped or killed is a member until its session runs out, %s after its last heartbeat (KAFKA_SESSION_TIMEOUT)",
		ErrProcessorRuns, strings.Join(names, "\n"), session)
}

// restore runs fill in one transaction that also makes the processor go on from
// its committed offsets, or from the start of a topic that was made anew, and undoes
// it when somebody began to run or the committed offsets moved meanwhile.
func (r *rebuild) restore(ctx context.Context, processor string, topic schemas.Topic, fill func(tx *storage.Tx, at map[int32]int64) error) error {
	if err := r.nobodyAlive(ctx); err != nil {
		return fmt.Errorf("rebuild %s: %w", processor, err)
	}
	at, err := r.admin.Committed(ctx, processor, topic)
	if err != nil {
		return err
	}
	places, err := r.admin.GoOnFrom(ctx, r.db, processor, topic, at)
	if err != nil {
		return err
	}
	err = r.db.InLongTx(ctx, func(tx *storage.Tx) error {
		from := make(map[int32]int64, len(places))
		accepted := make(map[int32]storage.Ranges, len(places))
		for partition, place := range places {
			from[partition], accepted[partition] = place.Next, storage.Ranges{string(topic): place}
		}
		if err := fill(tx, from); err != nil {
			return err
		}
		if err := storage.AcceptProgress(ctx, tx, processor, accepted); err != nil {
			return err
		}
		if err := r.nobodyAlive(ctx); err != nil {
			return err
		}
		again, err := r.admin.Committed(ctx, processor, topic)
		if err == nil && !maps.Equal(at, again) {
			err = fmt.Errorf("nothing is changed, for %w: offsets were committed meanwhile", ErrProcessorRuns)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", processor, err)
	}
	return nil
}

// each reads a topic from its start to its end, in the order of append times as
// far as fetches go, and calls f with batches of the records that wanted accepts.
func (r *rebuild) each(ctx context.Context, topic schemas.Topic, wanted func(*stream.Record) bool, f func([]*stream.Record) error) error {
	batch := make([]*stream.Record, 0, rebuildBatch)
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := f(batch)
		batch = batch[:0]
		return err
	}
	opts := stream.TailOptions{Topics: []schemas.Topic{topic}, From: stream.AtStart()}
	err := stream.Tail(ctx, r.cfg.StreamConfig(), opts, zap.NewNop(), func(rec *stream.Record) error {
		if r.read++; r.progress != nil {
			r.progress(r.read)
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

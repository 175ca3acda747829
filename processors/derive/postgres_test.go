package derive

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// postgres runs the frame of a world on a real database: whole batches, loaded and saved,
// and the take-over by its statement.
type postgres struct {
	w      *tallying
	t      require.TestingT
	ctx    context.Context
	db     *storage.DB
	frame  *Frame[tally]
	kicker *Kicker
	after  map[int]uuid.UUID
	// known is what was written of contacts.
	rows   map[string]int64
	marks  map[string]string
	events map[string]bool
}

func TestTheFrameOnPostgresAgreesWithTheWholeHistory(t *testing.T) {
	db := storagetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		_, err := storagetest.SQL(db).Exec(t.Context(), `DELETE FROM contacts; DELETE FROM contact_marks; DELETE FROM events; DELETE FROM derived_contacts; DELETE FROM derived_held; DELETE FROM timers; DELETE FROM derived_fills; DELETE FROM processor_progress`)
		require.NoError(rt, err)
		w := newTallying(func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "n") })
		w.pg = &postgres{w: w, t: rt, ctx: t.Context(), db: db, after: map[int]uuid.UUID{}, rows: map[string]int64{}, marks: map[string]string{}, events: map[string]bool{}}
		w.pg.frame, err = New(tallier{fault: w.Fault, versions: w.inUse}, w.codec, nil)
		require.NoError(rt, err)
		w.pg.frame.chunk, w.pg.frame.pace = 1, pacing{atOnce: 1, times: 2, beside: 1}
		w.pg.kicker, err = NewKicker(KickerConfig{DB: db, Log: w.pg, Processors: []Filling{w.pg.frame}})
		require.NoError(rt, err)
		require.NoError(rt, db.StartTakeOver(t.Context(), simName, map[int32]storage.Ranges{0: {}, 1: {}}))
		require.Empty(rt, w.Run(rapid.IntRange(20, 80).Draw(rt, "steps")))
	})
}

var errKilled = errors.New("killed before the commit")

// inBatch runs fn, now and then killed before its commit and begun again.
func (g *postgres) inBatch(fn func(tx *storage.Tx) error) {
	killed := g.w.draw(4) == 0
	err := g.db.InBatch(g.ctx, func(tx *storage.Tx) error {
		if err := fn(tx); err != nil || !killed {
			return err
		}
		return errKilled
	})
	if errors.Is(err, errKilled) {
		err = g.db.InBatch(g.ctx, fn)
	}
	require.NoError(g.t, err)
}

// kick asks for the steps that are missing; true while the filling is not through.
func (g *postgres) kick() bool {
	require.NoError(g.t, g.kicker.look(g.ctx, g.frame))
	done, err := g.db.FillProgress(g.ctx, simName, g.w.version)
	require.NoError(g.t, err)
	return !done.Done
}

// Append implements stream.Appender: what the kicker sends.
func (g *postgres) Append(_ context.Context, msgs ...schemas.Message) error {
	for _, m := range msgs {
		g.w.Append(m)
	}
	return nil
}

func (g *postgres) apply(p int, records []*stream.Record) {
	d := g.w.derived[p]
	g.inBatch(func(tx *storage.Tx) error {
		b := loop.NewBatch(g.w.codec, g.w.Now(), records)
		err := g.frame.Apply(g.ctx, tx, b)
		d.unsent = g.messages(b.Outputs())
		return err
	})
	g.look(p)
}

// takeOver publishes before it commits, as the loop does.
func (g *postgres) takeOver(p int) {
	d := g.w.derived[p]
	var last uuid.UUID
	g.inBatch(func(tx *storage.Tx) (err error) {
		b := loop.NewBatch(g.w.codec, g.w.Now(), nil)
		last, err = g.frame.TakeOver(g.ctx, tx, b, int32(p), g.after[p])
		for _, m := range g.messages(b.Outputs()) {
			g.w.Append(m)
		}
		if err != nil {
			return err
		}
		at := &last
		if last == uuid.Nil {
			at = nil
		}
		return tx.MoveTakeOver(g.ctx, simName, int32(p), at, 1)
	})
	if g.after[p] = last; last == uuid.Nil {
		d.phase = 2
	}
	g.look(p)
	for id, c := range d.contacts {
		d.silent[id] = !c.row.Ended
	}
}

func (g *postgres) messages(outputs []loop.Output) (all []schemas.Message) {
	for _, o := range outputs {
		require.Equal(g.t, schemas.TopicSignals, o.Topic)
		s, err := g.w.codec.DecodeSignal(o.Value)
		require.NoError(g.t, err)
		all = append(all, s)
	}
	return all
}

// look reads what stands in Postgres of a partition.
func (g *postgres) look(p int) {
	d := g.w.derived[p]
	ids := slices.DeleteFunc(slices.Clone(g.w.ids), func(id string) bool { return g.w.partition(id) != p })
	err := g.db.InTx(g.ctx, func(tx *storage.Tx) error {
		found, err := tx.LoadDerived(g.ctx, simName, ids)
		if err != nil {
			return err
		}
		d.contacts = map[string]*contact[tally]{}
		for id, row := range found.Contacts {
			c := &contact[tally]{row: *row, timers: found.Timers[id]}
			if c.state, err = decodeState(g.frame.p, row.State); err != nil {
				return err
			}
			for _, h := range found.Held[id] {
				in, err := g.frame.waiting(h)
				if err != nil {
					return err
				}
				c.held = append(c.held, in)
			}
			d.contacts[id] = c
		}
		return nil
	})
	require.NoError(g.t, err)
}

// sync writes what contacts knows.
func (g *postgres) sync() {
	var ch storage.ContactChanges
	for _, id := range slices.Sorted(maps.Keys(g.w.rows)) {
		if row := g.w.rows[id]; g.rows[id] != row.Seq {
			copied := *row
			copied.Properties, copied.FirstSeenAt, copied.LastSeenAt, copied.CreatedAt, copied.UpdatedAt = "{}", g.w.Now(), g.w.Now(), g.w.Now(), g.w.Now()
			ch.Saved = append(ch.Saved, &copied)
			g.rows[id] = row.Seq
		}
	}
	for id, survivor := range g.w.marks {
		if _, marked := g.marks[id]; !marked {
			ch.Ended = append(ch.Ended, id)
			ch.Marks = append(ch.Marks, storage.Mark{ContactID: id, Survivor: survivor, Partition: int32(g.w.partition(id))})
			g.marks[id] = survivor
		}
	}
	var fresh []storage.StoredEvent
	kept := map[string]bool{}
	for _, e := range g.w.stored {
		kept[e.ContactID] = true
		if !g.events[e.ID] {
			g.events[e.ID] = true
			e.Properties, e.ReceivedAt = "{}", time.Unix(1_700_000_000, 0)
			fresh = append(fresh, e)
		}
	}
	for _, id := range g.w.ids {
		if !kept[id] {
			ch.ForgetEvents = append(ch.ForgetEvents, id)
		}
	}
	require.NoError(g.t, g.db.InTx(g.ctx, func(tx *storage.Tx) error {
		if err := tx.SaveContacts(g.ctx, &ch, g.w.Now()); err != nil {
			return err
		}
		return tx.StoreEvents(g.ctx, fresh)
	}))
}

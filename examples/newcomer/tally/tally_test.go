package tally

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream/loop"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// It begins in the middle of two contacts' lives: one has events in Postgres that lie
// before the noted ends, one is merged into it later.
func TestItCountsWhatWasThereBeforeWhatComesAndWhatALoserHad(t *testing.T) {
	env, db := streamtest.New(t, streamtest.Partitions(2)), storagetest.New(t)
	survivor, loser := contactOn(env, 0), contactOn(env, 1)

	env.Append(event(survivor, 1), event(survivor, 2))
	store(t, env, db, &storage.Contact{ID: survivor, Seq: 3}, event(survivor, 1), event(survivor, 2), event(survivor, 3))
	env.Append(event(survivor, 3)) // stored, and published later

	run(t, env, db)
	env.Append(event(loser, 2)) // before its number 1
	env.Append(fact(loser, schemas.FactContactCreated, 1))
	env.Append(merged(survivor, loser, 4))
	env.Append(event(survivor, 5))
	env.Append(&schemas.Signal{
		ID: uuid.NewString(), Type: schemas.SignalMerged, For: Name, ContactID: loser, OccurredAt: now, Merged: &schemas.MergedSignal{Survivor: survivor, Seq: 2},
	})
	env.Eventually(func(ctx context.Context) (bool, error) {
		states, err := states(ctx, db, survivor, loser)
		return states[survivor].Events == 5 && len(states) == 1, err
	}, "the survivor counts three events of before, its own fourth and that of the loser")
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func states(ctx context.Context, db *storage.DB, contacts ...string) (found map[string]State, err error) {
	err = db.InTx(ctx, func(tx *storage.Tx) error {
		p, err := New(schemas.NewCodec(), nil)
		if err != nil {
			return err
		}
		found, err = p.States(ctx, tx, contacts)
		return err
	})
	return found, err
}

// run runs the processor until the test ends.
func run(t *testing.T, env *streamtest.Env, db *storage.DB) {
	t.Helper()
	p, err := New(env.Codec, nil)
	require.NoError(t, err)
	cfg := env.Config
	cfg.Instance = "a"
	l, err := loop.New(loop.Config{Kafka: cfg, DB: db, Encoder: env.Codec, Processor: p, Logger: zaptest.NewLogger(t)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	env.Eventually(func(ctx context.Context) (bool, error) {
		rows, err := db.LoadProgress(ctx, Name, nil)
		through := len(rows) == 2
		for _, row := range rows {
			through = through && row.TakingOver == nil
		}
		return through, err
	}, "both partitions are taken over")
}

func contactOn(env *streamtest.Env, partition int32) string {
	for i := 0; ; i++ {
		if id := fmt.Sprintf("00000000-0000-4000-8000-%012d", i); env.PartitionOf(id) == partition {
			return id
		}
	}
}

func store(t *testing.T, env *streamtest.Env, db *storage.DB, c *storage.Contact, events ...*schemas.Event) {
	t.Helper()
	c.Properties, c.Partition = "{}", env.PartitionOf(c.ID)
	c.FirstSeenAt, c.LastSeenAt, c.CreatedAt, c.UpdatedAt = now, now, now, now
	var stored []storage.StoredEvent
	for _, e := range events {
		stored = append(stored, storage.StoredEvent{
			ID: e.ID, ContactID: c.ID, Name: e.Name, Properties: e.Properties, OccurredAt: now, ReceivedAt: now, Seq: e.Seq,
		})
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
		if err := tx.SaveContacts(t.Context(), &storage.ContactChanges{Saved: []*storage.Contact{c}}, now); err != nil {
			return err
		}
		return tx.StoreEvents(t.Context(), stored)
	}))
}

func event(contact string, seq int64) *schemas.Event {
	return &schemas.Event{
		ID: schemas.Derive(contact, "event", int(seq)), ContactID: contact, Name: "page.viewed", Properties: "{}",
		OccurredAt: now, ReceivedAt: now, Source: "api", Seq: seq,
	}
}

func fact(contact, typ string, seq int64) *schemas.Fact {
	return &schemas.Fact{
		ID: schemas.Derive(contact, typ, int(seq)), Type: typ, ContactID: contact, OccurredAt: now, Seq: seq,
		Contact: &schemas.ContactFact{Properties: "{}"},
	}
}

func merged(survivor, loser string, seq int64) *schemas.Fact {
	f := fact(survivor, schemas.FactContactMerged, seq)
	f.Contact, f.Merged = nil, &schemas.ContactMerged{LoserID: loser, Properties: "{}"}
	return f
}

package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestACursorOnOutboxBeginsAndEndsWhereThePlaceStands(t *testing.T) {
	db, ctx := storagetest.New(t), t.Context()
	id := uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{outbox}')`, id)
	require.NoError(t, err)
	require.NoError(t, db.BeginOutboxPlaces(ctx, []storage.OutboxPlace{{Partition: 0, Position: 7}, {Partition: 1, Position: 3}}))
	require.NoError(t, db.BeginOutboxPlaces(ctx, []storage.OutboxPlace{{Partition: 0, Position: 1}}), "one that is there stays")
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "outbox", Partition: 0, Offset: 100}, {Topic: "events", Partition: 0, Offset: 100}})
	}))
	at := map[string]int64{}
	cursors, err := db.DestinationCursors(ctx, id)
	require.NoError(t, err)
	for _, c := range cursors {
		at[c.Topic] = c.Position
	}
	require.Equal(t, map[string]int64{"outbox": 7, "events": 100}, at)

	unread := func() (left []storage.OutboxReader) {
		require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
			err := tx.LockOutboxPlaces(ctx, []int32{0, 1})
			if err == nil {
				left, err = tx.UnreadOutbox(ctx, []storage.OutboxReader{{Partition: 0, Destination: id}, {Partition: 1, Destination: id}, {Partition: 0, Destination: "nonsense"}})
			}
			return err
		}))
		return left
	}
	require.ElementsMatch(t, []storage.OutboxReader{{Partition: 1, Destination: id}, {Partition: 0, Destination: "nonsense"}}, unread())
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.MoveOutboxPlaces(ctx, []storage.OutboxPlace{{Partition: 0, Position: 20}})
	}))

	for range 2 { // also when it is subscribed again before that is through
		require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.DeleteCursors(ctx, id, "outbox") }))
		require.Len(t, unread(), 3)
		require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
			return tx.CreateCursors(ctx, id, []storage.CursorStart{{Topic: "outbox", Partition: 0}})
		}))
	}
	skips, err := db.LoadSkips(ctx, []int32{0})
	require.NoError(t, err)
	require.Len(t, skips, 2)
	require.EqualValues(t, 7, skips[0].Position)
	require.EqualValues(t, 20, skips[0].EndOffset)
	require.NotEmpty(t, skips[0].Refused)

	box, err := storage.NewBox(make([]byte, 32))
	require.NoError(t, err)
	deleted, err := storage.NewDestinations(db, box).Delete(ctx, id)
	require.NoError(t, err)
	require.True(t, deleted)
	skips, err = db.LoadSkips(ctx, []int32{0})
	require.NoError(t, err)
	require.Len(t, skips, 3, "they outlive the destination")
	require.Equal(t, "crm", skips[2].Destination)
}

func TestWhatWasTakenBackIsToldAndForgottenWithItsEnd(t *testing.T) {
	db, ctx := storagetest.New(t), t.Context()
	ids := []string{uuid.NewString(), uuid.NewString(), uuid.NewString()}
	heard := make(chan string, 10)
	listening, stop := context.WithCancel(ctx)
	defer stop()
	ready := make(chan struct{})
	go func() {
		_ = db.Listen(listening, storage.ChannelCancelled, func(text string) {
			select {
			case <-ready:
				heard <- text
			default: // a new connection may have missed some
				close(ready)
			}
		})
	}()
	<-ready
	cancel := func() error {
		return db.InTx(ctx, func(tx *storage.Tx) error { return tx.CancelOutbox(ctx, append(ids, ids[0])) })
	}
	require.NoError(t, cancel())
	require.Len(t, <-heard, 3*36+2)
	require.NoError(t, cancel(), "again")
	noted := func() (n int) {
		require.NoError(t, db.EachCancelled(ctx, time.Time{}, func(uuid.UUID, time.Time) { n++ }))
		return n
	}
	require.Equal(t, 3, noted())
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.EndCancels(ctx, ids[:1]) }))
	require.Equal(t, 2, noted())
	n, err := db.CleanOutbox(ctx, time.Now().Add(-time.Hour), 10)
	require.NoError(t, err)
	require.Zero(t, n)
	n, err = db.CleanOutbox(ctx, time.Now().Add(time.Hour), 10)
	require.NoError(t, err)
	require.EqualValues(t, 2, n)
	require.Zero(t, noted())
}

func TestWhatAnEarlierVersionLeftParkedOfADeletedDestinationIsCleaned(t *testing.T) {
	db, ctx := storagetest.New(t), t.Context()
	kept, gone := uuid.NewString(), uuid.NewString()
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, kept)
	require.NoError(t, err)
	for _, id := range []string{kept, gone} {
		_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO parked_records (destination_id, partition, record_key, topic, "offset", append_time, record_id, record_type, trace_parent, trace_state, since_ms)
			VALUES ($1, 0, 'k', 'lifecycle', 1, now(), 'r', 't', '', '', 0)`, id)
		require.NoError(t, err)
	}
	_, err = db.CleanOutbox(ctx, time.Now(), 10)
	require.NoError(t, err)
	var left string
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `SELECT destination_id::text FROM parked_records`).Scan(&left))
	require.Equal(t, kept, left)
}

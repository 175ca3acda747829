package storage_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestABackfillOfNothingIsFinishedAtOnceAndItsTimeStandsStill(t *testing.T) {
	db, ctx := storagetest.New(t), context.Background()
	r := &storage.Replay{ID: uuid.NewString(), DestinationID: uuid.NewString(), From: "start", To: "live"}
	_, err := storagetest.SQL(db).Exec(ctx, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, r.DestinationID)
	require.NoError(t, err)
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error { return tx.CreateReplay(ctx, r, nil) }))
	got, err := db.GetReplay(ctx, r.DestinationID, r.ID)
	require.NoError(t, err)
	require.Equal(t, storage.ReplayFinished, got.Status)
	require.NotNil(t, got.EndedAt)
	require.Zero(t, got.Active)
}

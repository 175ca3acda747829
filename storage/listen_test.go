package storage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// listen starts a listener that ends with the test and returns what it hears.
func listen(t *testing.T, db *storage.DB, channel string) <-chan string {
	t.Helper()
	heard := make(chan string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- db.Listen(ctx, channel, func(payload string) { heard <- payload }) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return heard
}

func next(t *testing.T, heard <-chan string) string {
	t.Helper()
	select {
	case payload := <-heard:
		return payload
	case <-time.After(20 * time.Second):
		t.Fatal("nothing heard in 20 s")
		return ""
	}
}

// notify is a transaction that does nothing else.
func notify(ctx context.Context, db *storage.DB, channel, payload string) error {
	return db.InTx(ctx, func(tx *storage.Tx) error { return tx.Notify(ctx, channel, payload) })
}

func TestAListenerHearsWhatCommittedInItsSchemaAndNothingElse(t *testing.T) {
	t.Parallel()
	db, neighbour := storagetest.New(t), storagetest.New(t)
	ctx := t.Context()
	heard := listen(t, db, "keys")
	require.Empty(t, next(t, heard), "the first call says: read everything")

	require.NoError(t, notify(ctx, neighbour, "keys", "of the neighbour"))
	require.NoError(t, notify(ctx, db, "destinations", "another channel"))
	rolledBack := errors.New("roll back")
	require.ErrorIs(t, db.InTx(ctx, func(tx *storage.Tx) error {
		require.NoError(t, tx.Notify(ctx, "keys", "rolled back"))
		return rolledBack
	}), rolledBack)
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		return tx.Notify(ctx, "keys", "committed")
	}))
	require.NoError(t, notify(ctx, db, "keys", "at once"))

	require.Equal(t, "committed", next(t, heard))
	require.Equal(t, "at once", next(t, heard))
}

func TestAListenerReconnectsAndSaysToReadEverythingAgain(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t)
	db := server.DB()
	heard := listen(t, db, "keys")
	require.Empty(t, next(t, heard))
	require.NoError(t, notify(t.Context(), db, "keys", "before"))
	require.Equal(t, "before", next(t, heard))

	server.Crash()
	server.Start()
	require.Empty(t, next(t, heard), "after the outage: read everything again")
	require.Eventually(t, func() bool { return notify(t.Context(), db, "keys", "after") == nil },
		20*time.Second, 10*time.Millisecond)
	require.Equal(t, "after", next(t, heard))
}

func TestAListenerOnAnAbsentServerStopsWhenAsked(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t)
	db := server.DB()
	heard := listen(t, db, "keys") // its end is checked when the test ends
	require.Empty(t, next(t, heard))
	server.Stop()
}

package storage_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

// writeAt writes a progress row, for which nobody waits in a batch.
func writeAt(t *testing.T, tx *storage.Tx, next int64) {
	t.Helper()
	row := storage.Progress{Ranges: storage.Ranges{"ingest": {From: next, Next: next}}}
	require.NoError(t, tx.WriteProgress(t.Context(), "p", []storage.Progress{row}))
}

// nextOf is what the progress row says to whoever asks now; 0 without one.
func nextOf(t *testing.T, db *storage.DB) int64 {
	t.Helper()
	rows, err := db.LoadProgress(t.Context(), "p", nil)
	require.NoError(t, err)
	if len(rows) == 0 {
		return 0
	}
	return rows[0].Ranges["ingest"].Next
}

func TestWhatABatchWritesStandsInOrderAndIsCommittedAsAWhole(t *testing.T) {
	db := storagetest.New(t)
	reads := map[string]func(tx *storage.Tx) (next int64, err error){
		"with what is read": func(tx *storage.Tx) (int64, error) {
			rows, err := tx.LockProgress(t.Context(), "p", []int32{0})
			return rows[0].Ranges["ingest"].Next, err
		},
		"before what is asked alone": func(tx *storage.Tx) (next int64, err error) {
			err = storagetest.SQL(tx).QueryRow(t.Context(), `SELECT (ranges->'ingest'->>'next')::bigint FROM processor_progress`).Scan(&next)
			return next, err
		},
		"before a statement that says how many rows it wrote": func(tx *storage.Tx) (int64, error) {
			tag, err := storagetest.SQL(tx).Exec(t.Context(), `UPDATE processor_progress SET published = true, declared = format`)
			return 2 * tag.RowsAffected(), err
		},
	}
	for name, read := range reads {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
				writeAt(t, tx, 1)
				writeAt(t, tx, 2)
				seen, err := read(tx)
				require.Equal(t, int64(2), seen)
				writeAt(t, tx, 3)
				return err
			}))
			require.Equal(t, int64(3), nextOf(t, db))
		})
	}
}

func TestABatchLeavesNothingWhenSomethingOfItFails(t *testing.T) {
	db := storagetest.New(t)
	broken := storage.StoredEvent{ID: "00000000-0000-0000-0000-000000000001", ContactID: "00000000-0000-0000-0000-000000000002", Name: "a", Properties: "{"}
	ask := func(tx *storage.Tx) error {
		_, err := tx.LockProgress(t.Context(), "p", []int32{0})
		return err
	}
	mine := errors.New("mine")
	ended, cancel := context.WithCancel(t.Context())
	for name, c := range map[string]struct {
		work func(tx *storage.Tx) error
		says string
	}{
		"a write, at the commit": {func(tx *storage.Tx) error { return tx.StoreEvents(t.Context(), []storage.StoredEvent{broken}) }, "store 1 events: "},
		"a write, when something is read": {func(tx *storage.Tx) error {
			require.NoError(t, tx.StoreEvents(t.Context(), []storage.StoredEvent{broken}))
			return ask(tx)
		}, "store 1 events: "},
		"a write, though nobody heeds it": {func(tx *storage.Tx) error {
			require.NoError(t, tx.StoreEvents(t.Context(), []storage.StoredEvent{broken}))
			require.Error(t, ask(tx))
			return nil
		}, "transaction"},
		"the caller, before anything was sent": {func(*storage.Tx) error { return mine }, "mine"},
		"the caller, after something was sent": {func(tx *storage.Tx) error { return errors.Join(ask(tx), mine) }, "mine"},
		"a caller who leaves":                  {func(tx *storage.Tx) error { cancel(); _, err := tx.LockProgress(ended, "p", nil); return err }, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			err := db.InBatch(t.Context(), func(tx *storage.Tx) error {
				writeAt(t, tx, 7)
				return c.work(tx)
			})
			require.ErrorContains(t, err, c.says)
			require.Zero(t, nextOf(t, db))
			// The connection is as good as new.
			require.NoError(t, db.InBatch(t.Context(), func(*storage.Tx) error { return nil }))
		})
	}
	t.Run("a panic", func(t *testing.T) {
		require.Panics(t, func() {
			_ = db.InBatch(t.Context(), func(tx *storage.Tx) error {
				writeAt(t, tx, 7)
				require.NoError(t, ask(tx))
				panic("mine")
			})
		})
		require.Zero(t, nextOf(t, db))
	})
}

func TestSettingsOfABatchEndWithIt(t *testing.T) {
	db := storagetest.New(t)
	read := func(tx *storage.Tx) (value string) {
		require.NoError(t, storagetest.SQL(tx).QueryRow(t.Context(), `SELECT current_setting('enable_seqscan') || ' ' || current_setting('plan_cache_mode')`).Scan(&value))
		return value
	}
	for range 20 { // as many as the pool has connections, and more
		require.NoError(t, db.InBatch(t.Context(), func(tx *storage.Tx) error {
			require.Equal(t, "off force_generic_plan", read(tx))
			return nil
		}))
		require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error {
			require.Equal(t, "on auto", read(tx))
			return nil
		}))
	}
}

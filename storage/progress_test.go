package storage_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestARowOfANewerFormatCannotBeWrittenByAReleaseThatDoesNotKnowIt(t *testing.T) {
	db := storagetest.New(t)
	ranges := storage.Ranges{"ingest": {From: 1, Next: 3}}
	rows := func(format int32) []storage.Progress {
		return []storage.Progress{{Partition: 4, Ranges: ranges, Format: format}}
	}
	write := func(format int32) error {
		return db.InTx(t.Context(), func(tx *storage.Tx) error {
			return tx.WriteProgress(t.Context(), "p", rows(format))
		})
	}
	require.NoError(t, db.StartProgress(t.Context(), "p", map[int32]storage.Ranges{4: ranges.Settled()}, 1))
	require.NoError(t, write(1))
	require.NoError(t, write(3))
	require.NoError(t, write(3))

	for name, old := range map[string]func(context.Context) error{
		"apply": func(context.Context) error { return write(2) },
		"tidy": func(ctx context.Context) error {
			return db.MarkPublished(ctx, "p", map[int32]storage.Ranges{4: ranges}, 2)
		},
		"accept": func(ctx context.Context) error {
			return db.AcceptProgress(ctx, "p", map[int32]storage.Ranges{4: ranges}, 2)
		},
		"add a topic": func(ctx context.Context) error {
			return db.StartProgress(ctx, "p", map[int32]storage.Ranges{4: {"signals": {}}}, 2)
		},
		// As a release writes that knows of no formats.
		"say nothing": func(ctx context.Context) error {
			_, err := storagetest.SQL(db).Exec(ctx, `UPDATE processor_progress SET ranges = '{}', updated_at = now()`)
			return err
		},
		"say nothing, in an upsert": func(ctx context.Context) error {
			_, err := storagetest.SQL(db).Exec(ctx, `
				INSERT INTO processor_progress (processor, partition, ranges, published) VALUES ('p', 4, '{}', false)
				ON CONFLICT (processor, partition) DO UPDATE SET ranges = excluded.ranges`)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := old(t.Context())
			require.ErrorContains(t, err, "processor p, partition 4: its state is in format 3, which this release does not write")
			var pe *pgconn.PgError
			require.ErrorAs(t, err, &pe)
			require.Equal(t, "55000", pe.Code)
			// A loop waits and says why: not again at once, no outage, no dead letter.
			require.True(t, storage.IsRefusal(err))
			require.False(t, storage.IsRetryable(err) || storage.IsUnavailable(err) || storage.IsRecordFault(err))
			_, hidden := storage.WithoutValues(pe)
			require.False(t, hidden, "the log shows the message")
		})
	}
	require.NoError(t, db.MarkPublished(t.Context(), "p", map[int32]storage.Ranges{4: ranges}, 3))
	found, err := db.LoadProgress(t.Context(), "p", nil)
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.EqualValues(t, 3, found[0].Format)
	require.True(t, found[0].Published)
}

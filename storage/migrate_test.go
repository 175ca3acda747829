package storage_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestServingRefusesASchemaThatIsBehindAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.EmptyURL(t)})
	require.NoError(t, err)
	defer db.Close()

	err = db.RequireSchema(t.Context())
	require.ErrorIs(t, err, storage.ErrSchemaBehind)
	require.ErrorContains(t, err, "hogstream migrate")
	require.ErrorContains(t, err, "00001_init.sql")

	applied, err := db.Migrate(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, applied)
	require.Equal(t, "00001_init.sql", applied[0].Name)
	require.NoError(t, db.RequireSchema(t.Context()))
	status, err := db.SchemaStatus(t.Context())
	require.NoError(t, err)
	require.Equal(t, status.Required, status.Applied)
	require.Empty(t, status.Pending)

	// An older binary during an upgrade sees a version it does not know.
	exec(t, db, `INSERT INTO schema_versions (version_id, is_applied) VALUES (99999, true)`)
	require.NoError(t, db.RequireSchema(t.Context()))
}

func TestStartersThatMigrateAtOnceDoNotRace(t *testing.T) {
	t.Parallel()
	url := storagetest.EmptyURL(t)
	var starters errgroup.Group
	ran := make(chan int, 4)
	for range cap(ran) {
		starters.Go(func() error {
			db, err := storage.Open(t.Context(), storage.Config{URL: url, MaxConns: 4})
			if err != nil {
				return err
			}
			defer db.Close()
			applied, err := db.Migrate(t.Context())
			ran <- len(applied)
			return err
		})
	}
	require.NoError(t, starters.Wait())
	close(ran)
	var workers int
	for n := range ran {
		if n > 0 {
			workers++
		}
	}
	require.Equal(t, 1, workers)
}

func TestMigrateCreatesTheSchemaThatSearchPathNames(t *testing.T) {
	t.Parallel()
	admin := storagetest.New(t)
	_, err := storagetest.SQL(admin).Exec(t.Context(), `DROP SCHEMA IF EXISTS "Made by migrate" CASCADE`)
	require.NoError(t, err)
	db, err := storage.Open(t.Context(), storage.Config{
		URL: withSearchPath(t, storagetest.EmptyURL(t), `"Made by migrate"`)})
	require.NoError(t, err)
	defer db.Close()
	defer exec(t, admin, `DROP SCHEMA IF EXISTS "Made by migrate" CASCADE`)

	_, err = db.Migrate(t.Context())
	require.NoError(t, err)
	require.NoError(t, db.RequireSchema(t.Context()))
	var schema string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT current_schema()`).Scan(&schema))
	require.Equal(t, "Made by migrate", schema)
}

func TestMigratingDownAndUpAgainWorks(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	require.NoError(t, storage.MigrateDown(t.Context(), db))
	status, err := db.SchemaStatus(t.Context())
	require.NoError(t, err)
	require.Zero(t, status.Applied)
	_, err = db.Migrate(t.Context())
	require.NoError(t, err)
}

package storagetest_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEachTestHasAMigratedSchemaOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "other"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := storagetest.New(t)
			require.NoError(t, db.RequireSchema(t.Context()))
			_, err := storagetest.SQL(db).Exec(t.Context(), `CREATE TABLE mine (n int)`)
			require.NoError(t, err)
		})
	}
}

func TestAPrivateServerKeepsItsURLAndWhatWasCommittedOverACrash(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t)
	url := server.URL()
	_, err := storagetest.SQL(server.DB()).Exec(t.Context(), `CREATE TABLE mine (n int)`)
	require.NoError(t, err)
	server.Crash()
	server.Start()
	require.Equal(t, url, server.URL())
	_, err = storagetest.SQL(server.DB()).Exec(t.Context(), `SELECT n FROM mine`)
	require.NoError(t, err)
}

func BenchmarkNew(b *testing.B) {
	storagetest.New(b)
	for b.Loop() {
		storagetest.New(b)
	}
}

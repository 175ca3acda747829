package hogstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestAProgramAsksWhoIsInABucket(t *testing.T) {
	url := storagetest.URL(t)
	db, err := storage.Open(t.Context(), storage.Config{URL: url})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	ada := uuid.NewString()
	for _, sql := range []string{
		`INSERT INTO contacts (id, external_id, email, properties, version, first_seen_at, last_seen_at, created_at, updated_at) VALUES ($1, 'u1', 'ada@example.com', '{}', 1, now(), now(), now(), now())`,
		`INSERT INTO identifiers (kind, value, contact_id) VALUES ('external', 'u1', $1)`,
	} {
		_, err = storagetest.SQL(db).Exec(t.Context(), sql, ada)
		require.NoError(t, err)
	}
	entered := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	joins := []storage.BucketTransition{{ContactID: ada, BucketID: "buyers", Epoch: 2, Entered: true, At: entered.Add(time.Hour), Source: "event"}}
	for range 2000 {
		joins = append(joins, storage.BucketTransition{ContactID: uuid.NewString(), BucketID: "buyers", Epoch: 1, Entered: true, At: entered, Source: "event"})
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveBucketTransitions(t.Context(), joins, nil) }))

	cfg := hogstream.Config{}
	cfg.Database.URL = url
	members, err := hogstream.OpenMembers(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(members.Close)
	n, err := members.Count(t.Context(), "buyers")
	require.NoError(t, err)
	require.EqualValues(t, 2001, n)
	for id, want := range map[string]bool{"u1": true, ada: true, "nobody": false} {
		has, err := members.Has(t.Context(), "buyers", id)
		require.NoError(t, err)
		require.Equal(t, want, has, id)
	}
	page, next, err := members.Page(t.Context(), "buyers", 1, "")
	require.NoError(t, err)
	require.Equal(t, []hogstream.Member{{UserID: "u1", Email: "ada@example.com", ContactID: ada, EnteredAt: entered.Add(time.Hour), EntryCount: 2}}, page)
	page, _, err = members.Page(t.Context(), "buyers", 10, next)
	require.NoError(t, err)
	require.Len(t, page, 10)
	_, _, err = members.Page(t.Context(), "buyers", 0, "")
	require.ErrorContains(t, err, "at least 1")

	seen := map[string]bool{}
	for m, err := range members.All(t.Context(), "buyers") {
		require.NoError(t, err)
		seen[m.ContactID] = true
	}
	require.Len(t, seen, 2001)
	for _, err := range members.All(t.Context(), "buyers") {
		require.NoError(t, err)
		break // and asks for no more
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range members.All(ctx, "buyers") {
		require.ErrorIs(t, err, context.Canceled)
	}
}

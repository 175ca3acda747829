package hogstream_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/schemas"
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

func TestAContactIsPutIntoABucketTakenOutAndForgottenInARunningInstance(t *testing.T) {
	inDev(t, devConfig(t), func(r *hogstream.Running) {
		e := &erasing{t: t, run: r}
		db, err := storage.Open(t.Context(), storage.Config{URL: r.Database})
		require.NoError(t, err)
		defer db.Close()
		opts := definition.Options{Limits: predicate.DefaultLimits()}
		define := func(buckets ...definition.Bucket) {
			files, err := definition.Built(buckets, opts)
			require.NoError(t, err)
			_, err = definition.Apply(t.Context(), db, files, opts, "test")
			require.NoError(t, err)
		}
		beta := definition.Bucket{ID: "beta", Name: "Beta", Enabled: true, Kind: definition.KindManual}
		lookers := definition.Bucket{ID: "lookers", Name: "Lookers", Enabled: true, Criteria: predicate.Event("looked").Exists()}
		define(beta, lookers)
		cfg := hogstream.Config{}
		r.FillIn(&cfg)
		members, err := hogstream.OpenMembers(t.Context(), cfg)
		require.NoError(t, err)
		defer members.Close()
		becomes := func(bucket string, want bool) {
			t.Helper()
			require.Eventually(t, func() bool {
				has, err := members.Has(t.Context(), bucket, "u1")
				return err == nil && has == want
			}, 30*time.Second, 20*time.Millisecond)
		}
		e.send("POST", "/v1/events", `{"name":"looked","userId":"u1"}`)
		becomes("lookers", true)
		e.send("POST", "/v1/admin/buckets/beta/members", `{"userId":"u1"}`)
		becomes("beta", true)
		e.send("DELETE", "/v1/admin/buckets/beta/members/u1", "")
		becomes("beta", false)
		e.send("POST", "/v1/admin/buckets/beta/members", `{"userId":"u1"}`)
		becomes("beta", true)

		joins := func() (counts []int64) {
			shown, err := db.ContactNamed(t.Context(), "u1", schemas.KindExternal)
			require.NoError(t, err)
			list, err := db.BucketMemberships(t.Context(), shown.ID, 10)
			require.NoError(t, err)
			for _, m := range list {
				if m.BucketID == "beta" {
					counts = append(counts, m.Epoch)
				}
			}
			return counts
		}
		require.Equal(t, []int64{2, 1}, joins())
		define(lookers)
		e.send("POST", "/v1/admin/buckets/beta/purge", "")
		require.Empty(t, joins())
		define(beta, lookers)
		e.send("POST", "/v1/admin/buckets/beta/members", `{"userId":"u1"}`)
		becomes("beta", true)
		require.Equal(t, []int64{1}, joins(), "it was forgotten")
		becomes("lookers", true)
	})
}

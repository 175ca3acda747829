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

// erase deletes contacts as processor identity does, and says who is named for it.
func erase(t *testing.T, db *storage.DB, ids ...string) {
	t.Helper()
	ch := storage.IdentityChanges{Deleted: map[string]storage.Place{}}
	for _, id := range ids {
		ch.Deleted[id] = storage.Place{AppendTime: time.Now()}
	}
	require.NoError(t, db.InTx(t.Context(), func(tx *storage.Tx) error { return tx.SaveIdentities(t.Context(), &ch, time.Now()) }))
}

func put(t *testing.T, db *storage.DB, sql string, args ...any) {
	t.Helper()
	_, err := storagetest.SQL(db).Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
}

func TestAnErasureIsToldWithWhoWasMergedIntoThePerson(t *testing.T) {
	db := storagetest.New(t)
	person, loser, other := uuid.NewString(), uuid.NewString(), uuid.NewString()
	put(t, db, `INSERT INTO identities (contact_id, first_seen_at, merged_into) VALUES ($1, now(), NULL), ($2, now(), $1), ($3, now(), NULL)`, person, loser, other)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heard := make(chan string, 10)
	done := make(chan error, 1)
	go func() { done <- db.Listen(ctx, storage.ChannelErased, func(ids string) { heard <- ids }) }()
	require.Empty(t, <-heard, "it listens")
	erase(t, db, person)
	ids := <-heard
	require.Contains(t, ids, person)
	require.Contains(t, ids, loser)
	require.NotContains(t, ids, other)
	many := make([]string, 300)
	for i := range many {
		many[i] = uuid.NewString()
	}
	erase(t, db, many...)
	require.Empty(t, <-heard, "so many are to be read")
	cancel()
	require.NoError(t, <-done)

	erased, err := db.Erased(t.Context(), person, loser, other, "no id", many[0])
	require.NoError(t, err)
	require.Equal(t, map[string]bool{person: true, loser: true, many[0]: true}, erased)
	var all []uuid.UUID
	require.NoError(t, db.EachErased(t.Context(), time.Time{}, func(id uuid.UUID, _ time.Time) { all = append(all, id) }))
	require.Len(t, all, 302)
}

func TestWhatTablesStillHaveOfTheErasedIsCleared(t *testing.T) {
	db := storagetest.New(t)
	person, other, destination := uuid.NewString(), uuid.NewString(), uuid.NewString()
	put(t, db, `INSERT INTO identities (contact_id, first_seen_at) VALUES ($1, now())`, person)
	put(t, db, `INSERT INTO destinations (id, name, kind, event_types) VALUES ($1, 'crm', 'webhook', '{*}')`, destination)
	require.NoError(t, db.PrepareAttempts(t.Context(), time.Now(), 0))
	attempted := func(at time.Time, key string) {
		put(t, db, `INSERT INTO delivery_attempts (attempted_at, destination_id, record_id, record_type, record_key, topic, partition, "offset", attempt, outcome, latency_ms, error, response)
			VALUES ($1, $2, 'r', 'contact.updated', $3, 'lifecycle', 0, 0, 1, 'rejected', 1, 'secret', 'secret')`, at, destination, key)
	}
	answers, exits, pending := map[string]string{}, map[string]string{}, map[string]string{}
	for _, key := range []string{person, other} {
		attempted(time.Now(), key)
		attempted(time.Now().AddDate(0, 0, -9), key) // no day of its own
		put(t, db, `INSERT INTO parked_keys (destination_id, partition, record_key, reason, next_attempt_at, error) VALUES ($1, 0, $2, 'failing', now() + interval '1 hour', 'secret')`, destination, key)
		for i, typ := range []string{"contact.updated", "contact.deleted"} {
			put(t, db, `INSERT INTO parked_records (destination_id, partition, record_key, topic, "offset", append_time, record_id, record_type, trace_parent, trace_state, value, since_ms)
				VALUES ($1, 0, $2, 'lifecycle', $3, now(), 'r', $4, '', '', 'secret', 0)`, destination, key, i, typ)
		}
		answers[key], exits[key], pending[key] = uuid.NewString(), uuid.NewString(), uuid.NewString()
		put(t, db, `INSERT INTO answers (input_id, answer, created_at) VALUES ($1, json_build_object('id', $2::text, 'exits', '[]'::json), now())`, exits[key], key)
		put(t, db, `INSERT INTO answers (input_id, answer, created_at) VALUES ($1, json_build_object('id', $2::text, 'conflicts', json_build_array('secret')), now())`, answers[key], key)
		put(t, db, `INSERT INTO pending_answers (input_id, contact_id, answer, losers, created_at) VALUES ($1, $2, '{"conflicts":["secret"]}', '{}', now())`, pending[key], key)
	}
	count := func(sql, key string) (n int) {
		require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SELECT count(*) FROM `+sql, key).Scan(&n))
		return n
	}
	const texts = `delivery_attempts WHERE record_key = $1 AND (error IS NOT NULL OR response IS NOT NULL)`

	n, err := db.ClearErased(t.Context(), time.Now())
	require.NoError(t, err)
	require.Zero(t, n)
	erase(t, db, person)
	page, _, err := db.SearchAttempts(t.Context(), destination, storage.AttemptFilter{Key: person}, "", 10)
	require.NoError(t, err)
	require.Len(t, page, 2)
	require.Empty(t, page[0].Error, "it is not shown from the first moment on")
	require.Empty(t, page[0].Response)
	require.Equal(t, 2, count(texts, person))

	n, err = db.ClearErased(t.Context(), time.Now())
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Zero(t, count(texts, person))
	require.Equal(t, 2, count(`delivery_attempts WHERE record_key = $1`, person), "that they were made is known")
	require.Equal(t, 1, count(`parked_records WHERE record_key = $1 AND value IS NOT NULL`, person), "that somebody was deleted is delivered")
	require.Equal(t, 1, count(`parked_keys WHERE record_key = $1 AND error IS NULL AND next_attempt_at <= now()`, person))
	require.Zero(t, count(`answers WHERE input_id = $1::text::uuid`, answers[person]))
	require.Zero(t, count(`answers WHERE input_id = $1::text::uuid`, exits[person]))
	require.Equal(t, 1, count(`pending_answers WHERE contact_id = $1::text::uuid AND answer ->> 'error' = 'erased'`, person))
	require.Equal(t, 2, count(texts, other))
	require.Equal(t, 2, count(`parked_records WHERE record_key = $1 AND value IS NOT NULL`, other))
	require.Equal(t, 1, count(`parked_keys WHERE record_key = $1 AND error IS NOT NULL AND next_attempt_at > now()`, other))
	require.Equal(t, 1, count(`answers WHERE input_id = $1::text::uuid`, answers[other]))
	require.Equal(t, 1, count(`answers WHERE input_id = $1::text::uuid`, exits[other]))

	// An attempt that had begun is written after all.
	attempted(time.Now(), person)
	for _, after := range []time.Duration{0, 2 * time.Minute} {
		n, err = db.ClearErased(t.Context(), time.Now().Add(after))
		require.NoError(t, err)
		require.Equal(t, 1, n)
	}
	require.Zero(t, count(texts, person))
	n, err = db.ClearErased(t.Context(), time.Now().Add(2*time.Minute))
	require.NoError(t, err)
	require.Zero(t, n, "and that was all")
}

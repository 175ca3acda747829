package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
)

func TestABatchLooksRowsUpByKeyHoweverManyItHas(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	ctx := t.Context()
	exec(t, db, `CREATE TABLE t (n int PRIMARY KEY, m int)`)
	exec(t, db, `INSERT INTO t SELECT n, 0 FROM generate_series(1, 2000) AS n`)
	exec(t, db, `ANALYZE t`)

	require.NoError(t, db.InBatch(ctx, func(tx *storage.Tx) error {
		_, err := storagetest.SQL(tx).Exec(ctx, `UPDATE t SET m = 1 FROM generate_series(1, 1000) AS k WHERE t.n = k`)
		require.NoError(t, err)
		rows, err := storagetest.SQL(tx).Query(ctx, `EXPLAIN UPDATE t SET m = 1 FROM generate_series(1, 1000) AS k WHERE t.n = k`)
		require.NoError(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Contains(t, strings.Join(plan, "\n"), "Index Scan using t_pkey")
		return nil
	}))
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		for _, setting := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin"} {
			var value string
			require.NoError(t, storagetest.SQL(tx).QueryRow(ctx, `SHOW `+setting).Scan(&value))
			require.Equal(t, "on", value, "%s ends with the batch", setting)
		}
		var written int
		require.NoError(t, storagetest.SQL(tx).QueryRow(ctx, `SELECT count(*) FROM t WHERE m = 1`).Scan(&written))
		require.Equal(t, 1000, written)
		return nil
	}))
}

func TestATransactionThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	ctx := t.Context()
	exec(t, db, `CREATE TABLE t (n int)`)

	boom := errors.New("boom")
	err := db.InTx(ctx, func(tx *storage.Tx) error {
		_, err := storagetest.SQL(tx).Exec(ctx, `INSERT INTO t (n) VALUES (1)`)
		require.NoError(t, err)
		return boom
	})
	require.ErrorIs(t, err, boom)
	require.Panics(t, func() {
		_ = db.InTx(ctx, func(tx *storage.Tx) error {
			_, _ = storagetest.SQL(tx).Exec(ctx, `INSERT INTO t (n) VALUES (2)`)
			panic("boom")
		})
	})
	require.NoError(t, db.InTx(ctx, func(tx *storage.Tx) error {
		_, err := storagetest.SQL(tx).Exec(ctx, `INSERT INTO t (n) VALUES (3)`)
		return err
	}))

	var sum int
	require.NoError(t, storagetest.SQL(db).QueryRow(ctx, `SELECT sum(n) FROM t`).Scan(&sum))
	require.Equal(t, 3, sum)
	require.True(t, storage.IsNotFound(storagetest.SQL(db).QueryRow(ctx, `SELECT n FROM t WHERE n = 7`).Scan(&sum)))
}

func TestADeadlockIsRetryable(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	ctx := t.Context()
	exec(t, db, `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)`)

	// Each takes one row, waits until the other has its own, and asks for that.
	var both sync.WaitGroup
	both.Add(2)
	results := make(chan error, 2)
	for _, order := range [][2]int{{1, 2}, {2, 1}} {
		go func() {
			results <- db.InTx(ctx, func(tx *storage.Tx) error {
				const lock = `SELECT FROM t WHERE id = $1 FOR UPDATE`
				_, err := storagetest.SQL(tx).Exec(ctx, lock, order[0])
				both.Done()
				if err != nil {
					return err
				}
				both.Wait()
				_, err = storagetest.SQL(tx).Exec(ctx, lock, order[1])
				return err
			})
		}()
	}
	first, second := <-results, <-results
	failed := errors.Join(first, second)
	require.True(t, first == nil || second == nil, "one of them wins: %v", failed)
	require.True(t, storage.IsRetryable(failed), "%v", failed)
	require.False(t, storage.IsUnavailable(failed))
	require.False(t, storage.IsRecordFault(failed))
}

func TestARepeatedKeyIsRetryableAndBadDataIsTheRecordsFault(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	exec(t, db, `CREATE TABLE t (id int PRIMARY KEY CHECK (id > 0)); INSERT INTO t VALUES (1)`)
	for sql, want := range map[string][3]bool{ // retryable, unavailable, record fault
		`INSERT INTO t VALUES (1)`:                          {true, false, false},
		`INSERT INTO t VALUES (-1)`:                         {false, false, true},
		`SELECT 'x'::int`:                                   {false, false, true},
		`SELECT E'a\u0000'::text`:                           {false, false, false}, // a syntax error: ours
		`SELECT '"\u0000"'::jsonb`:                          {false, false, true},
		`SELECT nothing FROM nowhere`:                       {false, false, false},
		`SET LOCAL statement_timeout=1; SELECT pg_sleep(5)`: {false, true, false},
	} {
		_, err := storagetest.SQL(db).Exec(t.Context(), sql, pgxSimple)
		require.Error(t, err, sql)
		got := [3]bool{storage.IsRetryable(err), storage.IsUnavailable(err), storage.IsRecordFault(err)}
		require.Equal(t, want, got, "%s: %v", sql, err)
	}
}

func TestErrorsAreToldApartByWhatTheyAskFor(t *testing.T) {
	t.Parallel()
	code := func(c string) error { return fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: c}) }
	for _, c := range []string{"40001", "40P01", "23505", "26000"} {
		require.True(t, storage.IsRetryable(code(c)), c)
		require.False(t, storage.IsUnavailable(code(c)), c)
	}
	for _, c := range []string{"08006", "08001", "57P01", "57P02", "57P03", "53300", "53100", "58030", "25006", "25P03", "57014"} {
		require.True(t, storage.IsUnavailable(code(c)), c)
		require.False(t, storage.IsRetryable(code(c)), c)
		require.False(t, storage.IsRecordFault(code(c)), c)
	}
	require.True(t, storage.IsUnavailable(fmt.Errorf("wrapped: %w", context.DeadlineExceeded)))
	require.False(t, storage.IsUnavailable(fmt.Errorf("wrapped: %w", context.Canceled)), "a stop is no outage")
	require.False(t, storage.IsUnavailable(errors.New("anything")))
	require.False(t, storage.IsUnavailable(nil))
	require.True(t, storage.IsRetryable(&pgconn.PgError{Code: "0A000", Message: "cached plan must not change result type"}))
	require.False(t, storage.IsRetryable(&pgconn.PgError{Code: "0A000", Message: "not supported"}))
}

func TestAnOutageIsToldFromPoisonAndThePoolComesBack(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t)
	db := server.DB()
	exec(t, db, `CREATE TABLE t (n int)`)
	begun, stopped, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		done <- db.InTx(t.Context(), func(tx *storage.Tx) error {
			close(begun)
			<-stopped
			_, err := storagetest.SQL(tx).Exec(t.Context(), `INSERT INTO t VALUES (1)`)
			return err
		})
	}()
	<-begun

	server.Stop()
	close(stopped)
	err := <-done
	require.True(t, storage.IsUnavailable(err), "in a transaction: %v", err)
	require.True(t, storage.IsUnavailable(db.Ping(t.Context())), "from the pool: %v", db.Ping(t.Context()))
	_, err = storage.Open(t.Context(), storage.Config{URL: server.URL()})
	require.True(t, storage.IsUnavailable(err), "at start: %v", err)
	server.Start()
	require.NoError(t, db.Ping(t.Context()))

	server.Crash()
	server.Start()
	require.Eventually(t, func() bool { return db.Ping(t.Context()) == nil }, 10*time.Second, 10*time.Millisecond)

	server.Pause()
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = storagetest.SQL(db).Exec(short, `INSERT INTO t VALUES (2)`)
	require.True(t, storage.IsUnavailable(err), "frozen: %v", err)
	server.Resume()
	require.NoError(t, db.Ping(t.Context()))

	db.Close()
	require.True(t, storage.IsUnavailable(db.Ping(t.Context())), "closed: %v", db.Ping(t.Context()))
}

func TestASilentTransactionLosesItsLocks(t *testing.T) {
	t.Parallel()
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.URL(t) + "&idle_in_transaction_session_timeout=50"})
	require.NoError(t, err)
	defer db.Close()
	exec(t, db, `CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)`)
	const lock = `SELECT FROM t WHERE id = 1 FOR UPDATE`
	err = db.InTx(t.Context(), func(silent *storage.Tx) error {
		_, err := storagetest.SQL(silent).Exec(t.Context(), lock)
		require.NoError(t, err)
		require.NoError(t, db.InTx(t.Context(), func(successor *storage.Tx) error {
			_, err := storagetest.SQL(successor).Exec(t.Context(), lock)
			return err
		}))
		_, err = storagetest.SQL(silent).Exec(t.Context(), lock)
		return err
	})
	require.True(t, storage.IsUnavailable(err), "%v", err)
}

func TestATransactionMayBeSilentForFifteenSeconds(t *testing.T) {
	t.Parallel()
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.URL(t)})
	require.NoError(t, err)
	defer db.Close()
	var silence string
	require.NoError(t, storagetest.SQL(db).QueryRow(t.Context(), `SHOW idle_in_transaction_session_timeout`).Scan(&silence))
	require.Equal(t, "15s", silence)
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, storage.Config{}.Validate(), "DATABASE_URL")
	err := storage.Config{URL: "postgres://u:hunter2@h:nope/d", MaxConns: -1}.Validate()
	require.ErrorContains(t, err, "URL")
	require.ErrorContains(t, err, "MaxConns")
	require.NotContains(t, err.Error(), "hunter2")
	require.NoError(t, storage.Config{URL: "postgres://localhost/hogstream"}.Validate())
}

func TestThePoolIsMeasuredUntilItCloses(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	db, err := storage.Open(t.Context(), storage.Config{URL: storagetest.EmptyURL(t)}, storage.WithRegisterer(registry))
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	require.Len(t, families, 5)
	db.Close()
	families, err = registry.Gather()
	require.NoError(t, err)
	require.Empty(t, families)
}

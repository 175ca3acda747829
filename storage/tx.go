package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hogstream/hogstream/storage/internal/raw"
)

// queries has what may be called inside and outside of a transaction. DB and Tx embed it.
type queries struct{ sql raw.Querier }

// Raw lets a test run SQL of its own, through storagetest. Nothing but a package below
// storage can make its argument.
func (q queries) Raw(raw.Key) raw.Querier { return q.sql }

// Tx is a transaction that [DB.InTx] or [DB.InBatch] opened and will end. It
// belongs to one goroutine. What must be in a transaction is a method of it; its
// statements are written in this package alone.
type Tx struct {
	queries

	pool     *pgxpool.Pool
	pipeline *pipeline // of InBatch
}

// Aside begins another transaction, for another goroutine to read beside this one: what is
// committed, on a connection of its own, with statements that touch rows by their keys. It is
// nil when no connection is to be had for it at once: who holds one and waits for a second
// may wait for ever. end must be called, also when there is none.
func (tx *Tx) Aside(ctx context.Context) (aside *Tx, end func()) {
	free, cancel := context.WithTimeout(ctx, asideWithin)
	defer cancel()
	conn, err := tx.pool.Acquire(free)
	if err != nil {
		return nil, func() {}
	}
	aside = newBatchTx(tx.pool, conn, `BEGIN READ ONLY`)
	// A bitmap announces each page to the system, which costs more than to read one of its cache.
	aside.pipeline.write("begin transaction", `SET LOCAL enable_bitmapscan = off`)
	aside.pipeline.write("begin transaction", `SET LOCAL idle_in_transaction_session_timeout = 0`) // it locks nothing
	return aside, func() {
		rollBack(ctx, conn.Conn())
		conn.Release()
	}
}

// asideWithin is how long a connection is waited for that may have to be opened first.
const asideWithin = 100 * time.Millisecond

// newBatchTx is a transaction as of InBatch. It begins with its first statement.
func newBatchTx(pool *pgxpool.Pool, conn *pgxpool.Conn, begin string) *Tx {
	p := &pipeline{conn: conn.Conn()}
	p.write("begin transaction", begin)
	p.write("begin transaction", byKeys)
	return &Tx{queries: queries{p}, pool: pool, pipeline: p}
}

// Flush sends what was written in a transaction of InBatch, and waits for it: for who writes
// much in several portions.
func (tx *Tx) Flush(ctx context.Context) error {
	if tx.pipeline == nil {
		return nil
	}
	return tx.pipeline.flush(ctx)
}

// write runs a statement whose result nobody asks for; what says what it does when it
// fails. In a transaction of InBatch it may be sent later, and fails then.
func (tx *Tx) write(ctx context.Context, what, sql string, args ...any) error {
	if tx.pipeline != nil {
		tx.pipeline.write(what, sql, args...)
		return nil
	}
	if _, err := tx.sql.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// writeAll is write for several statements.
func (tx *Tx) writeAll(ctx context.Context, what string, batch *pgx.Batch) error {
	if batch.Len() == 0 {
		return nil
	}
	if tx.pipeline != nil {
		for _, q := range batch.QueuedQueries {
			tx.pipeline.queue = append(tx.pipeline.queue, queuedWrite{q, what})
		}
		return nil
	}
	if err := tx.sql.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

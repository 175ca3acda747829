package storage

import (
	"context"
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
	pool *pgxpool.Pool
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
	other, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: beginBatch + "; SET LOCAL transaction_read_only = on"})
	if err != nil {
		conn.Release()
		return nil, func() {}
	}
	return &Tx{queries{other}, tx.pool}, func() {
		rollback(ctx, other)
		conn.Release()
	}
}

// asideWithin is how long a connection is waited for that may have to be opened first.
const asideWithin = 100 * time.Millisecond

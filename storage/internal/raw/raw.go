// Package raw is how storage runs SQL. Only packages below storage can import it: that
// keeps pgx out of every other package.
package raw

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier runs statements: a pool, each on a connection of its own and outside any
// transaction, or a transaction. Rows hold the connection until they are closed or
// read to the end, the results of a batch until they are closed.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults
	CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error)
}

// Key is what a method asks for that only packages below storage may call.
type Key struct{ _ byte }

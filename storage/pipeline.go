package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pipeline is a transaction in which a statement that nobody waits for goes to the server
// with the next one that somebody does, at the latest with the commit. A batch of ten
// records took 27 round trips through three processors so that each waited for each, and
// now takes 10: bench joins misses its targets without.
//
// The order of statements stays, so whoever reads sees what was written before. What was
// written is known to have failed only when something is read, or at the commit.
type pipeline struct {
	conn  *pgx.Conn
	queue []queuedWrite
}

// queuedWrite is a statement that nobody waits for, and what to say when it fails.
type queuedWrite struct {
	query *pgx.QueuedQuery
	what  string
}

func (p *pipeline) write(what, sql string, args ...any) {
	p.queue = append(p.queue, queuedWrite{&pgx.QueuedQuery{SQL: sql, Arguments: args}, what})
}

// SendBatch sends what is queued, and then the batch.
func (p *pipeline) SendBatch(ctx context.Context, batch *pgx.Batch) pgx.BatchResults {
	queue := p.queue
	p.queue = nil
	var all pgx.Batch
	for _, w := range queue {
		all.QueuedQueries = append(all.QueuedQueries, w.query)
	}
	all.QueuedQueries = append(all.QueuedQueries, batch.QueuedQueries...)
	results := p.conn.SendBatch(ctx, &all)
	for _, w := range queue {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // returns the same error
			return failedResults{err: w.failed(err)}
		}
	}
	return results
}

// failed says what failed when the server refused it. Any other error is of all statements
// that were sent.
func (w queuedWrite) failed(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", w.what, err)
	}
	return err
}

// Exec sends what is queued, and then the statement.
func (p *pipeline) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	var batch pgx.Batch
	batch.Queue(sql, args...).Exec(func(ct pgconn.CommandTag) error { tag = ct; return nil })
	err = p.SendBatch(ctx, &batch).Close()
	return tag, err
}

// Query sends what is queued, waits for it, and then asks. A statement that is to go with
// what is queued is sent as a batch.
func (p *pipeline) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.conn.Query(ctx, sql, args...)
}

// QueryRow is as Query.
func (p *pipeline) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := p.flush(ctx); err != nil {
		return failedRow{err}
	}
	return p.conn.QueryRow(ctx, sql, args...)
}

// CopyFrom sends what is queued, waits for it, and then copies.
func (p *pipeline) CopyFrom(ctx context.Context, table pgx.Identifier, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := p.flush(ctx); err != nil {
		return 0, err
	}
	return p.conn.CopyFrom(ctx, table, columns, rows)
}

func (p *pipeline) flush(ctx context.Context) error {
	if len(p.queue) == 0 {
		return nil
	}
	return p.SendBatch(ctx, &pgx.Batch{}).Close()
}

// commit sends what is queued with the commit, which the server leaves out when something
// fails before it.
func (p *pipeline) commit(ctx context.Context) error {
	tag, err := p.Exec(ctx, `COMMIT`)
	if err == nil && tag.String() != "COMMIT" {
		err = pgx.ErrTxCommitRollback
	}
	return err
}

// failedResults are those of a batch before which something failed.
type failedResults struct {
	pgx.BatchResults
	err error
}

func (f failedResults) Exec() (pgconn.CommandTag, error) { return pgconn.CommandTag{}, f.err }
func (f failedResults) Query() (pgx.Rows, error)         { return nil, f.err }
func (f failedResults) QueryRow() pgx.Row                { return failedRow{f.err} }
func (f failedResults) Close() error                     { return f.err }

type failedRow struct{ err error }

func (f failedRow) Scan(...any) error { return f.err }

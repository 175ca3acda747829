package storage

import (
	"context"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

// MigrateDown takes every migration back: only tests do.
func MigrateDown(ctx context.Context, db *DB) error {
	sub, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	std := stdlib.OpenDBFromPool(db.pool)
	defer std.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, std, sub, goose.WithTableName(versionTable))
	if err != nil {
		return err
	}
	_, err = provider.DownTo(ctx, 0)
	return err
}

// SearchAttemptsSQL is the statement of SearchAttempts.
var SearchAttemptsSQL = searchAttempts

// LastAttemptSQL is the statement of LastAttempt.
const LastAttemptSQL = lastAttemptSQL

// JourneyRunsPage is the statement of a page of runs after a place, with its arguments.
func JourneyRunsPage(f JourneyRunFilter, limit int, at time.Time, run string) (string, []any) {
	return f.page(limit, 0, &runPlace{at, run})
}

package storage

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrationFiles embed.FS

// versionTable is where goose writes down what was applied.
const versionTable = "schema_versions"

// ErrSchemaBehind is what [DB.RequireSchema] returns (wrapped) when migrations
// are missing.
var ErrSchemaBehind = errors.New("database schema is behind: run `hogstream migrate`")

// Migration is one file of storage/migrations.
type Migration struct {
	Version int64
	// Name is the file's name, as 00001_init.sql.
	Name string
	// Took is how long it ran; zero when it was not run by this call.
	Took time.Duration
}

// SchemaStatus compares the database with this binary.
type SchemaStatus struct {
	// Applied is the highest version in the database, 0 for none. It may be
	// above Required while an older binary runs during an upgrade; that is
	// allowed.
	Applied int64
	// Required is the highest version this binary knows.
	Required int64
	// Pending are the migrations this binary knows and the database lacks, in
	// the order in which they will run.
	Pending []Migration
}

// Migrate brings the schema up to date and returns what it applied. It may be
// called by several processes at once: one works, the others wait for it and
// find nothing to do. Each migration is a transaction; after an error the ones
// before it stay, and calling again goes on. It creates the first schema of
// search_path when that is missing.
func (db *DB) Migrate(ctx context.Context) (applied []Migration, err error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate: connect: %w", err)
	}
	defer conn.Release()
	if err := ensureSchema(ctx, conn); err != nil {
		return nil, err
	}
	unlock, err := lockMigrations(ctx, conn)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return db.applyPending(ctx)
}

func (db *DB) applyPending(ctx context.Context) ([]Migration, error) {
	sub, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("migrate: read embedded files: %w", err)
	}
	std := stdlib.OpenDBFromPool(db.pool)
	defer std.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, std, sub,
		goose.WithTableName(versionTable), goose.WithDisableGlobalRegistry(true))
	if errors.Is(err, goose.ErrNoMigrations) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	results, err := provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		results = partial.Applied
	}
	var applied []Migration
	for _, r := range results {
		applied = append(applied, Migration{Version: r.Source.Version, Name: r.Source.Path, Took: r.Duration})
	}
	if err != nil {
		return applied, fmt.Errorf("migrate: %w", err)
	}
	return applied, nil
}

// ensureSchema makes current_schema() something: without it every CREATE TABLE
// fails with a message that does not name the cause.
func ensureSchema(ctx context.Context, conn *pgxpool.Conn) error {
	var current *string
	if err := conn.QueryRow(ctx, `SELECT current_schema()`).Scan(&current); err != nil {
		return fmt.Errorf("migrate: read current schema: %w", err)
	}
	if current != nil {
		return nil
	}
	first, _, _ := strings.Cut(conn.Conn().Config().RuntimeParams["search_path"], ",")
	first = strings.Trim(strings.TrimSpace(first), `"`)
	if first == "" || first == "$user" {
		return errors.New("migrate: search_path names no existing schema: create one, or set search_path in the database URL")
	}
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS `+pgx.Identifier{first}.Sanitize()); err != nil {
		return fmt.Errorf("migrate: create schema %s: %w", first, err)
	}
	return nil
}

// lockPoll is how often a waiting starter asks for the lock. It polls because a
// session that waits inside pg_advisory_lock holds a snapshot, and a CREATE
// INDEX CONCURRENTLY of the one that works would wait for it for ever.
const lockPoll = 50 * time.Millisecond

// lockMigrations takes a lock that belongs to this schema alone.
func lockMigrations(ctx context.Context, conn *pgxpool.Conn) (unlock func(), err error) {
	const key = `hashtextextended('hogstream migrations ' || current_schema(), 0)`
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		var got bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(`+key+`)`).Scan(&got); err != nil {
			return nil, fmt.Errorf("migrate: take lock: %w", err)
		}
		if got {
			break
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("migrate: another process migrates this schema: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
		defer cancel()
		if _, err := conn.Exec(ctx, `SELECT pg_advisory_unlock(`+key+`)`); err != nil {
			// The lock is the session's: ending it frees the lock.
			_ = conn.Conn().Close(ctx)
		}
	}, nil
}

// SchemaStatus reads what is applied; it changes nothing and is cheap enough
// for a health check.
func (db *DB) SchemaStatus(ctx context.Context) (SchemaStatus, error) {
	known, err := knownMigrations()
	if err != nil {
		return SchemaStatus{}, err
	}
	applied, err := db.appliedVersions(ctx)
	if err != nil {
		return SchemaStatus{}, err
	}
	var status SchemaStatus
	for version := range applied {
		status.Applied = max(status.Applied, version)
	}
	for _, m := range known {
		status.Required = max(status.Required, m.Version)
		if !applied[m.Version] {
			status.Pending = append(status.Pending, m)
		}
	}
	return status, nil
}

func (db *DB) appliedVersions(ctx context.Context) (map[int64]bool, error) {
	const exists = `
		SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1)`
	var found bool
	if err := db.pool.QueryRow(ctx, exists, versionTable).Scan(&found); err != nil {
		return nil, fmt.Errorf("read schema version: %w", err)
	}
	if !found {
		return nil, nil
	}
	rows, err := db.pool.Query(ctx, `SELECT version_id FROM `+versionTable+` WHERE is_applied`)
	if err != nil {
		return nil, fmt.Errorf("read schema version: %w", err)
	}
	versions, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("read schema version: %w", err)
	}
	applied := make(map[int64]bool, len(versions))
	for _, version := range versions {
		applied[version] = true
	}
	return applied, nil
}

// RequireSchema returns an error that wraps [ErrSchemaBehind] and names the
// missing migrations when the database lacks one that this binary knows.
func (db *DB) RequireSchema(ctx context.Context) error {
	status, err := db.SchemaStatus(ctx)
	if err != nil {
		return err
	}
	if len(status.Pending) == 0 {
		return nil
	}
	names := make([]string, len(status.Pending))
	for i, m := range status.Pending {
		names[i] = m.Name
	}
	return fmt.Errorf("%w (it is at %d, this binary needs %d; missing: %s)",
		ErrSchemaBehind, status.Applied, status.Required, strings.Join(names, ", "))
}

// knownMigrations lists the embedded files in the order in which they run.
func knownMigrations() ([]Migration, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.sql")
	if err != nil {
		return nil, fmt.Errorf("list migrations: %w", err)
	}
	var known []Migration
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", name, err)
		}
		known = append(known, Migration{Version: version, Name: strings.TrimPrefix(name, "migrations/")})
	}
	slices.SortFunc(known, func(a, b Migration) int { return cmp.Compare(a.Version, b.Version) })
	return known, nil
}

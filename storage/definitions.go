package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ChannelDefinitions tells that another set of definitions is in use, or that what is known
// to be wrong with definitions has changed; for [DB.Listen].
const ChannelDefinitions = "definitions"

const (
	definitionVersion = `SELECT coalesce((SELECT version FROM definition_sets ORDER BY version DESC LIMIT 1), 0)`
	definitionsLock   = `hashtextextended(current_schema() || '.definitions', 0)`
)

// DefinitionSet is a set of definitions that is or was in use.
type DefinitionSet struct {
	Version   int64
	Hash      string // of the canonical form
	Body      string // JSON
	AppliedAt time.Time
	AppliedBy string
}

// DefinitionFault is a file of definitions that had faults when files were applied last.
type DefinitionFault struct {
	File   string
	IDs    []string // of the definitions in it, as far as they are known
	Faults string   // a line each
	Since  time.Time
}

// DefinitionVersion is the version of the set in use, 0 when nothing was ever applied. It
// is one look at an index.
func (q queries) DefinitionVersion(ctx context.Context) (version int64, err error) {
	if err := q.sql.QueryRow(ctx, definitionVersion).Scan(&version); err != nil {
		return 0, fmt.Errorf("read the version of the definitions: %w", err)
	}
	return version, nil
}

// DefinitionSet is the set in use, nil when nothing was ever applied.
func (q queries) DefinitionSet(ctx context.Context) (*DefinitionSet, error) {
	sets, err := q.DefinitionSets(ctx, 0, 1)
	if err != nil || len(sets) == 0 {
		return nil, err
	}
	return &sets[0], nil
}

// DefinitionSets are the newest sets below a version, newest first, at most limit; 0 is all
// versions.
func (q queries) DefinitionSets(ctx context.Context, below int64, limit int) ([]DefinitionSet, error) {
	const load = `
SELECT version, hash, body, applied_at, applied_by
FROM definition_sets
WHERE $1::bigint = 0 OR version < $1
ORDER BY version DESC
LIMIT $2`
	rows, err := q.sql.Query(ctx, load, below, limit)
	if err != nil {
		return nil, fmt.Errorf("read sets of definitions: %w", err)
	}
	sets, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s DefinitionSet, err error) {
		err = row.Scan(&s.Version, &s.Hash, &s.Body, &s.AppliedAt, &s.AppliedBy)
		s.AppliedAt = s.AppliedAt.UTC()
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("read sets of definitions: %w", err)
	}
	return sets, nil
}

// DefinitionFaults are the files that had faults when files were applied last, by name.
func (q queries) DefinitionFaults(ctx context.Context) ([]DefinitionFault, error) {
	rows, err := q.sql.Query(ctx, `SELECT file, ids, faults, since FROM definition_faults ORDER BY file`)
	if err != nil {
		return nil, fmt.Errorf("read faults of definitions: %w", err)
	}
	faults, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f DefinitionFault, err error) {
		err = row.Scan(&f.File, &f.IDs, &f.Faults, &f.Since)
		f.Since = f.Since.UTC()
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read faults of definitions: %w", err)
	}
	return faults, nil
}

// HoldDefinitions reads the version of the set in use, and has it stay in use until the
// transaction ends. Many may hold it at once; who changes it waits for them.
func (tx *Tx) HoldDefinitions(ctx context.Context) (version int64, err error) {
	const hold = `SELECT pg_advisory_xact_lock_shared(` + definitionsLock + `)`
	batch := &pgx.Batch{}
	batch.Queue(hold) // a statement of its own: the next one sees what was committed meanwhile
	batch.Queue(definitionVersion).QueryRow(func(row pgx.Row) error { return row.Scan(&version) })
	if err := tx.sql.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("hold the definitions in use: %w", err)
	}
	return version, nil
}

// LockDefinitions makes the caller the only one that changes definitions until its
// transaction ends, and waits for those that hold them.
func (tx *Tx) LockDefinitions(ctx context.Context) error {
	const lock = `SELECT pg_advisory_xact_lock(` + definitionsLock + `)`
	if _, err := tx.sql.Exec(ctx, lock); err != nil {
		return fmt.Errorf("lock definitions: %w", err)
	}
	return nil
}

// ApplyDefinitions puts a set in use and tells all processes at commit. Its version is one
// more than that in use, which the caller has read under [Tx.LockDefinitions]. It returns
// when it was applied, by Postgres's clock.
func (tx *Tx) ApplyDefinitions(ctx context.Context, s DefinitionSet) (appliedAt time.Time, err error) {
	const insert = `
INSERT INTO definition_sets (version, hash, body, applied_by) VALUES ($1, $2, $3, $4)
RETURNING applied_at`
	if err := tx.sql.QueryRow(ctx, insert, s.Version, s.Hash, s.Body, s.AppliedBy).Scan(&appliedAt); err != nil {
		return time.Time{}, fmt.Errorf("apply version %d of the definitions: %w", s.Version, err)
	}
	return appliedAt.UTC(), tx.Notify(ctx, ChannelDefinitions, "")
}

// SaveDefinitionFaults writes which files have faults now, instead of those before, and
// tells all processes at commit. Since stays what it was for one that had faults already;
// that of the given ones is not looked at. The caller has [Tx.LockDefinitions].
func (tx *Tx) SaveDefinitionFaults(ctx context.Context, faults []DefinitionFault) error {
	const (
		remove = `DELETE FROM definition_faults WHERE file <> ALL ($1::text[])`
		upsert = `
INSERT INTO definition_faults (file, ids, faults) VALUES ($1, $2, $3)
ON CONFLICT (file) DO UPDATE SET ids = excluded.ids, faults = excluded.faults`
	)
	files := make([]string, len(faults))
	for i, f := range faults {
		files[i] = f.File
	}
	if _, err := tx.sql.Exec(ctx, remove, files); err != nil {
		return fmt.Errorf("clear faults of definitions: %w", err)
	}
	for _, f := range faults {
		if _, err := tx.sql.Exec(ctx, upsert, f.File, f.IDs, f.Faults); err != nil {
			return fmt.Errorf("save faults of definitions in %s: %w", f.File, err)
		}
	}
	return tx.Notify(ctx, ChannelDefinitions, "")
}

package storage

import (
	"context"
	"fmt"
)

// Seed is what the settings of the deployment had made at a start.
type Seed struct {
	Name          string
	DestinationID *string // nil: there was one of its kind already
	// Settings are hashes of the values that were given to it, by name.
	Settings map[string]string
}

// LockSeed makes the caller the only one that seeds until its transaction ends,
// and returns what was seeded under the name, nil when nothing was.
func (tx *Tx) LockSeed(ctx context.Context, name string) (*Seed, error) {
	const lock = `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.seeds', 0))`
	if _, err := tx.sql.Exec(ctx, lock); err != nil {
		return nil, fmt.Errorf("lock seed %s: %w", name, err)
	}
	s := &Seed{Name: name}
	err := tx.sql.QueryRow(ctx, `SELECT destination_id::text, settings FROM seeds WHERE name = $1`, name).Scan(&s.DestinationID, &s.Settings)
	if IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read seed %s: %w", name, err)
	}
	return s, nil
}

// SaveSeed writes what was seeded.
func (tx *Tx) SaveSeed(ctx context.Context, s *Seed) error {
	const sql = `
		INSERT INTO seeds (name, destination_id, settings) VALUES ($1, $2::text::uuid, $3)
		ON CONFLICT (name) DO UPDATE SET settings = EXCLUDED.settings`
	if _, err := tx.sql.Exec(ctx, sql, s.Name, s.DestinationID, s.Settings); err != nil {
		return fmt.Errorf("save seed %s: %w", s.Name, err)
	}
	return nil
}

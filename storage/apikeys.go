package storage

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Scopes of an API key. The first three are ranked: each passes where a lower
// one is asked for, and full-admin passes everywhere.
const (
	ScopeRead         = "read"          // reads contacts and the admin API
	ScopeJourneyAdmin = "journey-admin" // switches journeys and buckets
	ScopeFullAdmin    = "full-admin"    // everything
	ScopeIngest       = "ingest"        // the data API: events and contacts, also finding and deleting them
	ScopeWrite        = "write"         // sends events and contacts, and reads nothing
)

// APIKey is a key as it is stored: its hash alone, never the key.
type APIKey struct {
	ID         string
	Name       string
	Prefix     string // the first 8 characters, to tell keys apart
	Hash       string // lower-case hex of SHA-256 over the whole key
	Scopes     []string
	CreatedBy  *string
	LastUsedAt *time.Time
	RevokedAt  *time.Time
	ExpiresAt  *time.Time
	CreatedAt  time.Time
}

// apiKeysChannel carries the hash of a key that was revoked.
const apiKeysChannel = "api_keys"

// HashAPIKey returns what is stored of a key.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

func generateAPIKey() string {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return "hsk_" + base64.RawURLEncoding.EncodeToString(secret)
}

const apiKeyColumns = `id::text, name, key_prefix, key_hash, scopes, created_by, last_used_at, revoked_at, expires_at, created_at` //nolint:gosec // names of columns

func scanAPIKey(row pgx.CollectableRow) (*APIKey, error) {
	var k APIKey
	err := row.Scan(&k.ID, &k.Name, &k.Prefix, &k.Hash, &k.Scopes, &k.CreatedBy, &k.LastUsedAt, &k.RevokedAt, &k.ExpiresAt, &k.CreatedAt)
	if err != nil {
		return nil, err
	}
	for _, t := range []*time.Time{k.LastUsedAt, k.RevokedAt, k.ExpiresAt, &k.CreatedAt} {
		if t != nil {
			*t = t.UTC()
		}
	}
	return &k, nil
}

// NewAPIKey is what a key is made of.
type NewAPIKey struct {
	Name      string
	Scopes    []string
	CreatedBy *string
	ExpiresAt *time.Time
}

// CreateAPIKey makes a key and returns it with its text, which is stored nowhere
// and cannot be had again.
func (q queries) CreateAPIKey(ctx context.Context, n NewAPIKey, now time.Time) (key *APIKey, text string, err error) {
	const insert = `
INSERT INTO api_keys (id, name, key_prefix, key_hash, scopes, created_by, expires_at, created_at, updated_at)
VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $8)
RETURNING ` + apiKeyColumns
	id, err := uuid.NewV7()
	if err != nil {
		return nil, "", fmt.Errorf("make an id for API key %q: %w", n.Name, err)
	}
	text = generateAPIKey()
	rows, err := q.sql.Query(ctx, insert, id.String(), n.Name, text[:8], HashAPIKey(text), n.Scopes, n.CreatedBy, n.ExpiresAt, now)
	if err == nil {
		key, err = pgx.CollectExactlyOneRow(rows, scanAPIKey)
	}
	if err != nil {
		return nil, "", fmt.Errorf("create API key %q: %w", n.Name, err)
	}
	return key, text, nil
}

// FindAPIKey returns the key of a hash, also a revoked or expired one, and an
// error that [IsNotFound] accepts when there is none.
func (db *DB) FindAPIKey(ctx context.Context, hash string) (*APIKey, error) {
	rows, err := db.sql.Query(ctx, `SELECT `+apiKeyColumns+` FROM api_keys WHERE key_hash = $1`, hash)
	if err != nil {
		return nil, fmt.Errorf("find API key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scanAPIKey)
	if err != nil {
		return nil, fmt.Errorf("find API key: %w", err)
	}
	return key, nil
}

// ListAPIKeys returns a page of the keys, newest first, and how many there are.
func (db *DB) ListAPIKeys(ctx context.Context, limit, offset int, revokedToo bool) (keys []*APIKey, total int, err error) {
	const (
		list  = `SELECT ` + apiKeyColumns + ` FROM api_keys WHERE $3 OR revoked_at IS NULL ORDER BY created_at DESC, id DESC LIMIT $1 OFFSET $2`
		count = `SELECT count(*) FROM api_keys WHERE $1 OR revoked_at IS NULL`
	)
	if err := db.sql.QueryRow(ctx, count, revokedToo).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count API keys: %w", err)
	}
	rows, err := db.sql.Query(ctx, list, limit, offset, revokedToo)
	if err == nil {
		keys, err = pgx.CollectRows(rows, scanAPIKey)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list API keys: %w", err)
	}
	return keys, total, nil
}

// RevokeAPIKey ends a key and tells all instances at commit. It returns the key,
// and an error that [IsNotFound] accepts when there is none that is not revoked.
func (tx *Tx) RevokeAPIKey(ctx context.Context, id string, now time.Time) (*APIKey, error) {
	const revoke = `
UPDATE api_keys SET revoked_at = $2, updated_at = $2
WHERE id::text = lower($1) AND revoked_at IS NULL
RETURNING ` + apiKeyColumns
	rows, err := tx.sql.Query(ctx, revoke, id, now)
	if err != nil {
		return nil, fmt.Errorf("revoke API key %s: %w", id, err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scanAPIKey)
	if err != nil {
		return nil, fmt.Errorf("revoke API key %s: %w", id, err)
	}
	return key, tx.Notify(ctx, apiKeysChannel, key.Hash)
}

// TouchAPIKeys notes when keys were last used, by id.
func (db *DB) TouchAPIKeys(ctx context.Context, usedAt map[string]time.Time) error {
	const touch = `
UPDATE api_keys AS k SET last_used_at = greatest(k.last_used_at, n.used_at)
FROM unnest($1::text[]::uuid[], $2::timestamptz[]) AS n (id, used_at)
WHERE k.id = n.id`
	ids, times := make([]string, 0, len(usedAt)), make([]time.Time, 0, len(usedAt))
	for id, at := range usedAt {
		ids, times = append(ids, id), append(times, at)
	}
	if _, err := db.sql.Exec(ctx, touch, ids, times); err != nil {
		return fmt.Errorf("note the use of %d API keys: %w", len(ids), err)
	}
	return nil
}

// ListenAPIKeys calls fn with the hash of each key that was revoked, until ctx
// ends; an empty hash means that some may have been missed. See [DB.Listen].
func (db *DB) ListenAPIKeys(ctx context.Context, fn func(hash string)) error {
	return db.Listen(ctx, apiKeysChannel, fn)
}

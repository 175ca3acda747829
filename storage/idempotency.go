package storage

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// IdempotencyKey is a sender's own name for an input, unique within its scope.
type IdempotencyKey struct {
	Scope string
	Key   string
}

// Claim is an input that bears a key, and when it was appended.
type Claim struct {
	Key     IdempotencyKey
	InputID string
	At      time.Time
}

// ClaimKeys takes keys for their inputs, the claims being in the order in which
// they came, and returns of each input that is a duplicate the one that has its key: it was
// taken by that less than a window before. The same input again is no
// duplicate. A key taken by a transaction that is still open is waited for. Keys are
// kept as hashes, for a sender's own name may be that of a person.
func (tx *Tx) ClaimKeys(ctx context.Context, claims []Claim, window time.Duration) (map[string]string, error) {
	if len(claims) == 0 {
		return nil, nil
	}
	claims = slices.Clone(claims)
	for i := range claims {
		claims[i].Key.Key = keyHash(claims[i].Key.Key)
	}
	holders, err := tx.takeKeys(ctx, claims)
	if err != nil {
		return nil, err
	}
	duplicates := make(map[string]string)
	renewed := make(map[IdempotencyKey]Claim)
	for _, c := range claims {
		holder := holders[c.Key]
		switch {
		case holder.InputID == c.InputID:
		case c.At.Sub(holder.At) < window:
			duplicates[c.InputID] = holder.InputID
		default:
			holders[c.Key], renewed[c.Key] = c, c
		}
	}
	return duplicates, tx.renewKeys(ctx, renewed)
}

// keyHash is what of a key stands in the table.
func keyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// takeKeys inserts what is free and returns who holds each key, locked.
func (tx *Tx) takeKeys(ctx context.Context, claims []Claim) (map[IdempotencyKey]Claim, error) {
	const (
		insert = `
INSERT INTO idempotency_keys (scope, key, input_id, created_at)
SELECT n.scope, n.key, n.input_id, n.created_at
FROM unnest($1::text[], $2::text[], $3::text[]::uuid[], $4::timestamptz[]) AS n (scope, key, input_id, created_at)
ON CONFLICT (scope, key) DO NOTHING
RETURNING scope, key`
		load = `
SELECT scope, key, input_id::text, created_at
FROM idempotency_keys
WHERE (scope, key) IN (SELECT * FROM unnest($1::text[], $2::text[]))
ORDER BY scope, key
FOR UPDATE`
	)
	holders := make(map[IdempotencyKey]Claim, len(claims))
	for _, c := range claims {
		if _, ok := holders[c.Key]; !ok {
			holders[c.Key] = c
		}
	}
	scopes, keys, inputs, times := claimColumns(holders)
	rows, err := tx.sql.Query(ctx, insert, scopes, keys, inputs, times)
	if err != nil {
		return nil, fmt.Errorf("claim %d idempotency keys: %w", len(keys), err)
	}
	taken := make(map[IdempotencyKey]bool, len(holders))
	var key IdempotencyKey
	if _, err := pgx.ForEachRow(rows, []any{&key.Scope, &key.Key}, func() error { taken[key] = true; return nil }); err != nil {
		return nil, fmt.Errorf("claim %d idempotency keys: %w", len(keys), err)
	}
	if len(taken) == len(holders) {
		return holders, nil
	}
	scopes, keys = scopes[:0], keys[:0]
	for key := range holders {
		if !taken[key] {
			scopes, keys = append(scopes, key.Scope), append(keys, key.Key)
		}
	}
	if rows, err = tx.sql.Query(ctx, load, scopes, keys); err != nil {
		return nil, fmt.Errorf("read %d idempotency keys: %w", len(keys), err)
	}
	var c Claim
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&c.Key.Scope, &c.Key.Key, &c.InputID, &c.At}, func() error {
		holders[c.Key] = c
		n++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %d idempotency keys: %w", len(keys), err)
	}
	if n < len(keys) { // cleaned up in between
		return nil, fmt.Errorf("read idempotency keys: %w", errRaced("an idempotency key"))
	}
	return holders, nil
}

func (tx *Tx) renewKeys(ctx context.Context, renewed map[IdempotencyKey]Claim) error {
	if len(renewed) == 0 {
		return nil
	}
	const update = `
UPDATE idempotency_keys AS k SET input_id = n.input_id, created_at = n.created_at
FROM unnest($1::text[], $2::text[], $3::text[]::uuid[], $4::timestamptz[]) AS n (scope, key, input_id, created_at)
WHERE k.scope = n.scope AND k.key = n.key`
	scopes, keys, inputs, times := claimColumns(renewed)
	if _, err := tx.sql.Exec(ctx, update, scopes, keys, inputs, times); err != nil {
		return fmt.Errorf("renew %d idempotency keys: %w", len(keys), err)
	}
	return nil
}

// claimColumns are sorted by scope and key, the order of inserting and locking.
func claimColumns(claims map[IdempotencyKey]Claim) (scopes, keys, inputs []string, times []time.Time) {
	sorted := make([]Claim, 0, len(claims))
	for _, c := range claims {
		sorted = append(sorted, c)
	}
	slices.SortFunc(sorted, func(a, b Claim) int {
		return cmp.Or(strings.Compare(a.Key.Scope, b.Key.Scope), strings.Compare(a.Key.Key, b.Key.Key))
	})
	for _, c := range sorted {
		scopes, keys = append(scopes, c.Key.Scope), append(keys, c.Key.Key)
		inputs, times = append(inputs, c.InputID), append(times, c.At)
	}
	return scopes, keys, inputs, times
}

// CleanIdempotencyKeys forgets at most limit keys taken before a time, and says
// how many it took. Keys bear the time at which their record was appended, and one
// that is read today may be as old as topic ingest keeps them: ClaimKeys decides by
// the records' times, and what it needs is the window and that retention.
func (db *DB) CleanIdempotencyKeys(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "idempotency keys", `
DELETE FROM idempotency_keys WHERE (scope, key) IN
    (SELECT scope, key FROM idempotency_keys WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, before, limit)
}

package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hogstream/hogstream/schemas"
)

const loadPreferences = `
SELECT contact_id::text, email, unsubscribed_all, suppressed, bounce_count, categories::text, suppressed_at, last_bounce_at
FROM email_preferences
WHERE contact_id = ANY ($1::text[]::uuid[])
ORDER BY contact_id, email`

// scanPreferences reads the rows of loadPreferences into a map by contact id, as
// far as hold, which is asked about each row, allows.
func scanPreferences(rows pgx.Rows, into map[string][]schemas.Preference, hold func(pgx.Rows) error) error {
	for rows.Next() {
		if err := hold(rows); err != nil {
			return err
		}
		var id string
		var p schemas.Preference
		var categories []byte
		err := rows.Scan(&id, &p.Email, &p.UnsubscribedAll, &p.Suppressed, &p.BounceCount, &categories, &p.SuppressedAt, &p.LastBounceAt)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(categories, &p.Categories); err != nil {
			return fmt.Errorf("categories of contact %s: %w", id, err)
		}
		for _, t := range []*time.Time{p.SuppressedAt, p.LastBounceAt} {
			if t != nil {
				*t = t.UTC()
			}
		}
		into[id] = append(into[id], p)
	}
	return rows.Err()
}

// savePreferences writes what the addresses of contacts want to receive.
func (tx *Tx) savePreferences(ctx context.Context, preferences map[string][]schemas.Preference, now time.Time) error {
	if len(preferences) == 0 {
		return nil
	}
	const upsert = `
INSERT INTO email_preferences (contact_id, email, unsubscribed_all, suppressed, bounce_count, categories,
                               suppressed_at, last_bounce_at, created_at, updated_at)
SELECT n.contact_id, n.email, n.unsubscribed_all, n.suppressed, n.bounce_count, n.categories,
       n.suppressed_at, n.last_bounce_at, $9, $9
FROM unnest($1::text[]::uuid[], $2::text[], $3::boolean[], $4::boolean[], $5::integer[], $6::text[]::json[],
            $7::timestamptz[], $8::timestamptz[])
     AS n (contact_id, email, unsubscribed_all, suppressed, bounce_count, categories, suppressed_at, last_bounce_at)
ON CONFLICT (contact_id, email) DO UPDATE
SET unsubscribed_all = excluded.unsubscribed_all, suppressed = excluded.suppressed, bounce_count = excluded.bounce_count,
    categories = excluded.categories, suppressed_at = excluded.suppressed_at, last_bounce_at = excluded.last_bounce_at,
    updated_at = excluded.updated_at`
	var (
		ids, emails, categories     []string
		unsubscribed, suppressed    []bool
		bounces                     []int32
		suppressedAt, lastBouncedAt []*time.Time
	)
	for id, ps := range preferences {
		for _, p := range ps {
			text, err := json.Marshal(nonNil(p.Categories))
			if err != nil {
				return fmt.Errorf("save preferences of contact %s: %w", id, err)
			}
			ids, emails, categories = append(ids, id), append(emails, p.Email), append(categories, string(text))
			unsubscribed, suppressed = append(unsubscribed, p.UnsubscribedAll), append(suppressed, p.Suppressed)
			bounces = append(bounces, int32(p.BounceCount))
			suppressedAt, lastBouncedAt = append(suppressedAt, p.SuppressedAt), append(lastBouncedAt, p.LastBounceAt)
		}
	}
	if _, err := tx.sql.Exec(ctx, upsert, ids, emails, unsubscribed, suppressed, bounces, categories,
		suppressedAt, lastBouncedAt, now); err != nil {
		return fmt.Errorf("save %d preferences: %w", len(ids), err)
	}
	return nil
}

func nonNil(m map[string]bool) map[string]bool {
	if m == nil {
		return map[string]bool{}
	}
	return m
}

// Preferences returns what is stored for an address under any contact, folded
// so that the strictest wins: the address is what suppression goes by. An
// address without any is the zero Preference.
func (db *DB) Preferences(ctx context.Context, email string) (schemas.Preference, error) {
	const load = `
SELECT contact_id::text, email, unsubscribed_all, suppressed, bounce_count, categories::text, suppressed_at, last_bounce_at
FROM email_preferences
WHERE email = $1
ORDER BY contact_id`
	rows, err := db.sql.Query(ctx, load, email)
	if err != nil {
		return schemas.Preference{}, fmt.Errorf("load preferences: %w", err)
	}
	defer rows.Close()
	found := make(map[string][]schemas.Preference)
	if err := scanPreferences(rows, found, func(pgx.Rows) error { return nil }); err != nil {
		return schemas.Preference{}, fmt.Errorf("load preferences: %w", err)
	}
	folded := schemas.Preference{Email: email}
	for _, ps := range found {
		for _, p := range ps {
			folded = schemas.FoldPreferences(folded, p)
		}
	}
	return folded, nil
}

package storage

import (
	"context"
	"fmt"
	"time"
)

// ClearContacts removes what RestoreContacts and processor contacts write, but
// stored events and answers. Who was known is remembered until tx ends, for
// FinishContacts. Once a transaction.
func (tx *Tx) ClearContacts(ctx context.Context) error {
	for _, sql := range []string{
		`CREATE TEMP TABLE known_before ON COMMIT DROP AS
			SELECT id AS contact_id, NULL::uuid AS survivor FROM contacts
			UNION ALL SELECT contact_id, survivor FROM contact_marks`,
		`DELETE FROM contacts`, `DELETE FROM contact_marks`, `DELETE FROM email_preferences`, `DELETE FROM pending_answers`,
	} {
		if _, err := tx.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("clear contacts: %w", err)
		}
	}
	return nil
}

// RestoreContacts writes snapshots and tombstones (Ended). An ended contact
// counts as deleted until a snapshot names it as merged.
func (tx *Tx) RestoreContacts(ctx context.Context, ch *ContactChanges, now time.Time) error {
	const (
		deleted = `
INSERT INTO contact_marks (contact_id, marked_at)
SELECT n, $2 FROM unnest($1::text[]::uuid[]) AS n
ON CONFLICT (contact_id) DO NOTHING`
		merged = `
INSERT INTO contact_marks (contact_id, survivor, marked_at)
SELECT DISTINCT ON (n.contact_id) n.contact_id, n.survivor, $3
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS n (contact_id, survivor)
ON CONFLICT (contact_id) DO UPDATE SET survivor = excluded.survivor`
		preferences = `DELETE FROM email_preferences WHERE contact_id = ANY ($1::text[]::uuid[])`
	)
	if err := tx.endContacts(ctx, ch.Ended, nil); err != nil {
		return err
	}
	if _, err := tx.sql.Exec(ctx, deleted, ch.Ended, now); err != nil {
		return fmt.Errorf("mark %d contacts that ended: %w", len(ch.Ended), err)
	}
	if err := tx.upsertContacts(ctx, ch.Saved); err != nil {
		return err
	}
	var ids, losers, survivors []string
	for _, c := range ch.Saved {
		ids = append(ids, c.ID)
		for _, id := range c.Merged {
			losers, survivors = append(losers, id), append(survivors, c.ID)
		}
	}
	if _, err := tx.sql.Exec(ctx, merged, losers, survivors, now); err != nil {
		return fmt.Errorf("mark %d merged contacts: %w", len(losers), err)
	}
	if _, err := tx.sql.Exec(ctx, preferences, ids); err != nil {
		return fmt.Errorf("restore preferences: %w", err)
	}
	return tx.savePreferences(ctx, ch.Preferences, now)
}

// RestoreMarks writes marks as they were decided, over what snapshots said.
func (tx *Tx) RestoreMarks(ctx context.Context, marks []Mark, now time.Time) error {
	const upsert = `
INSERT INTO contact_marks (contact_id, survivor, marked_at)
SELECT n.contact_id, nullif(n.survivor, '')::uuid, $3
FROM unnest($1::text[]::uuid[], $2::text[]) AS n (contact_id, survivor)
ON CONFLICT (contact_id) DO UPDATE SET survivor = excluded.survivor`
	ids, survivors := make([]string, len(marks)), make([]string, len(marks))
	for i, m := range marks {
		ids[i], survivors[i] = m.ContactID, m.Survivor
	}
	if _, err := tx.sql.Exec(ctx, upsert, ids, survivors, now); err != nil {
		return fmt.Errorf("restore %d marks: %w", len(marks), err)
	}
	return nil
}

// FinishContacts erases who ended since the database knew them: it may be a backup, and
// the log may have forgotten the end by now. Whoever was known and is nobody any more
// counts as deleted, and stored events of deleted contacts, and of those merged into
// them, go.
func (tx *Tx) FinishContacts(ctx context.Context, now time.Time) error {
	const ended = `
INSERT INTO contact_marks (contact_id, marked_at)
SELECT DISTINCT k.contact_id, $1::timestamptz
FROM known_before AS k
WHERE NOT EXISTS (SELECT FROM contacts AS c WHERE c.id IN (k.contact_id, k.survivor))
ON CONFLICT (contact_id) DO NOTHING`
	const events = `
WITH RECURSIVE gone AS (
    SELECT contact_id FROM contact_marks WHERE survivor IS NULL
    UNION
    SELECT m.contact_id FROM contact_marks AS m JOIN gone AS g ON m.survivor = g.contact_id
)
DELETE FROM events AS e USING gone AS g WHERE e.contact_id = g.contact_id`
	if _, err := tx.sql.Exec(ctx, ended, now); err != nil {
		return fmt.Errorf("mark contacts that ended: %w", err)
	}
	if _, err := tx.sql.Exec(ctx, events); err != nil {
		return fmt.Errorf("erase events of contacts that ended: %w", err)
	}
	return nil
}

// RestoreIdentities makes identities and identifiers anew from the contacts and
// their marks. Erased identifiers and idempotency keys stay as they are.
func (tx *Tx) RestoreIdentities(ctx context.Context, now time.Time) error {
	for _, sql := range []string{`DELETE FROM identities`, `DELETE FROM identifiers`} {
		if _, err := tx.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("clear identities: %w", err)
		}
	}
	for _, sql := range []string{`
INSERT INTO identities (contact_id, external_id, email, anonymous_id, first_seen_at)
SELECT id, external_id, email, anonymous_id, first_seen_at FROM contacts WHERE $1::timestamptz IS NOT NULL`, `
INSERT INTO identities (contact_id, first_seen_at, deleted_at)
SELECT contact_id, marked_at, $1 FROM contact_marks WHERE survivor IS NULL
ON CONFLICT (contact_id) DO NOTHING`, `
WITH RECURSIVE ends AS ( -- a survivor may have been merged again
    SELECT contact_id, survivor FROM contact_marks WHERE survivor IS NOT NULL
    UNION
    SELECT e.contact_id, m.survivor FROM ends AS e JOIN contact_marks AS m ON m.contact_id = e.survivor WHERE m.survivor IS NOT NULL
)
INSERT INTO identities (contact_id, first_seen_at, merged_into, deleted_at)
SELECT e.contact_id, $1, e.survivor, CASE WHEN m.contact_id IS NOT NULL THEN $1::timestamptz END
FROM ends AS e LEFT JOIN contact_marks AS m ON m.contact_id = e.survivor
WHERE m.survivor IS NULL
ON CONFLICT (contact_id) DO NOTHING`, `
INSERT INTO identifiers (kind, value, contact_id, created_at)
SELECT DISTINCT ON (i ->> 0, i ->> 1) i ->> 0, i ->> 1, c.id, $1
FROM contacts AS c, json_array_elements(c.identifiers) AS i
-- An old contact whose deletion has not arrived yet may still name it.
ORDER BY i ->> 0, i ->> 1, c.created_at DESC, c.version, c.id
ON CONFLICT (kind, value) DO NOTHING`, `
INSERT INTO erased_contacts (contact_id, erased_at)
SELECT contact_id, $1 FROM identities WHERE deleted_at IS NOT NULL
ON CONFLICT (contact_id) DO NOTHING`,
	} {
		if _, err := tx.sql.Exec(ctx, sql, now); err != nil {
			return fmt.Errorf("restore identities from contacts: %w", err)
		}
	}
	return nil
}

// ReclaimIdentifiers gives live contacts what they are known by and nobody holds:
// identifiers that a contact had before them, whose deletion was restored after
// the contact that has them now.
func (tx *Tx) ReclaimIdentifiers(ctx context.Context, now time.Time) error {
	const insert = `
INSERT INTO identifiers (kind, value, contact_id, created_at)
SELECT DISTINCT ON (i ->> 0, i ->> 1) i ->> 0, i ->> 1, c.id, $1
FROM contacts AS c
JOIN identities AS live ON live.contact_id = c.id AND live.merged_into IS NULL AND live.deleted_at IS NULL,
     json_array_elements(c.identifiers) AS i
ORDER BY i ->> 0, i ->> 1, c.created_at DESC, c.version, c.id
ON CONFLICT (kind, value) DO NOTHING`
	if _, err := tx.sql.Exec(ctx, insert, now); err != nil {
		return fmt.Errorf("reclaim identifiers of live contacts: %w", err)
	}
	return nil
}

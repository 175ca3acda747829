package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// ClearContacts removes what RestoreContacts and processor contacts write, but
// stored events and answers, and begins a new era. Who was known is remembered until tx
// ends, for FinishContacts. Once a transaction.
func (tx *Tx) ClearContacts(ctx context.Context, now time.Time) error {
	if err := tx.beginEra(ctx, now); err != nil {
		return err
	}
	for _, sql := range []string{
		`CREATE TEMP TABLE known_before ON COMMIT DROP AS
			SELECT id AS contact_id, NULL::uuid AS survivor, partition FROM contacts
			UNION ALL SELECT contact_id, survivor, partition FROM contact_marks`,
		`DELETE FROM contacts`, `DELETE FROM contact_marks`, `DELETE FROM email_preferences`, `DELETE FROM pending_answers`,
	} {
		if _, err := tx.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("clear contacts: %w", err)
		}
	}
	return nil
}

// ClearDerived removes what waits for a derived processor, and its timers. Whom it knows is a
// mark from then on until the take-over says otherwise, which is given the state from
// before: who is nobody any more counts as erased, ForgetUntaken takes the state away. The
// numbers of its facts and of its timers go on, so that what it says later is no repeat,
// and what was sent for a timer is stale.
func (tx *Tx) ClearDerived(ctx context.Context, processor string) error {
	for _, sql := range []string{
		`UPDATE derived_contacts SET seq = 0, era = 0, took = '{}', survivor = NULL, last_seq = 0, last_era = 0, ended_at = now()
			WHERE processor = $1 AND ended_at IS NULL`,
		`DELETE FROM derived_held WHERE processor = $1`,
		`DELETE FROM timers WHERE owner = $1`,
	} {
		if _, err := tx.sql.Exec(ctx, sql, processor); err != nil {
			return fmt.Errorf("clear the state of %s: %w", processor, err)
		}
	}
	return nil
}

// ForgetUntaken removes the states of contacts of a partition that a take-over anew did not
// come to, for they are nobody any more, and returns their ids.
func (tx *Tx) ForgetUntaken(ctx context.Context, processor string, partition int32) ([]string, error) {
	const forget = `
UPDATE derived_contacts SET state = NULL WHERE processor = $1 AND partition = $2 AND ended_at IS NOT NULL AND state IS NOT NULL
RETURNING contact_id::text`
	rows, err := tx.sql.Query(ctx, forget, processor, partition)
	if err != nil {
		return nil, fmt.Errorf("forget who was not taken over for %s: %w", processor, err)
	}
	gone, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("forget who was not taken over for %s: %w", processor, err)
	}
	return gone, nil
}

// RestoreContacts writes snapshots and tombstones (Ended). An ended contact
// counts as deleted until a snapshot names it as merged. Numbers of the contacts begin
// anew, in the present era.
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
	var era int64
	if err := tx.sql.QueryRow(ctx, presentEra).Scan(&era); err != nil {
		return fmt.Errorf("read the era of contacts: %w", err)
	}
	for _, c := range ch.Saved {
		c.Seq, c.Era = 0, era
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
INSERT INTO contact_marks (contact_id, survivor, partition, marked_at)
SELECT n.contact_id, nullif(n.survivor, '')::uuid, n.partition, $4
FROM unnest($1::text[]::uuid[], $2::text[], $3::integer[]) AS n (contact_id, survivor, partition)
ON CONFLICT (contact_id) DO UPDATE SET survivor = excluded.survivor, partition = excluded.partition`
	ids, survivors, partitions := columnsOf(marks)
	if _, err := tx.sql.Exec(ctx, upsert, ids, survivors, partitions, now); err != nil {
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
INSERT INTO contact_marks (contact_id, partition, marked_at)
SELECT DISTINCT ON (k.contact_id) k.contact_id, k.partition, $1::timestamptz
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

// beginEra begins the era of a rebuild. It is later than any that the database knows; and
// as it is the second of the rebuild, than any of a database that was lost.
func (tx *Tx) beginEra(ctx context.Context, now time.Time) error {
	const begin = `
INSERT INTO contact_eras (era, begun_at)
SELECT greatest(coalesce(max(era), 0) + 1, $1), $2::timestamptz FROM contact_eras`
	if _, err := tx.sql.Exec(ctx, begin, now.Unix(), now); err != nil {
		return fmt.Errorf("begin an era of contacts: %w", err)
	}
	return nil
}

const presentEra = `SELECT coalesce(max(era), 0) FROM contact_eras`

// RestoreEvents stores those of the events that are missing, of contacts that live or
// were merged: what FinishContacts finds to belong to somebody deleted, it erases.
func (tx *Tx) RestoreEvents(ctx context.Context, events []StoredEvent) error {
	const insert = `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source, seq, era)
SELECT DISTINCT ON (n.id) n.*
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[], $3::text[], $4::text[]::json[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::bigint[], $9::bigint[])
     AS n (id, contact_id, name, properties, occurred_at, received_at, source, seq, era)
WHERE NOT EXISTS (SELECT FROM events AS e WHERE e.contact_id = n.contact_id AND e.occurred_at = n.occurred_at AND e.id = n.id)
  AND (EXISTS (SELECT FROM contacts AS c WHERE c.id = n.contact_id)
       OR EXISTS (SELECT FROM contact_marks AS m WHERE m.contact_id = n.contact_id AND m.survivor IS NOT NULL))
ORDER BY n.id, n.seq`
	n := len(events)
	text := func() []string { return make([]string, n) }
	ids, contacts, names, properties, sources := text(), text(), text(), text(), text()
	occurred, received, seqs, eras := make([]time.Time, n), make([]time.Time, n), make([]int64, n), make([]int64, n)
	for i, e := range events {
		ids[i], contacts[i], names[i], properties[i], sources[i] = e.ID, e.ContactID, e.Name, e.Properties, e.Source
		occurred[i], received[i], seqs[i], eras[i] = e.OccurredAt, e.ReceivedAt, e.Seq, e.Era
	}
	if _, err := tx.sql.Exec(ctx, insert, ids, contacts, names, properties, occurred, received, sources, seqs, eras); err != nil {
		return fmt.Errorf("restore %d events: %w", n, err)
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

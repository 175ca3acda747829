package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ChannelErased carries the ids of contacts that were erased, parted by blanks, for
// [DB.Listen], contacts merged into them included; or nothing, when there are so many
// that they are to be read. Nothing that was sent of them
// by then is taken back, and nothing may be sent from then on.
const ChannelErased = "erased"

// erasedNamed is how many ids stand in a notification, whose size is bounded.
const erasedNamed = 200

// noteErased keeps that contacts are erased, and what was merged into them, and tells
// whoever delivers.
func (tx *Tx) noteErased(ctx context.Context, contacts []string) error {
	const sql = `
		WITH erased AS (
			INSERT INTO erased_contacts (contact_id)
			SELECT n::uuid FROM unnest($2::text[]) AS n
			UNION
			SELECT contact_id FROM identities WHERE merged_into = ANY ($2::text[]::uuid[])
			ORDER BY 1
			ON CONFLICT (contact_id) DO NOTHING
			RETURNING contact_id)
		SELECT pg_notify(` + channelSQL + `, CASE WHEN count(*) <= $3 THEN string_agg(contact_id::text, ' ') ELSE '' END)
		FROM erased
		HAVING count(*) > 0`
	if _, err := tx.sql.Exec(ctx, sql, ChannelErased, contacts, erasedNamed); err != nil {
		return fmt.Errorf("note %d erased contacts: %w", len(contacts), err)
	}
	return nil
}

// EachErased calls fn with the id of every contact that was erased at since or later,
// and when by Postgres's clock. A transaction that was open for long may have erased
// somebody earlier than what was read before.
func (db *DB) EachErased(ctx context.Context, since time.Time, fn func(id uuid.UUID, at time.Time)) error {
	rows, err := db.sql.Query(ctx, `SELECT contact_id, erased_at FROM erased_contacts WHERE erased_at >= $1`, since)
	if err != nil {
		return fmt.Errorf("read erased contacts: %w", err)
	}
	var id uuid.UUID
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { fn(id, at); return nil }); err != nil {
		return fmt.Errorf("read erased contacts: %w", err)
	}
	return nil
}

// Erased says which of the ids are those of contacts that were erased. What is no
// contact id is none.
func (db *DB) Erased(ctx context.Context, ids ...string) (map[string]bool, error) {
	var asked []string
	for _, id := range ids {
		if uuid.Validate(id) == nil {
			asked = append(asked, id)
		}
	}
	if len(asked) == 0 {
		return nil, nil
	}
	rows, err := db.sql.Query(ctx, `
		SELECT n FROM unnest($1::text[]) AS n JOIN erased_contacts AS e ON e.contact_id = n::uuid`, asked)
	if err != nil {
		return nil, fmt.Errorf("look up %d contacts among the erased: %w", len(asked), err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("look up %d contacts among the erased: %w", len(asked), err)
	}
	erased := make(map[string]bool, len(found))
	for _, id := range found {
		erased[id] = true
	}
	return erased, nil
}

// An attempt that began before an erasure is written a while after it: what is cleared
// is looked at once more after so long.
const clearedAgain = time.Minute

// ClearErased clears what the tables of deliveries and answers still have of erased
// contacts: texts of the delivery log, what is parked, which becomes due to be passed
// over, and answers that show identifiers or runs. Nothing is looked up by contact there, so it
// reads those tables once for all who were erased since it was called last; it takes
// as long as that. It may be called by many at once, and again when it failed.
func (db *DB) ClearErased(ctx context.Context, now time.Time) (contacts int, err error) {
	ids, err := db.uncleared(ctx)
	if err != nil || len(ids) == 0 {
		return 0, err
	}
	for _, step := range []func(context.Context, []string) error{db.clearAnswers, db.clearParked, db.clearAttempts} {
		if err := step(ctx, ids); err != nil {
			return 0, fmt.Errorf("clear what is left of %d erased contacts: %w", len(ids), err)
		}
	}
	const done = `
		UPDATE erased_contacts SET cleared_at = now()
		WHERE contact_id = ANY ($1::text[]::uuid[]) AND cleared_at IS NULL AND erased_at < $2`
	_, err = db.sql.Exec(ctx, done, ids, now.Add(-clearedAgain))
	return len(ids), err
}

// unclearedAtOnce bounds for how many contacts the tables are read at once.
const unclearedAtOnce = 10_000

// uncleared are contacts of which something may be left. A process of an earlier
// version notes a deletion with the identity alone.
func (db *DB) uncleared(ctx context.Context) ([]string, error) {
	const (
		adopt = `
			INSERT INTO erased_contacts (contact_id)
			SELECT contact_id FROM identities WHERE deleted_at > now() - interval '1 day'
			ON CONFLICT (contact_id) DO NOTHING`
		load = `SELECT contact_id::text FROM erased_contacts WHERE cleared_at IS NULL ORDER BY erased_at LIMIT $1`
	)
	if _, err := db.sql.Exec(ctx, adopt); err != nil {
		return nil, fmt.Errorf("adopt erased contacts: %w", err)
	}
	rows, err := db.sql.Query(ctx, load, unclearedAtOnce)
	if err != nil {
		return nil, fmt.Errorf("read erased contacts to clear: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read erased contacts to clear: %w", err)
	}
	return ids, nil
}

// clearAnswers removes answers that show identifiers or runs of somebody. Those of senders who
// still wait are answered as erased.
func (db *DB) clearAnswers(ctx context.Context, ids []string) error {
	const (
		answers = `DELETE FROM answers WHERE answer ->> 'id' = ANY ($1::text[]) AND coalesce(answer ->> 'conflicts', answer ->> 'exits') IS NOT NULL`
		pending = `
			UPDATE pending_answers SET answer = '{"error":"erased"}'
			WHERE contact_id = ANY ($1::text[]::uuid[]) AND answer IS NOT NULL AND answer ->> 'error' IS NULL`
	)
	for _, sql := range []string{answers, pending} {
		if _, err := db.sql.Exec(ctx, sql, ids); err != nil {
			return err
		}
	}
	return nil
}

// clearParked empties what is parked and has its owners look: they know how much of a
// key there is, so they remove it. What says that a contact was deleted is delivered.
func (db *DB) clearParked(ctx context.Context, ids []string) error {
	const (
		records = `
			UPDATE parked_records SET value = NULL
			WHERE record_key = ANY ($1::text[]) AND record_type <> 'contact.deleted' AND value IS NOT NULL
			RETURNING destination_id::text`
		keys = `
			UPDATE parked_keys SET error = NULL, next_attempt_at = 'epoch'
			WHERE record_key = ANY ($1::text[])`
	)
	return db.InTx(ctx, func(tx *Tx) error {
		rows, err := tx.sql.Query(ctx, records, ids)
		if err != nil {
			return err
		}
		cleared, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(cleared) == 0 {
			return err
		}
		if _, err := tx.sql.Exec(ctx, keys, ids); err != nil {
			return err
		}
		return tx.Notify(ctx, ChannelParked, cleared[0]) // owners look at all they have
	})
}

// clearAttempts clears the texts of the delivery log, a day after the other, so that
// no transaction is open for long.
func (db *DB) clearAttempts(ctx context.Context, ids []string) error {
	var days []string
	err := db.InTx(ctx, func(tx *Tx) (err error) {
		days, err = tx.attemptPartitions(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, day := range append(days, "delivery_attempts_default") {
		_, err := db.sql.Exec(ctx, `
			UPDATE `+pgx.Identifier{day}.Sanitize()+` SET error = NULL, response = NULL
			WHERE record_key = ANY ($1::text[]) AND (error IS NOT NULL OR response IS NOT NULL)`, ids)
		if err != nil && !isGone(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Beside is what is known of a contact beside its row and its events.
type Beside struct {
	// Buckets are those that it is a member of, with the epoch of the membership.
	Buckets map[string]int64
	// Unsubscribed says that it is from everything, at one of its addresses.
	Unsubscribed bool
}

// BesideContacts reads what is known of contacts beside their rows, in one statement. One of
// which there is nothing is missing.
func (tx *Tx) BesideContacts(ctx context.Context, contacts []string) (map[string]*Beside, error) {
	const load = `
SELECT v.id::text, b.bucket_id, b.epoch, false FROM unnest($1::text[]::uuid[]) AS v (id), LATERAL (
    SELECT bucket_id, epoch FROM bucket_members WHERE contact_id = v.id AND left_at IS NULL OFFSET 0) AS b
UNION ALL
SELECT v.id::text, '', 0, true FROM unnest($1::text[]::uuid[]) AS v (id), LATERAL (
    SELECT FROM email_preferences WHERE contact_id = v.id AND unsubscribed_all LIMIT 1) AS p`
	rows, err := tx.sql.Query(ctx, load, contacts)
	found := map[string]*Beside{}
	if err == nil {
		var id, bucket string
		var epoch int64
		var unsubscribed bool
		_, err = pgx.ForEachRow(rows, []any{&id, &bucket, &epoch, &unsubscribed}, func() error {
			b := found[id]
			if b == nil {
				b = &Beside{Buckets: map[string]int64{}}
				found[id] = b
			}
			if unsubscribed {
				b.Unsubscribed = true
			} else {
				b.Buckets[bucket] = epoch
			}
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read what there is beside %d contacts: %w", len(contacts), err)
	}
	return found, nil
}

// ContactsAfter are the ids of at most limit contacts of a partition above one, in their
// order.
func (tx *Tx) ContactsAfter(ctx context.Context, partition int32, after uuid.UUID, limit int) ([]string, error) {
	rows, err := tx.sql.Query(ctx, `SELECT id::text FROM contacts WHERE partition = $1 AND id > $2 ORDER BY id LIMIT $3`, partition, after, limit)
	var ids []string
	if err == nil {
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("list contacts of partition %d: %w", partition, err)
	}
	return ids, nil
}

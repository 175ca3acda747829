package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// RecentInput is a record of topic resolved that processor contacts took.
type RecentInput struct {
	ID        string // a UUID
	Partition int32
	Offset    int64
}

// loadRecentInputs queues reading the offsets of those of the records that contacts took
// lately, by id.
func loadRecentInputs(batch *pgx.Batch, inputs []string, offsets map[string]int64) {
	const load = `SELECT id::text, "offset" FROM contact_inputs WHERE id = ANY ($1::text[]::uuid[])`
	if len(inputs) == 0 {
		return
	}
	batch.Queue(load, inputs).Query(func(rows pgx.Rows) error {
		var id string
		var offset int64
		_, err := pgx.ForEachRow(rows, []any{&id, &offset}, func() error { offsets[id] = offset; return nil })
		return err
	})
}

// KeepRecentInputs remembers records, each id once, and forgets those so many offsets and
// more before the last one of their partition.
func (tx *Tx) KeepRecentInputs(ctx context.Context, inputs []RecentInput, most int) error {
	if len(inputs) == 0 {
		return nil
	}
	const (
		insert = `
INSERT INTO contact_inputs (id, partition, "offset")
SELECT * FROM unnest($1::text[]::uuid[], $2::integer[], $3::bigint[])
ON CONFLICT (id) DO UPDATE SET partition = excluded.partition, "offset" = excluded."offset"`
		forget = `
DELETE FROM contact_inputs AS c
USING (SELECT partition, max("offset") AS last FROM unnest($1::integer[], $2::bigint[]) AS n (partition, "offset") GROUP BY partition) AS n
WHERE c.partition = n.partition AND c."offset" <= n.last - $3`
	)
	ids, partitions, offsets := make([]string, len(inputs)), make([]int32, len(inputs)), make([]int64, len(inputs))
	for i, in := range inputs {
		ids[i], partitions[i], offsets[i] = in.ID, in.Partition, in.Offset
	}
	if err := tx.write(ctx, fmt.Sprintf("keep %d recent inputs of contacts", len(inputs)), insert, ids, partitions, offsets); err != nil {
		return err
	}
	return tx.write(ctx, "forget old inputs of contacts", forget, partitions, offsets, int64(most))
}

// PlaceContacts fills in the partition, as partitionOf says it, of at most limit
// contacts and as many marks that were written before it was kept, and says how many it
// filled. Rows that somebody writes just now are left for the next call.
func (db *DB) PlaceContacts(ctx context.Context, partitionOf func(id string) int32, limit int) (placed int, err error) {
	for _, t := range []struct{ load, fill string }{
		{`SELECT id::text FROM contacts WHERE partition IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED`,
			`UPDATE contacts AS c SET partition = n.partition FROM unnest($1::text[]::uuid[], $2::integer[]) AS n (id, partition) WHERE c.id = n.id`},
		{`SELECT contact_id::text FROM contact_marks WHERE partition IS NULL ORDER BY contact_id LIMIT $1 FOR UPDATE SKIP LOCKED`,
			`UPDATE contact_marks AS c SET partition = n.partition FROM unnest($1::text[]::uuid[], $2::integer[]) AS n (id, partition) WHERE c.contact_id = n.id`},
	} {
		n := 0
		err := db.InTx(ctx, func(tx *Tx) error {
			rows, err := tx.sql.Query(ctx, t.load, limit)
			if err != nil {
				return err
			}
			ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if n = len(ids); err != nil || n == 0 {
				return err
			}
			partitions := make([]int32, n)
			for i, id := range ids {
				partitions[i] = partitionOf(id)
			}
			_, err = tx.sql.Exec(ctx, t.fill, ids, partitions)
			return err
		})
		if err != nil {
			return placed, fmt.Errorf("fill in partitions of contacts: %w", err)
		}
		placed += n
	}
	return placed, nil
}

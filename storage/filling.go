package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Fill is how far a partition of a derived processor is filled with the definitions of a
// version.
type Fill struct {
	Partition int32
	Version   int64
	After     uuid.UUID // the last contact that was passed; the zero id at first
	Passed    int64     // contacts
	Total     int64     // contacts when it began
	Behind    int64     // of those passed, contacts that are to be filled with a later record
	Done      bool
}

// NextFill is what comes next of a Fill.
type NextFill struct {
	Fill
	Contacts []string // at most as many as were asked for; none when it is not to go on
}

// NextFills says how far partitions are filled with a version, and which contacts come
// next where it stands at the given ones, which are the zero id at first. A fill of an
// older version begins anew; one of a newer is returned as it is. One statement, without
// locks: the caller owns the partitions.
func (tx *Tx) NextFills(ctx context.Context, processor string, version int64, at map[int32]uuid.UUID, limit int) (map[int32]NextFill, error) {
	const next = `
WITH fills AS (
    SELECT v.partition, v.at, f.version IS NOT NULL AND f.version >= $4 AS begun, f.version, f.after, f.passed, f.total, f.behind, f.done_at IS NOT NULL AS done
    FROM unnest($2::integer[], $3::uuid[]) AS v (partition, at)
    LEFT JOIN derived_fills AS f ON f.processor = $1 AND f.partition = v.partition
), places AS (
    SELECT partition, at, CASE WHEN begun THEN version ELSE $4 END AS version, CASE WHEN begun THEN after ELSE '00000000-0000-0000-0000-000000000000' END AS after,
           CASE WHEN begun THEN passed ELSE 0 END AS passed,
           CASE WHEN begun THEN total ELSE (SELECT count(*) FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = fills.partition AND d.ended_at IS NULL) END AS total,
           CASE WHEN begun THEN behind ELSE 0 END AS behind, begun AND done AS done
    FROM fills
)
SELECT partition, version, after, passed, total, behind, done,
       CASE WHEN version = $4 AND after = at AND NOT done THEN ARRAY(
           SELECT d.contact_id::text FROM derived_contacts AS d
           WHERE d.processor = $1 AND d.partition = p.partition AND d.ended_at IS NULL AND d.contact_id > p.after ORDER BY d.contact_id LIMIT $5
       ) END
FROM places AS p`
	partitions, places := make([]int32, 0, len(at)), make([]uuid.UUID, 0, len(at))
	for p, id := range at {
		partitions, places = append(partitions, p), append(places, id)
	}
	rows, err := tx.sql.Query(ctx, next, processor, partitions, places, version, limit)
	if err != nil {
		return nil, fmt.Errorf("look who of %s is to be filled: %w", processor, err)
	}
	found := make(map[int32]NextFill, len(at))
	var f NextFill
	_, err = pgx.ForEachRow(rows, []any{&f.Partition, &f.Version, &f.After, &f.Passed, &f.Total, &f.Behind, &f.Done, &f.Contacts}, func() error {
		found[f.Partition] = f
		f.Contacts = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look who of %s is to be filled: %w", processor, err)
	}
	return found, nil
}

func moveFills(batch *pgx.Batch, processor string, fills []Fill) {
	if len(fills) == 0 {
		return
	}
	const upsert = `
INSERT INTO derived_fills AS f (processor, partition, version, after, passed, total, behind, done_at, filled)
SELECT $1, v.partition, v.version, v.after, v.passed, v.total, v.behind, CASE WHEN v.done THEN now() END, CASE WHEN v.done THEN v.version ELSE 0 END
FROM unnest($2::integer[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[])
     AS v (partition, version, after, passed, total, behind, done)
ON CONFLICT (processor, partition) DO UPDATE
SET version = excluded.version, after = excluded.after, passed = excluded.passed, total = excluded.total, behind = excluded.behind,
    started_at = CASE WHEN f.version = excluded.version THEN f.started_at ELSE now() END, updated_at = now(), done_at = excluded.done_at,
    filled = greatest(f.filled, excluded.filled)`
	n := len(fills)
	partitions, versions, after := make([]int32, n), make([]int64, n), make([]uuid.UUID, n)
	passed, totals, behind, done := make([]int64, n), make([]int64, n), make([]int64, n), make([]bool, n)
	for i, f := range fills {
		partitions[i], versions[i], after[i] = f.Partition, f.Version, f.After
		passed[i], totals[i], behind[i], done[i] = f.Passed, f.Total, f.Behind, f.Done
	}
	batch.Queue(upsert, processor, partitions, versions, after, passed, totals, behind, done)
}

// KnownContacts reads the contacts that a derived processor stands with, and those of their
// stored events that have one of the names; also the events of contacts that were merged
// into them, for Postgres or for the processor (Took). One statement, so that each is as of
// one moment. Those that have ended are left out. fn is called for each and may not use the
// transaction.
func (tx *Tx) KnownContacts(ctx context.Context, contacts []*Derived, names []string, fn func(*Taken) error) error {
	const load = `
SELECT c.id, '', '{}'::text[], true, ` + takenRow + `
FROM unnest($1::text[]::uuid[], $3::text[]) AS v (id, took) JOIN contacts AS c ON c.id = v.id
LEFT JOIN LATERAL (
    SELECT ` + takenEvents + `
    FROM events AS e WHERE cardinality($2::text[]) > 0 AND e.contact_id = ANY (ARRAY[c.id] || c.merged || v.took::uuid[]) AND e.name = ANY ($2)
) AS ev ON true`
	if names == nil {
		names = []string{}
	}
	ids, took := make([]string, len(contacts)), make([]string, len(contacts))
	for i, c := range contacts {
		ids[i], took[i] = c.ContactID, uuidArray(c.Took)
	}
	rows, err := tx.sql.Query(ctx, load, ids, names, took)
	if err != nil {
		return fmt.Errorf("read %d contacts and their events: %w", len(contacts), err)
	}
	defer rows.Close()
	for rows.Next() {
		t, err := scanTaken(rows, 0)
		if err != nil {
			return fmt.Errorf("read %d contacts and their events: %w", len(contacts), err)
		}
		if err := fn(t); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read %d contacts and their events: %w", len(contacts), err)
	}
	return nil
}

// FillPart is a Fill as who keeps it going sees it. One of an older version has not begun.
type FillPart struct {
	Fill
	First      string        // the first contact of the partition; empty when there is none
	Filled     int64         // the newest version with which all contacts have been passed
	TakingOver bool          // contacts of the partition are still taken over
	Still      time.Duration // for how long it did not move; only of one that has begun
}

// Through says that nothing is left to do.
func (p *FillPart) Through() bool { return p.Done || p.First == "" && !p.TakingOver }

// FillParts says of each partition of a processor how far it is filled with a version.
func (db *DB) FillParts(ctx context.Context, processor string, version int64) ([]FillPart, error) {
	const look = `
SELECT p.partition, p.taking_over IS NOT NULL,
       coalesce((SELECT d.contact_id::text FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = p.partition AND d.ended_at IS NULL
                 ORDER BY d.contact_id LIMIT 1), ''),
       f.version, f.after, f.passed, f.total, f.behind, f.done_at IS NOT NULL, coalesce(f.filled, 0), extract(epoch FROM clock_timestamp() - f.updated_at)::float8
FROM processor_progress AS p LEFT JOIN derived_fills AS f ON f.processor = p.processor AND f.partition = p.partition
WHERE p.processor = $1 ORDER BY p.partition`
	rows, err := db.sql.Query(ctx, look, processor)
	if err != nil {
		return nil, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (FillPart, error) {
		var p FillPart
		var of, passed, total, behind *int64
		var after *uuid.UUID
		var still *float64
		err := row.Scan(&p.Partition, &p.TakingOver, &p.First, &of, &after, &passed, &total, &behind, &p.Done, &p.Filled, &still)
		if err != nil || of == nil {
			return p, err
		}
		if *of < version { // of definitions that are in use no more: but as many contacts
			p.Total, p.Done = *total, false
			return p, nil
		}
		p.Version, p.After, p.Passed, p.Total, p.Behind = *of, *after, *passed, *total, *behind
		p.Still = time.Duration(*still * float64(time.Second))
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	return parts, nil
}

// PassEmptyPartitions notes that partitions without contacts are filled with a version, so
// that whoever comes to them later, who begins with it, is not taken for somebody who waits.
// It must know the version before: the rows of progress are locked, so that no apply that
// read an older one is under way.
func (tx *Tx) PassEmptyPartitions(ctx context.Context, processor string, version int64) error {
	const (
		empty = `
SELECT p.partition FROM processor_progress AS p
WHERE p.processor = $1 AND p.taking_over IS NULL
  AND NOT EXISTS (SELECT FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = p.partition AND d.ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM derived_fills AS f WHERE f.processor = $1 AND f.partition = p.partition AND f.version >= $2)
ORDER BY p.partition FOR UPDATE OF p`
		settle = `
INSERT INTO derived_fills AS f (processor, partition, version, after, passed, total, behind, done_at, filled)
SELECT $1, v.partition, $2, '00000000-0000-0000-0000-000000000000', 0, 0, 0, now(), $2 FROM unnest($3::integer[]) AS v (partition)
WHERE NOT EXISTS (SELECT FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = v.partition AND d.ended_at IS NULL)
ON CONFLICT (processor, partition) DO UPDATE
SET version = excluded.version, after = excluded.after, passed = 0, total = 0, behind = 0, started_at = now(), updated_at = now(),
    done_at = excluded.done_at, filled = excluded.filled
WHERE f.version < excluded.version`
	)
	rows, err := tx.sql.Query(ctx, empty, processor, version)
	if err != nil {
		return fmt.Errorf("look for partitions of %s without contacts: %w", processor, err)
	}
	partitions, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil || len(partitions) == 0 {
		return err
	}
	if _, err := tx.sql.Exec(ctx, settle, processor, version, partitions); err != nil {
		return fmt.Errorf("pass partitions of %s without contacts: %w", processor, err)
	}
	return nil
}

// FillProgress is how far a processor is filled with the definitions of a version.
type FillProgress struct {
	Passed int64 // contacts
	Total  int64 // contacts, as far as partitions have begun
	Behind int64 // of those passed, contacts that are to be filled with a later record
	Done   bool
	// Filled is the newest version with which all contacts of all partitions have been
	// passed: what has not changed since is there in full.
	Filled int64
}

// FillProgress says how far a processor is filled with the definitions of a version. A
// processor that never ran is not done.
func (db *DB) FillProgress(ctx context.Context, processor string, version int64) (FillProgress, error) {
	parts, err := db.FillParts(ctx, processor, version)
	if err != nil {
		return FillProgress{}, err
	}
	all := FillProgress{Done: len(parts) > 0, Filled: version}
	if !all.Done {
		all.Filled = 0
	}
	for i := range parts {
		p := &parts[i]
		if p.First != "" || p.TakingOver {
			all.Filled = min(all.Filled, p.Filled)
		}
		all.Passed, all.Total, all.Behind = all.Passed+p.Passed, all.Total+p.Total, all.Behind+p.Behind
		all.Done = all.Done && p.Through()
	}
	return all, nil
}

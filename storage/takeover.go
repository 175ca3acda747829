package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Taken is a contact as it is taken over: its row, or the mark that it ended.
type Taken struct {
	ContactID string
	Partition int32
	Contact   *Contact // nil of one that ended
	Survivor  string   // of one that ended by a merge; empty when it was erased
	// Losers are, of one that was merged away, those that had been merged into it.
	Losers []string
	Events []StoredEvent // of the contact and of all that were merged into it
	// Before is what the processor kept of it, when it is taken over anew: State, Written,
	// Epoch and Heard. Nil otherwise.
	Before *Derived
}

// takenRow are the columns of a contact c and of its events ev, as scanTaken reads them;
// takenEvents makes those of events e.
const (
	takenRow = `
       coalesce(c.external_id, ''), coalesce(c.email, ''), coalesce(c.anonymous_id, ''), coalesce(c.identifiers::text, '[]'),
       coalesce(c.merged::text[], '{}'), coalesce(c.properties::text, ''), coalesce(c.version, 0), coalesce(c.seq, 0), coalesce(c.era, 0),
       c.first_seen_at, c.last_seen_at, c.created_at, c.updated_at,
       ev.ids, ev.owners, ev.names, ev.properties, ev.occurred, ev.received, ev.sources, ev.seqs, ev.eras`
	takenEvents = `array_agg(e.id::text ORDER BY e.occurred_at, e.id) AS ids, array_agg(e.contact_id::text ORDER BY e.occurred_at, e.id) AS owners,
           array_agg(e.name ORDER BY e.occurred_at, e.id) AS names, array_agg(e.properties::text ORDER BY e.occurred_at, e.id) AS properties,
           array_agg(e.occurred_at ORDER BY e.occurred_at, e.id) AS occurred, array_agg(e.received_at ORDER BY e.occurred_at, e.id) AS received,
           array_agg(e.source ORDER BY e.occurred_at, e.id) AS sources, array_agg(e.seq ORDER BY e.occurred_at, e.id) AS seqs,
           array_agg(e.era ORDER BY e.occurred_at, e.id) AS eras`
)

// TakeContacts reads for a processor at most limit contacts of a partition whose ids are
// above after, in their order, with their stored events, and those that ended: one
// statement, so that each is as of one moment. fn is called for each and may not use the transaction. It
// returns the last id, and the zero id when nothing is left.
func (tx *Tx) TakeContacts(ctx context.Context, processor string, partition int32, after uuid.UUID, limit int, fn func(*Taken) error) (uuid.UUID, error) {
	const load = `
WITH RECURSIVE chunk AS (
    SELECT id, alive, survivor FROM (
        (SELECT id, true AS alive, NULL::uuid AS survivor FROM contacts WHERE partition = $1 AND id > $2 ORDER BY id LIMIT $3)
        UNION ALL
        (SELECT contact_id, false, survivor FROM contact_marks WHERE partition = $1 AND contact_id > $2 ORDER BY contact_id LIMIT $3)
    ) AS both_kinds ORDER BY id LIMIT $3
), lost (id, loser) AS (
    SELECT k.id, m.contact_id FROM chunk AS k JOIN contact_marks AS m ON m.survivor = k.id WHERE k.survivor IS NOT NULL
    UNION
    SELECT l.id, m.contact_id FROM lost AS l JOIN contact_marks AS m ON m.survivor = l.loser
), grouped AS (
    SELECT k.id, k.alive, coalesce(k.survivor::text, '') AS survivor, ARRAY(SELECT loser FROM lost AS l WHERE l.id = k.id) AS losers FROM chunk AS k
)
SELECT g.id, g.survivor, g.losers::text[], g.alive, ` + takenRow + `, d.state, d.written, d.epoch, d.heard
FROM grouped AS g
LEFT JOIN contacts AS c ON c.id = g.id
LEFT JOIN LATERAL (SELECT state, written, epoch, heard FROM derived_contacts WHERE processor = $4 AND contact_id = g.id OFFSET 0) AS d ON true
LEFT JOIN LATERAL (
    SELECT ` + takenEvents + `
    FROM events AS e WHERE e.contact_id = ANY (ARRAY[g.id] || coalesce(c.merged, '{}') || g.losers)
) AS ev ON g.alive OR g.survivor <> ''
ORDER BY g.id`
	rows, err := tx.sql.Query(ctx, load, partition, after, limit, processor)
	if err != nil {
		return uuid.Nil, fmt.Errorf("take over contacts of partition %d: %w", partition, err)
	}
	defer rows.Close()
	n, last := 0, after
	for rows.Next() {
		var before Derived
		var written, epoch *int64
		t, err := scanTaken(rows, partition, &before.State, &written, &epoch, &before.Heard)
		if err != nil {
			return uuid.Nil, fmt.Errorf("take over contacts of partition %d: %w", partition, err)
		}
		if written != nil {
			before.Written, before.Epoch = *written, *epoch
			t.Before = &before
		}
		if last, err = uuid.Parse(t.ContactID); err != nil {
			return uuid.Nil, err
		}
		if err := fn(t); err != nil {
			return uuid.Nil, err
		}
		n++
	}
	if err := rows.Err(); err != nil {
		return uuid.Nil, fmt.Errorf("take over contacts of partition %d: %w", partition, err)
	}
	if n < limit {
		return uuid.Nil, nil
	}
	return last, nil
}

// scanTaken reads a row, with what stands behind it.
func scanTaken(rows pgx.Rows, partition int32, more ...any) (*Taken, error) {
	t, c := &Taken{Partition: partition}, &Contact{Partition: partition}
	var alive bool
	var identifiers []byte
	var first, last, created, updated *time.Time
	var ids, owners, names, properties, sources []string
	var occurred, received []time.Time
	var seqs, eras []int64
	err := rows.Scan(append([]any{&t.ContactID, &t.Survivor, &t.Losers, &alive, &c.ExternalID, &c.Email, &c.AnonymousID, &identifiers,
		&c.Merged, &c.Properties, &c.Version, &c.Seq, &c.Era, &first, &last, &created, &updated,
		&ids, &owners, &names, &properties, &occurred, &received, &sources, &seqs, &eras}, more...)...)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		t.Events = append(t.Events, StoredEvent{
			ID: ids[i], ContactID: owners[i], Name: names[i], Properties: properties[i], OccurredAt: occurred[i].UTC(), ReceivedAt: received[i].UTC(),
			Source: sources[i], Seq: seqs[i], Era: eras[i],
		})
	}
	if !alive {
		return t, nil
	}
	c.ID = t.ContactID
	c.FirstSeenAt, c.LastSeenAt, c.CreatedAt, c.UpdatedAt = first.UTC(), last.UTC(), created.UTC(), updated.UTC()
	if c.Identifiers, err = decodeIdentifiers(identifiers); err != nil {
		return nil, fmt.Errorf("identifiers of contact %s: %w", c.ID, err)
	}
	t.Contact = c
	return t, nil
}

// Numbering is what of processor contacts a take-over needs: the processor and the format
// in which its records are numbered.
const (
	Numbering       = "contacts"
	NumberingFormat = 2
)

// TakeOverWaits says what the take-over of any processor waits for, "" for nothing. It
// goes by the numbers of contacts, so records without one may not come any more; and by
// the partitions of their rows. A partition that contacts has not begun is written by
// whoever begins it, which is no reason to wait.
func (db *DB) TakeOverWaits(ctx context.Context) (string, error) {
	const ask = `
SELECT coalesce((SELECT array_agg(partition ORDER BY partition) FROM processor_progress WHERE processor = $1 AND format < $2), '{}'),
       EXISTS (SELECT FROM contacts WHERE partition IS NULL) OR EXISTS (SELECT FROM contact_marks WHERE partition IS NULL)`
	var unnumbered []int32
	var unplaced bool
	if err := db.sql.QueryRow(ctx, ask, Numbering, NumberingFormat).Scan(&unnumbered, &unplaced); err != nil {
		return "", fmt.Errorf("ask what a take-over waits for: %w", err)
	}
	switch {
	case len(unnumbered) > 0:
		return fmt.Sprintf("contacts does not number its records yet on partitions %v (format %d): it does when processors run and none of them is of an older release", unnumbered, NumberingFormat), nil
	case unplaced:
		return "the partitions of contacts that an older release wrote are being filled in, within minutes while maintenance runs", nil
	}
	return "", nil
}

// TakeNobody is above the ids of all contacts: the place of a take-over that begins where
// nobody was known when the ends were noted.
var TakeNobody = uuid.Max

// StartTakeOver inserts the rows of all partitions of a processor that is started for the
// first time and takes over what Postgres knows: with the noted ends of its topics, of all
// partitions in one statement, for what one partition hands over lies behind the ends of
// all others. Rows that exist stay. Where nothing is known yet, as in a new deployment,
// nobody is taken over: all that will be known stands behind the ends, numbered from 1, and
// what happens to who comes while the take-over begins is not missed.
func (db *DB) StartTakeOver(ctx context.Context, processor string, ends map[int32]Ranges) error {
	const insert = `
INSERT INTO processor_progress (processor, partition, ranges, published, taking_over, era)
SELECT $1, v.partition, v.ranges::jsonb, true, known.first, (` + presentEra + `)
FROM unnest($2::integer[], $3::text[]) AS v (partition, ranges), (
    SELECT CASE WHEN EXISTS (SELECT FROM contacts) OR EXISTS (SELECT FROM contact_marks)
                  OR EXISTS (SELECT FROM processor_progress WHERE processor = $4 AND format < $5)
           THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE $6::uuid END AS first
) AS known
ON CONFLICT (processor, partition) DO NOTHING`
	partitions := slices.Sorted(maps.Keys(ends))
	ranges := make([]string, len(partitions))
	for i, p := range partitions {
		ranges[i] = ends[p].json()
	}
	if _, err := db.sql.Exec(ctx, insert, processor, partitions, ranges, Numbering, NumberingFormat, TakeNobody); err != nil {
		return fmt.Errorf("start the take-over of %s: %w", processor, err)
	}
	return nil
}

// TakeOverAnew has a processor whose state was cleared take over once more, from these
// ends of its topics on: as StartTakeOver, also where there are rows. What waited to be
// published is dropped. knows is as for StartProgress.
func (tx *Tx) TakeOverAnew(ctx context.Context, processor string, ends map[int32]Ranges, knows int32) error {
	const upsert = `
INSERT INTO processor_progress AS p (processor, partition, ranges, published, accepted, taking_over, era)
SELECT $1, v.partition, v.ranges::jsonb, true, true, '00000000-0000-0000-0000-000000000000', (` + presentEra + `)
FROM unnest($2::integer[], $3::text[]) AS v (partition, ranges)
ON CONFLICT (processor, partition) DO UPDATE
SET ranges = excluded.ranges, pending = NULL, published = true, accepted = true, taking_over = excluded.taking_over, era = excluded.era,
    declared = $4, updated_at = now()`
	partitions := slices.Sorted(maps.Keys(ends))
	ranges := make([]string, len(partitions))
	for i, p := range partitions {
		ranges[i] = ends[p].json()
	}
	if _, err := tx.sql.Exec(ctx, upsert, processor, partitions, ranges, knows); err != nil {
		return fmt.Errorf("take over for %s anew: %w", processor, err)
	}
	return nil
}

// PresentEra is the era of contacts that a rebuild began last; 0 before the first.
func (db *DB) PresentEra(ctx context.Context) (era int64, err error) {
	if err := db.sql.QueryRow(ctx, presentEra).Scan(&era); err != nil {
		return 0, fmt.Errorf("read the era of contacts: %w", err)
	}
	return era, nil
}

// MoveTakeOver notes up to which contact a partition is taken over; nil when it is through.
// The row is locked by LockProgress in the same transaction. knows is as for StartProgress.
func (tx *Tx) MoveTakeOver(ctx context.Context, processor string, partition int32, at *uuid.UUID, knows int32) error {
	const move = `UPDATE processor_progress SET taking_over = $3, declared = $4, updated_at = now() WHERE processor = $1 AND partition = $2`
	if _, err := tx.sql.Exec(ctx, move, processor, partition, at, knows); err != nil {
		return fmt.Errorf("note the take-over of %s: %w", processor, err)
	}
	return nil
}

package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// StoredEvent is a row of events: a product event of a contact. ContactID is
// the contact that it was stored under; one merged away later is found through
// the survivor's Merged.
type StoredEvent struct {
	ID         string
	ContactID  string
	Name       string
	Properties string // JSON object, byte-faithful
	OccurredAt time.Time
	ReceivedAt time.Time // decides the partition
	Source     string
	Seq, Era   int64 // its place in the order of the contact; Seq is 0 without one
}

// StoreEvents adds events. A COPY would take three round trips of its own and costs no less:
// with 5,000 events at once Postgres spent 22.7 µs on an event of identity and contacts with
// it and 21.2 µs so (bench buckets).
func (tx *Tx) StoreEvents(ctx context.Context, events []StoredEvent) error {
	if len(events) == 0 {
		return nil
	}
	const insert = `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source, seq, era)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]::json[], $5::timestamptz[], $6::timestamptz[], $7::text[], $8::bigint[], $9::bigint[])`
	n := len(events)
	ids, contacts := make([]pgtype.UUID, n), make([]pgtype.UUID, n)
	names, properties, sources := make([]string, n), make([]string, n), make([]string, n)
	occurred, received := make([]time.Time, n), make([]time.Time, n)
	seqs, eras := make([]int64, n), make([]int64, n)
	for i := range events {
		e := &events[i]
		if err := errors.Join(ids[i].Scan(e.ID), contacts[i].Scan(e.ContactID)); err != nil {
			return fmt.Errorf("event %s of contact %s: %w", e.ID, e.ContactID, err)
		}
		names[i], properties[i], sources[i], seqs[i], eras[i] = e.Name, e.Properties, e.Source, e.Seq, e.Era
		occurred[i], received[i] = e.OccurredAt, e.ReceivedAt
	}
	return tx.write(ctx, fmt.Sprintf("store %d events", n), insert, ids, contacts, names, properties, occurred, received, sources, seqs, eras)
}

// EventFilter narrows a contact's stored events; the zero value takes all.
type EventFilter struct {
	Name     string
	From, To time.Time // of when they happened: [From, To)
}

// eventPlace is where a page of a contact's events ends.
type eventPlace struct {
	At time.Time
	ID string
}

// ContactEvents returns a page of the stored events of a contact, given by its own id and
// those that were merged into it, by when they happened, newest first, and the cursor of the
// next page, "" at the end. A cursor that is none is ErrListCursor.
func (db *DB) ContactEvents(ctx context.Context, ids []string, f EventFilter, cursor string, limit int) ([]StoredEvent, string, error) {
	const list = `
SELECT id, contact_id, name, properties::text, occurred_at, received_at, source, seq, era
FROM events
WHERE contact_id = ANY($1::uuid[])
  AND ($2 = '' OR name = $2)
  AND ($3::timestamptz IS NULL OR occurred_at >= $3) AND ($4::timestamptz IS NULL OR occurred_at < $4)
  AND ($5::timestamptz IS NULL OR (occurred_at, id) < ($5, $6::uuid))
ORDER BY occurred_at DESC, id DESC
LIMIT $7`
	var after eventPlace
	if cursor != "" {
		if err := readCursor(cursor, &after); err != nil {
			return nil, "", err
		}
	}
	rows, err := db.sql.Query(ctx, list, ids, f.Name, optionalTime(f.From), optionalTime(f.To), optionalTime(after.At), cmp.Or(after.ID, uuid.Nil.String()), limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("list events of %v: %w", ids, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[StoredEvent])
	if err != nil {
		return nil, "", fmt.Errorf("list events of %v: %w", ids, err)
	}
	if len(found) <= limit {
		return found, "", nil
	}
	found = found[:limit]
	next, err := writeCursor(eventPlace{found[limit-1].OccurredAt, found[limit-1].ID})
	return found, next, err
}

// NewestEvents are the stored events of some names of a contact, given by its own id and
// those that were merged into it: of each at most limit, the newest by when they happened.
func (db *DB) NewestEvents(ctx context.Context, ids, names []string, limit int) ([]StoredEvent, error) {
	const list = `
SELECT e.* FROM unnest($1::text[]::uuid[]) AS v (id), LATERAL (
    SELECT id, contact_id, name, properties::text, occurred_at, received_at, source, seq, era
    FROM events WHERE contact_id = v.id AND name = ANY ($2) ORDER BY occurred_at DESC LIMIT $3) AS e`
	rows, err := db.sql.Query(ctx, list, ids, names, limit)
	if err != nil {
		return nil, fmt.Errorf("list newest events of %v: %w", ids, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[StoredEvent])
	if err != nil {
		return nil, fmt.Errorf("list newest events of %v: %w", ids, err)
	}
	return found, nil
}

// optionalTime is nil for the zero time.
func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

const eventPartition = "events_p20060102"

// CreateEventPartitions makes the partitions of the days from one to so many days
// later, in UTC. It may be called as often as one likes, by any number of
// processes. A day that has events in the default partition stays there.
func (db *DB) CreateEventPartitions(ctx context.Context, from time.Time, days int) error {
	const missing = `
SELECT d.day FROM unnest($1::timestamptz[], $2::text[]) AS d (day, name)
WHERE to_regclass(d.name) IS NULL
  AND NOT EXISTS (SELECT FROM events_default WHERE received_at >= d.day AND received_at < d.day + interval '24 hours')
ORDER BY d.day`
	first := from.UTC().Truncate(24 * time.Hour)
	wanted, names := make([]time.Time, days+1), make([]string, days+1)
	for i := range wanted {
		wanted[i] = first.AddDate(0, 0, i)
		names[i] = wanted[i].Format(eventPartition)
	}
	rows, err := db.sql.Query(ctx, missing, wanted, names)
	if err != nil {
		return fmt.Errorf("look for partitions of events: %w", err)
	}
	create, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
	if err != nil {
		return fmt.Errorf("look for partitions of events: %w", err)
	}
	for _, day := range create {
		day = day.UTC()
		name := day.Format(eventPartition)
		err := db.alter(ctx, fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s PARTITION OF events FOR VALUES FROM ('%s') TO ('%s')`,
			name, day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)))
		if err != nil && !isPartitionTaken(err) {
			return fmt.Errorf("create partition %s: %w", name, err)
		}
	}
	return nil
}

// lockPatience bounds how long a change of partitions waits for its lock. Whoever
// writes or reads meanwhile queues up behind it, so one that waited for a long reader,
// such as pg_dump, would hold all of them up for as long. It is tried again later.
const lockPatience = `SET LOCAL lock_timeout = '2s'`

// alter runs one statement that locks a whole table, with lockPatience. It is one round
// trip, so that no transaction is open and silent meanwhile.
func (db *DB) alter(ctx context.Context, sql string) error {
	_, err := db.sql.Exec(ctx, lockPatience+"; "+sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// isPartitionTaken reports that rows of the range stand in the default
// partition, or that another process made the partition in the same moment.
func isPartitionTaken(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	switch pe.Code {
	case "23514", // check_violation: the default partition holds rows of the range
		"42P07", "23505", // the table, or its row in the catalog, exists by now
		"42P17": // would overlap the partition made in the same moment
		return true
	}
	return false
}

// DropEventPartitions drops the partitions whose whole day lies before a time, and
// returns the names of what it dropped.
func (db *DB) DropEventPartitions(ctx context.Context, before time.Time) ([]string, error) {
	const list = `
SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
WHERE i.inhparent = 'events'::regclass
ORDER BY c.relname`
	rows, err := db.sql.Query(ctx, list)
	if err != nil {
		return nil, fmt.Errorf("list event partitions: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list event partitions: %w", err)
	}
	var dropped []string
	for _, name := range names {
		day, err := time.Parse(eventPartition, name)
		if err != nil || day.AddDate(0, 0, 1).After(before) {
			continue
		}
		if err := db.alter(ctx, `DROP TABLE IF EXISTS `+pgx.Identifier{name}.Sanitize()); err != nil {
			return dropped, fmt.Errorf("drop partition %s: %w", name, err)
		}
		dropped = append(dropped, name)
	}
	return dropped, nil
}

// CleanUnpartitionedEvents forgets at most limit events received before a time whose day has
// no partition of its own, and says how many it took.
func (db *DB) CleanUnpartitionedEvents(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "events outside daily partitions", `
DELETE FROM events_default WHERE ctid IN
    (SELECT ctid FROM events_default WHERE received_at < $1 LIMIT $2)`, before, limit)
}

package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Timer is a time at which a derived processor asked for a step of a contact.
type Timer struct {
	ContactID string
	Partition int32
	What      string // names it among those of the contact
	Due       time.Time
	Epoch     int64 // another one whenever it is armed anew
	Hops      int   // of the chain that led to its being armed
	ArmedAt   time.Time
}

// TimerWaiting is the timer of a contact of which records wait for a process that has what
// this one lacks: it is looked at again then.
const TimerWaiting = "$waiting"

// ChannelTimers tells when a timer was armed, as its due in RFC 3339: the earliest of a
// transaction.
const ChannelTimers = "timers"

func armTimers(batch *pgx.Batch, processor string, armed []Timer) {
	if len(armed) == 0 {
		return
	}
	const upsert = `
INSERT INTO timers (owner, contact_id, what, partition, due, epoch, hops, armed_at)
SELECT $1, v.* FROM unnest($2::text[]::uuid[], $3::text[], $4::integer[], $5::timestamptz[], $6::bigint[], $7::integer[], $8::timestamptz[]) AS v
ON CONFLICT (owner, contact_id, what) DO UPDATE
SET partition = excluded.partition, due = excluded.due, epoch = excluded.epoch, hops = excluded.hops, armed_at = excluded.armed_at, sent_at = NULL`
	n := len(armed)
	ids, whats, partitions, dues := make([]string, n), make([]string, n), make([]int32, n), make([]time.Time, n)
	epochs, hops, armedAt := make([]int64, n), make([]int32, n), make([]time.Time, n)
	earliest := armed[0].Due
	for i, t := range armed {
		ids[i], whats[i], partitions[i], dues[i] = t.ContactID, t.What, t.Partition, t.Due
		epochs[i], hops[i], armedAt[i] = t.Epoch, int32(t.Hops), t.ArmedAt
		if t.Due.Before(earliest) {
			earliest = t.Due
		}
	}
	batch.Queue(upsert, processor, ids, whats, partitions, dues, epochs, hops, armedAt)
	batch.Queue(notifySQL, ChannelTimers, earliest.UTC().Format(time.RFC3339Nano))
}

func disarmTimers(batch *pgx.Batch, processor string, disarmed []Timer) {
	if len(disarmed) == 0 {
		return
	}
	const remove = `
DELETE FROM timers AS t USING unnest($2::text[]::uuid[], $3::text[]) AS v (contact_id, what)
WHERE t.owner = $1 AND t.contact_id = v.contact_id AND t.what = v.what`
	ids, whats := make([]string, len(disarmed)), make([]string, len(disarmed))
	for i, t := range disarmed {
		ids[i], whats[i] = t.ContactID, t.What
	}
	batch.Queue(remove, processor, ids, whats)
}

// DueTimer is a timer that is due, and the processor that it is for.
type DueTimer struct {
	Processor string
	Timer
}

// TakeDueTimers locks at most limit timers that were due by a time, the earliest first,
// leaving those that another ticker has in hand, and marks them as sent: the caller sends
// them before the transaction is committed, so that a timer is sent once or more. So the commit
// need not wait for the disk either: a crash of the server that loses it has them sent again.
func (tx *Tx) TakeDueTimers(ctx context.Context, by time.Time, limit int) ([]DueTimer, error) {
	const take = `
UPDATE timers SET sent_at = clock_timestamp()
WHERE ctid = ANY (ARRAY(SELECT ctid FROM timers WHERE sent_at IS NULL AND due <= $1 ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING owner, contact_id::text, partition, what, due, epoch, hops, armed_at`
	if err := tx.write(ctx, "take timers that are due", `SET LOCAL synchronous_commit = off`); err != nil {
		return nil, err
	}
	rows, err := tx.sql.Query(ctx, take, by, limit)
	if err != nil {
		return nil, fmt.Errorf("take timers that are due: %w", err)
	}
	taken, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (DueTimer, error) {
		var t DueTimer
		err := row.Scan(&t.Processor, &t.ContactID, &t.Partition, &t.What, &t.Due, &t.Epoch, &t.Hops, &t.ArmedAt)
		t.Due, t.ArmedAt = t.Due.UTC(), t.ArmedAt.UTC()
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("take timers that are due: %w", err)
	}
	return taken, nil
}

// TimersUnderWay is how many timers were sent after a time and are not taken, counted up to limit.
func (db *DB) TimersUnderWay(ctx context.Context, after time.Time, limit int) (n int, err error) {
	const count = `SELECT count(*) FROM (SELECT FROM timers WHERE sent_at > $1 LIMIT $2) AS t`
	if err := db.sql.QueryRow(ctx, count, after, limit).Scan(&n); err != nil {
		return 0, fmt.Errorf("count the timers that are under way: %w", err)
	}
	return n, nil
}

// ForgetSending takes timers that were sent before a time, at most limit of them, for ones
// that never were, and says how many: their signals are lost, or wait for very long. Those
// that another ticker has in hand are left out.
func (db *DB) ForgetSending(ctx context.Context, before time.Time, limit int) (int64, error) {
	const forget = `
UPDATE timers SET sent_at = NULL
WHERE ctid IN (SELECT ctid FROM timers WHERE sent_at < $1 ORDER BY sent_at LIMIT $2 FOR UPDATE SKIP LOCKED)`
	done, err := db.sql.Exec(ctx, forget, before, limit)
	if err != nil {
		return 0, fmt.Errorf("look for timers that were sent and not taken: %w", err)
	}
	return done.RowsAffected(), nil
}

// NextTimer is when the next timer is due that was not sent; zero for none. now is the
// server's clock.
func (db *DB) NextTimer(ctx context.Context) (due, now time.Time, err error) {
	const next = `SELECT (SELECT due FROM timers WHERE sent_at IS NULL ORDER BY due LIMIT 1), clock_timestamp()`
	var at *time.Time
	if err := db.sql.QueryRow(ctx, next).Scan(&at, &now); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return due, now, fmt.Errorf("look for the next timer: %w", err)
	}
	if at != nil {
		due = at.UTC()
	}
	return due, now.UTC(), nil
}

// TimersUntil are the next timers of a processor that are due until a time and were not sent,
// the earliest first: those after one that was returned, the zero one at first.
func (db *DB) TimersUntil(ctx context.Context, processor string, until time.Time, after Timer, limit int) ([]Timer, error) {
	const list = `
SELECT contact_id::text, what, due FROM timers
WHERE owner = $1 AND sent_at IS NULL AND due <= $2 AND due >= $3 AND (due, contact_id, what) > ($3, $4::text::uuid, $5)
ORDER BY due, contact_id, what LIMIT $6`
	if after.ContactID == "" {
		after = Timer{ContactID: uuid.Nil.String(), Due: time.Unix(0, 0)}
	}
	rows, err := db.sql.Query(ctx, list, processor, until, after.Due, after.ContactID, after.What, limit)
	if err != nil {
		return nil, fmt.Errorf("list timers of %s: %w", processor, err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Timer, err error) {
		err = row.Scan(&t.ContactID, &t.What, &t.Due)
		t.Due = t.Due.UTC()
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list timers of %s: %w", processor, err)
	}
	return found, nil
}

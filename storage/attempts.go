package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// Attempt is one row of the delivery log: one record in one request.
type Attempt struct {
	At            time.Time
	DestinationID string
	ReplayID      string // "" for live
	RecordID      string
	RecordType    string
	RecordKey     string
	Topic         string
	Partition     int32
	Offset        int64
	Attempt       int
	Outcome       string // delivered | retry | rejected | refused | skipped | erased
	Status        int    // 0 without an answer
	Latency       time.Duration
	Error         string // valid UTF-8 without NUL
	Response      []byte // the first KiB
}

var attemptColumns = []string{
	"attempted_at", "destination_id", "replay_id", "record_id", "record_type", "record_key", "topic", "partition",
	"offset", "attempt", "outcome", "status", "latency_ms", "error", "response",
}

// WriteAttempts adds rows to the delivery log with COPY. The caller holds the
// leases of all partitions concerned.
func (tx *Tx) WriteAttempts(ctx context.Context, attempts []Attempt) error {
	source := &attemptRows{rows: attempts, values: make([]any, len(attemptColumns)), index: -1}
	if _, err := tx.sql.CopyFrom(ctx, pgx.Identifier{"delivery_attempts"}, attemptColumns, source); err != nil {
		return fmt.Errorf("write %d attempts: %w", len(attempts), err)
	}
	return nil
}

// attemptRows gives COPY its rows. Ids repeat in runs, so the last is kept parsed.
type attemptRows struct {
	rows        []Attempt
	index       int
	values      []any
	destination uuidMemo
	replay      uuidMemo
	err         error
}

type uuidMemo struct {
	text string
	id   pgtype.UUID
}

func (m *uuidMemo) parse(text string) (pgtype.UUID, error) {
	if text == m.text {
		return m.id, nil
	}
	m.text, m.id = text, pgtype.UUID{}
	if err := m.id.Scan(text); err != nil {
		return m.id, fmt.Errorf("id %q: %w", text, err)
	}
	return m.id, nil
}

// Next implements pgx.CopyFromSource.
func (a *attemptRows) Next() bool { a.index++; return a.index < len(a.rows) && a.err == nil }

// Err implements pgx.CopyFromSource.
func (a *attemptRows) Err() error { return a.err }

// Values implements pgx.CopyFromSource.
func (a *attemptRows) Values() ([]any, error) {
	r := &a.rows[a.index]
	destination, err := a.destination.parse(r.DestinationID)
	if err != nil {
		return nil, err
	}
	v := a.values
	v[0], v[1], v[2] = r.At, destination, nil
	if r.ReplayID != "" {
		if v[2], err = a.replay.parse(r.ReplayID); err != nil {
			return nil, err
		}
	}
	v[3], v[4], v[5], v[6], v[7], v[8] = r.RecordID, r.RecordType, r.RecordKey, r.Topic, r.Partition, r.Offset
	v[9], v[10], v[11], v[12], v[13], v[14] = int32(r.Attempt), r.Outcome, nil, int32(r.Latency.Milliseconds()), nil, nil
	if r.Status != 0 {
		v[11] = int32(r.Status)
	}
	if r.Error != "" {
		v[13] = r.Error
	}
	if len(r.Response) > 0 {
		v[14] = r.Response
	}
	return v, nil
}

// attemptPartition is the name of the delivery log's partition of a day.
func attemptPartition(day time.Time) string {
	return "delivery_attempts_" + day.UTC().Format("20060102")
}

// PrepareAttempts makes the delivery log's partitions for the day of now and the
// given number of days after it, each in a transaction of its own: a day that
// cannot be made now leaves its rows to the default partition, from where they are
// moved when it can. It may be called by many at once.
func (db *DB) PrepareAttempts(ctx context.Context, now time.Time, ahead int) error {
	first := now.UTC().Truncate(24 * time.Hour)
	var errs []error
	for i := range ahead + 1 {
		day := first.AddDate(0, 0, i)
		if err := db.prepareAttemptsOf(ctx, day); err != nil {
			errs = append(errs, fmt.Errorf("prepare delivery log for %s: %w", day.Format(time.DateOnly), err))
		}
	}
	return errors.Join(errs...)
}

// prepareAttemptsOf makes the partition of a day and moves there what the default
// partition has of it: Postgres refuses a partition while the default one holds
// rows of its range, and rows come there whenever nobody made the day in time.
func (db *DB) prepareAttemptsOf(ctx context.Context, day time.Time) error {
	// Not to_regclass: it says what the session knew before it waited for the lock.
	const exists = `SELECT EXISTS (SELECT FROM pg_class WHERE relname = $1 AND relnamespace = current_schema()::regnamespace)`
	// Identifiers and bounds are made from a date, nothing else gets in.
	name, from, to := attemptPartition(day), day.Format(time.RFC3339), day.AddDate(0, 0, 1).Format(time.RFC3339)
	var there bool
	if err := db.sql.QueryRow(ctx, exists, name).Scan(&there); err != nil || there {
		return err
	}
	return db.InTx(ctx, func(tx *Tx) error {
		if _, err := tx.sql.Exec(ctx, lockAttemptPartitions); err != nil {
			return err
		}
		if err := tx.sql.QueryRow(ctx, exists, name).Scan(&there); err != nil || there {
			return err
		}
		for _, sql := range []string{
			// Whoever writes meanwhile waits; who reads for long must not hold all of them up.
			`SET LOCAL lock_timeout = '5s'`,
			`LOCK TABLE delivery_attempts_default IN ACCESS EXCLUSIVE MODE`,
			fmt.Sprintf(`CREATE TABLE %s (LIKE delivery_attempts INCLUDING DEFAULTS)`, name),
			fmt.Sprintf(`
				WITH moved AS (
				    DELETE FROM delivery_attempts_default WHERE attempted_at >= '%s' AND attempted_at < '%s' RETURNING *)
				INSERT INTO %s SELECT * FROM moved`, from, to, name),
			fmt.Sprintf(`ALTER TABLE delivery_attempts ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')`, name, from, to),
		} {
			if _, err := tx.sql.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	})
}

// lockAttemptPartitions keeps two processes from making or dropping the same
// partition at once.
const lockAttemptPartitions = `SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || '.delivery_attempts', 0))`

// DropAttempts drops the delivery log's partitions that end at or before the day
// of before, and returns how many. At most unpartitionedAttempts older rows of the default
// partition go with them.
func (db *DB) DropAttempts(ctx context.Context, before time.Time) (dropped int, err error) {
	err = db.InTx(ctx, func(tx *Tx) error {
		dropped = 0
		if _, err := tx.sql.Exec(ctx, lockAttemptPartitions); err != nil {
			return fmt.Errorf("drop old delivery log: %w", err)
		}
		names, err := tx.attemptPartitions(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.sql.Exec(ctx, lockPatience); err != nil {
			return fmt.Errorf("drop old delivery log: %w", err)
		}
		limit := attemptPartition(before)
		for _, name := range names {
			if len(name) != len(limit) || name >= limit {
				continue
			}
			if _, err := tx.sql.Exec(ctx, `DROP TABLE `+pgx.Identifier{name}.Sanitize()); err != nil {
				return fmt.Errorf("drop %s: %w", name, err)
			}
			dropped++
		}
		return nil
	})
	if err != nil {
		return dropped, err
	}
	const outside = `
		DELETE FROM delivery_attempts_default WHERE ctid IN
		    (SELECT ctid FROM delivery_attempts_default WHERE attempted_at < $1 LIMIT $2)`
	_, err = db.clean(ctx, "delivery log outside daily partitions", outside, before.UTC().Truncate(24*time.Hour), unpartitionedAttempts)
	return dropped, err
}

// unpartitionedAttempts bounds one deletion from the default partition.
const unpartitionedAttempts = 50_000

func (tx *Tx) attemptPartitions(ctx context.Context) ([]string, error) {
	const sql = `
		SELECT c.relname
		FROM pg_inherits i
		JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'delivery_attempts'::regclass
		ORDER BY c.relname`
	rows, err := tx.sql.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("list delivery log: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list delivery log: %w", err)
	}
	kept := names[:0]
	for _, n := range names {
		if !strings.HasSuffix(n, "_default") {
			kept = append(kept, n)
		}
	}
	return kept, nil
}

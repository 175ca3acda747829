package storage

import (
	"context"
	"fmt"
	"time"
)

// BeatIngest says that the process id takes requests, and returns how many do,
// itself included. One that was not heard of for lasts does not count any more.
func (db *DB) BeatIngest(ctx context.Context, id string, lasts time.Duration) (int, error) {
	const sql = `
		WITH beat AS (
			INSERT INTO ingest_instances (id, seen_at) VALUES ($1, clock_timestamp())
			ON CONFLICT (id) DO UPDATE SET seen_at = EXCLUDED.seen_at
		), gone AS (
			DELETE FROM ingest_instances WHERE id <> $1 AND seen_at < now() - 100 * $2 * interval '1 microsecond'
		)
		SELECT 1 + count(*) FROM ingest_instances WHERE id <> $1 AND seen_at > now() - $2 * interval '1 microsecond'`
	var n int
	if err := db.sql.QueryRow(ctx, sql, id, lasts.Microseconds()).Scan(&n); err != nil {
		return 0, fmt.Errorf("beat of ingest instance %s: %w", id, err)
	}
	return n, nil
}

// LeaveIngest says that the process id takes no more requests.
func (db *DB) LeaveIngest(ctx context.Context, id string) error {
	if _, err := db.sql.Exec(ctx, `DELETE FROM ingest_instances WHERE id = $1`, id); err != nil {
		return fmt.Errorf("leave of ingest instance %s: %w", id, err)
	}
	return nil
}

// RequestLease asks for a run of tokens of a bucket that holds Max and gets one
// back every Interval.
type RequestLease struct {
	Bucket   string
	Max      int
	Interval time.Duration
	// Want is how many tokens are asked for; fewer are granted when fewer are left.
	Want int
	// Spent were taken before without a lease; they are taken from the bucket
	// whether it holds them or not.
	Spent int
}

// LeaseRequests takes tokens out of a bucket that all processes share, by
// Postgres's clock. It returns how many it got and in what time the bucket would
// be full again. A bucket that nobody asked before is full.
func (db *DB) LeaseRequests(ctx context.Context, l RequestLease) (granted int, full time.Duration, err error) {
	// Times are in microseconds: $2 is the interval, $3 what the bucket holds, and
	// used what is missing in it.
	const sql = `
		INSERT INTO request_rates AS r (bucket, full_at, granted)
		SELECT $1, now() + (used + $2 * granted) * interval '1 microsecond', granted
		FROM (SELECT $2::bigint * $5 AS used, GREATEST(LEAST($4::bigint, $3::bigint / $2 - $5), 0) AS granted) AS first
		ON CONFLICT (bucket) DO UPDATE SET (full_at, granted) = (
			SELECT now() + (used + $2 * granted) * interval '1 microsecond', granted
			FROM (
				SELECT used, GREATEST(LEAST($4::bigint, ($3::bigint - used) / $2), 0) AS granted
				FROM (
					SELECT (EXTRACT(EPOCH FROM GREATEST(r.full_at - now(), interval '0')) * 1e6)::bigint + $2::bigint * $5 AS used
				) AS u
			) AS g
		)
		RETURNING granted, (EXTRACT(EPOCH FROM full_at - now()) * 1e6)::bigint`
	interval := max(l.Interval.Microseconds(), 1)
	var us int64
	err = db.sql.QueryRow(ctx, sql, l.Bucket, interval, interval*int64(l.Max), l.Want, l.Spent).Scan(&granted, &us)
	if err != nil {
		return 0, 0, fmt.Errorf("lease %d requests of %s: %w", l.Want, l.Bucket, err)
	}
	return granted, time.Duration(us) * time.Microsecond, nil
}

// CleanRequestRates removes buckets that have been full since before, and returns
// how many.
func (db *DB) CleanRequestRates(ctx context.Context, before time.Time) (int64, error) {
	tag, err := db.sql.Exec(ctx, `DELETE FROM request_rates WHERE full_at < $1`, before)
	if err != nil {
		return 0, fmt.Errorf("clean request rates: %w", err)
	}
	return tag.RowsAffected(), nil
}

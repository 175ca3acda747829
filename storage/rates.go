package storage

import (
	"context"
	"fmt"
	"time"
)

// LeastRate is the least rate limit, in requests a second: below it the time of a
// request lies beyond what Postgres can add, or an operator can have meant.
const LeastRate = 0.001

// A RateLease is when its first request may be sent, and what time it was when that
// was decided; both on Postgres's clock.
type RateLease struct{ Start, Now time.Time }

// LeaseRate leases the next n requests of a destination that may have rate of them
// a second, evenly spaced by Postgres's clock. No two leases overlap, whoever holds
// them. A changed rate begins anew. One below [LeastRate] counts as that.
func (db *DB) LeaseRate(ctx context.Context, destinationID string, rate float64, n int) (RateLease, error) {
	const sql = `
		INSERT INTO rate_leases AS l (destination_id, rate, free_at)
		SELECT d.id, $2, clock_timestamp() + $3 * interval '1 microsecond'
		FROM destinations d WHERE d.id = $1
		ON CONFLICT (destination_id) DO UPDATE SET
			rate = EXCLUDED.rate,
			free_at = CASE WHEN l.rate = EXCLUDED.rate THEN GREATEST(l.free_at, clock_timestamp()) ELSE clock_timestamp() END
				+ $3 * interval '1 microsecond'
		RETURNING free_at - $3 * interval '1 microsecond', clock_timestamp()`
	rate = max(rate, LeastRate)
	lasts := int64(float64(n) / rate * 1e6)
	var lease RateLease
	if err := db.sql.QueryRow(ctx, sql, destinationID, rate, lasts).Scan(&lease.Start, &lease.Now); err != nil {
		return RateLease{}, fmt.Errorf("lease %d requests of destination %s: %w", n, destinationID, err)
	}
	return lease, nil
}

package storage

import (
	"context"
	"time"
)

// Clock reads the server's clock, not the start of a transaction.
func (q queries) Clock(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := q.sql.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	return now, err
}

package storage

import (
	"context"
	"fmt"
	"time"
)

// SuspendDestination suspends an active destination for a reason and tells every
// instance. It does nothing, and reports false, when the destination was changed
// since revision: the change may have been the mend.
func (db *DB) SuspendDestination(ctx context.Context, id string, revision int64, reason string) (suspended bool, err error) {
	const sql = `
		UPDATE destinations
		SET status = 'suspended', status_reason = $3, revision = revision + 1, updated_at = now()
		WHERE id = $1 AND revision = $2 AND status = 'active'`
	err = db.InRetriedTx(ctx, func(tx *Tx) error {
		tag, err := tx.sql.Exec(ctx, sql, id, revision, reason)
		if err != nil {
			return fmt.Errorf("suspend destination %s: %w", id, err)
		}
		if suspended = tag.RowsAffected() > 0; !suspended {
			return nil
		}
		return tx.Notify(ctx, ChannelDestinations, id)
	})
	return suspended && err == nil, err
}

// StampDeliveries writes when destinations last accepted a delivery. It is no
// change of the destination: revision and updated_at stay.
func (db *DB) StampDeliveries(ctx context.Context, last map[string]time.Time) error {
	const sql = `
		UPDATE destinations d
		SET last_delivery_at = GREATEST(d.last_delivery_at, w.at)
		FROM (SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) AS u (id, at) ORDER BY id) w
		WHERE d.id = w.id`
	var ids []string
	var times []time.Time
	for id, at := range last {
		ids, times = append(ids, id), append(times, at)
	}
	if _, err := db.sql.Exec(ctx, sql, ids, times); err != nil {
		return fmt.Errorf("stamp %d destinations: %w", len(ids), err)
	}
	return nil
}

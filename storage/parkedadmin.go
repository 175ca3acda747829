package storage

import (
	"context"
	"fmt"
)

// ChannelParked carries the id of a destination whose parked keys an operator
// wants retried or skipped, for [DB.Listen].
const ChannelParked = "parked"

// ParkedKeys lists the parked keys of a destination, live and backfills, in the
// order of partition and key, at most limit of them after the given place (the
// zero ParkedKey for the first page), with how much each has parked.
func ParkedKeys(ctx context.Context, q Querier, destinationID string, after ParkedKey, limit int) ([]ParkedKey, error) {
	const where = `
		WHERE k.destination_id = $1 AND (k.partition, k.record_key, k.replay_id) > ($2, $3, $4::uuid)
		ORDER BY k.partition, k.record_key, k.replay_id
		LIMIT $5`
	partition, replay := after.Partition, after.ReplayID
	if after.Key == "" && replay == "" {
		partition = -1
	}
	if replay == "" {
		replay = LiveReplay
	}
	return queryParkedKeys(ctx, q, "list parked keys of destination "+destinationID, where, destinationID, partition, after.Key, replay, limit)
}

// InspectParkedKey returns the state of a key of a destination, of live and of
// every backfill, and its first records in the order of their delivery, at most
// limit of them each. None when it is not parked.
func InspectParkedKey(ctx context.Context, q Querier, destinationID, key string, limit int) ([]ParkedKey, []ParkedRecord, error) {
	const where = `WHERE k.destination_id = $1 AND k.record_key = $2 ORDER BY k.replay_id, k.partition`
	keys, err := queryParkedKeys(ctx, q, fmt.Sprintf("inspect parked key of destination %s", destinationID), where, destinationID, key)
	if err != nil || len(keys) == 0 {
		return nil, nil, err
	}
	due, limits := make([]DueKey, len(keys)), make([]int, len(keys))
	for i, k := range keys {
		due[i], limits[i] = DueKey{ParkedKey: k}, limit
	}
	loaded, err := LoadParkedRecords(ctx, q, due, limits, 16<<20)
	if err != nil {
		return nil, nil, err
	}
	var records []ParkedRecord
	for _, l := range loaded {
		records = append(records, l...)
	}
	return keys, records, nil
}

func queryParkedKeys(ctx context.Context, q Querier, what, where string, args ...any) ([]ParkedKey, error) {
	sql := `
		SELECT ` + parkedKeyColumns + `, r.records, r.bytes
		FROM parked_keys k
		CROSS JOIN LATERAL (
			SELECT count(*) AS records, COALESCE(sum(octet_length(p.value)), 0) AS bytes
			FROM parked_records p
			WHERE p.destination_id = k.destination_id AND p.replay_id = k.replay_id
			  AND p.partition = k.partition AND p.record_key = k.record_key
		) r ` + where
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var keys []ParkedKey
	for rows.Next() {
		var k ParkedKey
		var failing int64
		if err := rows.Scan(append(k.columns(&failing), &k.Records, &k.Bytes)...); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		k.Failing = milliseconds(failing)
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return keys, nil
}

// ParkedTotals counts what a destination has parked.
func ParkedTotals(ctx context.Context, q Querier, destinationID string) (keys, records int, err error) {
	const sql = `
		SELECT (SELECT count(*) FROM parked_keys WHERE destination_id = $1),
			(SELECT count(*) FROM parked_records WHERE destination_id = $1)`
	if err := q.QueryRow(ctx, sql, destinationID).Scan(&keys, &records); err != nil {
		return 0, 0, fmt.Errorf("count what destination %s has parked: %w", destinationID, err)
	}
	return keys, records, nil
}

// RetryParkedKeys has the next attempt of parked keys made now, of all when keys is
// nil, and returns how many that concerns. Their owners see it at once.
func RetryParkedKeys(ctx context.Context, db *DB, destinationID string, keys []string) (int, error) {
	const sql = `
		UPDATE parked_keys SET next_attempt_at = 'epoch'
		WHERE destination_id = $1 AND ($2::text[] IS NULL OR record_key = ANY ($2))`
	return wishParked(ctx, db, "retry", sql, destinationID, keys)
}

// SkipParkedKeys has the records that are parked now given up, of all keys when
// keys is nil: their owners make dead letters "skipped" of them. It returns how
// many keys that concerns. Records of the keys that come later are delivered.
func SkipParkedKeys(ctx context.Context, db *DB, destinationID string, keys []string) (int, error) {
	const sql = `
		UPDATE parked_keys SET next_attempt_at = 'epoch', skip_before = clock_timestamp()
		WHERE destination_id = $1 AND ($2::text[] IS NULL OR record_key = ANY ($2))`
	return wishParked(ctx, db, "skip", sql, destinationID, keys)
}

// SkipLiveParkedKeys is SkipParkedKeys for all that is parked of live deliveries;
// what backfills have parked stays.
func SkipLiveParkedKeys(ctx context.Context, db *DB, destinationID string) (int, error) {
	const sql = `
		UPDATE parked_keys SET next_attempt_at = 'epoch', skip_before = clock_timestamp()
		WHERE destination_id = $1 AND ($2::text[] IS NULL OR record_key = ANY ($2)) AND replay_id = '` + LiveReplay + `'`
	return wishParked(ctx, db, "skip", sql, destinationID, nil)
}

func wishParked(ctx context.Context, db *DB, what, sql, destinationID string, keys []string) (n int, err error) {
	err = db.InTx(ctx, func(tx *Tx) error {
		tag, err := tx.Exec(ctx, sql, destinationID, keys)
		if err != nil {
			return fmt.Errorf("%s parked keys of destination %s: %w", what, destinationID, err)
		}
		if n = int(tag.RowsAffected()); n == 0 {
			return nil
		}
		return Notify(ctx, tx, ChannelParked, destinationID)
	})
	return n, err
}

package storage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// ChannelParked carries the id of a destination whose parked keys an operator
// wants retried or skipped, for [DB.Listen].
const ChannelParked = "parked"

// ParkedFilter narrows parked keys; zero fields do not.
type ParkedFilter struct {
	Keys      []string
	Reason    string // failing | spilled
	Status    int    // of the last answer
	Error     string // a part of the last error, in any case
	Partition *int32
	ReplayID  string // LiveReplay for the live ones
}

// where is the filter as conditions on parked_keys k, whose destination is $1.
func (f *ParkedFilter) where(destinationID string) (string, []any) {
	conditions, args := []string{"k.destination_id = $1"}, []any{destinationID}
	add := func(condition string, value any, set bool) {
		if set {
			args = append(args, value)
			conditions = append(conditions, fmt.Sprintf(condition, len(args)))
		}
	}
	add("k.record_key = ANY ($%d)", f.Keys, len(f.Keys) > 0)
	add("k.reason = $%d", f.Reason, f.Reason != "")
	add("k.status = $%d", f.Status, f.Status != 0)
	add("strpos(lower(k.error), lower($%d)) > 0", f.Error, f.Error != "")
	add("k.replay_id::text = $%d", f.ReplayID, f.ReplayID != "")
	add("k.partition = $%d", f.Partition, f.Partition != nil)
	return strings.Join(conditions, " AND "), args
}

// WaitingKey is a parked key with what it has parked.
type WaitingKey struct {
	ParkedKey
	Records int
	Bytes   int64 // of their values
	// Since is when the first of its records was parked; Oldest is the one that
	// is delivered next, without its value. Both are nil when an owner removed
	// the last record a moment ago.
	Since  *time.Time
	Oldest *ParkedRecord
}

// parkedPlace is where a page of parked keys ends, in the order of the primary key.
type parkedPlace struct {
	Replay    string
	Partition int32
	Key       string
}

// ParkedKeys returns a page of the parked keys of a destination: the live ones,
// then those of each backfill, in the order of partition and key; and the cursor
// of the next page, "" at the end. What it costs does not grow with how many keys
// are parked, nor with how many records, but for the keys of the page.
func (db *DB) ParkedKeys(ctx context.Context, destinationID string, f ParkedFilter, cursor string, limit int) ([]WaitingKey, string, error) {
	where, args := f.where(destinationID)
	if cursor != "" {
		var p parkedPlace
		if err := readCursor(cursor, &p); err != nil {
			return nil, "", err
		}
		where += afterPlace(&args, p)
	}
	args = append(args, limit+1)
	sql := `
		SELECT ` + parkedKeyColumns + `, r.records, r.bytes, r.since, ` + parkedOldestColumns + `
		FROM (
			SELECT * FROM parked_keys k
			WHERE ` + where + `
			ORDER BY k.destination_id, k.replay_id, k.partition, k.record_key
			LIMIT $` + fmt.Sprint(len(args)) + `
		) k
		CROSS JOIN LATERAL (
			SELECT count(*) AS records, COALESCE(sum(octet_length(p.value)), 0) AS bytes, min(p.parked_at) AS since
			FROM parked_records p
			WHERE p.destination_id = k.destination_id AND p.replay_id = k.replay_id
			  AND p.partition = k.partition AND p.record_key = k.record_key
		) r
		LEFT JOIN LATERAL (
			SELECT * FROM parked_records p
			WHERE p.destination_id = k.destination_id AND p.replay_id = k.replay_id
			  AND p.partition = k.partition AND p.record_key = k.record_key
			ORDER BY p.topic DESC, p."offset"
			LIMIT 1
		) o ON true
		ORDER BY k.replay_id, k.partition, k.record_key`
	what := "list parked keys of destination " + destinationID
	rows, err := db.sql.Query(ctx, sql, args...)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", what, err)
	}
	keys, err := pgx.CollectRows(rows, scanWaitingKey)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", what, err)
	}
	if len(keys) <= limit {
		return keys, "", nil
	}
	keys = keys[:limit]
	last := keys[limit-1]
	next, err := writeCursor(parkedPlace{last.ReplayID, last.Partition, last.Key})
	return keys, next, err
}

const parkedOldestColumns = `o.topic, o."offset", o.append_time, o.record_id, o.record_type, o.occurred_at, o.parked_at`

func scanWaitingKey(row pgx.CollectableRow) (k WaitingKey, err error) {
	var failing int64
	var o struct {
		topic, id, typ               *string
		offset                       *int64
		appended, occurred, parkedAt *time.Time
	}
	err = row.Scan(append(k.columns(&failing), &k.Records, &k.Bytes, &k.Since,
		&o.topic, &o.offset, &o.appended, &o.id, &o.typ, &o.occurred, &o.parkedAt)...)
	k.Failing = milliseconds(failing)
	if err != nil || o.topic == nil {
		return k, err
	}
	k.Oldest = &ParkedRecord{
		ParkedTrack: k.ParkedTrack, Key: k.Key, Topic: *o.topic, Offset: *o.offset, AppendTime: *o.appended,
		RecordID: *o.id, RecordType: *o.typ, ParkedAt: *o.parkedAt,
	}
	if o.occurred != nil {
		k.Oldest.OccurredAt = *o.occurred
	}
	return k, nil
}

// InspectParkedKey returns the state of a key of a destination, of live and of
// every backfill, and its first records in the order of their delivery, at most
// limit of them each. None when it is not parked.
func (db *DB) InspectParkedKey(ctx context.Context, destinationID, key string, limit int) ([]WaitingKey, []ParkedRecord, error) {
	const tracks = 100 // a key has one for live and one for each backfill that met it
	keys, _, err := db.ParkedKeys(ctx, destinationID, ParkedFilter{Keys: []string{key}}, "", tracks)
	if err != nil || len(keys) == 0 {
		return nil, nil, err
	}
	due, limits := make([]DueKey, len(keys)), make([]int, len(keys))
	for i, k := range keys {
		due[i], limits[i] = DueKey{ParkedKey: k.ParkedKey}, limit
	}
	loaded, err := db.LoadParkedRecords(ctx, due, limits, 16<<20)
	if err != nil {
		return nil, nil, err
	}
	var records []ParkedRecord
	for _, l := range loaded {
		records = append(records, l...)
	}
	return keys, records, nil
}

// ParkedTotals counts what a destination has parked.
func (db *DB) ParkedTotals(ctx context.Context, destinationID string) (keys, records int, err error) {
	const sql = `
		SELECT (SELECT count(*) FROM parked_keys WHERE destination_id = $1),
			(SELECT count(*) FROM parked_records WHERE destination_id = $1)`
	if err := db.sql.QueryRow(ctx, sql, destinationID).Scan(&keys, &records); err != nil {
		return 0, 0, fmt.Errorf("count what destination %s has parked: %w", destinationID, err)
	}
	return keys, records, nil
}

// ParkedTotal is how much a destination has parked.
type ParkedTotal struct {
	DestinationID, Destination string
	Keys, Records              int
	NextAttemptAt              time.Time // the first of them
}

// AllParkedTotals counts for every destination that has parked keys, in the order
// of their names.
func (db *DB) AllParkedTotals(ctx context.Context) ([]ParkedTotal, error) {
	const sql = `
		SELECT d.id::text, d.name, k.keys, COALESCE(r.records, 0), k.next
		FROM destinations d
		JOIN (SELECT destination_id, count(*) AS keys, min(next_attempt_at) AS next FROM parked_keys GROUP BY 1) k ON k.destination_id = d.id
		LEFT JOIN (SELECT destination_id, count(*) AS records FROM parked_records GROUP BY 1) r ON r.destination_id = d.id
		ORDER BY d.name`
	rows, err := db.sql.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("count parked keys: %w", err)
	}
	totals, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ParkedTotal])
	if err != nil {
		return nil, fmt.Errorf("count parked keys: %w", err)
	}
	return totals, nil
}

// ParkedWish is what an operator wants done with parked keys.
type ParkedWish struct{ name, set string }

// The wishes.
var (
	// RetryParked has the next attempt made now.
	RetryParked = ParkedWish{"retry", `next_attempt_at = 'epoch'`}
	// SkipParked has what is parked now given up: the owners make dead letters
	// "skipped" of it. Records of the keys that come later are delivered.
	SkipParked = ParkedWish{"skip", `next_attempt_at = 'epoch', skip_before = clock_timestamp()`}
)

// wishedAtOnce bounds the keys of one transaction: owners must not wait long for it.
const wishedAtOnce = 5000

// WishParked notes a wish on a part of the parked keys that match, in the order of
// [DB.ParkedKeys], and tells their owners at once. It returns how many that concerns
// and the cursor of the next part, "" at the end.
func (db *DB) WishParked(ctx context.Context, wish ParkedWish, destinationID string, f ParkedFilter, cursor string) (n int, next string, err error) {
	where, args := f.where(destinationID)
	var last parkedPlace
	if cursor != "" {
		if err := readCursor(cursor, &last); err != nil {
			return 0, "", err
		}
		where += afterPlace(&args, last)
	}
	args = append(args, wishedAtOnce)
	// Locked in the order in which owners write, so that the two wait for each other
	// and never in a circle.
	sql := `
		WITH chosen AS (
			SELECT k.destination_id, k.replay_id, k.partition, k.record_key FROM parked_keys k
			WHERE ` + where + `
			ORDER BY k.destination_id, k.replay_id, k.partition, k.record_key
			LIMIT $` + fmt.Sprint(len(args)) + `
			FOR UPDATE
		), noted AS (
			UPDATE parked_keys k SET ` + wish.set + `
			FROM chosen c
			WHERE k.destination_id = c.destination_id AND k.replay_id = c.replay_id
			  AND k.partition = c.partition AND k.record_key = c.record_key
			RETURNING k.replay_id, k.partition, k.record_key
		)
		SELECT (SELECT count(*) FROM noted), replay_id::text, partition, record_key
		FROM chosen
		ORDER BY chosen.replay_id DESC, chosen.partition DESC, chosen.record_key DESC
		LIMIT 1`
	err = db.InRetriedTx(ctx, func(tx *Tx) error {
		err := tx.sql.QueryRow(ctx, sql, args...).Scan(&n, &last.Replay, &last.Partition, &last.Key)
		if IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s parked keys of destination %s: %w", wish.name, destinationID, err)
		}
		return tx.Notify(ctx, ChannelParked, destinationID)
	})
	if err != nil || n < wishedAtOnce {
		return n, "", err
	}
	next, err = writeCursor(last)
	return n, next, err
}

// afterPlace is the condition that a page goes on behind a place.
func afterPlace(args *[]any, p parkedPlace) string {
	n := len(*args)
	*args = append(*args, p.Replay, p.Partition, p.Key)
	return fmt.Sprintf(" AND (k.replay_id, k.partition, k.record_key) > ($%d::text::uuid, $%d, $%d)", n+1, n+2, n+3)
}

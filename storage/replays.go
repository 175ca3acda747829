package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// ReplayStatus says what becomes of a backfill.
type ReplayStatus string

// The states of a backfill. Finished and cancelled are final.
const (
	ReplayRunning   ReplayStatus = "running"
	ReplayPaused    ReplayStatus = "paused"
	ReplayFinished  ReplayStatus = "finished"
	ReplayCancelled ReplayStatus = "cancelled"
)

// Replay is a backfill of a destination.
type Replay struct {
	ID            string
	DestinationID string
	Status        ReplayStatus
	From, To      string   // as it was asked for
	Types         []string // empty for all that the destination subscribes to
	Keys          []string // empty for all
	Rate          float64  // records a second, 0 for no limit of its own
	Records       int64    // to be sent, by the preview
	OffsetsTotal  int64
	OffsetsDone   int64
	Active        time.Duration // how long it has run, pauses left out
	CreatedAt     time.Time
	EndedAt       *time.Time
	// OpenCursors is how many of its cursors have not reached their end.
	OpenCursors int
	// Parked is how many of its records wait in Postgres, and ParkedKeys of how
	// many contacts.
	Parked, ParkedKeys int
}

// CursorRange is a part of the log, [From, To).
type CursorRange struct {
	Topic     string
	Partition int32
	From, To  int64
	TopicID   uuid.UUID // zero while unknown
}

// CreateReplay writes a running backfill with its cursors; one without ranges is
// finished as it begins. Owners hear of it through ChannelDestinations.
func (tx *Tx) CreateReplay(ctx context.Context, r *Replay, ranges []CursorRange) error {
	const insert = `
		INSERT INTO replays (id, destination_id, status, from_place, to_place, types, keys, rate, records, offsets_total, active_since, ended_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, CASE WHEN $3 <> 'finished' THEN now() END, CASE WHEN $3 = 'finished' THEN now() END)
		RETURNING created_at, ended_at`
	const cursors = `
		INSERT INTO cursors (destination_id, replay_id, topic, partition, position, start_offset, end_offset, topic_id)
		SELECT $1, $2, s.topic, s.partition, s.position, s.position, s.ending, s.topic_id
		FROM unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::uuid[]) AS s (topic, partition, position, ending, topic_id)`
	var topics []string
	var partitions []int32
	var from, to []int64
	var ids []*uuid.UUID
	r.OffsetsTotal = 0
	for _, c := range ranges {
		topics, partitions, from, to = append(topics, c.Topic), append(partitions, c.Partition), append(from, c.From), append(to, c.To)
		ids = append(ids, knownID(c.TopicID))
		r.OffsetsTotal += c.To - c.From
	}
	r.Status, r.OpenCursors = ReplayRunning, len(ranges)
	if len(ranges) == 0 {
		r.Status = ReplayFinished
	}
	types, keys := append([]string{}, r.Types...), append([]string{}, r.Keys...)
	err := tx.sql.QueryRow(ctx, insert, r.ID, r.DestinationID, string(r.Status), r.From, r.To, types, keys, r.Rate, r.Records, r.OffsetsTotal).
		Scan(&r.CreatedAt, &r.EndedAt)
	if err == nil {
		_, err = tx.sql.Exec(ctx, cursors, r.DestinationID, r.ID, topics, partitions, from, to, ids)
	}
	if err != nil {
		return fmt.Errorf("create backfill %s of destination %s: %w", r.ID, r.DestinationID, err)
	}
	return tx.Notify(ctx, ChannelDestinations, r.DestinationID)
}

const selectReplays = `
	SELECT r.id::text, r.destination_id::text, r.status, r.from_place, r.to_place, r.types, r.keys, r.rate, r.records,
	       r.offsets_total, CASE WHEN r.ended_at IS NULL THEN COALESCE(c.done, 0) ELSE r.offsets_done END,
	       r.active_seconds + COALESCE(EXTRACT(EPOCH FROM clock_timestamp() - r.active_since)::double precision, 0),
	       r.created_at, r.ended_at, COALESCE(c.open, 0), p.records, p.keys
	FROM replays r
	CROSS JOIN LATERAL (
		SELECT count(*) AS records, count(DISTINCT (partition, record_key)) AS keys
		FROM parked_records WHERE destination_id = r.destination_id AND replay_id = r.id AND r.ended_at IS NULL
	) p
	LEFT JOIN LATERAL (
		SELECT sum(LEAST(position, end_offset) - start_offset)::bigint AS done,
		       count(*) FILTER (WHERE position < end_offset)::integer AS open
		FROM cursors WHERE replay_id = r.id AND destination_id = r.destination_id AND end_offset IS NOT NULL
	) c ON true `

// ListReplays returns the backfills of a destination, newest first.
func (db *DB) ListReplays(ctx context.Context, destinationID string, limit int) ([]Replay, error) {
	return db.queryReplays(ctx, "list backfills of destination "+destinationID,
		selectReplays+`WHERE r.destination_id = $1 ORDER BY r.created_at DESC, r.id DESC LIMIT $2`, destinationID, limit)
}

// GetReplay returns one backfill of a destination; IsNotFound tells when there is none.
func (db *DB) GetReplay(ctx context.Context, destinationID, id string) (*Replay, error) {
	what := "get backfill " + id
	list, err := db.queryReplays(ctx, what, selectReplays+`WHERE r.destination_id = $1 AND r.id = $2`, destinationID, id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: %w", what, pgx.ErrNoRows)
	}
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// RunningReplays returns the backfills that deliver now, of all destinations.
func (db *DB) RunningReplays(ctx context.Context) ([]Replay, error) {
	return db.queryReplays(ctx, "list running backfills", selectReplays+`WHERE r.status = 'running'`)
}

func (db *DB) queryReplays(ctx context.Context, what, sql string, args ...any) ([]Replay, error) {
	rows, err := db.sql.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Replay, err error) {
		var seconds float64
		err = row.Scan(&r.ID, &r.DestinationID, &r.Status, &r.From, &r.To, &r.Types, &r.Keys, &r.Rate, &r.Records,
			&r.OffsetsTotal, &r.OffsetsDone, &seconds, &r.CreatedAt, &r.EndedAt, &r.OpenCursors,
			&r.Parked, &r.ParkedKeys)
		r.Active = time.Duration(seconds * float64(time.Second))
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return list, nil
}

// SetReplayStatus pauses, resumes or cancels a backfill that has not ended, and
// reports whether it had not. Cancelling removes its cursors and what it has
// parked: nothing more of it is delivered once the owners have heard.
func (tx *Tx) SetReplayStatus(ctx context.Context, destinationID, id string, status ReplayStatus) (changed bool, err error) {
	const sql = `
		UPDATE replays r
		SET status = $3, updated_at = now(),
		    active_seconds = active_seconds + COALESCE(EXTRACT(EPOCH FROM now() - active_since), 0),
		    active_since = CASE WHEN $3 = 'running' THEN now() END,
		    ended_at = CASE WHEN $3 = 'cancelled' THEN now() END,
		    offsets_done = CASE WHEN $3 = 'cancelled' THEN COALESCE((
		        SELECT sum(LEAST(position, end_offset) - start_offset) FROM cursors
		        WHERE replay_id = r.id AND destination_id = r.destination_id AND end_offset IS NOT NULL), 0) ELSE 0 END
		WHERE destination_id = $1 AND id = $2 AND ended_at IS NULL`
	tag, err := tx.sql.Exec(ctx, sql, destinationID, id, string(status))
	if err == nil && status == ReplayCancelled && tag.RowsAffected() > 0 {
		// Cursors first: a flush that parks more holds them, or finds them gone.
		for _, table := range []string{"cursors", "parked_records", "parked_keys"} {
			if err == nil {
				_, err = tx.sql.Exec(ctx, `DELETE FROM `+table+` WHERE destination_id = $1 AND replay_id = $2`, destinationID, id)
			}
		}
	}
	if err != nil {
		return false, fmt.Errorf("set backfill %s to %s: %w", id, status, err)
	}
	if tag.RowsAffected() == 0 {
		return false, nil
	}
	return true, tx.Notify(ctx, ChannelDestinations, destinationID)
}

// FinishReplays ends the running backfills all of whose cursors have reached
// their ends and that have nothing parked, and returns their ids. It may be called
// by many at once.
func (db *DB) FinishReplays(ctx context.Context) ([]string, error) {
	const sql = `
		WITH ended AS (
			UPDATE replays r
			SET status = 'finished', offsets_done = offsets_total, updated_at = now(), ended_at = now(), active_since = NULL,
			    active_seconds = active_seconds + COALESCE(EXTRACT(EPOCH FROM now() - active_since), 0)
			WHERE status = 'running' AND NOT EXISTS (
				SELECT 1 FROM cursors c
				WHERE c.replay_id = r.id AND c.destination_id = r.destination_id AND c.position < c.end_offset)
			  AND NOT EXISTS (SELECT FROM parked_records p WHERE p.destination_id = r.destination_id AND p.replay_id = r.id)
			RETURNING r.id, r.destination_id
		), gone AS (
			DELETE FROM cursors c USING ended e
			WHERE c.replay_id = e.id AND c.destination_id = e.destination_id
		), rest AS (
			DELETE FROM parked_keys k USING ended e
			WHERE k.replay_id = e.id AND k.destination_id = e.destination_id
		)
		SELECT id::text FROM ended`
	rows, err := db.sql.Query(ctx, sql)
	if err != nil {
		return nil, fmt.Errorf("finish backfills: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("finish backfills: %w", err)
	}
	return ids, nil
}

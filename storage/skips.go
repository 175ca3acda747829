package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// A rewind forward leaves out what is open before its target. That is kept as a skip
// for each cursor: where the cursor stood, under the epoch that it had, up to the
// target. What the owner still finishes of that epoch is written to the skip, so only
// what nobody was sent is left in it; the owner then makes dead letters of the rest.
// Parked records before the target have the skip's id as their replay id.

// Skip is what a rewind forward left out on one partition of one topic.
type Skip struct {
	ID            string
	DestinationID string
	Destination   string // its name
	Topic         string
	Partition     int32
	Epoch         int64  // of the live cursor before the rewind
	Position      int64  // everything below is finished
	Finished      []byte // as in Cursor
	EndOffset     int64  // exclusive
	EventTypes    []string
	TopicID       *uuid.UUID // of the log that this is a part of; nil while unknown
	// Refused, of topic outbox, is why what is open is refused: its destination was deleted, or
	// ceased to read the topic. Empty for what becomes dead letters.
	Refused string
}

// LockCursors locks the live cursors of a destination until tx ends and returns them.
func (tx *Tx) LockCursors(ctx context.Context, destinationID string) ([]Cursor, error) {
	const sql = `
		SELECT topic, partition, position, epoch FROM cursors
		WHERE destination_id = $1 AND replay_id = $2
		ORDER BY topic, partition
		FOR UPDATE`
	rows, err := tx.sql.Query(ctx, sql, destinationID, LiveReplay)
	if err != nil {
		return nil, fmt.Errorf("lock cursors of destination %s: %w", destinationID, err)
	}
	cursors, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Cursor, error) {
		c := Cursor{DestinationID: destinationID, ReplayID: LiveReplay}
		err := row.Scan(&c.Topic, &c.Partition, &c.Position, &c.Epoch)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("lock cursors of destination %s: %w", destinationID, err)
	}
	return cursors, nil
}

// skipUndelivered keeps what is open before the places that live cursors are about
// to be set to: of those that go forward, or stay where they are; at the very start of a
// log nothing is before. The cursors are locked.
func (tx *Tx) skipUndelivered(ctx context.Context, destinationID string, to []CursorStart) error {
	const insert = `
		INSERT INTO skips (id, destination_id, topic, partition, epoch, position, finished, end_offset, event_types, topic_id)
		SELECT gen_random_uuid(), c.destination_id, c.topic, c.partition, c.epoch, c.position, c.finished, s.position, d.event_types, c.topic_id
		FROM cursors c
		JOIN destinations d ON d.id = c.destination_id
		JOIN unnest($2::text[], $3::integer[], $4::bigint[]) AS s (topic, partition, position)
		  ON s.topic = c.topic AND s.partition = c.partition
		WHERE c.destination_id = $1 AND c.replay_id = $5
		  AND (c.position < s.position OR c.position = s.position AND s.position > 0 AND EXISTS (
			SELECT FROM parked_records r WHERE r.destination_id = $1 AND r.replay_id = $5 AND r.partition = s.partition
			  AND r.topic = s.topic AND r."offset" < s.position))`
	const parked = `
		UPDATE parked_records r SET replay_id = k.id
		FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS s (topic, partition, position)
		JOIN cursors c ON c.destination_id = $1 AND c.replay_id = $5 AND c.topic = s.topic AND c.partition = s.partition
		JOIN skips k ON k.destination_id = $1 AND k.topic = c.topic AND k.partition = c.partition AND k.epoch = c.epoch
		WHERE r.destination_id = $1 AND r.replay_id = $5 AND r.partition = k.partition
		  AND r.topic = k.topic AND r."offset" < k.end_offset`
	topics, partitions, offsets, _ := splitStarts(to)
	_, err := tx.sql.Exec(ctx, insert, destinationID, topics, partitions, offsets, LiveReplay)
	if err == nil {
		_, err = tx.sql.Exec(ctx, parked, destinationID, topics, partitions, offsets, LiveReplay)
	}
	if err != nil {
		return fmt.Errorf("keep what destination %s was not sent: %w", destinationID, err)
	}
	return nil
}

// CountSkipped counts the parked records that a rewind to the given places would
// leave out.
func (db *DB) CountSkipped(ctx context.Context, destinationID string, to []CursorStart) (int64, error) {
	const sql = `
		SELECT count(*)
		FROM unnest($2::text[], $3::integer[], $4::bigint[], $6::uuid[]) AS s (topic, partition, position, topic_id)
		JOIN cursors c ON c.destination_id = $1 AND c.replay_id = $5 AND c.topic = s.topic AND c.partition = s.partition
		JOIN parked_records r ON r.destination_id = $1 AND r.replay_id = $5 AND r.partition = s.partition AND r.topic = s.topic
		WHERE s.position > 0 AND ((c.topic_id <> s.topic_id) IS TRUE OR c.position <= s.position AND r."offset" < s.position)`
	topics, partitions, offsets, ids := splitStarts(to)
	var n int64
	if err := db.sql.QueryRow(ctx, sql, destinationID, topics, partitions, offsets, LiveReplay, ids).Scan(&n); err != nil {
		return 0, fmt.Errorf("count what destination %s has parked: %w", destinationID, err)
	}
	return n, nil
}

// LoadSkips returns the skips on partition numbers, the oldest first.
func (db *DB) LoadSkips(ctx context.Context, partitions []int32) ([]Skip, error) {
	return db.querySkips(ctx, "load skips", `WHERE k.partition = ANY ($1)`, partitions)
}

// GetSkip returns a skip, nil when it is through.
func (db *DB) GetSkip(ctx context.Context, id string) (*Skip, error) {
	list, err := db.querySkips(ctx, "get skip "+id, `WHERE k.id = $1`, id)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func (db *DB) querySkips(ctx context.Context, what, where string, arg any) ([]Skip, error) {
	sql := `
		SELECT k.id::text, k.destination_id::text, COALESCE(k.destination, d.name), k.topic, k.partition, k.epoch, k.position, k.finished, k.end_offset,
			k.event_types, k.topic_id, COALESCE(k.refused, '')
		FROM skips k
		LEFT JOIN destinations d ON d.id = k.destination_id ` + where + ` AND (d.id IS NOT NULL OR k.refused IS NOT NULL)
		ORDER BY k.created_at, k.id`
	rows, err := db.sql.Query(ctx, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Skip])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return list, nil
}

// MoveSkip writes how far a skip is. The caller holds the lease of its partition.
func (tx *Tx) MoveSkip(ctx context.Context, k *Skip) error {
	const sql = `UPDATE skips SET position = $2, finished = $3 WHERE id = $1`
	if _, err := tx.sql.Exec(ctx, sql, k.ID, k.Position, k.Finished); err != nil {
		return fmt.Errorf("move skip %s: %w", k.ID, err)
	}
	return nil
}

// SkippedParked returns some of the parked records that a skip leaves out, in the
// order of their delivery: at most limit, and beyond the first at most maxBytes.
func (db *DB) SkippedParked(ctx context.Context, k *Skip, limit, maxBytes int) ([]ParkedRecord, error) {
	const sql = `
		SELECT r.record_key, ` + parkedRecordColumns + `
		FROM (
			SELECT f.*, sum(octet_length(f.value)) OVER (ORDER BY f.record_key, f.topic DESC, f."offset") AS upto
			FROM (
				SELECT * FROM parked_records p
				WHERE p.destination_id = $1 AND p.replay_id = $2 AND p.partition = $3
				ORDER BY p.record_key, p.topic DESC, p."offset"
				LIMIT $4
			) f
		) r
		WHERE COALESCE(r.upto - octet_length(r.value), 0) < $5
		ORDER BY r.record_key, r.topic DESC, r."offset"`
	rows, err := db.sql.Query(ctx, sql, k.DestinationID, k.ID, k.Partition, limit, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("load what skip %s has parked: %w", k.ID, err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r ParkedRecord, err error) {
		var occurred *time.Time
		var since int64
		r.ParkedTrack = ParkedTrack{k.DestinationID, k.ID, k.Partition}
		err = row.Scan(append([]any{&r.Key}, r.columns(&occurred, &since)...)...)
		r.fill(occurred, since)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("load what skip %s has parked: %w", k.ID, err)
	}
	return records, nil
}

// EndSkip removes a skip that is through. The caller holds the lease of its partition.
func (tx *Tx) EndSkip(ctx context.Context, id string) error {
	if _, err := tx.sql.Exec(ctx, `DELETE FROM skips WHERE id = $1`, id); err != nil {
		return fmt.Errorf("end skip %s: %w", id, err)
	}
	return nil
}

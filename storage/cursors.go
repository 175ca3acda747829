package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// ChannelDestinations carries the id of a destination that was created, changed,
// deleted or rewound, for [DB.Listen].
const ChannelDestinations = "destinations"

// LiveReplay is the replay id of the live cursors of a destination.
const LiveReplay = "00000000-0000-0000-0000-000000000000"

// Cursor is where a destination, or a backfill of it, stands on one partition of
// one topic.
type Cursor struct {
	DestinationID string
	ReplayID      string // LiveReplay for the live one
	Topic         string
	Partition     int32
	Position      int64  // everything below is finished
	Finished      []byte // ranges finished beyond it, as package stream packs them
	EndOffset     *int64 // a backfill ends here, exclusive
	Epoch         int64  // grows with each rewind
	Parked        bool   // of a backfill: it has parked records of this partition number
	// TopicID is the topic's, of which Position is an offset; zero while unknown.
	TopicID uuid.UUID
}

// CursorStart is a place to start from.
type CursorStart struct {
	Topic     string
	Partition int32
	Offset    int64
	TopicID   uuid.UUID // of the log that Offset is on; zero while unknown
}

// CreateCursors makes the live cursors of a destination at the given places; on topic outbox
// where its place stands, at the start without one: what came before was refused. Cursors that
// exist stay as they are.
func (q queries) CreateCursors(ctx context.Context, destinationID string, starts []CursorStart) error {
	const sql = `
		INSERT INTO cursors (destination_id, topic, partition, position, topic_id, epoch)
		SELECT $1, s.topic, s.partition, CASE WHEN s.topic = $6 THEN COALESCE(p.position, 0) ELSE s.position END, s.topic_id,
			1 + COALESCE((SELECT max(k.epoch) FROM skips k WHERE k.destination_id = $1 AND k.topic = s.topic AND k.partition = s.partition), 0)
		FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::uuid[]) AS s (topic, partition, position, topic_id)
		LEFT JOIN outbox_places p ON p.partition = s.partition
		ORDER BY s.topic, s.partition
		ON CONFLICT DO NOTHING`
	topics, partitions, offsets, ids := splitStarts(starts)
	if slices.Contains(topics, topicOutbox) {
		if err := q.shareOutboxPlaces(ctx); err != nil {
			return err
		}
	}
	if _, err := q.sql.Exec(ctx, sql, destinationID, topics, partitions, offsets, ids, topicOutbox); err != nil {
		return fmt.Errorf("create cursors of destination %s: %w", destinationID, err)
	}
	return nil
}

// DeleteCursors removes the live cursors of a destination on a topic that it no
// longer subscribes to, and what it has parked of it; subscribing again starts at the
// end. What it leaves open on topic outbox is refused.
func (tx *Tx) DeleteCursors(ctx context.Context, destinationID, topic string) error {
	if topic == topicOutbox {
		if err := tx.refuseOutbox(ctx, destinationID, "the destination takes no outbox records any more"); err != nil {
			return err
		}
	}
	const sql = `DELETE FROM cursors WHERE destination_id = $1 AND replay_id = $2 AND topic = $3`
	const records = `DELETE FROM parked_records WHERE destination_id = $1 AND replay_id = $2 AND topic = $3`
	_, err := tx.sql.Exec(ctx, sql, destinationID, LiveReplay, topic)
	if err == nil {
		_, err = tx.sql.Exec(ctx, records, destinationID, LiveReplay, topic)
	}
	if err == nil {
		_, err = tx.sql.Exec(ctx, removeEmptyKeys, destinationID, LiveReplay)
	}
	if err != nil {
		return fmt.Errorf("delete cursors of destination %s on %s: %w", destinationID, topic, err)
	}
	return nil
}

func splitStarts(starts []CursorStart) (topics []string, partitions []int32, offsets []int64, ids []*uuid.UUID) {
	for _, s := range starts {
		topics, partitions, offsets, ids = append(topics, s.Topic), append(partitions, s.Partition), append(offsets, s.Offset), append(ids, knownID(s.TopicID))
	}
	return topics, partitions, offsets, ids
}

// knownID is a topic's id as a column has it: nil for one that is not known.
func knownID(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// LoadCursors returns the cursors of all destinations on partition numbers.
func (db *DB) LoadCursors(ctx context.Context, partitions []int32) ([]Cursor, error) {
	const where = `WHERE partition = ANY ($1)`
	return db.queryCursors(ctx, fmt.Sprintf("load cursors of partitions %v", partitions), where, partitions)
}

// DestinationCursors returns the cursors of destinations, live and backfills: with
// the ends of the topics, their lag.
func (db *DB) DestinationCursors(ctx context.Context, ids ...string) ([]Cursor, error) {
	const where = `WHERE destination_id = ANY ($1::uuid[])`
	return db.queryCursors(ctx, fmt.Sprintf("load cursors of %d destinations", len(ids)), where, ids)
}

func (db *DB) queryCursors(ctx context.Context, what, where string, arg any) ([]Cursor, error) {
	sql := `
		SELECT destination_id::text, replay_id::text, topic, partition, position, finished, end_offset, epoch,
		       end_offset IS NOT NULL AND EXISTS (SELECT FROM parked_records r WHERE r.destination_id = c.destination_id
		           AND r.replay_id = c.replay_id AND r.partition = c.partition),
		       topic_id
		FROM cursors c ` + where + `
		ORDER BY destination_id, replay_id, topic, partition`
	rows, err := db.sql.Query(ctx, sql, arg)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer rows.Close()
	var cursors []Cursor
	for rows.Next() {
		var c Cursor
		var id *uuid.UUID
		if err := rows.Scan(&c.DestinationID, &c.ReplayID, &c.Topic, &c.Partition, &c.Position, &c.Finished, &c.EndOffset, &c.Epoch, &c.Parked, &id); err != nil {
			return nil, fmt.Errorf("scan cursor: %w", err)
		}
		if id != nil {
			c.TopicID = *id
		}
		cursors = append(cursors, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return cursors, nil
}

// SaveCursors writes position, finished ranges and topic id of cursors whose epoch is
// still the one given, and returns how many those were: a rewind that came in between
// wins, and a cursor that was deleted stays away. What was finished before a rewind
// forward is taken out of what that leaves out. The caller holds the leases of all
// partitions concerned.
func (tx *Tx) SaveCursors(ctx context.Context, cursors []Cursor) (saved int, err error) {
	const sql = `
		UPDATE cursors c
		SET position = w.position, finished = w.finished, topic_id = COALESCE(w.topic_id, c.topic_id), updated_at = now()
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::bigint[], $6::bytea[], $7::bigint[], $8::uuid[])
		  AS w (destination_id, replay_id, topic, partition, position, finished, epoch, topic_id)
		WHERE c.destination_id = w.destination_id AND c.replay_id = w.replay_id
		  AND c.topic = w.topic AND c.partition = w.partition AND c.epoch = w.epoch`
	const skipped = `
		UPDATE skips k
		SET position = w.position, finished = w.finished
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::bigint[], $6::bytea[], $7::bigint[], $9::uuid[])
		  AS w (destination_id, replay_id, topic, partition, position, finished, epoch, topic_id)
		WHERE k.destination_id = w.destination_id AND w.replay_id = $8 AND (k.topic_id <> w.topic_id) IS NOT TRUE
		  AND k.topic = w.topic AND k.partition = w.partition AND k.epoch = w.epoch`
	n := len(cursors)
	destinations, replays, topics := make([]string, n), make([]string, n), make([]string, n)
	partitions, positions, finished, epochs := make([]int32, n), make([]int64, n), make([][]byte, n), make([]int64, n)
	ids := make([]*uuid.UUID, n)
	for i, c := range cursors {
		destinations[i], replays[i], topics[i], partitions[i] = c.DestinationID, c.ReplayID, c.Topic, c.Partition
		positions[i], finished[i], epochs[i], ids[i] = c.Position, c.Finished, c.Epoch, knownID(c.TopicID)
	}
	tag, err := tx.sql.Exec(ctx, sql, destinations, replays, topics, partitions, positions, finished, epochs, ids)
	saved = int(tag.RowsAffected())
	if err == nil && saved < n {
		_, err = tx.sql.Exec(ctx, skipped, destinations, replays, topics, partitions, positions, finished, epochs, LiveReplay, ids)
	}
	if err != nil {
		return 0, fmt.Errorf("save %d cursors: %w", n, err)
	}
	return saved, nil
}

// RewindCursors sets live cursors of a destination, back or forward, under the
// next epoch: what is finished beyond is forgotten, parked records at or beyond
// the place are removed, and whatever the owner still writes of the old epoch is
// refused. What a cursor that goes forward leaves out is kept as a [Skip]. A place
// whose topic id is not known leaves the cursor's. A cursor of another log has all of
// the new one before it, and what it has parked stays, before all of that: it cannot be
// read again. Owners see it through ChannelDestinations.
func (tx *Tx) RewindCursors(ctx context.Context, destinationID string, to []CursorStart) error {
	const sql = `
		UPDATE cursors c
		SET position = s.position, finished = '', epoch = c.epoch + 1, topic_id = COALESCE(s.topic_id, c.topic_id), updated_at = now()
		FROM unnest($2::text[], $3::integer[], $4::bigint[], $6::uuid[]) AS s (topic, partition, position, topic_id)
		WHERE c.destination_id = $1 AND c.replay_id = $5 AND c.topic = s.topic AND c.partition = s.partition`
	if _, err := tx.LockCursors(ctx, destinationID); err != nil {
		return err
	}
	if err := tx.changeLogs(ctx, destinationID, to); err != nil {
		return err
	}
	if err := tx.skipUndelivered(ctx, destinationID, to); err != nil {
		return err
	}
	topics, partitions, offsets, ids := splitStarts(to)
	if _, err := tx.sql.Exec(ctx, sql, destinationID, topics, partitions, offsets, LiveReplay, ids); err != nil {
		return fmt.Errorf("rewind destination %s: %w", destinationID, err)
	}
	if err := tx.removeRewound(ctx, destinationID, to); err != nil {
		return err
	}
	return tx.Notify(ctx, ChannelDestinations, destinationID)
}

// changeLogs puts live cursors that are to be set to a place on another log at the start
// of that one, and what they have parked before it.
func (tx *Tx) changeLogs(ctx context.Context, destinationID string, to []CursorStart) error {
	const parked = `
		UPDATE parked_records r
		SET "offset" = r."offset" - 281474976710656 -- 2^48: no log is that long
		FROM unnest($2::text[], $3::integer[], $4::uuid[]) AS s (topic, partition, topic_id)
		JOIN cursors c ON c.destination_id = $1 AND c.replay_id = $5 AND c.topic = s.topic AND c.partition = s.partition
		WHERE c.topic_id <> s.topic_id
		  AND r.destination_id = $1 AND r.replay_id = $5 AND r.topic = s.topic AND r.partition = s.partition`
	const start = `
		UPDATE cursors c
		SET position = 0, finished = '', topic_id = s.topic_id
		FROM unnest($2::text[], $3::integer[], $4::uuid[]) AS s (topic, partition, topic_id)
		WHERE c.destination_id = $1 AND c.replay_id = $5 AND c.topic = s.topic AND c.partition = s.partition AND c.topic_id <> s.topic_id`
	topics, partitions, _, ids := splitStarts(to)
	for _, sql := range []string{parked, start} {
		if _, err := tx.sql.Exec(ctx, sql, destinationID, topics, partitions, ids, LiveReplay); err != nil {
			return fmt.Errorf("put destination %s on another log: %w", destinationID, err)
		}
	}
	return nil
}

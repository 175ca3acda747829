package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Topic outbox is read by destinations with cursors as other topics are. Beside them there is
// a place for each partition, below which every record is some destination's or was refused.
// A destination's cursor begins at that place and ends at it, so there is no record between
// the two that nobody answers for.

const topicOutbox = "outbox"

// ChannelCancelled carries the ids of outbox records that were taken back, parted by blanks,
// for [DB.Listen]; or nothing, when there are so many that they are to be read.
const ChannelCancelled = "outbox_cancelled"

// CancelOutbox takes outbox records back, by their ids: what was not sent by the time at which
// those who deliver hear of it is not sent any more. A record that ended before stays as it is.
func (tx *Tx) CancelOutbox(ctx context.Context, ids []string) error {
	const sql = `
		WITH cancelled AS (
			INSERT INTO outbox_cancels (record_id) SELECT DISTINCT n::uuid FROM unnest($2::text[]) AS n ORDER BY 1
			ON CONFLICT (record_id) DO NOTHING
			RETURNING record_id)
		SELECT pg_notify(` + channelSQL + `, CASE WHEN count(*) <= $3 THEN string_agg(record_id::text, ' ') ELSE '' END)
		FROM cancelled
		HAVING count(*) > 0`
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.sql.Exec(ctx, sql, ChannelCancelled, ids, erasedNamed); err != nil {
		return fmt.Errorf("cancel %d outbox records: %w", len(ids), err)
	}
	return nil
}

// EachCancelled calls fn with the id of every outbox record that was taken back at since or
// later and has not ended, and when by Postgres's clock; as [DB.EachErased].
func (db *DB) EachCancelled(ctx context.Context, since time.Time, fn func(id uuid.UUID, at time.Time)) error {
	rows, err := db.sql.Query(ctx, `SELECT record_id, cancelled_at FROM outbox_cancels WHERE cancelled_at >= $1`, since)
	if err != nil {
		return fmt.Errorf("read cancelled outbox records: %w", err)
	}
	var id uuid.UUID
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { fn(id, at); return nil }); err != nil {
		return fmt.Errorf("read cancelled outbox records: %w", err)
	}
	return nil
}

// EndCancels forgets that outbox records were taken back, for they have ended.
func (tx *Tx) EndCancels(ctx context.Context, ids []string) error {
	if _, err := tx.sql.Exec(ctx, `DELETE FROM outbox_cancels WHERE record_id = ANY ($1::text[]::uuid[])`, ids); err != nil {
		return fmt.Errorf("end %d cancelled outbox records: %w", len(ids), err)
	}
	return nil
}

// CleanOutbox removes notes that records were taken back whose records had ended before, at
// most limit of those made before an instant, and what was parked of destinations that a
// process of an earlier version deleted. It returns how many notes went.
func (db *DB) CleanOutbox(ctx context.Context, before time.Time, limit int) (int64, error) {
	const cancels = `
		DELETE FROM outbox_cancels WHERE record_id IN (
			SELECT record_id FROM outbox_cancels WHERE cancelled_at < $1 ORDER BY cancelled_at LIMIT $2)`
	const parked = `
		WITH RECURSIVE ids AS (
			(SELECT destination_id FROM parked_records ORDER BY destination_id LIMIT 1)
			UNION ALL
			SELECT (SELECT p.destination_id FROM parked_records p WHERE p.destination_id > ids.destination_id ORDER BY p.destination_id LIMIT 1)
			FROM ids WHERE ids.destination_id IS NOT NULL)
		DELETE FROM parked_records r
		USING ids
		WHERE r.destination_id = ids.destination_id AND NOT EXISTS (SELECT FROM destinations d WHERE d.id = ids.destination_id)
		  AND NOT EXISTS (SELECT FROM skips k WHERE k.id = r.replay_id)`
	const skips = `
		DELETE FROM skips k WHERE refused IS NULL AND NOT EXISTS (SELECT FROM destinations d WHERE d.id = k.destination_id)`
	tag, err := db.sql.Exec(ctx, cancels, before, limit)
	gone := tag.RowsAffected()
	for _, sql := range []string{parked, skips} {
		if err == nil {
			_, err = db.sql.Exec(ctx, sql)
		}
	}
	if err != nil {
		return gone, fmt.Errorf("clean what is left of outbox records: %w", err)
	}
	return gone, nil
}

// OutboxPlace is a place on a partition of topic outbox, below which every record is some
// destination's or was refused.
type OutboxPlace struct {
	Partition int32
	Position  int64
	TopicID   uuid.UUID // zero while unknown
}

// OutboxPlaces returns the places on partitions; those that there are none of yet are left out.
func (db *DB) OutboxPlaces(ctx context.Context, partitions []int32) ([]OutboxPlace, error) {
	rows, err := db.sql.Query(ctx, `SELECT partition, position, COALESCE(topic_id, '00000000-0000-0000-0000-000000000000') FROM outbox_places WHERE partition = ANY ($1)`, partitions)
	if err != nil {
		return nil, fmt.Errorf("load places on topic outbox: %w", err)
	}
	places, err := pgx.CollectRows(rows, pgx.RowToStructByPos[OutboxPlace])
	if err != nil {
		return nil, fmt.Errorf("load places on topic outbox: %w", err)
	}
	return places, nil
}

// BeginOutboxPlaces makes the places of partitions that have none.
func (db *DB) BeginOutboxPlaces(ctx context.Context, places []OutboxPlace) error {
	const sql = `
		INSERT INTO outbox_places (partition, position, topic_id)
		SELECT * FROM unnest($1::integer[], $2::bigint[], $3::uuid[]) ORDER BY 1
		ON CONFLICT (partition) DO NOTHING`
	partitions, positions, ids := splitPlaces(places)
	if _, err := db.sql.Exec(ctx, sql, partitions, positions, ids); err != nil {
		return fmt.Errorf("begin places on topic outbox: %w", err)
	}
	return nil
}

func splitPlaces(places []OutboxPlace) (partitions []int32, positions []int64, ids []*uuid.UUID) {
	for _, p := range places {
		partitions, positions, ids = append(partitions, p.Partition), append(positions, p.Position), append(ids, knownID(p.TopicID))
	}
	return partitions, positions, ids
}

// OutboxReader is a destination, by what stands in a record, that is asked for on a partition.
type OutboxReader struct {
	Partition   int32
	Destination string
}

// LockOutboxPlaces locks the places on partitions until tx ends, so that no cursor on the
// topic begins or ends meanwhile.
func (tx *Tx) LockOutboxPlaces(ctx context.Context, partitions []int32) error {
	_, err := tx.sql.Exec(ctx, `SELECT FROM outbox_places WHERE partition = ANY ($1) ORDER BY partition FOR UPDATE`, partitions)
	if err != nil {
		return fmt.Errorf("lock places on topic outbox: %w", err)
	}
	return nil
}

// UnreadOutbox says which destinations have no cursor on their partition of topic outbox: what
// is addressed to them from the place on is nobody's. The places are locked.
func (tx *Tx) UnreadOutbox(ctx context.Context, asked []OutboxReader) ([]OutboxReader, error) {
	const sql = `
		SELECT a.partition, a.destination
		FROM unnest($1::integer[], $2::text[]) AS a (partition, destination)
		WHERE NOT EXISTS (SELECT FROM cursors c WHERE c.partition = a.partition AND c.destination_id::text = a.destination
			AND c.topic = $3 AND c.replay_id = $4)`
	partitions, destinations := make([]int32, len(asked)), make([]string, len(asked))
	for i, a := range asked {
		partitions[i], destinations[i] = a.Partition, a.Destination
	}
	rows, err := tx.sql.Query(ctx, sql, partitions, destinations, topicOutbox, LiveReplay)
	if err != nil {
		return nil, fmt.Errorf("look who reads topic outbox: %w", err)
	}
	unread, err := pgx.CollectRows(rows, pgx.RowToStructByPos[OutboxReader])
	if err != nil {
		return nil, fmt.Errorf("look who reads topic outbox: %w", err)
	}
	return unread, nil
}

// MoveOutboxPlaces writes places. They are locked, and the caller has the leases.
func (tx *Tx) MoveOutboxPlaces(ctx context.Context, places []OutboxPlace) error {
	const sql = `
		UPDATE outbox_places p SET position = w.position, topic_id = COALESCE(w.topic_id, p.topic_id), updated_at = now()
		FROM unnest($1::integer[], $2::bigint[], $3::uuid[]) AS w (partition, position, topic_id)
		WHERE p.partition = w.partition`
	partitions, positions, ids := splitPlaces(places)
	if _, err := tx.sql.Exec(ctx, sql, partitions, positions, ids); err != nil {
		return fmt.Errorf("move places on topic outbox: %w", err)
	}
	return nil
}

// shareOutboxPlaces keeps the places where they are until the transaction ends.
func (q queries) shareOutboxPlaces(ctx context.Context) error {
	if _, err := q.sql.Exec(ctx, `SELECT FROM outbox_places ORDER BY partition FOR SHARE`); err != nil {
		return fmt.Errorf("hold places on topic outbox: %w", err)
	}
	return nil
}

// refuseOutbox ends the live cursors of a destination on topic outbox where the places stand:
// what is open before is kept as skips that refuse for a reason, what comes after is nobody's.
func (tx *Tx) refuseOutbox(ctx context.Context, destinationID, reason string) error {
	const insert = `
		INSERT INTO skips (id, destination_id, topic, partition, epoch, position, finished, end_offset, event_types, topic_id, refused, destination)
		SELECT gen_random_uuid(), c.destination_id, c.topic, c.partition, c.epoch, c.position, c.finished, COALESCE(p.position, c.position), d.event_types,
			c.topic_id, $4, d.name
		FROM cursors c
		JOIN destinations d ON d.id = c.destination_id
		LEFT JOIN outbox_places p ON p.partition = c.partition
		WHERE c.destination_id = $1 AND c.replay_id = $2 AND c.topic = $3`
	const parked = `
		UPDATE parked_records r SET replay_id = k.id
		FROM skips k
		WHERE k.destination_id = $1 AND k.topic = $3 AND k.refused IS NOT NULL
		  AND r.destination_id = k.destination_id AND r.replay_id = $2 AND r.partition = k.partition AND r.topic = k.topic`
	const cursors = `DELETE FROM cursors WHERE destination_id = $1 AND replay_id = $2 AND topic = $3`
	err := tx.shareOutboxPlaces(ctx)
	if err == nil {
		_, err = tx.LockCursors(ctx, destinationID)
	}
	if err == nil {
		_, err = tx.sql.Exec(ctx, insert, destinationID, LiveReplay, topicOutbox, reason)
	}
	for _, sql := range []string{parked, cursors} {
		if err == nil {
			_, err = tx.sql.Exec(ctx, sql, destinationID, LiveReplay, topicOutbox)
		}
	}
	if err != nil {
		return fmt.Errorf("refuse what destination %s leaves open on topic outbox: %w", destinationID, err)
	}
	return nil
}

// EndedParked returns parked outbox records of live tracks that are not to be sent any more:
// those that are too late by now, that were taken back, or whose contact was erased. At most
// limit of them.
func (db *DB) EndedParked(ctx context.Context, tracks []ParkedTrack, now time.Time, limit int) ([]ParkedRecord, error) {
	const sql = `
		WITH ended AS (
			SELECT r.ctid FROM parked_records r WHERE r.partition = ANY ($3::integer[]) AND r.not_after <= $4
			UNION
			SELECT r.ctid FROM outbox_cancels c JOIN parked_records r ON r.record_id = c.record_id::text AND r.not_after IS NOT NULL
			UNION
			SELECT r.ctid FROM erased_contacts e JOIN parked_records r ON r.record_key = e.contact_id::text AND r.not_after IS NOT NULL
			WHERE e.cleared_at IS NULL)
		SELECT r.destination_id::text, r.replay_id::text, r.partition, r.record_key, ` + parkedRecordColumns + `
		FROM ended
		JOIN parked_records r ON r.ctid = ended.ctid
		WHERE EXISTS (SELECT FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS t (destination_id, replay_id, partition)
			WHERE t.destination_id = r.destination_id AND t.replay_id = r.replay_id AND t.partition = r.partition)
		LIMIT $5`
	destinations, replays, partitions := splitTracks(len(tracks), func(i int) ParkedTrack { return tracks[i] })
	rows, err := db.sql.Query(ctx, sql, destinations, replays, partitions, now, limit)
	if err != nil {
		return nil, fmt.Errorf("read parked outbox records that ended: %w", err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r ParkedRecord, err error) {
		var occurred *time.Time
		var since int64
		err = row.Scan(append([]any{&r.DestinationID, &r.ReplayID, &r.Partition, &r.Key}, r.columns(&occurred, &since)...)...)
		r.fill(occurred, since)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read parked outbox records that ended: %w", err)
	}
	return records, nil
}

// CallTarget is a destination that a processor may ask.
type CallTarget struct {
	ID         string
	Name       string
	EventTypes []string
}

// CallTargets are the destinations of these names, in no order; those that are not there are
// left out.
func (q queries) CallTargets(ctx context.Context, names []string) ([]CallTarget, error) {
	rows, err := q.sql.Query(ctx, `
SELECT d.id::text, d.name, d.event_types FROM unnest($1::text[]) AS n (name),
LATERAL (SELECT id, name, event_types FROM destinations WHERE name = n.name OFFSET 0) AS d`, names)
	if err != nil {
		return nil, fmt.Errorf("look for destinations by name: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[CallTarget])
	if err != nil {
		return nil, fmt.Errorf("look for destinations by name: %w", err)
	}
	return found, nil
}

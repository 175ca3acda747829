package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// An Orphan is a position on the log of a topic that was deleted and made anew.
type Orphan struct {
	Name      string // of the processor, or of the destination
	Topic     string // without prefix
	Partition int32
}

// OrphanedProgress returns where processors stand on a log that is another than the
// topic's now. ids are the topics' present ids, by name without prefix; rows and topics
// without an id are never among what is returned.
func (db *DB) OrphanedProgress(ctx context.Context, ids map[string]uuid.UUID) ([]Orphan, error) {
	const sql = `
		SELECT p.processor, t.topic, p.partition
		FROM processor_progress p
		JOIN unnest($1::text[], $2::uuid[]) AS t (topic, id) ON (p.ranges -> t.topic ->> 'topicId')::uuid <> t.id
		ORDER BY 1, 2, 3`
	return db.queryOrphans(ctx, sql, ids)
}

// OrphanedCursors returns where destinations stand, with their live cursors, on a log that
// is another than the topic's now; ids as for OrphanedProgress.
func (db *DB) OrphanedCursors(ctx context.Context, ids map[string]uuid.UUID) ([]Orphan, error) {
	const sql = `
		SELECT d.name, c.topic, c.partition
		FROM cursors c
		JOIN unnest($1::text[], $2::uuid[]) AS t (topic, id) ON c.topic = t.topic AND c.topic_id <> t.id
		JOIN destinations d ON d.id = c.destination_id
		WHERE c.end_offset IS NULL
		ORDER BY 1, 2, 3`
	return db.queryOrphans(ctx, sql, ids)
}

func (db *DB) queryOrphans(ctx context.Context, sql string, ids map[string]uuid.UUID) ([]Orphan, error) {
	var topics []string
	var now []*uuid.UUID
	for t, id := range ids {
		topics, now = append(topics, t), append(now, knownID(id))
	}
	rows, err := db.sql.Query(ctx, sql, topics, now)
	if err != nil {
		return nil, fmt.Errorf("find positions on former logs: %w", err)
	}
	orphans, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Orphan])
	if err != nil {
		return nil, fmt.Errorf("find positions on former logs: %w", err)
	}
	return orphans, nil
}

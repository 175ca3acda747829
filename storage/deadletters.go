package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// The states of a dead letter. One that is being retried by a process that died is
// pending again after a minute.
const (
	LetterPending = "pending"
	// LetterErased is the state of one about somebody who was erased, whatever was done
	// with it. It stands in no table.
	LetterErased = "erased"
)

// LetterMark is what operators did with a dead letter.
type LetterMark struct {
	Partition  int32
	Offset     int64
	Status     string
	RetryCount int
	RetriedAt  *time.Time
}

const letterStatus = `CASE WHEN status = 'retrying' AND updated_at < now() - interval '1 minute' THEN 'pending' ELSE status END`

// LetterMarks returns the marks of dead letters on a partition within [from, to). topicID
// is the topic's on which they stand: marks of a former one are left out, where both ids
// are known.
func (db *DB) LetterMarks(ctx context.Context, topicID uuid.UUID, partition int32, from, to int64) (map[int64]LetterMark, error) {
	const sql = `
		SELECT partition, "offset", ` + letterStatus + `, retry_count, retried_at
		FROM dead_letter_marks WHERE partition = $1 AND "offset" >= $2 AND "offset" < $3 AND (topic_id <> $4) IS NOT TRUE`
	rows, err := db.sql.Query(ctx, sql, partition, from, to, knownID(topicID))
	if err != nil {
		return nil, fmt.Errorf("read marks of dead letters: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[LetterMark])
	if err != nil {
		return nil, fmt.Errorf("read marks of dead letters: %w", err)
	}
	marks := make(map[int64]LetterMark, len(list))
	for _, m := range list {
		marks[m.Offset] = m
	}
	return marks, nil
}

// ClaimLetter takes a pending dead letter for a retry; false when it is not
// pending, or another retry of it is under way. topicID is the topic's on which it
// stands; what was done with one of a former topic is forgotten.
func (db *DB) ClaimLetter(ctx context.Context, topicID uuid.UUID, partition int32, offset int64) (bool, error) {
	const sql = `
		INSERT INTO dead_letter_marks AS m (partition, "offset", status, topic_id) VALUES ($1, $2, 'retrying', $3)
		ON CONFLICT (partition, "offset") DO UPDATE SET status = 'retrying', updated_at = now(),
			topic_id = COALESCE(EXCLUDED.topic_id, m.topic_id),
			retry_count = CASE WHEN m.topic_id <> EXCLUDED.topic_id THEN 0 ELSE m.retry_count END
		WHERE m.status = 'pending' OR m.status = 'retrying' AND m.updated_at < now() - interval '1 minute'
			OR m.topic_id <> EXCLUDED.topic_id`
	tag, err := db.sql.Exec(ctx, sql, partition, offset, knownID(topicID))
	if err != nil {
		return false, fmt.Errorf("claim dead letter %d/%d: %w", partition, offset, err)
	}
	return tag.RowsAffected() > 0, nil
}

// SettleLetter ends a claim: retried, or pending again.
func (db *DB) SettleLetter(ctx context.Context, partition int32, offset int64, retried bool) error {
	const sql = `
		UPDATE dead_letter_marks
		SET status = CASE WHEN $3 THEN 'retried' ELSE 'pending' END, retry_count = retry_count + 1, retried_at = now(), updated_at = now()
		WHERE partition = $1 AND "offset" = $2 AND status = 'retrying'`
	if _, err := db.sql.Exec(ctx, sql, partition, offset, retried); err != nil {
		return fmt.Errorf("settle dead letter %d/%d: %w", partition, offset, err)
	}
	return nil
}

// DiscardLetter marks a dead letter as not wanted any more, whatever it was. topicID is
// the topic's on which it stands.
func (db *DB) DiscardLetter(ctx context.Context, topicID uuid.UUID, partition int32, offset int64) error {
	const sql = `
		INSERT INTO dead_letter_marks AS m (partition, "offset", status, topic_id) VALUES ($1, $2, 'discarded', $3)
		ON CONFLICT (partition, "offset") DO UPDATE SET status = 'discarded', updated_at = now(),
			topic_id = COALESCE(EXCLUDED.topic_id, m.topic_id),
			retry_count = CASE WHEN m.topic_id <> EXCLUDED.topic_id THEN 0 ELSE m.retry_count END`
	if _, err := db.sql.Exec(ctx, sql, partition, offset, knownID(topicID)); err != nil {
		return fmt.Errorf("discard dead letter %d/%d: %w", partition, offset, err)
	}
	return nil
}

// CleanLetterMarks removes marks older than before, whose letters retention has
// removed, and returns how many.
func (db *DB) CleanLetterMarks(ctx context.Context, before time.Time, limit int) (int64, error) {
	const sql = `
		DELETE FROM dead_letter_marks WHERE (partition, "offset") IN (
			SELECT partition, "offset" FROM dead_letter_marks WHERE updated_at < $1 LIMIT $2)`
	tag, err := db.sql.Exec(ctx, sql, before, limit)
	if err != nil {
		return 0, fmt.Errorf("clean marks of dead letters: %w", err)
	}
	return tag.RowsAffected(), nil
}

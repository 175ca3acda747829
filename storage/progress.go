package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Range is what the last apply read of a topic: [From, Next). From equals Next
// for a topic that it did not read.
type Range struct {
	From int64 `json:"from"`
	Next int64 `json:"next"`
	// TopicID is the topic's, of whose log these are offsets; zero while unknown.
	TopicID uuid.UUID `json:"topicId,omitzero"`
}

// Ranges holds a Range for each topic, by its name without prefix.
type Ranges map[string]Range

// Progress is how far a processor is on one partition number, and what it has
// still to publish.
type Progress struct {
	Partition int32
	Ranges    Ranges
	// Format is the one in which the processor's state of this partition and its
	// outputs are written: 1 at first, and never lower than it was.
	Format int32
	// Pending are the encoded outputs that Ranges caused; nil when there are none.
	Pending []byte
	// Published says that Pending is known to be on the log. It is set lazily.
	Published bool
	// Accepted says that the offsets were named by an operator and stand above
	// what the group says.
	Accepted  bool
	UpdatedAt time.Time
	// TakingOver is the contact up to which the partition was taken over from Postgres; nil
	// when that is through, or the processor takes nothing over.
	TakingOver *uuid.UUID
	// Era is the era of contacts as of which it took over; nil when it takes nothing over.
	Era *int64
}

const lockProgress = `
SELECT partition, ranges, format, published, accepted, updated_at, taking_over, era
FROM processor_progress
WHERE processor = $1 AND partition = ANY($2)
ORDER BY partition
FOR UPDATE`

// LockProgress locks the rows of the given partitions, in their order, and
// returns them by partition, without Pending. A row that does not exist is
// missing in the answer.
func (tx *Tx) LockProgress(ctx context.Context, processor string, partitions []int32) (map[int32]Progress, error) {
	found := make(map[int32]Progress, len(partitions))
	var batch pgx.Batch
	batch.Queue(lockProgress, processor, partitions).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var p Progress
			if err := rows.Scan(&p.Partition, &p.Ranges, &p.Format, &p.Published, &p.Accepted, &p.UpdatedAt, &p.TakingOver, &p.Era); err != nil {
				return err
			}
			found[p.Partition] = p
		}
		return rows.Err()
	})
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("lock progress of %s: %w", processor, err)
	}
	return found, nil
}

const loadProgress = `
SELECT partition, ranges, format, pending, published, accepted, updated_at, taking_over, era
FROM processor_progress
WHERE processor = $1 AND ($2::integer[] IS NULL OR partition = ANY($2))
ORDER BY partition`

// LoadProgress returns rows with Pending, in the order of their partitions:
// those of the given partitions, or all when partitions is nil.
func (db *DB) LoadProgress(ctx context.Context, processor string, partitions []int32) ([]Progress, error) {
	rows, err := db.sql.Query(ctx, loadProgress, processor, partitions)
	if err != nil {
		return nil, fmt.Errorf("load progress of %s: %w", processor, err)
	}
	defer rows.Close()
	var found []Progress
	for rows.Next() {
		var p Progress
		if err := rows.Scan(&p.Partition, &p.Ranges, &p.Format, &p.Pending, &p.Published, &p.Accepted, &p.UpdatedAt, &p.TakingOver, &p.Era); err != nil {
			return nil, fmt.Errorf("load progress of %s: %w", processor, err)
		}
		found = append(found, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load progress of %s: %w", processor, err)
	}
	return found, nil
}

const writeProgress = `
INSERT INTO processor_progress AS p (processor, partition, ranges, format, pending, published, accepted)
SELECT $1, v.partition, v.ranges::jsonb, v.format, v.pending, false, false
FROM unnest($2::integer[], $3::text[], $4::integer[], $5::bytea[]) AS v (partition, ranges, format, pending)
ON CONFLICT (processor, partition) DO UPDATE
SET ranges = excluded.ranges, format = excluded.format, declared = excluded.format, pending = excluded.pending,
    published = false, accepted = false, updated_at = now()`

// WriteProgress stores what an apply did: ranges, format and pending, not yet
// published, of many partitions in one statement. The rows are locked by
// LockProgress in the same transaction; a format below the row's is refused.
func (tx *Tx) WriteProgress(ctx context.Context, processor string, rows []Progress) error {
	partitions, ranges := make([]int32, len(rows)), make([]string, len(rows))
	formats, pending := make([]int32, len(rows)), make([][]byte, len(rows))
	for i, p := range rows {
		partitions[i], ranges[i], formats[i], pending[i] = p.Partition, p.Ranges.json(), max(p.Format, 1), p.Pending
	}
	return tx.write(ctx, "write progress of "+processor, writeProgress, processor, partitions, ranges, formats, pending)
}

const startProgress = `
INSERT INTO processor_progress AS p (processor, partition, ranges, published)
SELECT $1, v.partition, v.ranges::jsonb, true
FROM unnest($2::integer[], $3::text[]) AS v (partition, ranges)
ON CONFLICT (processor, partition) DO UPDATE
SET ranges = excluded.ranges || p.ranges, declared = $4
WHERE p.ranges <> excluded.ranges || p.ranges`

// StartProgress inserts the rows of partitions that are started for the first
// time, published, and adds topics to rows that lack them. What a row already
// says of a topic stays. knows is the highest format that the caller can write; a row
// of a higher one is refused.
func (db *DB) StartProgress(ctx context.Context, processor string, starts map[int32]Ranges, knows int32) error {
	partitions, ranges := make([]int32, 0, len(starts)), make([]string, 0, len(starts))
	for p, r := range starts {
		partitions, ranges = append(partitions, p), append(ranges, r.json())
	}
	if _, err := db.sql.Exec(ctx, startProgress, processor, partitions, ranges, knows); err != nil {
		return fmt.Errorf("start progress of %s: %w", processor, err)
	}
	return nil
}

const markPublished = `
UPDATE processor_progress AS p
SET ranges = v.settled::jsonb, pending = NULL, published = true, accepted = false, declared = $5, updated_at = now()
FROM unnest($2::integer[], $3::text[], $4::text[]) AS v (partition, ranges, settled)
WHERE p.processor = $1 AND p.partition = v.partition AND p.ranges = v.ranges::jsonb`

// MarkPublished notes that the pending outputs of rows are on the log and drops
// them, From of each range becoming Next. A row whose ranges are not those
// given was written by another owner and stays as it is. knows is as for StartProgress.
func (db *DB) MarkPublished(ctx context.Context, processor string, ranges map[int32]Ranges, knows int32) error {
	var partitions []int32
	var before, after []string
	for p, r := range ranges {
		partitions, before, after = append(partitions, p), append(before, r.json()), append(after, r.Settled().json())
	}
	if _, err := db.sql.Exec(ctx, markPublished, processor, partitions, before, after, knows); err != nil {
		return fmt.Errorf("mark progress of %s as published: %w", processor, err)
	}
	return nil
}

const acceptProgress = `
INSERT INTO processor_progress AS p (processor, partition, ranges, published, accepted)
SELECT $1, v.partition, v.ranges::jsonb, true, true
FROM unnest($2::integer[], $3::text[]) AS v (partition, ranges)
ON CONFLICT (processor, partition) DO UPDATE
SET ranges = p.ranges || excluded.ranges, pending = NULL, published = true, accepted = true, declared = $4, updated_at = now()`

// AcceptProgress sets the places from which a processor goes on (Next, and the topic's
// id), by partition and topic, and drops what was pending there. The owner of the partition
// commits them to the group and goes on from them by itself. Topics not named
// keep their place. knows is as for StartProgress.
func (q queries) AcceptProgress(ctx context.Context, processor string, places map[int32]Ranges, knows int32) error {
	var partitions []int32
	var ranges []string
	for p, r := range places {
		partitions, ranges = append(partitions, p), append(ranges, r.Settled().json())
	}
	if _, err := q.sql.Exec(ctx, acceptProgress, processor, partitions, ranges, knows); err != nil {
		return fmt.Errorf("accept progress of %s: %w", processor, err)
	}
	return nil
}

// Settled is r with From of each topic at its Next: nothing left to publish.
func (r Ranges) Settled() Ranges {
	s := make(Ranges, len(r))
	for t, x := range r {
		s[t] = Range{From: x.Next, Next: x.Next, TopicID: x.TopicID}
	}
	return s
}

func (r Ranges) json() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic("storage: ranges: " + err.Error()) // a map of integers
	}
	return string(b)
}

// Of is r without the topics not named, e.g. those a processor has ceased to
// consume.
func (r Ranges) Of(topics []string) Ranges {
	kept := make(Ranges, len(topics))
	for _, t := range topics {
		if x, ok := r[t]; ok {
			kept[t] = x
		}
	}
	return kept
}

// Without is r without the topics named.
func (r Ranges) Without(topics []string) Ranges {
	kept := make(Ranges)
	for t, x := range r {
		if !slices.Contains(topics, t) {
			kept[t] = x
		}
	}
	return kept
}

// With is r and, for topics it lacks, other.
func (r Ranges) With(other Ranges) Ranges {
	if len(other) == 0 {
		return r
	}
	all := maps.Clone(other)
	maps.Copy(all, r)
	return all
}

// SameNext says that both go on from the same places: of the same logs, as far as
// their ids are known.
func (r Ranges) SameNext(other Ranges) bool {
	if len(r) != len(other) {
		return false
	}
	for t, x := range r {
		if y, ok := other[t]; !ok || x.Next != y.Next || OtherLog(x.TopicID, y.TopicID) {
			return false
		}
	}
	return true
}

// OtherLog says that two ids are of two logs: of a topic that was deleted and made
// anew. One that is not known says nothing.
func OtherLog(a, b uuid.UUID) bool { return a != b && a != uuid.Nil && b != uuid.Nil }

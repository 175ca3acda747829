package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hogstream/hogstream/schemas"
)

// AttemptFilter narrows a search of a destination's delivery log; zero fields do
// not.
type AttemptFilter struct {
	RecordID, Key string
	Type          string // as schemas.ParseTypePattern reads it
	Outcome       string // delivered | retry | rejected | refused | skipped | erased
	Status        int    // of HTTP
	ReplayID      string
	From, To      time.Time // of the attempt, To exclusive
	// One record, by its place.
	Topic     string
	Partition int32
	Offset    int64
}

// attemptPlace is where a page of the delivery log ends.
type attemptPlace struct {
	At        time.Time
	Topic     string
	Partition int32
	Offset    int64
	Attempt   int
}

// SearchAttempts returns a page of a destination's delivery log, newest first, and
// the cursor of the next one, "" at the end. Rows that are written meanwhile do not
// shift pages.
func (db *DB) SearchAttempts(ctx context.Context, destinationID string, f AttemptFilter, cursor string, limit int) ([]Attempt, string, error) {
	sql, args, err := searchAttempts(destinationID, f, cursor, limit)
	if err != nil {
		return nil, "", err
	}
	rows, err := db.sql.Query(ctx, sql, args...)
	if err != nil {
		return nil, "", fmt.Errorf("search the delivery log of %s: %w", destinationID, err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Attempt, err error) {
		var ms int64
		err = row.Scan(&a.At, &a.ReplayID, &a.RecordID, &a.RecordType, &a.RecordKey, &a.Topic, &a.Partition, &a.Offset,
			&a.Attempt, &a.Outcome, &a.Status, &ms, &a.Error, &a.Response)
		a.DestinationID, a.Latency = destinationID, time.Duration(ms)*time.Millisecond
		return a, err
	})
	if err != nil {
		return nil, "", fmt.Errorf("search the delivery log of %s: %w", destinationID, err)
	}
	if err := db.hideErased(ctx, list); err != nil {
		return nil, "", err
	}
	if len(list) <= limit {
		return list, "", nil
	}
	list = list[:limit]
	last := list[limit-1]
	next, err := writeCursor(attemptPlace{last.At, last.Topic, last.Partition, last.Offset, last.Attempt})
	return list, next, err
}

// hideErased takes the texts from attempts about people who were erased: in the table
// they are cleared a while later.
func (db *DB) hideErased(ctx context.Context, list []Attempt) error {
	keys := make([]string, len(list))
	for i := range list {
		keys[i] = list[i].RecordKey
	}
	slices.Sort(keys)
	erased, err := db.Erased(ctx, slices.Compact(keys)...)
	if err != nil {
		return err
	}
	for i := range list {
		if erased[list[i].RecordKey] {
			list[i].Error, list[i].Response = "", nil
		}
	}
	return nil
}

// searchAttempts is the statement: From lets Postgres leave out the days before it.
func searchAttempts(destinationID string, f AttemptFilter, cursor string, limit int) (string, []any, error) {
	where, args := f.where(destinationID)
	if cursor != "" {
		var p attemptPlace
		if err := readCursor(cursor, &p); err != nil {
			return "", nil, err
		}
		n := len(args)
		where += fmt.Sprintf(` AND attempted_at <= $%d AND (attempted_at, topic, partition, "offset", attempt) < ($%d, $%d, $%d, $%d, $%d)`, n+1, n+1, n+2, n+3, n+4, n+5)
		args = append(args, p.At, p.Topic, p.Partition, p.Offset, p.Attempt)
	}
	args = append(args, limit+1)
	sql := `
		SELECT attempted_at, COALESCE(replay_id::text, ''), record_id, record_type, record_key, topic, partition, "offset",
		       attempt, outcome, COALESCE(status, 0), latency_ms, COALESCE(error, ''), response
		FROM delivery_attempts
		WHERE ` + where + fmt.Sprintf(`
		ORDER BY attempted_at DESC, topic DESC, partition DESC, "offset" DESC, attempt DESC
		LIMIT $%d`, len(args))
	return sql, args, nil
}

func (f *AttemptFilter) where(destinationID string) (string, []any) {
	conditions, args := []string{"destination_id = $1"}, []any{destinationID}
	add := func(condition string, value any, set bool) {
		if set {
			args = append(args, value)
			conditions = append(conditions, fmt.Sprintf(condition, len(args)))
		}
	}
	add("record_id = $%d", f.RecordID, f.RecordID != "")
	add("record_key = $%d", f.Key, f.Key != "")
	types := schemas.ParseTypePattern(f.Type)
	if types.Exact != "" && types.Prefix != "" {
		args = append(args, types.Exact)
		add(fmt.Sprintf("(record_type = $%d OR starts_with(record_type, $%%d))", len(args)), types.Prefix, true)
	} else {
		add("record_type = $%d", types.Exact, types.Exact != "")
		add("starts_with(record_type, $%d)", types.Prefix, types.Prefix != "")
	}
	add("outcome = $%d", f.Outcome, f.Outcome != "")
	add("status = $%d", f.Status, f.Status != 0)
	add("replay_id::text = $%d", f.ReplayID, f.ReplayID != "")
	add("attempted_at >= $%d", f.From, !f.From.IsZero())
	add("attempted_at < $%d", f.To, !f.To.IsZero())
	add("topic = $%d", f.Topic, f.Topic != "")
	add("partition = $%d", f.Partition, f.Topic != "")
	add(`"offset" = $%d`, f.Offset, f.Topic != "")
	return strings.Join(conditions, " AND "), args
}

// AttemptPlace is where a record stands on the log.
type AttemptPlace struct {
	Topic     string
	Partition int32
	Offset    int64
}

// LastAttempt returns the number of the last attempt to deliver a record to a
// destination, of those that began at from or later; 0 when there is none. It reads
// the destination's log backwards, no further than that attempt or from: from must
// say when the record was appended.
func (db *DB) LastAttempt(ctx context.Context, destinationID string, at AttemptPlace, from time.Time) (int, error) {
	var attempt int
	err := db.sql.QueryRow(ctx, lastAttemptSQL, destinationID, at.Topic, at.Partition, at.Offset, from).Scan(&attempt)
	if IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("last attempt to deliver %s-%d-%d to destination %s: %w", at.Topic, at.Partition, at.Offset, destinationID, err)
	}
	return attempt, nil
}

const lastAttemptSQL = `
	SELECT attempt FROM delivery_attempts
	WHERE destination_id = $1 AND topic = $2 AND partition = $3 AND "offset" = $4 AND attempted_at >= $5
	ORDER BY attempted_at DESC
	LIMIT 1`

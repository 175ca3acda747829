package storage

import (
	"context"
	"fmt"
	"time"
)

// Parked records are written and removed only by the process that has the lease
// of their partition number, in the transaction that saves the cursors; an
// operator's wish (retry now, skip) is a note on the key that the owner obeys.

// Reasons why a key is parked.
const (
	ParkedFailing = "failing" // its first record fails while others succeed
	ParkedSpilled = "spilled" // it has too many records for memory
)

// ParkedTrack names what a destination, or a backfill of it, has parked of a
// partition number.
type ParkedTrack struct {
	DestinationID string
	ReplayID      string // LiveReplay for the live one
	Partition     int32
}

// ParkedKey is a key whose records wait in Postgres.
type ParkedKey struct {
	ParkedTrack
	Key           string
	Reason        string
	Attempts      int           // made of its first record
	Failing       time.Duration // for how long, in the destination's open time
	FirstFailedAt *time.Time
	NextAttemptAt time.Time
	SkipBefore    *time.Time // what was parked until then is to be given up
	Status        int        // of the last answer, 0 without one
	Error         string     // valid UTF-8 without NUL
}

// ParkedRecord is a record that waits in Postgres.
type ParkedRecord struct {
	ParkedTrack
	Key         string
	Topic       string
	Offset      int64
	AppendTime  time.Time
	RecordID    string
	RecordType  string
	OccurredAt  time.Time // zero when unknown
	TraceParent string
	TraceState  string
	Value       []byte
	Since       time.Duration // how long its key had been failing by then
	ParkedAt    time.Time     // set by Postgres
	// Of a record of topic outbox: when it is too late to send it, and the record without what
	// is sent, which outlives Value.
	NotAfter *time.Time
	Ask      []byte

	Epoch int64 // of its cursor, for ParkRecords
	Skip  bool  // to be given up; filled by LoadParkedRecords
}

// ParkRecords writes records whose cursor still has their epoch: those read before
// a rewind are read again, or belong to what it leaves out. Records that are there
// already stay as they are. The caller holds the leases of all partitions concerned.
func (tx *Tx) ParkRecords(ctx context.Context, records []ParkedRecord) error {
	const sql = `
		INSERT INTO parked_records (destination_id, replay_id, partition, record_key, topic, "offset", append_time,
			record_id, record_type, occurred_at, trace_parent, trace_state, value, since_ms, not_after, ask)
		SELECT w.destination_id, COALESCE(k.id, w.replay_id), w.partition, w.record_key, w.topic, w."offset", w.append_time,
			w.record_id, w.record_type, w.occurred_at, w.trace_parent, w.trace_state, w.value, w.since_ms, w.not_after, w.ask
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::bigint[], $7::timestamptz[], $8::text[],
			$9::text[], $10::timestamptz[], $11::text[], $12::text[], $13::bytea[], $14::bigint[], $15::bigint[], $17::timestamptz[], $18::bytea[])
		  AS w (destination_id, replay_id, partition, record_key, topic, "offset", append_time, record_id,
			record_type, occurred_at, trace_parent, trace_state, value, since_ms, epoch, not_after, ask)
		LEFT JOIN cursors c ON c.destination_id = w.destination_id AND c.replay_id = w.replay_id
		  AND c.topic = w.topic AND c.partition = w.partition AND c.epoch = w.epoch
		LEFT JOIN skips k ON c.epoch IS NULL AND w.replay_id = $16 AND k.destination_id = w.destination_id
		  AND k.topic = w.topic AND k.partition = w.partition AND k.epoch = w.epoch AND w."offset" < k.end_offset
		WHERE c.epoch IS NOT NULL OR k.id IS NOT NULL
		ON CONFLICT DO NOTHING`
	// A key has a state from its first record on.
	const begin = `
		INSERT INTO parked_keys (destination_id, replay_id, partition, record_key, reason, next_attempt_at)
		SELECT DISTINCT r.destination_id, r.replay_id, r.partition, r.record_key, 'spilled', timestamptz 'epoch' - interval '1 hour'
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::bigint[])
		  AS w (destination_id, replay_id, partition, record_key, topic, "offset")
		JOIN parked_records r USING (destination_id, replay_id, partition, record_key, topic, "offset")
		ORDER BY 1, 2, 3, 4
		ON CONFLICT DO NOTHING`
	n := len(records)
	destinations, replays, partitions, keys, topics, offsets := parkedPlaces(records)
	appended, occurred := make([]time.Time, n), make([]*time.Time, n)
	ids, types, parents, states := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	values, since, epochs := make([][]byte, n), make([]int64, n), make([]int64, n)
	notAfter, asks := make([]*time.Time, n), make([][]byte, n)
	for i := range records {
		r := &records[i]
		appended[i], ids[i], types[i], parents[i], states[i] = r.AppendTime, r.RecordID, r.RecordType, r.TraceParent, r.TraceState
		values[i], since[i], epochs[i] = r.Value, r.Since.Milliseconds(), r.Epoch
		notAfter[i], asks[i] = r.NotAfter, r.Ask
		if !r.OccurredAt.IsZero() {
			occurred[i] = &r.OccurredAt
		}
	}
	_, err := tx.sql.Exec(ctx, sql, destinations, replays, partitions, keys, topics, offsets, appended, ids, types, occurred, parents, states, values, since, epochs, LiveReplay, notAfter, asks)
	if err == nil {
		_, err = tx.sql.Exec(ctx, begin, destinations, replays, partitions, keys, topics, offsets)
	}
	if err != nil {
		return fmt.Errorf("park %d records: %w", n, err)
	}
	return nil
}

// RemoveParkedRecords removes records that are finished. The caller holds the
// leases of all partitions concerned.
func (tx *Tx) RemoveParkedRecords(ctx context.Context, records []ParkedRecord) error {
	const sql = `
		DELETE FROM parked_records r
		USING unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::bigint[])
		  AS w (destination_id, replay_id, partition, record_key, topic, "offset")
		WHERE r.destination_id = w.destination_id AND r.replay_id = w.replay_id AND r.partition = w.partition
		  AND r.record_key = w.record_key AND r.topic = w.topic AND r."offset" = w."offset"`
	// What was loaded before a rewind forward left it out, and is finished now.
	const skipped = `
		DELETE FROM parked_records r
		USING unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::bigint[])
		  AS w (destination_id, replay_id, partition, record_key, topic, "offset")
		JOIN skips k ON k.destination_id = w.destination_id AND k.topic = w.topic AND k.partition = w.partition
		WHERE w.replay_id = $7 AND r.destination_id = w.destination_id AND r.replay_id = k.id AND r.partition = w.partition
		  AND r.record_key = w.record_key AND r.topic = w.topic AND r."offset" = w."offset"`
	destinations, replays, partitions, keys, topics, offsets := parkedPlaces(records)
	_, err := tx.sql.Exec(ctx, sql, destinations, replays, partitions, keys, topics, offsets)
	if err == nil {
		_, err = tx.sql.Exec(ctx, skipped, destinations, replays, partitions, keys, topics, offsets, LiveReplay)
	}
	if err != nil {
		return fmt.Errorf("remove %d parked records: %w", len(records), err)
	}
	return nil
}

func parkedPlaces(records []ParkedRecord) (destinations, replays []string, partitions []int32, keys, topics []string, offsets []int64) {
	for i := range records {
		r := &records[i]
		destinations, replays, partitions = append(destinations, r.DestinationID), append(replays, r.ReplayID), append(partitions, r.Partition)
		keys, topics, offsets = append(keys, r.Key), append(topics, r.Topic), append(offsets, r.Offset)
	}
	return destinations, replays, partitions, keys, topics, offsets
}

// SaveParkedKeys writes the state of keys that have parked records and removes
// those that have none. SkipBefore is the wish that was obeyed; a later one
// stays, and keeps its key due. Each key may be named once. The caller holds the
// leases of all partitions concerned.
func (tx *Tx) SaveParkedKeys(ctx context.Context, keys []ParkedKey) error {
	const save = `
		INSERT INTO parked_keys AS k (destination_id, replay_id, partition, record_key, reason, attempts, failing_ms,
			first_failed_at, next_attempt_at, skip_before, status, error)
		SELECT w.destination_id, w.replay_id, w.partition, w.record_key, w.reason, w.attempts, w.failing_ms,
			w.first_failed_at, w.next_attempt_at, w.skipped, NULLIF(w.status, 0), NULLIF(w.error, '')
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::text[], $6::integer[], $7::bigint[],
			$8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::integer[], $12::text[])
		  AS w (destination_id, replay_id, partition, record_key, reason, attempts, failing_ms,
			first_failed_at, next_attempt_at, skipped, status, error)
		WHERE EXISTS (SELECT FROM parked_records r WHERE r.destination_id = w.destination_id AND r.replay_id = w.replay_id
			AND r.partition = w.partition AND r.record_key = w.record_key)
		ORDER BY w.destination_id, w.replay_id, w.partition, w.record_key
		ON CONFLICT (destination_id, replay_id, partition, record_key) DO UPDATE SET
			reason = EXCLUDED.reason, attempts = EXCLUDED.attempts, failing_ms = EXCLUDED.failing_ms,
			first_failed_at = EXCLUDED.first_failed_at, status = EXCLUDED.status, error = EXCLUDED.error,
			next_attempt_at = CASE WHEN k.skip_before IS NOT DISTINCT FROM EXCLUDED.skip_before
				THEN EXCLUDED.next_attempt_at ELSE k.next_attempt_at END,
			skip_before = CASE WHEN k.skip_before IS NOT DISTINCT FROM EXCLUDED.skip_before THEN NULL ELSE k.skip_before END`
	const empty = `
		DELETE FROM parked_keys k
		USING unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[]) AS w (destination_id, replay_id, partition, record_key)
		WHERE k.destination_id = w.destination_id AND k.replay_id = w.replay_id AND k.partition = w.partition
		  AND k.record_key = w.record_key
		  AND NOT EXISTS (SELECT FROM parked_records r WHERE r.destination_id = k.destination_id AND r.replay_id = k.replay_id
			AND r.partition = k.partition AND r.record_key = k.record_key)`
	destinations, replays, partitions := splitTracks(len(keys), func(i int) ParkedTrack { return keys[i].ParkedTrack })
	n := len(keys)
	names, reasons, attempts, failing := make([]string, n), make([]string, n), make([]int32, n), make([]int64, n)
	first, next, skipped := make([]*time.Time, n), make([]time.Time, n), make([]*time.Time, n)
	statuses, errs := make([]int32, n), make([]string, n)
	for i, k := range keys {
		names[i], reasons[i], attempts[i], failing[i] = k.Key, k.Reason, int32(k.Attempts), k.Failing.Milliseconds()
		first[i], next[i], skipped[i], statuses[i], errs[i] = k.FirstFailedAt, k.NextAttemptAt, k.SkipBefore, int32(k.Status), k.Error
	}
	_, err := tx.sql.Exec(ctx, save, destinations, replays, partitions, names, reasons, attempts, failing, first, next, skipped, statuses, errs)
	if err == nil {
		_, err = tx.sql.Exec(ctx, empty, destinations, replays, partitions, names)
	}
	if err != nil {
		return fmt.Errorf("save %d parked keys: %w", n, err)
	}
	return nil
}

func splitTracks(n int, of func(i int) ParkedTrack) (destinations, replays []string, partitions []int32) {
	destinations, replays, partitions = make([]string, n), make([]string, n), make([]int32, n)
	for i := range n {
		t := of(i)
		destinations[i], replays[i], partitions[i] = t.DestinationID, t.ReplayID, t.Partition
	}
	return destinations, replays, partitions
}

// EachParkedKey calls fn for every key that has parked records on the tracks,
// with the index of its track, how many records it has and for how long it has
// been failing. It keeps nothing in memory.
func (db *DB) EachParkedKey(ctx context.Context, tracks []ParkedTrack, fn func(track int, key string, records int, failing time.Duration)) error {
	const sql = `
		SELECT t.n - 1, r.record_key, count(*), COALESCE(max(k.failing_ms), 0)
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) WITH ORDINALITY AS t (destination_id, replay_id, partition, n)
		JOIN parked_records r USING (destination_id, replay_id, partition)
		LEFT JOIN parked_keys k USING (destination_id, replay_id, partition, record_key)
		GROUP BY t.n, r.record_key`
	destinations, replays, partitions := splitTracks(len(tracks), func(i int) ParkedTrack { return tracks[i] })
	rows, err := db.sql.Query(ctx, sql, destinations, replays, partitions)
	if err != nil {
		return fmt.Errorf("read parked keys: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var track, records int
		var key string
		var failing int64
		if err := rows.Scan(&track, &key, &records, &failing); err != nil {
			return fmt.Errorf("scan parked key: %w", err)
		}
		fn(track, key, records, milliseconds(failing))
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read parked keys: %w", err)
	}
	return nil
}

// DueKey is a parked key whose next attempt is due.
type DueKey struct {
	ParkedKey
	Track int // index into what was asked for
}

const parkedKeyColumns = `k.destination_id::text, k.replay_id::text, k.partition, k.record_key, k.reason, k.attempts, k.failing_ms,
	k.first_failed_at, k.next_attempt_at, k.skip_before, COALESCE(k.status, 0), COALESCE(k.error, '')`

func (k *ParkedKey) columns(failing *int64) []any {
	return []any{
		&k.DestinationID, &k.ReplayID, &k.Partition, &k.Key, &k.Reason, &k.Attempts, failing,
		&k.FirstFailedAt, &k.NextAttemptAt, &k.SkipBefore, &k.Status, &k.Error,
	}
}

// DueParkedKeys returns, for each track, the keys that are due at until, the longest
// due first, at most limits[i] of them.
func (db *DB) DueParkedKeys(ctx context.Context, tracks []ParkedTrack, limits []int, until time.Time) ([]DueKey, error) {
	const sql = `
		SELECT t.n - 1, ` + parkedKeyColumns + `
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::integer[])
		  WITH ORDINALITY AS t (destination_id, replay_id, partition, most, n)
		CROSS JOIN LATERAL (
			SELECT * FROM parked_keys p
			WHERE p.destination_id = t.destination_id AND p.replay_id = t.replay_id AND p.partition = t.partition
			  AND p.next_attempt_at <= $5
			ORDER BY p.next_attempt_at
			LIMIT t.most
		) k
		ORDER BY t.n, k.next_attempt_at`
	destinations, replays, partitions := splitTracks(len(tracks), func(i int) ParkedTrack { return tracks[i] })
	rows, err := db.sql.Query(ctx, sql, destinations, replays, partitions, limits, until)
	if err != nil {
		return nil, fmt.Errorf("read due keys: %w", err)
	}
	defer rows.Close()
	var due []DueKey
	for rows.Next() {
		var k DueKey
		var failing int64
		if err := rows.Scan(append([]any{&k.Track}, k.columns(&failing)...)...); err != nil {
			return nil, fmt.Errorf("scan due key: %w", err)
		}
		k.Failing = milliseconds(failing)
		due = append(due, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read due keys: %w", err)
	}
	return due, nil
}

// NextParked is when the next parked key of the tracks is due after until; zero
// when none is.
func (db *DB) NextParked(ctx context.Context, tracks []ParkedTrack, until time.Time) (time.Time, error) {
	const sql = `
		SELECT min(k.next_attempt_at)
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[]) AS t (destination_id, replay_id, partition)
		CROSS JOIN LATERAL (
			SELECT p.next_attempt_at FROM parked_keys p
			WHERE p.destination_id = t.destination_id AND p.replay_id = t.replay_id AND p.partition = t.partition
			  AND p.next_attempt_at > $4
			ORDER BY p.next_attempt_at
			LIMIT 1
		) k`
	destinations, replays, partitions := splitTracks(len(tracks), func(i int) ParkedTrack { return tracks[i] })
	var next *time.Time
	if err := db.sql.QueryRow(ctx, sql, destinations, replays, partitions, until).Scan(&next); err != nil {
		return time.Time{}, fmt.Errorf("read next due key: %w", err)
	}
	if next == nil {
		return time.Time{}, nil
	}
	return *next, nil
}

const parkedRecordColumns = `r.topic, r."offset", r.append_time, r.record_id, r.record_type, r.occurred_at,
	r.trace_parent, r.trace_state, r.value, r.since_ms, r.parked_at, r.not_after, r.ask`

func (r *ParkedRecord) columns(occurred **time.Time, since *int64) []any {
	return []any{
		&r.Topic, &r.Offset, &r.AppendTime, &r.RecordID, &r.RecordType, occurred,
		&r.TraceParent, &r.TraceState, &r.Value, since, &r.ParkedAt, &r.NotAfter, &r.Ask,
	}
}

func (r *ParkedRecord) fill(occurred *time.Time, since int64) {
	r.AppendTime, r.Since = r.AppendTime.UTC(), milliseconds(since)
	if occurred != nil {
		r.OccurredAt = occurred.UTC()
	}
}

// LoadParkedRecords returns the first records of each key in the order of their
// delivery, at most limits[i] of them and, beyond the first, at most maxBytes.
func (db *DB) LoadParkedRecords(ctx context.Context, keys []DueKey, limits []int, maxBytes int) ([][]ParkedRecord, error) {
	const sql = `
		SELECT w.n - 1, COALESCE(r.parked_at <= w.skip_before, false), ` + parkedRecordColumns + `
		FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::text[], $5::integer[], $6::timestamptz[])
		  WITH ORDINALITY AS w (destination_id, replay_id, partition, record_key, most, skip_before, n)
		CROSS JOIN LATERAL (
			SELECT f.*, sum(octet_length(f.value)) OVER (ORDER BY f.topic DESC, f."offset") AS upto
			FROM (
				SELECT * FROM parked_records p
				WHERE p.destination_id = w.destination_id AND p.replay_id = w.replay_id AND p.partition = w.partition
				  AND p.record_key = w.record_key
				ORDER BY p.topic DESC, p."offset"
				LIMIT w.most
			) f
		) r
		WHERE COALESCE(r.upto - octet_length(r.value), 0) < $7
		ORDER BY w.n, r.topic DESC, r."offset"`
	destinations, replays, partitions := splitTracks(len(keys), func(i int) ParkedTrack { return keys[i].ParkedTrack })
	names, skips := make([]string, len(keys)), make([]*time.Time, len(keys))
	for i := range keys {
		names[i], skips[i] = keys[i].Key, keys[i].SkipBefore
	}
	rows, err := db.sql.Query(ctx, sql, destinations, replays, partitions, names, limits, skips, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("load parked records: %w", err)
	}
	defer rows.Close()
	loaded := make([][]ParkedRecord, len(keys))
	for rows.Next() {
		var n int
		var r ParkedRecord
		var occurred *time.Time
		var since int64
		if err := rows.Scan(append([]any{&n, &r.Skip}, r.columns(&occurred, &since)...)...); err != nil {
			return nil, fmt.Errorf("scan parked record: %w", err)
		}
		r.fill(occurred, since)
		r.ParkedTrack, r.Key = keys[n].ParkedTrack, keys[n].Key
		loaded[n] = append(loaded[n], r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("load parked records: %w", err)
	}
	return loaded, nil
}

// removeRewound removes parked records at or beyond the places that live cursors
// are set to, for they will be read again; earlier ones stay.
func (tx *Tx) removeRewound(ctx context.Context, destinationID string, to []CursorStart) error {
	const records = `
		DELETE FROM parked_records r
		USING unnest($2::text[], $3::integer[], $4::bigint[]) AS s (topic, partition, position)
		WHERE r.destination_id = $1 AND r.replay_id = $5 AND r.partition = s.partition
		  AND r.topic = s.topic AND r."offset" >= s.position`
	topics, partitions, offsets, _ := splitStarts(to)
	_, err := tx.sql.Exec(ctx, records, destinationID, topics, partitions, offsets, LiveReplay)
	if err == nil {
		_, err = tx.sql.Exec(ctx, removeEmptyKeys, destinationID, LiveReplay)
	}
	if err != nil {
		return fmt.Errorf("remove parked records of destination %s: %w", destinationID, err)
	}
	return nil
}

// removeEmptyKeys removes the parked keys that have no records.
const removeEmptyKeys = `
	DELETE FROM parked_keys k
	WHERE k.destination_id = $1 AND k.replay_id = $2
	  AND NOT EXISTS (SELECT FROM parked_records r WHERE r.destination_id = k.destination_id AND r.replay_id = k.replay_id
		AND r.partition = k.partition AND r.record_key = k.record_key)`

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

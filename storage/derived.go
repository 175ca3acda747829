package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Derived is where a derived processor stands with a contact.
type Derived struct {
	ContactID string
	Partition int32
	// State is what the processor keeps of it; nil when that is nothing. SaveDerived leaves
	// what is there when it is nil, but of one that ended.
	State    []byte
	Seq, Era int64 // the number of the last record applied, and the era it counts in
	Written  int64 // the number of its own last fact
	Epoch    int64 // of the timer that was armed last
	// Took are the contacts whose state this one has taken in.
	Took []string
	// Heard are the numbers of the last facts of other writers.
	Heard map[string]int64
	// Survivor is whom the contact was merged into; empty when it was not, or was erased.
	// Last and LastEra are then the number of its last record.
	Survivor      string
	Last, LastEra int64
	// Ended says that this is a mark: the contact was erased, or handed over.
	Ended bool
}

// HeldRecord is a record that waits, with everything to apply it later or to make a dead
// letter of it. Its key is the contact.
type HeldRecord struct {
	ContactID string
	Topic     string
	Partition int32
	Offset    int64
	Seq, Era  int64
	Headers   HeldHeaders
	Value     []byte // nil of one that was given up
	HeldAt    time.Time
}

// HeldHeaders are the headers of a record that waits, and when it was appended.
type HeldHeaders struct {
	ID          string    `json:"id,omitempty"`
	Type        string    `json:"type,omitempty"`
	OccurredAt  time.Time `json:"occurredAt,omitzero"`
	AppendTime  time.Time `json:"appendTime,omitzero"`
	TraceParent string    `json:"traceParent,omitempty"`
	TraceState  string    `json:"traceState,omitempty"`
}

// DerivedStates is what LoadDerived found, by contact.
type DerivedStates struct {
	Contacts map[string]*Derived
	Held     map[string][]HeldRecord
	Timers   map[string][]Timer
	Now      time.Time // the server's clock

	several bool // contacts are loaded
}

// What DerivedStates are read from.
const (
	selectDerived = `
    SELECT contact_id::text, partition, state, seq, era, written, epoch, took::text[], heard, coalesce(survivor::text, ''), last_seq, last_era, ended_at IS NOT NULL
    FROM derived_contacts WHERE `
	selectHeld = `
    SELECT contact_id::text, topic, partition, "offset", seq, era, headers, value, held_at
    FROM derived_held WHERE `
	selectTimers = `
    SELECT contact_id::text, partition, what, due, epoch, hops, armed_at
    FROM timers WHERE `
)

// LoadDerived loads where a processor stands with contacts, in one round trip and without
// locks: the caller owns their partitions. It fails with ErrTooMuch when the states of
// several, or what waits of them, is more than 64 MiB.
//
// OFFSET 0 keeps each look-up a look-up by contact, also while there are no statistics: with
// contact_id = ANY a new table was read whole for each of the ids.
func (tx *Tx) LoadDerived(ctx context.Context, processor string, contacts []string) (*DerivedStates, error) {
	const (
		rows = `
SELECT d.* FROM unnest($2::text[]::uuid[]) AS v (id), LATERAL (` + selectDerived + `processor = $1 AND contact_id = v.id OFFSET 0) AS d`
		held = `
SELECT h.* FROM unnest($2::text[]::uuid[]) AS v (id), LATERAL (` + selectHeld + `processor = $1 AND contact_id = v.id OFFSET 0) AS h
ORDER BY h.held_at, h.topic, h."offset"`
		timers = `
SELECT t.* FROM unnest($2::text[]::uuid[]) AS v (id), LATERAL (` + selectTimers + `owner = $1 AND contact_id = v.id OFFSET 0) AS t`
	)
	found := newDerivedStates(len(contacts))
	var batch pgx.Batch
	batch.Queue(rows, processor, contacts).Query(found.addContacts)
	batch.Queue(held, processor, contacts).Query(found.addHeld)
	batch.Queue(timers, processor, contacts).Query(found.addTimers)
	batch.Queue(`SELECT clock_timestamp()`).QueryRow(func(row pgx.Row) error { return row.Scan(&found.Now) })
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("load %d contacts of %s: %w", len(contacts), processor, err)
	}
	found.Now = found.Now.UTC()
	return found, nil
}

func newDerivedStates(contacts int) *DerivedStates {
	return &DerivedStates{Contacts: make(map[string]*Derived, contacts), Held: make(map[string][]HeldRecord), Timers: make(map[string][]Timer), several: contacts > 1}
}

// addContacts reads what selectDerived selects.
func (found *DerivedStates) addContacts(rows pgx.Rows) error {
	size := 0
	for rows.Next() {
		d := &Derived{}
		if err := rows.Scan(&d.ContactID, &d.Partition, &d.State, &d.Seq, &d.Era, &d.Written, &d.Epoch, &d.Took, &d.Heard, &d.Survivor, &d.Last, &d.LastEra, &d.Ended); err != nil {
			return err
		}
		if size += len(d.State); size > maxStates && found.several {
			return ErrTooMuch
		}
		found.Contacts[d.ContactID] = d
	}
	return rows.Err()
}

// addHeld reads what selectHeld selects.
func (found *DerivedStates) addHeld(rows pgx.Rows) error {
	size := 0
	for rows.Next() {
		var h HeldRecord
		if err := rows.Scan(&h.ContactID, &h.Topic, &h.Partition, &h.Offset, &h.Seq, &h.Era, &h.Headers, &h.Value, &h.HeldAt); err != nil {
			return err
		}
		if size += len(h.Value); size > maxStates && found.several {
			return ErrTooMuch
		}
		found.Held[h.ContactID] = append(found.Held[h.ContactID], h)
	}
	return rows.Err()
}

// addTimers reads what selectTimers selects.
func (found *DerivedStates) addTimers(rows pgx.Rows) error {
	for rows.Next() {
		var t Timer
		if err := rows.Scan(&t.ContactID, &t.Partition, &t.What, &t.Due, &t.Epoch, &t.Hops, &t.ArmedAt); err != nil {
			return err
		}
		t.Due, t.ArmedAt = t.Due.UTC(), t.ArmedAt.UTC()
		found.Timers[t.ContactID] = append(found.Timers[t.ContactID], t)
	}
	return rows.Err()
}

// IsDerived says whether a processor has seen a contact.
func (db *DB) IsDerived(ctx context.Context, processor, contact string) (bool, error) {
	seen, err := db.DerivedAmong(ctx, processor, []string{contact})
	return seen[contact], err
}

// DerivedAmong are those of some contacts that a processor has seen.
func (db *DB) DerivedAmong(ctx context.Context, processor string, contacts []string) (map[string]bool, error) {
	rows, err := db.sql.Query(ctx, `
SELECT d.contact_id::text FROM unnest($2::text[]::uuid[]) AS n (id), LATERAL (
    SELECT contact_id FROM derived_contacts WHERE processor = $1 AND contact_id = n.id OFFSET 0) AS d`, processor, contacts)
	var found []string
	if err == nil {
		found, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, fmt.Errorf("look for %d contacts at %s: %w", len(contacts), processor, err)
	}
	seen := make(map[string]bool, len(found))
	for _, id := range found {
		seen[id] = true
	}
	return seen, nil
}

// DerivedChanges is what a batch changes.
type DerivedChanges struct {
	Contacts []*Derived
	Moved    []*Derived   // that have rows, and of which State, Seq, Era, Written and Epoch alone may have changed
	Held     []HeldRecord // new ones
	Released []HeldRecord // applied; their places count
	Armed    []Timer      // new or armed anew
	Disarmed []Timer
	Fills    []Fill // as they stand now
}

// SaveDerived writes the changes of a batch in a fixed number of statements that go together. Listeners of ChannelTimers hear when the earliest of the timers is due.
func (tx *Tx) SaveDerived(ctx context.Context, processor string, ch *DerivedChanges) error {
	var batch pgx.Batch
	if err := saveDerivedContacts(&batch, processor, ch.Contacts); err != nil {
		return err
	}
	moveDerivedContacts(&batch, processor, ch.Moved)
	releaseRecords(&batch, processor, ch.Released)
	if err := holdRecords(&batch, processor, ch.Held); err != nil {
		return err
	}
	disarmTimers(&batch, processor, ch.Disarmed)
	armTimers(&batch, processor, ch.Armed)
	moveFills(&batch, processor, ch.Fills)
	what := fmt.Sprintf("save %d contacts, %d records that wait and %d timers of %s", len(ch.Contacts), len(ch.Held), len(ch.Armed), processor)
	return tx.writeAll(ctx, what, &batch)
}

func saveDerivedContacts(batch *pgx.Batch, processor string, contacts []*Derived) error {
	if len(contacts) == 0 {
		return nil
	}
	const upsert = `
INSERT INTO derived_contacts AS d (processor, contact_id, partition, state, seq, era, written, epoch, took, heard, survivor, last_seq, last_era, ended_at)
SELECT $1, v.contact_id, v.partition, v.state, v.seq, v.era, v.written, v.epoch, v.took::uuid[], v.heard::jsonb, nullif(v.survivor, '')::uuid, v.last_seq, v.last_era,
       CASE WHEN v.ended THEN now() END
FROM unnest($2::text[]::uuid[], $3::integer[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::bigint[], $13::bigint[], $14::boolean[])
     AS v (contact_id, partition, state, seq, era, written, epoch, took, heard, survivor, last_seq, last_era, ended)
ON CONFLICT (processor, contact_id) DO UPDATE
SET partition = excluded.partition, state = CASE WHEN excluded.ended_at IS NULL THEN coalesce(excluded.state, d.state) END,
    seq = excluded.seq, era = excluded.era, written = excluded.written, epoch = excluded.epoch, took = excluded.took,
    heard = excluded.heard, survivor = excluded.survivor, last_seq = excluded.last_seq, last_era = excluded.last_era, ended_at = CASE WHEN excluded.ended_at IS NOT NULL THEN coalesce(d.ended_at, excluded.ended_at) END`
	n := len(contacts)
	ids, partitions, states, ended := make([]string, n), make([]int32, n), make([][]byte, n), make([]bool, n)
	seqs, eras, written, epochs := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	took, heard, survivors := make([]string, n), make([]string, n), make([]string, n)
	last, lastEras := make([]int64, n), make([]int64, n)
	for i, c := range contacts {
		heard[i] = "{}"
		if len(c.Heard) > 0 {
			numbers, err := json.Marshal(c.Heard)
			if err != nil {
				return fmt.Errorf("contact %s of %s: %w", c.ContactID, processor, err)
			}
			heard[i] = string(numbers)
		}
		ids[i], partitions[i], states[i], ended[i] = c.ContactID, c.Partition, c.State, c.Ended
		seqs[i], eras[i], written[i], epochs[i] = c.Seq, c.Era, c.Written, c.Epoch
		took[i], survivors[i] = uuidArray(c.Took), c.Survivor
		last[i], lastEras[i] = c.Last, c.LastEra
	}
	batch.Queue(upsert, processor, ids, partitions, states, seqs, eras, written, epochs, took, heard, survivors, last, lastEras, ended)
	return nil
}

// moveDerivedContacts updates rows that are there, which costs half of what an upsert does.
func moveDerivedContacts(batch *pgx.Batch, processor string, contacts []*Derived) {
	if len(contacts) == 0 {
		return
	}
	const update = `
UPDATE derived_contacts AS d SET state = coalesce(v.state, d.state), seq = v.seq, era = v.era, written = v.written, epoch = v.epoch
FROM unnest($2::text[]::uuid[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[]) AS v (contact_id, state, seq, era, written, epoch)
WHERE d.processor = $1 AND d.contact_id = v.contact_id`
	n := len(contacts)
	ids, states := make([]string, n), make([][]byte, n)
	seqs, eras, written, epochs := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, c := range contacts {
		ids[i], states[i], seqs[i], eras[i], written[i], epochs[i] = c.ContactID, c.State, c.Seq, c.Era, c.Written, c.Epoch
	}
	batch.Queue(update, processor, ids, states, seqs, eras, written, epochs)
}

func holdRecords(batch *pgx.Batch, processor string, held []HeldRecord) error {
	if len(held) == 0 {
		return nil
	}
	const insert = `
INSERT INTO derived_held (processor, topic, partition, "offset", contact_id, seq, era, headers, value)
SELECT $1, v.* FROM unnest($2::text[], $3::integer[], $4::bigint[], $5::text[]::uuid[], $6::bigint[], $7::bigint[], $8::text[]::jsonb[], $9::bytea[]) AS v
ON CONFLICT (processor, topic, partition, "offset") DO UPDATE
SET contact_id = excluded.contact_id, seq = excluded.seq, era = excluded.era, headers = excluded.headers, value = excluded.value`
	topics, partitions, offsets := places(held)
	n := len(held)
	ids, seqs, eras, headers, values := make([]string, n), make([]int64, n), make([]int64, n), make([]string, n), make([][]byte, n)
	for i, h := range held {
		text, err := json.Marshal(h.Headers)
		if err != nil {
			return fmt.Errorf("hold %s/%d/%d for %s: %w", h.Topic, h.Partition, h.Offset, processor, err)
		}
		ids[i], seqs[i], eras[i], headers[i], values[i] = h.ContactID, h.Seq, h.Era, string(text), h.Value
	}
	batch.Queue(insert, processor, topics, partitions, offsets, ids, seqs, eras, headers, values)
	return nil
}

func releaseRecords(batch *pgx.Batch, processor string, released []HeldRecord) {
	if len(released) == 0 {
		return
	}
	const remove = `
DELETE FROM derived_held AS h USING unnest($2::text[], $3::integer[], $4::bigint[]) AS v (topic, partition, "offset")
WHERE h.processor = $1 AND h.topic = v.topic AND h.partition = v.partition AND h."offset" = v."offset"`
	topics, partitions, offsets := places(released)
	batch.Queue(remove, processor, topics, partitions, offsets)
}

func places(held []HeldRecord) (topics []string, partitions []int32, offsets []int64) {
	topics, partitions, offsets = make([]string, len(held)), make([]int32, len(held)), make([]int64, len(held))
	for i, h := range held {
		topics[i], partitions[i], offsets[i] = h.Topic, h.Partition, h.Offset
	}
	return topics, partitions, offsets
}

// Waiting is what has waited for a processor for long.
type Waiting struct {
	Processor string
	Records   int64
	ContactID string    // of the one that has waited longest
	Appended  time.Time // when that was appended
}

// WaitingRecords says of each processor how many records have waited since before a time, but
// for those that wait for another process (TimerWaiting).
func (db *DB) WaitingRecords(ctx context.Context, before time.Time) ([]Waiting, error) {
	const count = `
SELECT processor, count(*), (array_agg(contact_id::text ORDER BY held_at))[1], min((headers->>'appendTime')::timestamptz)
FROM derived_held AS h WHERE held_at < $1
  AND NOT EXISTS (SELECT FROM timers AS t WHERE t.owner = h.processor AND t.contact_id = h.contact_id AND t.what = $2)
GROUP BY processor ORDER BY processor`
	rows, err := db.sql.Query(ctx, count, before, TimerWaiting)
	if err != nil {
		return nil, fmt.Errorf("count the records that wait: %w", err)
	}
	waiting, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Waiting, err error) {
		var appended *time.Time
		if err = row.Scan(&w.Processor, &w.Records, &w.ContactID, &appended); err == nil && appended != nil {
			w.Appended = *appended
		}
		return w, err
	})
	if err != nil {
		return nil, fmt.Errorf("count the records that wait: %w", err)
	}
	return waiting, nil
}

// CleanDerivedMarks forgets at most limit contacts that ended before a time, and says how
// many it took.
func (db *DB) CleanDerivedMarks(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "marks of derived processors", `
DELETE FROM derived_contacts WHERE ctid IN (SELECT ctid FROM derived_contacts WHERE ended_at < $1 LIMIT $2)`, before, limit)
}

package storage

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Fill is how far a partition of a derived processor is filled with the definitions of a
// version.
type Fill struct {
	Partition int32
	Version   int64
	After     uuid.UUID // the last contact that was passed; the zero id at first
	Passed    int64     // contacts
	Total     int64     // contacts when it began
	Behind    int64     // of those passed, contacts that are to be filled with a later record
	Done      bool
}

// Fills says how far partitions of a processor are filled with a version. A fill of an older
// version begins anew, one of a newer is as it is. One statement, without locks: the caller
// owns the partitions. all is how many partitions the processor has.
func (tx *Tx) Fills(ctx context.Context, processor string, version int64, partitions []int32) (fills map[int32]Fill, all int, err error) {
	const look = `
SELECT v.partition, coalesce(f.version, -1), coalesce(f.after, '00000000-0000-0000-0000-000000000000'), coalesce(f.passed, 0), coalesce(f.total, 0),
       coalesce(f.behind, 0), f.done_at IS NOT NULL, (SELECT count(*) FROM processor_progress WHERE processor = $1)
FROM unnest($2::integer[]) AS v (partition) LEFT JOIN derived_fills AS f ON f.processor = $1 AND f.partition = v.partition`
	rows, err := tx.sql.Query(ctx, look, processor, partitions)
	if err != nil {
		return nil, 0, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	fills = make(map[int32]Fill, len(partitions))
	var f Fill
	_, err = pgx.ForEachRow(rows, []any{&f.Partition, &f.Version, &f.After, &f.Passed, &f.Total, &f.Behind, &f.Done, &all}, func() error {
		if f.Version < version {
			f = Fill{Partition: f.Partition, Version: version, Total: f.Total}
		}
		fills[f.Partition] = f
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	return fills, all, nil
}

// DerivedRange is where the next contacts of a processor end above an id, limit of them of all
// partitions, marks too; zero when there are none. whole says that there were as many.
//
// The limit stands in the text: with a parameter that is not known when it is planned, all
// that follow are read and sorted.
func (tx *Tx) DerivedRange(ctx context.Context, processor string, after uuid.UUID, limit int) (until uuid.UUID, whole bool, err error) {
	look := fmt.Sprintf(`
SELECT count(*), coalesce((array_agg(contact_id ORDER BY contact_id DESC))[1], '00000000-0000-0000-0000-000000000000')
FROM (SELECT contact_id FROM derived_contacts WHERE processor = $1 AND contact_id > $2 ORDER BY contact_id LIMIT %d) AS a`, limit)
	var n int
	if err := tx.sql.QueryRow(ctx, look, processor, after).Scan(&n, &until); err != nil {
		return until, false, fmt.Errorf("look for the contacts of %s after %s: %w", processor, after, err)
	}
	return until, n == limit, nil
}

// DerivedBetween loads the contacts of (after, until] in some partitions, without those that
// ended: what LoadDerived loads but for the time. It fails with ErrTooMuch as that does; of
// them there are at most limit.
func (tx *Tx) DerivedBetween(ctx context.Context, processor string, after, until uuid.UUID, partitions []int32, limit int) (*DerivedStates, error) {
	const (
		between = ` = $1 AND contact_id > $2 AND contact_id <= $3 AND partition = ANY ($4)`
		rows    = selectDerived + `processor` + between + ` AND ended_at IS NULL`
		held    = selectHeld + `processor` + between + ` ORDER BY held_at, topic, "offset"`
		timers  = selectTimers + `owner` + between
	)
	found := newDerivedStates(limit)
	var batch pgx.Batch
	batch.Queue(rows, processor, after, until, partitions).Query(found.addContacts)
	batch.Queue(held, processor, after, until, partitions).Query(found.addHeld)
	batch.Queue(timers, processor, after, until, partitions).Query(found.addTimers)
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("load the contacts of %s from %s to %s: %w", processor, after, until, err)
	}
	return found, nil
}

func moveFills(batch *pgx.Batch, processor string, fills []Fill) {
	if len(fills) == 0 {
		return
	}
	const upsert = `
INSERT INTO derived_fills AS f (processor, partition, version, after, passed, total, behind, done_at, filled)
SELECT $1, v.partition, v.version, v.after, v.passed, v.total, v.behind, CASE WHEN v.done THEN now() END, CASE WHEN v.done THEN v.version ELSE 0 END
FROM unnest($2::integer[], $3::bigint[], $4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::boolean[])
     AS v (partition, version, after, passed, total, behind, done)
ON CONFLICT (processor, partition) DO UPDATE
SET version = excluded.version, after = excluded.after, passed = excluded.passed, total = excluded.total, behind = excluded.behind,
    started_at = CASE WHEN f.version = excluded.version THEN f.started_at ELSE now() END, updated_at = now(), done_at = excluded.done_at,
    filled = greatest(f.filled, excluded.filled)`
	n := len(fills)
	partitions, versions, after := make([]int32, n), make([]int64, n), make([]uuid.UUID, n)
	passed, totals, behind, done := make([]int64, n), make([]int64, n), make([]int64, n), make([]bool, n)
	for i, f := range fills {
		partitions[i], versions[i], after[i] = f.Partition, f.Version, f.After
		passed[i], totals[i], behind[i], done[i] = f.Passed, f.Total, f.Behind, f.Done
	}
	batch.Queue(upsert, processor, partitions, versions, after, passed, totals, behind, done)
}

// KnownContacts reads the contacts that a derived processor stands with, and those of their
// stored events that have one of the names; also the events of contacts that were merged
// into them, for Postgres or for the processor (Took). Each contact is as of one moment.
// Those that have ended are left out. fn is called for each and may not use the transaction.
// What is read of several at once is at most about 64 MiB.
func (tx *Tx) KnownContacts(ctx context.Context, contacts []*Derived, names []string, fn func(*Taken) error) error {
	found, err := tx.knownContacts(ctx, contacts, names)
	if errors.Is(err, ErrTooMuch) {
		half := len(contacts) / 2
		if err := tx.KnownContacts(ctx, contacts[:half], names, fn); err != nil {
			return err
		}
		return tx.KnownContacts(ctx, contacts[half:], names, fn)
	}
	if err != nil {
		return fmt.Errorf("read %d contacts and their events: %w", len(contacts), err)
	}
	for _, t := range found {
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

// KnownBetween is KnownContacts for contacts that are most of those of (after, until] in some
// partitions: it reads along the ids, in all tables. Contacts have what those of Standings have;
// Source, Seq and Era of events are left out. A contact is as of one moment only if its row
// says the number that the processor stands with: events are read first, so those of all
// numbers up to that are there, and one that comes meanwhile has the row say a later one.
func (tx *Tx) KnownBetween(ctx context.Context, after, until string, partitions []int32, contacts []*Derived, names []string, fn func(*Taken) error) error {
	events, err := tx.eventsBetween(ctx, after, until, contacts, names)
	if errors.Is(err, ErrTooMuch) {
		return tx.KnownContacts(ctx, contacts, names, fn)
	}
	if err != nil {
		return err
	}
	const load = `
SELECT id::text, coalesce(external_id, ''), coalesce(email, ''), coalesce(anonymous_id, ''), merged::text[], properties::text, seq, era, first_seen_at, last_seen_at
FROM contacts WHERE id > $1::text::uuid AND id <= $2::text::uuid AND partition = ANY ($3)`
	asked := make(map[string]*Derived, len(contacts))
	for _, c := range contacts {
		asked[c.ContactID] = c
	}
	rows, err := tx.sql.Query(ctx, load, after, until, partitions)
	if err != nil {
		return fmt.Errorf("read the contacts from %s to %s: %w", after, until, err)
	}
	known := make([]*Taken, 0, len(contacts))
	var others []*Derived // whose events also stand elsewhere
	for rows.Next() {
		c := &Contact{}
		if err := rows.Scan(&c.ID, &c.ExternalID, &c.Email, &c.AnonymousID, &c.Merged, &c.Properties, &c.Seq, &c.Era, &c.FirstSeenAt, &c.LastSeenAt); err != nil {
			rows.Close()
			return fmt.Errorf("read the contacts from %s to %s: %w", after, until, err)
		}
		switch d := asked[c.ID]; {
		case d == nil:
		case len(c.Merged)+len(d.Took) > 0:
			others = append(others, d)
		default:
			known = append(known, &Taken{ContactID: c.ID, Contact: c, Events: events[c.ID]})
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the contacts from %s to %s: %w", after, until, err)
	}
	for _, t := range known {
		if err := fn(t); err != nil {
			return err
		}
	}
	if len(others) == 0 {
		return nil
	}
	return tx.KnownContacts(ctx, others, names, fn)
}

// eventsBetween are the stored events of some names of contacts of (after, until], by contact
// and there by time.
func (tx *Tx) eventsBetween(ctx context.Context, after, until string, contacts []*Derived, names []string) (map[string][]StoredEvent, error) {
	const load = `
SELECT contact_id, id, array_position($3::text[], name), properties::text, occurred_at, received_at
FROM events WHERE contact_id > $1::text::uuid AND contact_id <= $2::text::uuid AND name = ANY ($3)`
	if len(names) == 0 {
		return nil, nil
	}
	asked := make(map[uuid.UUID]string, len(contacts))
	for _, c := range contacts {
		id, err := uuid.Parse(c.ContactID)
		if err != nil {
			return nil, fmt.Errorf("read the events of contact %q: %w", c.ContactID, err)
		}
		asked[id] = c.ContactID
	}
	rows, err := tx.sql.Query(ctx, load, after, until, names)
	if err != nil {
		return nil, fmt.Errorf("read the events from contact %s to %s: %w", after, until, err)
	}
	all, counts := make([]StoredEvent, 0, 8*len(contacts)), make(map[string]int, len(contacts))
	var owner, id uuid.UUID
	var name, size int
	var e StoredEvent
	_, err = pgx.ForEachRow(rows, []any{&owner, &id, &name, &e.Properties, &e.OccurredAt, &e.ReceivedAt}, func() error {
		contact, is := asked[owner]
		if !is {
			return nil
		}
		e.ContactID, e.ID, e.Name = contact, id.String(), names[name-1]
		e.OccurredAt, e.ReceivedAt = e.OccurredAt.UTC(), e.ReceivedAt.UTC()
		if size += len(e.Name) + len(e.Properties) + eventOverhead; size > maxStates && len(contacts) > 1 {
			return ErrTooMuch
		}
		all = append(all, e)
		counts[contact]++
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the events from contact %s to %s: %w", after, until, err)
	}
	return byContact(all, counts), nil
}

// byContact parts events, of each contact as many as are counted, and has them in the order of
// time.
func byContact(all []StoredEvent, counts map[string]int) map[string][]StoredEvent {
	found, room := make(map[string][]StoredEvent, len(counts)), make([]StoredEvent, len(all))
	for contact, n := range counts {
		found[contact], room = room[:0:n], room[n:]
	}
	for i := range all {
		found[all[i].ContactID] = append(found[all[i].ContactID], all[i])
	}
	for _, events := range found {
		slices.SortFunc(events, func(a, b StoredEvent) int { return cmp.Or(a.OccurredAt.Compare(b.OccurredAt), cmp.Compare(a.ID, b.ID)) })
	}
	return found
}

// knownContacts reads all at once: rows of contacts, and rows of the events of one owner.
// Each partition of events is gone through once for all of them; once for each contact took
// most of the time of a filling where there are as many partitions as days.
func (tx *Tx) knownContacts(ctx context.Context, contacts []*Derived, names []string) ([]*Taken, error) {
	const load = `
WITH known AS MATERIALIZED (
    SELECT c.* FROM unnest($1::text[]::uuid[], $3::text[]) AS v (contact, took), LATERAL (
        SELECT id, external_id, email, anonymous_id, identifiers::text, merged::text[] AS ended, properties::text, version, seq, era, first_seen_at, last_seen_at, created_at, updated_at,
               ARRAY[id] || merged || v.took::uuid[] AS owners
        FROM contacts WHERE id = v.contact OFFSET 0) AS c
)
SELECT known.*, NULL::uuid, NULL::uuid[], NULL::text[], NULL::text[], NULL::timestamptz[], NULL::timestamptz[], NULL::text[], NULL::bigint[], NULL::bigint[] FROM known
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
       contact_id, array_agg(id), array_agg(name), array_agg(properties::text), array_agg(occurred_at), array_agg(received_at), array_agg(source), array_agg(seq), array_agg(era)
FROM events WHERE cardinality($2::text[]) > 0 AND contact_id = ANY (ARRAY(SELECT unnest(owners) FROM known)) AND name = ANY ($2)
GROUP BY contact_id`
	if names == nil {
		names = []string{}
	}
	ids, took := make([]string, len(contacts)), make([]string, len(contacts))
	for i, c := range contacts {
		ids[i], took[i] = c.ContactID, uuidArray(c.Took)
	}
	rows, err := tx.sql.Query(ctx, load, ids, names, took)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found, events, size := make([]*Taken, 0, len(contacts)), make(map[uuid.UUID][]StoredEvent, len(contacts)), 0
	owners := make([][]uuid.UUID, 0, len(contacts))
	for rows.Next() {
		var k knownRow
		if err := k.scan(rows); err != nil {
			return nil, err
		}
		if k.owner == nil {
			t, err := k.taken()
			if err != nil {
				return nil, err
			}
			found, owners, size = append(found, t), append(owners, k.owners), size+len(t.Contact.Properties)
		} else {
			events[*k.owner] = k.events()
			for _, properties := range k.eventProperties {
				size += len(properties)
			}
		}
		if size > maxStates && len(contacts) > 1 {
			return nil, ErrTooMuch
		}
	}
	for i, t := range found {
		slices.SortFunc(owners[i], func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
		for _, owner := range slices.Compact(owners[i]) { // one that both know of comes twice
			t.Events = append(t.Events, events[owner]...)
		}
		slices.SortFunc(t.Events, func(a, b StoredEvent) int { return cmp.Or(a.OccurredAt.Compare(b.OccurredAt), cmp.Compare(a.ID, b.ID)) })
	}
	return found, rows.Err()
}

// knownRow is a row of knownContacts: a contact, or the events of an owner.
type knownRow struct {
	id                         *uuid.UUID
	external, email, anonymous *string
	identifiers, properties    *string
	merged                     []string
	version, seq, era          *int64
	first, last, created, at   *time.Time
	owners                     []uuid.UUID

	owner                          *uuid.UUID
	ids                            []uuid.UUID
	names, eventProperties, source []string
	occurred, received             []time.Time
	seqs, eras                     []int64
}

func (k *knownRow) scan(rows pgx.Rows) error {
	return rows.Scan(&k.id, &k.external, &k.email, &k.anonymous, &k.identifiers, &k.merged, &k.properties, &k.version, &k.seq, &k.era, &k.first, &k.last, &k.created, &k.at,
		&k.owners, &k.owner, &k.ids, &k.names, &k.eventProperties, &k.occurred, &k.received, &k.source, &k.seqs, &k.eras)
}

func (k *knownRow) taken() (*Taken, error) {
	c := &Contact{
		ID: k.id.String(), Merged: k.merged, Properties: *k.properties, Version: *k.version, Seq: *k.seq, Era: *k.era,
		FirstSeenAt: k.first.UTC(), LastSeenAt: k.last.UTC(), CreatedAt: k.created.UTC(), UpdatedAt: k.at.UTC(),
	}
	for _, text := range []struct{ from, to *string }{{k.external, &c.ExternalID}, {k.email, &c.Email}, {k.anonymous, &c.AnonymousID}} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	var err error
	if c.Identifiers, err = decodeIdentifiers([]byte(*k.identifiers)); err != nil {
		return nil, fmt.Errorf("identifiers of contact %s: %w", c.ID, err)
	}
	return &Taken{ContactID: c.ID, Contact: c}, nil
}

func (k *knownRow) events() []StoredEvent {
	owner, all := k.owner.String(), make([]StoredEvent, len(k.ids))
	for i := range all {
		all[i] = StoredEvent{
			ID: k.ids[i].String(), ContactID: owner, Name: k.names[i], Properties: k.eventProperties[i], OccurredAt: k.occurred[i].UTC(), ReceivedAt: k.received[i].UTC(),
			Source: k.source[i], Seq: k.seqs[i], Era: k.eras[i],
		}
	}
	return all
}

// FillPart is a Fill as who keeps it going sees it. One of an older version has not begun.
type FillPart struct {
	Fill
	First      string        // the first contact of the partition; empty when there is none
	Filled     int64         // the newest version with which all contacts have been passed
	TakingOver bool          // contacts of the partition are still taken over
	Still      time.Duration // for how long it did not move; only of one that has begun
}

// Through says that nothing is left to do.
func (p *FillPart) Through() bool { return p.Done || p.First == "" && !p.TakingOver }

// FillParts says of each partition of a processor how far it is filled with a version.
func (db *DB) FillParts(ctx context.Context, processor string, version int64) ([]FillPart, error) {
	const look = `
SELECT p.partition, p.taking_over IS NOT NULL,
       coalesce((SELECT d.contact_id::text FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = p.partition AND d.ended_at IS NULL
                 ORDER BY d.contact_id LIMIT 1), ''),
       f.version, f.after, f.passed, f.total, f.behind, f.done_at IS NOT NULL, coalesce(f.filled, 0), extract(epoch FROM clock_timestamp() - f.updated_at)::float8
FROM processor_progress AS p LEFT JOIN derived_fills AS f ON f.processor = p.processor AND f.partition = p.partition
WHERE p.processor = $1 ORDER BY p.partition`
	rows, err := db.sql.Query(ctx, look, processor)
	if err != nil {
		return nil, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	parts, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (FillPart, error) {
		var p FillPart
		var of, passed, total, behind *int64
		var after *uuid.UUID
		var still *float64
		err := row.Scan(&p.Partition, &p.TakingOver, &p.First, &of, &after, &passed, &total, &behind, &p.Done, &p.Filled, &still)
		if err != nil || of == nil {
			return p, err
		}
		if *of < version { // of definitions that are in use no more: but as many contacts
			p.Total, p.Done = *total, false
			return p, nil
		}
		p.Version, p.After, p.Passed, p.Total, p.Behind = *of, *after, *passed, *total, *behind
		p.Still = time.Duration(*still * float64(time.Second))
		return p, nil
	})
	if err != nil {
		return nil, fmt.Errorf("look how far %s is filled: %w", processor, err)
	}
	return parts, nil
}

// PassEmptyPartitions notes that partitions without contacts are filled with a version, so
// that whoever comes to them later, who begins with it, is not taken for somebody who waits.
// It must know the version before: the rows of progress are locked, so that no apply that
// read an older one is under way.
func (tx *Tx) PassEmptyPartitions(ctx context.Context, processor string, version int64) error {
	const (
		empty = `
SELECT p.partition FROM processor_progress AS p
WHERE p.processor = $1 AND p.taking_over IS NULL
  AND NOT EXISTS (SELECT FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = p.partition AND d.ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM derived_fills AS f WHERE f.processor = $1 AND f.partition = p.partition AND f.version >= $2)
ORDER BY p.partition FOR UPDATE OF p`
		settle = `
INSERT INTO derived_fills AS f (processor, partition, version, after, passed, total, behind, done_at, filled)
SELECT $1, v.partition, $2, '00000000-0000-0000-0000-000000000000', 0, 0, 0, now(), $2 FROM unnest($3::integer[]) AS v (partition)
WHERE NOT EXISTS (SELECT FROM derived_contacts AS d WHERE d.processor = $1 AND d.partition = v.partition AND d.ended_at IS NULL)
ON CONFLICT (processor, partition) DO UPDATE
SET version = excluded.version, after = excluded.after, passed = 0, total = 0, behind = 0, started_at = now(), updated_at = now(),
    done_at = excluded.done_at, filled = excluded.filled
WHERE f.version < excluded.version`
	)
	rows, err := tx.sql.Query(ctx, empty, processor, version)
	if err != nil {
		return fmt.Errorf("look for partitions of %s without contacts: %w", processor, err)
	}
	partitions, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil || len(partitions) == 0 {
		return err
	}
	if _, err := tx.sql.Exec(ctx, settle, processor, version, partitions); err != nil {
		return fmt.Errorf("pass partitions of %s without contacts: %w", processor, err)
	}
	return nil
}

// CountToFill notes how many contacts those partitions have that are not yet filled with a
// version: Total of the fill that is to begin. Counting takes a second for some millions, so it
// is done by who begins it, and not while live records wait.
func (db *DB) CountToFill(ctx context.Context, processor string, version int64, partitions []int32) error {
	const count = `
INSERT INTO derived_fills AS f (processor, partition, version, after, passed, total, behind)
SELECT $1, partition, 0, '00000000-0000-0000-0000-000000000000', 0, count(*), 0
FROM derived_contacts WHERE processor = $1 AND partition = ANY ($3) AND ended_at IS NULL GROUP BY partition
ON CONFLICT (processor, partition) DO UPDATE SET total = excluded.total WHERE f.version < $2`
	if _, err := db.sql.Exec(ctx, count, processor, version, partitions); err != nil {
		return fmt.Errorf("count whom %s is to fill: %w", processor, err)
	}
	return nil
}

// FillProgress is how far a processor is filled with the definitions of a version.
type FillProgress struct {
	Passed int64 // contacts
	Total  int64 // contacts, as far as partitions have begun
	Behind int64 // of those passed, contacts that are to be filled with a later record
	Done   bool
	// Filled is the newest version with which all contacts of all partitions have been
	// passed: what has not changed since is there in full.
	Filled int64
}

// FillProgress says how far a processor is filled with the definitions of a version. A
// processor that never ran is not done.
func (db *DB) FillProgress(ctx context.Context, processor string, version int64) (FillProgress, error) {
	parts, err := db.FillParts(ctx, processor, version)
	if err != nil {
		return FillProgress{}, err
	}
	all := FillProgress{Done: len(parts) > 0, Filled: version}
	if !all.Done {
		all.Filled = 0
	}
	for i := range parts {
		p := &parts[i]
		if p.First != "" || p.TakingOver {
			all.Filled = min(all.Filled, p.Filled)
		}
		all.Passed, all.Total, all.Behind = all.Passed+p.Passed, all.Total+p.Total, all.Behind+p.Behind
		all.Done = all.Done && p.Through()
	}
	return all, nil
}

package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hogstream/hogstream/schemas"
)

// Contact is a row of contacts: what is known of a person. Written by processor
// contacts only. It equals the newest snapshot on topic contacts, except that
// LastSeenAt may be later.
type Contact struct {
	ID          string
	ExternalID  string // empty when it has none; likewise the next two
	Email       string
	AnonymousID string
	Identifiers []schemas.Identifier // every identifier, aliases included
	Merged      []string             // ids of contacts merged into this one, also indirectly
	Properties  string               // JSON object, byte-faithful
	Version     int64
	Seq         int64 // number of its latest record on topics events and lifecycle; 0 when none was numbered
	Era         int64 // that Seq counts in
	Partition   int32 // where its records stand; negative while that is not known
	FirstSeenAt time.Time
	LastSeenAt  time.Time
	CreatedAt   time.Time
	UpdatedAt   time.Time
}

// Mark says that a contact ended.
type Mark struct {
	ContactID string
	Survivor  string // empty when it was deleted
	Partition int32  // where its records stand; not read back
}

const contactColumns = `c.id::text, coalesce(c.external_id, ''), coalesce(c.email, ''), coalesce(c.anonymous_id, ''),
       c.identifiers::text, c.merged::text[], c.properties::text, c.version, c.seq, c.era, coalesce(c.partition, -1),
       c.first_seen_at, c.last_seen_at, c.created_at, c.updated_at`

// scanContact reads a row of contactColumns.
func scanContact(row pgx.CollectableRow) (*Contact, error) {
	var c Contact
	var identifiers []byte
	err := row.Scan(&c.ID, &c.ExternalID, &c.Email, &c.AnonymousID, &identifiers, &c.Merged, &c.Properties,
		&c.Version, &c.Seq, &c.Era, &c.Partition, &c.FirstSeenAt, &c.LastSeenAt, &c.CreatedAt, &c.UpdatedAt)
	if err != nil {
		return nil, err
	}
	c.FirstSeenAt, c.LastSeenAt = c.FirstSeenAt.UTC(), c.LastSeenAt.UTC()
	c.CreatedAt, c.UpdatedAt = c.CreatedAt.UTC(), c.UpdatedAt.UTC()
	if c.Identifiers, err = decodeIdentifiers(identifiers); err != nil {
		return nil, fmt.Errorf("identifiers of contact %s: %w", c.ID, err)
	}
	return &c, nil
}

// Identifiers stand in the table as [["email","a@b.c"], …].
func encodeIdentifiers(ids []schemas.Identifier) (string, error) {
	pairs := make([][2]string, len(ids))
	for i, id := range ids {
		pairs[i] = [2]string{id.Kind, id.Value}
	}
	text, err := json.Marshal(pairs)
	return string(text), err
}

func decodeIdentifiers(text []byte) ([]schemas.Identifier, error) {
	if bytes.IndexByte(text, '\\') < 0 {
		return splitIdentifiers(string(text)), nil
	}
	var pairs [][2]string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return nil, err
	}
	ids := make([]schemas.Identifier, len(pairs))
	for i, p := range pairs {
		ids[i] = schemas.Identifier{Kind: p[0], Value: p[1]}
	}
	return ids, nil
}

// splitIdentifiers reads what encodeIdentifiers wrote without an escape in it:
// then every quote is a delimiter, and every other piece between quotes a string.
// It is read for each contact of each batch.
func splitIdentifiers(text string) []schemas.Identifier {
	pieces := strings.Split(text, `"`)
	ids := make([]schemas.Identifier, 0, len(pieces)/4)
	for i := 1; i+2 < len(pieces); i += 4 {
		ids = append(ids, schemas.Identifier{Kind: pieces[i], Value: pieces[i+2]})
	}
	return ids
}

// ContactStates is what LoadContacts found.
type ContactStates struct {
	Contacts    map[string]*Contact
	Marks       map[string]Mark
	Preferences map[string][]schemas.Preference // by contact id, sorted by address
	Era         int64                           // of contacts that are new
	Taken       map[string]int64                // offsets of those of the inputs that contacts took lately, by id
}

// ErrTooMuch says that what was asked for is too much to hold at once: ask for fewer.
var ErrTooMuch = errors.New("more than may be held in memory at once")

// maxStates bounds what is loaded of several contacts, in bytes.
const maxStates = 64 << 20

// LoadContacts loads what is known of the contacts, their marks and their
// preferences, the present era, and which of some inputs were taken lately, in one round trip
// and without locks: the caller owns their partitions. It fails with ErrTooMuch when that is
// more than 64 MiB of several.
func (tx *Tx) LoadContacts(ctx context.Context, ids, inputs []string) (*ContactStates, error) {
	const (
		contacts = `SELECT ` + contactColumns + ` FROM contacts AS c WHERE c.id = ANY ($1::text[]::uuid[])`
		marks    = `SELECT contact_id::text, coalesce(survivor::text, '') FROM contact_marks WHERE contact_id = ANY ($1::text[]::uuid[])`
	)
	states := &ContactStates{
		Contacts:    make(map[string]*Contact, len(ids)),
		Marks:       make(map[string]Mark),
		Preferences: make(map[string][]schemas.Preference),
		Taken:       make(map[string]int64),
	}
	var batch pgx.Batch
	held := 0
	hold := func(rows pgx.Rows) error {
		for _, raw := range rows.RawValues() {
			held += len(raw)
		}
		if held > maxStates && len(ids) > 1 {
			return ErrTooMuch
		}
		return nil
	}
	batch.Queue(contacts, ids).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			if err := hold(rows); err != nil {
				return err
			}
			c, err := scanContact(rows)
			if err != nil {
				return err
			}
			states.Contacts[c.ID] = c
		}
		return rows.Err()
	})
	batch.Queue(marks, ids).Query(func(rows pgx.Rows) error {
		var m Mark
		_, err := pgx.ForEachRow(rows, []any{&m.ContactID, &m.Survivor}, func() error { states.Marks[m.ContactID] = m; return nil })
		return err
	})
	batch.Queue(presentEra).QueryRow(func(row pgx.Row) error { return row.Scan(&states.Era) })
	batch.Queue(loadPreferences, ids).Query(func(rows pgx.Rows) error { return scanPreferences(rows, states.Preferences, hold) })
	loadRecentInputs(&batch, inputs, states.Taken)
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("load %d contacts: %w", len(ids), err)
	}
	return states, nil
}

// ContactChanges is what a batch changes; each contact stands in one of the
// first four. Numbers are written of all but those that ended.
type ContactChanges struct {
	Saved       []*Contact // new, or more than properties changed
	Patched     []*Contact // only properties, version, number and times changed
	Seen        []*Contact // only LastSeenAt and number changed
	Ended       []string   // rows and preferences to be removed
	Marks       []Mark
	Preferences map[string][]schemas.Preference // changed ones, by contact id
	// ForgetEvents are contacts whose stored events are erased.
	ForgetEvents []string
}

// SaveContacts writes the changes of a batch in a constant number of statements.
func (tx *Tx) SaveContacts(ctx context.Context, ch *ContactChanges, now time.Time) error {
	if err := tx.endContacts(ctx, ch.Ended, ch.ForgetEvents); err != nil {
		return err
	}
	if err := tx.markContacts(ctx, ch.Marks, now); err != nil {
		return err
	}
	if err := tx.upsertContacts(ctx, ch.Saved); err != nil {
		return err
	}
	if err := tx.patchContacts(ctx, ch.Patched); err != nil {
		return err
	}
	if err := tx.seeContacts(ctx, ch.Seen); err != nil {
		return err
	}
	return tx.savePreferences(ctx, ch.Preferences, now)
}

func (tx *Tx) endContacts(ctx context.Context, ended, forget []string) error {
	const (
		contacts    = `DELETE FROM contacts WHERE id = ANY ($1::text[]::uuid[])`
		preferences = `DELETE FROM email_preferences WHERE contact_id = ANY ($1::text[]::uuid[])`
		events      = `DELETE FROM events WHERE contact_id = ANY ($1::text[]::uuid[])`
	)
	if len(ended) > 0 {
		for _, sql := range []string{contacts, preferences} {
			if _, err := tx.sql.Exec(ctx, sql, ended); err != nil {
				return fmt.Errorf("remove %d contacts: %w", len(ended), err)
			}
		}
	}
	if len(forget) > 0 {
		if _, err := tx.sql.Exec(ctx, events, forget); err != nil {
			return fmt.Errorf("erase events of %d contacts: %w", len(forget), err)
		}
	}
	return nil
}

// markContacts writes marks; deletion wins over a merge.
func (tx *Tx) markContacts(ctx context.Context, marks []Mark, now time.Time) error {
	if len(marks) == 0 {
		return nil
	}
	const upsert = `
INSERT INTO contact_marks (contact_id, survivor, partition, marked_at)
SELECT n.contact_id, nullif(n.survivor, '')::uuid, n.partition, $4
FROM unnest($1::text[]::uuid[], $2::text[], $3::integer[]) AS n (contact_id, survivor, partition)
ON CONFLICT (contact_id) DO UPDATE SET survivor = excluded.survivor, partition = excluded.partition, marked_at = excluded.marked_at
WHERE contact_marks.survivor IS NOT NULL`
	ids, survivors, partitions := columnsOf(marks)
	if _, err := tx.sql.Exec(ctx, upsert, ids, survivors, partitions, now); err != nil {
		return fmt.Errorf("mark %d contacts: %w", len(marks), err)
	}
	return nil
}

func columnsOf(marks []Mark) (ids, survivors []string, partitions []int32) {
	ids, survivors, partitions = make([]string, len(marks)), make([]string, len(marks)), make([]int32, len(marks))
	for i, m := range marks {
		ids[i], survivors[i], partitions[i] = m.ContactID, m.Survivor, m.Partition
	}
	return ids, survivors, partitions
}

func (tx *Tx) upsertContacts(ctx context.Context, saved []*Contact) error {
	if len(saved) == 0 {
		return nil
	}
	const upsert = `
INSERT INTO contacts (id, external_id, email, anonymous_id, identifiers, merged, properties, version, seq, era, partition,
                      first_seen_at, last_seen_at, created_at, updated_at)
SELECT n.id, nullif(n.external_id, ''), nullif(n.email, ''), nullif(n.anonymous_id, ''), n.identifiers, n.merged::uuid[],
       n.properties, n.version, n.seq, n.era, nullif(n.partition, -1), n.first_seen_at, n.last_seen_at, n.created_at, n.updated_at
FROM unnest($1::text[]::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]::json[], $6::text[], $7::text[]::json[],
            $8::bigint[], $9::bigint[], $10::bigint[], $11::integer[],
            $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[])
     AS n (id, external_id, email, anonymous_id, identifiers, merged, properties, version, seq, era, partition,
           first_seen_at, last_seen_at, created_at, updated_at)
ON CONFLICT (id) DO UPDATE
SET external_id = excluded.external_id, email = excluded.email, anonymous_id = excluded.anonymous_id,
    identifiers = excluded.identifiers, merged = excluded.merged, properties = excluded.properties,
    version = excluded.version, seq = excluded.seq, era = excluded.era, partition = excluded.partition, first_seen_at = excluded.first_seen_at, last_seen_at = excluded.last_seen_at,
    created_at = excluded.created_at, updated_at = excluded.updated_at`
	n := len(saved)
	text := func() []string { return make([]string, n) }
	times := func() []time.Time { return make([]time.Time, n) }
	ids, externals, emails, anonymous, identifiers, merged, properties := text(), text(), text(), text(), text(), text(), text()
	first, last, created, updated := times(), times(), times(), times()
	versions, seqs, eras, partitions := make([]int64, n), make([]int64, n), make([]int64, n), make([]int32, n)
	for i, c := range saved {
		encoded, err := encodeIdentifiers(c.Identifiers)
		if err != nil {
			return fmt.Errorf("save contact %s: %w", c.ID, err)
		}
		ids[i], externals[i], emails[i], anonymous[i] = c.ID, c.ExternalID, c.Email, c.AnonymousID
		identifiers[i], merged[i], properties[i], versions[i] = encoded, uuidArray(c.Merged), c.Properties, c.Version
		seqs[i], eras[i], partitions[i] = c.Seq, c.Era, max(c.Partition, -1)
		first[i], last[i], created[i], updated[i] = c.FirstSeenAt, c.LastSeenAt, c.CreatedAt, c.UpdatedAt
	}
	return tx.write(ctx, fmt.Sprintf("save %d contacts", n), upsert, ids, externals, emails, anonymous, identifiers, merged, properties, versions,
		seqs, eras, partitions, first, last, created, updated)
}

// patchContacts leaves indexed columns alone, so that rows are updated in place.
func (tx *Tx) patchContacts(ctx context.Context, patched []*Contact) error {
	if len(patched) == 0 {
		return nil
	}
	const update = `
UPDATE contacts AS c
SET properties = n.properties, version = n.version, seq = n.seq, last_seen_at = n.last_seen_at, updated_at = n.updated_at
FROM unnest($1::text[]::uuid[], $2::text[]::json[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::timestamptz[])
     AS n (id, properties, version, seq, last_seen_at, updated_at)
WHERE c.id = n.id`
	n := len(patched)
	ids, properties, versions, seqs := make([]string, n), make([]string, n), make([]int64, n), make([]int64, n)
	last, updated := make([]time.Time, n), make([]time.Time, n)
	for i, c := range patched {
		ids[i], properties[i], versions[i], seqs[i], last[i], updated[i] = c.ID, c.Properties, c.Version, c.Seq, c.LastSeenAt, c.UpdatedAt
	}
	return tx.write(ctx, fmt.Sprintf("patch %d contacts", n), update, ids, properties, versions, seqs, last, updated)
}

func (tx *Tx) seeContacts(ctx context.Context, seen []*Contact) error {
	if len(seen) == 0 {
		return nil
	}
	const update = `
UPDATE contacts AS c SET seq = n.seq, last_seen_at = n.last_seen_at
FROM unnest($1::text[]::uuid[], $2::bigint[], $3::timestamptz[]) AS n (id, seq, last_seen_at)
WHERE c.id = n.id`
	ids, seqs, last := make([]string, len(seen)), make([]int64, len(seen)), make([]time.Time, len(seen))
	for i, c := range seen {
		ids[i], seqs[i], last[i] = c.ID, c.Seq, c.LastSeenAt
	}
	return tx.write(ctx, fmt.Sprintf("touch %d contacts", len(seen)), update, ids, seqs, last)
}

// FindContacts returns the contacts known by an identifier, aliases included,
// at most one for each; none is no error.
func (db *DB) FindContacts(ctx context.Context, ids []schemas.Identifier) ([]*Contact, error) {
	const find = `
SELECT ` + contactColumns + `
FROM contacts AS c
WHERE c.id IN (SELECT i.contact_id FROM unnest($1::text[], $2::text[]) AS n (kind, value)
               JOIN identifiers AS i ON i.kind = n.kind AND i.value = n.value)
ORDER BY c.first_seen_at, c.id`
	kinds, values := kindsAndValues(ids)
	rows, err := db.sql.Query(ctx, find, kinds, values)
	if err != nil {
		return nil, fmt.Errorf("find contacts: %w", err)
	}
	found, err := pgx.CollectRows(rows, scanContact)
	if err != nil {
		return nil, fmt.Errorf("find contacts: %w", err)
	}
	return found, nil
}

// GetContact returns a contact by its id or the id of one merged into it, and an
// error that IsNotFound accepts when there is none. A deleted one is none as soon
// as identity has decided so, which is when a deletion is answered.
func (db *DB) GetContact(ctx context.Context, id string) (*Contact, error) {
	const get = `
SELECT ` + contactColumns + `
FROM contacts AS c
WHERE c.id = coalesce((SELECT merged_into FROM identities WHERE contact_id = $1::text::uuid), $1::text::uuid)
  AND NOT EXISTS (SELECT FROM identities AS i WHERE i.contact_id = c.id AND i.deleted_at IS NOT NULL)`
	rows, err := db.sql.Query(ctx, get, id)
	if err != nil {
		return nil, fmt.Errorf("get contact %s: %w", id, err)
	}
	c, err := pgx.CollectExactlyOneRow(rows, scanContact)
	if err != nil {
		return nil, fmt.Errorf("get contact %s: %w", id, err)
	}
	return c, nil
}

// CleanContactMarks forgets at most limit marks, and identities of the contacts
// that ended, from before a time: the longest retention of a topic that can
// carry their ids. It says how many rows it took.
func (db *DB) CleanContactMarks(ctx context.Context, before time.Time, limit int) (int64, error) {
	marks, err := db.clean(ctx, "contact marks", `
DELETE FROM contact_marks WHERE contact_id IN
    (SELECT contact_id FROM contact_marks WHERE marked_at < $1 ORDER BY marked_at LIMIT $2)`, before, limit)
	if err != nil {
		return 0, err
	}
	deleted, err := db.clean(ctx, "deleted identities", `
DELETE FROM identities WHERE contact_id IN
    (SELECT contact_id FROM identities WHERE deleted_at < $1 ORDER BY deleted_at LIMIT $2)`, before, limit)
	if err != nil {
		return marks, err
	}
	erased, err := db.clean(ctx, "erased contacts", `
DELETE FROM erased_contacts WHERE contact_id IN
    (SELECT contact_id FROM erased_contacts WHERE erased_at < $1 AND cleared_at IS NOT NULL ORDER BY erased_at LIMIT $2)`, before, limit)
	return marks + deleted + erased, err
}

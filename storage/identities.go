package storage

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hogstream/hogstream/schemas"
)

// Identity is a row of identities: who a contact is known as. Written by
// processor identity only.
type Identity struct {
	ContactID   string
	ExternalID  string // empty when it has none; likewise the next two
	Email       string
	AnonymousID string
	FirstSeenAt time.Time
	MergedInto  string // the survivor, once it was merged; never itself merged
	Deleted     bool
}

// Place is where a record stands on topic ingest, and when it was appended.
type Place struct {
	Partition  int32
	Offset     int64
	AppendTime time.Time
}

// errRaced makes the caller run the batch again, as after 40001: what was read
// without a lock had changed when it was locked.
func errRaced(what string) error {
	return &pgconn.PgError{Severity: "ERROR", Code: "40001", Message: "another transaction changed " + what}
}

// byKindAndValue is the order in which identifiers are locked and inserted.
func byKindAndValue(a, b schemas.Identifier) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Value, b.Value))
}

const identityColumns = `c.contact_id::text, coalesce(c.external_id, ''), coalesce(c.email, ''), coalesce(c.anonymous_id, ''),
       c.first_seen_at, coalesce(c.merged_into::text, ''), c.deleted_at IS NOT NULL`

func (i *Identity) fields() []any {
	return []any{&i.ContactID, &i.ExternalID, &i.Email, &i.AnonymousID, &i.FirstSeenAt, &i.MergedInto, &i.Deleted}
}

// Identities is what LoadIdentities found.
type Identities struct {
	Owner      map[schemas.Identifier]string // contact id by identifier
	ByContact  map[string]*Identity          // owners, and what was asked for by contact id
	HasErasure bool                          // some identifier was erased since `since`
}

const hasErasure = `SELECT EXISTS (SELECT FROM erased_identifiers WHERE erased_at >= $1)`

// LoadIdentities looks identifiers and contact ids up, without any lock, in one
// round trip. A contact that was merged comes with its survivor. Whether
// something was erased at or after since is read last, so that an identifier
// that was free is never missed as erased.
func (tx *Tx) LoadIdentities(ctx context.Context, ids []schemas.Identifier, contacts []string, since time.Time) (*Identities, error) {
	const (
		byIdentifier = `
SELECT i.kind, i.value, ` + identityColumns + `
FROM unnest($1::text[], $2::text[]) AS n (kind, value)
JOIN identifiers AS i ON i.kind = n.kind AND i.value = n.value
JOIN identities AS c ON c.contact_id = i.contact_id`
		byContact = `
SELECT ` + identityColumns + `
FROM identities AS n
JOIN identities AS c ON c.contact_id IN (n.contact_id, n.merged_into)
WHERE n.contact_id = ANY ($1::text[]::uuid[])`
	)
	found := &Identities{
		Owner:     make(map[schemas.Identifier]string, len(ids)),
		ByContact: make(map[string]*Identity, len(ids)),
	}
	kinds, values := kindsAndValues(ids)
	var batch pgx.Batch
	batch.Queue(byIdentifier, kinds, values).Query(func(rows pgx.Rows) error {
		var id schemas.Identifier
		var c Identity
		_, err := pgx.ForEachRow(rows, append([]any{&id.Kind, &id.Value}, c.fields()...), func() error {
			found.Owner[id] = c.ContactID
			found.add(c)
			return nil
		})
		return err
	})
	if len(contacts) > 0 {
		batch.Queue(byContact, contacts).Query(func(rows pgx.Rows) error {
			var c Identity
			_, err := pgx.ForEachRow(rows, c.fields(), func() error { found.add(c); return nil })
			return err
		})
	}
	batch.Queue(hasErasure, since).QueryRow(func(row pgx.Row) error { return row.Scan(&found.HasErasure) })
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("look up %d identifiers: %w", len(ids), err)
	}
	return found, nil
}

func (f *Identities) add(c Identity) {
	if f.ByContact[c.ContactID] == nil {
		c.FirstSeenAt = c.FirstSeenAt.UTC()
		f.ByContact[c.ContactID] = &c
	}
}

func kindsAndValues(ids []schemas.Identifier) (kinds, values []string) {
	kinds, values = make([]string, len(ids)), make([]string, len(ids))
	for i, id := range ids {
		kinds[i], values[i] = id.Kind, id.Value
	}
	return kinds, values
}

// LockIdentities locks the rows that a link, merge or delete is about to change,
// in sorted order, and compares them with what was read. It fails with an error
// that IsRetryable accepts when one has changed since.
func (tx *Tx) LockIdentities(ctx context.Context, expected []Identity) error {
	if len(expected) == 0 {
		return nil
	}
	const lock = `
SELECT ` + identityColumns + `
FROM identities AS c
WHERE c.contact_id = ANY ($1::text[]::uuid[])
ORDER BY c.contact_id
FOR UPDATE`
	ids := make([]string, len(expected))
	want := make(map[string]Identity, len(expected))
	for i, c := range expected {
		ids[i], want[c.ContactID] = c.ContactID, c
	}
	rows, err := tx.sql.Query(ctx, lock, ids)
	if err != nil {
		return fmt.Errorf("lock %d identities: %w", len(ids), err)
	}
	var c Identity
	same := 0
	_, err = pgx.ForEachRow(rows, c.fields(), func() error {
		c.FirstSeenAt = c.FirstSeenAt.UTC()
		if c == want[c.ContactID] {
			same++
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("lock %d identities: %w", len(ids), err)
	}
	if same < len(want) {
		return fmt.Errorf("lock identities: %w", errRaced("an identity"))
	}
	return nil
}

// IdentityChanges is what a batch changes. Every contact id in Attached is live
// at the end of the batch.
type IdentityChanges struct {
	Merged   map[string]string             // survivor by loser, both rows of identities
	Deleted  map[string]Place              // the deletion, by contact id; merged losers included
	Erased   map[schemas.Identifier]Place  // identifiers erased beside those that Deleted own
	Saved    []Identity                    // new or changed rows, at their final state
	Attached map[schemas.Identifier]string // contact id by an identifier that nobody owned
	// Forgotten are identifiers in Erased that nobody owned.
	Forgotten []schemas.Identifier
	// Since is the earliest append time of the batch's inputs, and KnownErased what the
	// batch knew, and has added itself, of erasures from then on.
	Since       time.Time
	KnownErased map[schemas.Identifier]Place
	// Taken are identifiers in Attached that somebody owned after all; only a
	// rebuild takes them.
	Taken []schemas.Identifier
}

// SaveIdentities writes the changes of a batch in a constant number of
// statements. It fails with an error that IsRetryable accepts when another
// transaction attached one of the identifiers first, or erased one that was attached.
func (tx *Tx) SaveIdentities(ctx context.Context, ch *IdentityChanges, now time.Time) error {
	if err := tx.repoint(ctx, ch.Merged); err != nil {
		return err
	}
	if err := tx.erase(ctx, ch.Deleted, ch.Erased); err != nil {
		return err
	}
	if err := tx.upsertIdentities(ctx, ch.Saved, now); err != nil {
		return err
	}
	if err := tx.detach(ctx, ch.Taken); err != nil {
		return err
	}
	if err := tx.reserve(ctx, ch.Forgotten, now); err != nil {
		return err
	}
	return tx.attach(ctx, ch, now)
}

// reserve makes whoever attaches one of these identifiers beside us wait for our
// commit, or wins the race against us: so either we find the contact that has it, or
// they find its erasure. Nothing is left of it.
func (tx *Tx) reserve(ctx context.Context, forgotten []schemas.Identifier, now time.Time) error {
	if len(forgotten) == 0 {
		return nil
	}
	nobody := make(map[schemas.Identifier]string, len(forgotten))
	for _, id := range forgotten {
		nobody[id] = uuid.Nil.String()
	}
	inserted, err := tx.sql.Exec(ctx, insertIdentifiers, identifierRows(nobody, now)...)
	if err != nil {
		return fmt.Errorf("reserve %d erased identifiers: %w", len(forgotten), err)
	}
	if int(inserted.RowsAffected()) < len(nobody) {
		return fmt.Errorf("reserve erased identifiers: %w", errRaced("an identifier"))
	}
	return tx.detach(ctx, forgotten)
}

func (tx *Tx) detach(ctx context.Context, taken []schemas.Identifier) error {
	if len(taken) == 0 {
		return nil
	}
	const remove = `DELETE FROM identifiers WHERE (kind, value) IN (SELECT * FROM unnest($1::text[], $2::text[]))`
	kinds, values := kindsAndValues(taken)
	if _, err := tx.sql.Exec(ctx, remove, kinds, values); err != nil {
		return fmt.Errorf("detach %d identifiers: %w", len(taken), err)
	}
	return nil
}

// repoint moves the losers' identifiers to their survivors, and whoever was
// merged into a loser before.
func (tx *Tx) repoint(ctx context.Context, merged map[string]string) error {
	if len(merged) == 0 {
		return nil
	}
	const (
		identifiers = `
UPDATE identifiers AS i SET contact_id = m.survivor
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS m (loser, survivor)
WHERE i.contact_id = m.loser`
		earlier = `
UPDATE identities AS c SET merged_into = m.survivor
FROM unnest($1::text[]::uuid[], $2::text[]::uuid[]) AS m (loser, survivor)
WHERE c.merged_into = m.loser`
	)
	losers, survivors := make([]string, 0, len(merged)), make([]string, 0, len(merged))
	for loser, survivor := range merged {
		losers, survivors = append(losers, loser), append(survivors, survivor)
	}
	for _, sql := range []string{identifiers, earlier} {
		if _, err := tx.sql.Exec(ctx, sql, losers, survivors); err != nil {
			return fmt.Errorf("repoint identifiers of %d merged contacts: %w", len(losers), err)
		}
	}
	return nil
}

// erase removes the identifiers of deleted contacts and keeps their hashes.
func (tx *Tx) erase(ctx context.Context, deleted map[string]Place, also map[schemas.Identifier]Place) error {
	if len(deleted) == 0 && len(also) == 0 {
		return nil
	}
	const (
		remove = `DELETE FROM identifiers WHERE contact_id = ANY ($1::text[]::uuid[]) RETURNING kind, value, contact_id::text`
		losers = `
UPDATE identities SET deleted_at = d.deleted_at
FROM unnest($1::text[]::uuid[], $2::timestamptz[]) AS d (contact_id, deleted_at)
WHERE identities.merged_into = d.contact_id`
		keep = `
INSERT INTO erased_identifiers AS e (kind, hash, erased_at, partition, "offset")
SELECT * FROM unnest($1::text[], $2::bytea[], $3::timestamptz[], $4::integer[], $5::bigint[])
ORDER BY 1, 2
ON CONFLICT (kind, hash) DO UPDATE
SET erased_at = excluded.erased_at, partition = excluded.partition, "offset" = excluded."offset"
WHERE excluded.erased_at >= e.erased_at`
	)
	contacts, times := make([]string, 0, len(deleted)), make([]time.Time, 0, len(deleted))
	for id, place := range deleted {
		contacts, times = append(contacts, id), append(times, place.AppendTime)
	}
	erased := make(map[schemas.Identifier]Place, len(also))
	for id, place := range also {
		erased[id] = place
	}
	if len(contacts) > 0 {
		rows, err := tx.sql.Query(ctx, remove, contacts)
		if err != nil {
			return fmt.Errorf("remove identifiers of %d deleted contacts: %w", len(contacts), err)
		}
		var id schemas.Identifier
		var contact string
		_, err = pgx.ForEachRow(rows, []any{&id.Kind, &id.Value, &contact}, func() error {
			if old, ok := erased[id]; !ok || old.AppendTime.Before(deleted[contact].AppendTime) {
				erased[id] = deleted[contact]
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("remove identifiers of %d deleted contacts: %w", len(contacts), err)
		}
		if _, err := tx.sql.Exec(ctx, losers, contacts, times); err != nil {
			return fmt.Errorf("delete what was merged into %d deleted contacts: %w", len(contacts), err)
		}
		if err := tx.noteErased(ctx, contacts); err != nil {
			return err
		}
	}
	kinds, hashes, at, partitions, offsets := erasedColumns(erased)
	if _, err := tx.sql.Exec(ctx, keep, kinds, hashes, at, partitions, offsets); err != nil {
		return fmt.Errorf("keep %d erased identifiers: %w", len(erased), err)
	}
	return nil
}

func erasedColumns(erased map[schemas.Identifier]Place) (kinds []string, hashes [][]byte, at []time.Time, partitions []int32, offsets []int64) {
	for id, place := range erased {
		kinds, hashes = append(kinds, id.Kind), append(hashes, identifierHash(id))
		at, partitions, offsets = append(at, place.AppendTime), append(partitions, place.Partition), append(offsets, place.Offset)
	}
	return kinds, hashes, at, partitions, offsets
}

func identifierHash(id schemas.Identifier) []byte {
	sum := sha256.Sum256([]byte(id.Value))
	return sum[:]
}

func (tx *Tx) upsertIdentities(ctx context.Context, saved []Identity, now time.Time) error {
	if len(saved) == 0 {
		return nil
	}
	const upsert = `
INSERT INTO identities (contact_id, external_id, email, anonymous_id, first_seen_at, merged_into, deleted_at)
SELECT n.contact_id, nullif(n.external_id, ''), nullif(n.email, ''), nullif(n.anonymous_id, ''), n.first_seen_at,
       nullif(n.merged_into, '')::uuid, CASE WHEN n.deleted THEN $8::timestamptz END
FROM unnest($1::text[]::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::boolean[])
     AS n (contact_id, external_id, email, anonymous_id, first_seen_at, merged_into, deleted)
ON CONFLICT (contact_id) DO UPDATE
SET external_id = excluded.external_id, email = excluded.email, anonymous_id = excluded.anonymous_id,
    first_seen_at = excluded.first_seen_at, merged_into = excluded.merged_into, deleted_at = excluded.deleted_at`
	n := len(saved)
	ids, externals, emails, anonymous := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	seen, merged, deleted := make([]time.Time, n), make([]string, n), make([]bool, n)
	for i := range saved {
		c := &saved[i]
		ids[i], externals[i], emails[i], anonymous[i] = c.ContactID, c.ExternalID, c.Email, c.AnonymousID
		seen[i], merged[i], deleted[i] = c.FirstSeenAt, c.MergedInto, c.Deleted
	}
	if _, err := tx.sql.Exec(ctx, upsert, ids, externals, emails, anonymous, seen, merged, deleted, now); err != nil {
		return fmt.Errorf("save %d identities: %w", n, err)
	}
	return nil
}

// Sorted, so that two transactions with the same new identifiers wait for each other
// and do not deadlock.
const insertIdentifiers = `
INSERT INTO identifiers (kind, value, contact_id, created_at)
SELECT n.kind, n.value, n.contact_id, $4
FROM unnest($1::text[], $2::text[], $3::text[]::uuid[]) AS n (kind, value, contact_id)
ON CONFLICT (kind, value) DO NOTHING`

func identifierRows(owner map[schemas.Identifier]string, now time.Time) []any {
	ids := slices.SortedFunc(maps.Keys(owner), byKindAndValue)
	kinds, values := kindsAndValues(ids)
	contacts := make([]string, len(ids))
	for i, id := range ids {
		contacts[i] = owner[id]
	}
	return []any{kinds, values, contacts, now}
}

// attach gives free identifiers to contacts, and looks once more whether one was
// erased: a transaction that we waited for may have done so.
func (tx *Tx) attach(ctx context.Context, ch *IdentityChanges, now time.Time) error {
	if len(ch.Attached) == 0 {
		return nil
	}
	var inserted int64
	var erased bool
	var batch pgx.Batch
	batch.Queue(insertIdentifiers, identifierRows(ch.Attached, now)...).Exec(func(tag pgconn.CommandTag) error {
		inserted = tag.RowsAffected()
		return nil
	})
	batch.Queue(hasErasure, ch.Since).QueryRow(func(row pgx.Row) error { return row.Scan(&erased) })
	if err := tx.sql.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("attach %d identifiers: %w", len(ch.Attached), err)
	}
	if int(inserted) < len(ch.Attached) {
		return fmt.Errorf("attach identifiers: %w", errRaced("an identifier"))
	}
	if !erased || ch.Since.IsZero() {
		return nil
	}
	erasures, err := tx.ErasedIdentifiers(ctx, slices.Collect(maps.Keys(ch.Attached)), ch.Since)
	if err != nil {
		return err
	}
	for id, place := range erasures {
		if known, ok := ch.KnownErased[id]; !ok || !known.same(place) {
			return fmt.Errorf("attach identifiers: %w", errRaced("an erased identifier"))
		}
	}
	return nil
}

func (p Place) same(other Place) bool {
	return p.Partition == other.Partition && p.Offset == other.Offset && p.AppendTime.Equal(other.AppendTime)
}

// ErasedIdentifiers returns which of the identifiers were erased at or after since, and
// where.
func (q queries) ErasedIdentifiers(ctx context.Context, ids []schemas.Identifier, since time.Time) (map[schemas.Identifier]Place, error) {
	const load = `
SELECT e.kind, e.hash, e.erased_at, e.partition, e."offset"
FROM unnest($1::text[], $2::bytea[]) AS n (kind, hash)
JOIN erased_identifiers AS e ON e.kind = n.kind AND e.hash = n.hash
WHERE e.erased_at >= $3`
	kinds, hashes := make([]string, len(ids)), make([][]byte, len(ids))
	byHash := make(map[string]schemas.Identifier, len(ids))
	for i, id := range ids {
		kinds[i], hashes[i] = id.Kind, identifierHash(id)
		byHash[id.Kind+string(hashes[i])] = id
	}
	rows, err := q.sql.Query(ctx, load, kinds, hashes, since)
	if err != nil {
		return nil, fmt.Errorf("look up erased identifiers: %w", err)
	}
	erased := make(map[schemas.Identifier]Place)
	var kind string
	var hash []byte
	var place Place
	_, err = pgx.ForEachRow(rows, []any{&kind, &hash, &place.AppendTime, &place.Partition, &place.Offset}, func() error {
		place.AppendTime = place.AppendTime.UTC()
		erased[byHash[kind+string(bytes.Clone(hash))]] = place
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look up erased identifiers: %w", err)
	}
	return erased, nil
}

// CleanErasedIdentifiers forgets at most limit identifiers erased before a time,
// which is at least the retention of topic ingest ago, and says how many it took.
func (db *DB) CleanErasedIdentifiers(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "erased identifiers", `
DELETE FROM erased_identifiers WHERE (kind, hash) IN
    (SELECT kind, hash FROM erased_identifiers WHERE erased_at < $1 ORDER BY erased_at LIMIT $2)`, before, limit)
}

// clean runs a bounded deletion of what is older than a time.
func (db *DB) clean(ctx context.Context, what, sql string, before time.Time, limit int) (int64, error) {
	tag, err := db.sql.Exec(ctx, sql, before, limit)
	if err != nil {
		return 0, fmt.Errorf("clean %s: %w", what, err)
	}
	return tag.RowsAffected(), nil
}

package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// Standing is a contact, and where a derived processor stands with it.
type Standing struct {
	// Contact has its id, what it is known by, Merged, Properties, Seq, Era, FirstSeenAt and
	// LastSeenAt; the rest is left out.
	Contact *Contact
	// Derived has State, Seq, Era, Took and Ended; nil when the processor has not come to the
	// contact yet.
	Derived *Derived
}

// InSnapshot is InTx for work that reads by keys and as of one moment. It cannot write.
func (db *DB) InSnapshot(ctx context.Context, fn func(*Tx) error) error {
	const begin = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan = off`
	return db.inTx(ctx, pgx.TxOptions{BeginQuery: begin}, fn)
}

// ContactRange is the id of the limit-th contact above after, the end of a range that is
// read at once; uuid.Max when there are fewer. One look at the index.
func (db *DB) ContactRange(ctx context.Context, after uuid.UUID, limit int) (until uuid.UUID, err error) {
	const look = `SELECT id FROM contacts WHERE id > $1 ORDER BY id OFFSET $2 LIMIT 1`
	err = db.sql.QueryRow(ctx, look, after, limit-1).Scan(&until)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return uuid.Max, nil
	case err != nil:
		return until, fmt.Errorf("look for the contacts after %s: %w", after, err)
	}
	return until, nil
}

// CountContacts is how many contacts there are.
func (db *DB) CountContacts(ctx context.Context) (n int64, err error) {
	if err := db.sql.QueryRow(ctx, `SELECT count(*) FROM contacts`).Scan(&n); err != nil {
		return 0, fmt.Errorf("count contacts: %w", err)
	}
	return n, nil
}

// Standings are the contacts of (after, until], by id, and where a processor stands with each.
func (tx *Tx) Standings(ctx context.Context, processor string, after, until uuid.UUID) ([]Standing, error) {
	const load = `
SELECT c.id::text, coalesce(c.external_id, ''), coalesce(c.email, ''), coalesce(c.anonymous_id, ''), c.merged::text[], c.properties::text,
       c.seq, c.era, c.first_seen_at, c.last_seen_at, d.state, d.seq, d.era, d.took::text[], d.ended
FROM contacts AS c LEFT JOIN LATERAL (
    SELECT state, seq, era, took, ended_at IS NOT NULL AS ended FROM derived_contacts WHERE processor = $1 AND contact_id = c.id OFFSET 0
) AS d ON true
WHERE c.id > $2 AND c.id <= $3 ORDER BY c.id`
	rows, err := tx.sql.Query(ctx, load, processor, after, until)
	if err != nil {
		return nil, fmt.Errorf("read contacts after %s: %w", after, err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Standing, error) {
		c, d := &Contact{}, &Derived{}
		var seq, era *int64
		var ended *bool
		err := row.Scan(&c.ID, &c.ExternalID, &c.Email, &c.AnonymousID, &c.Merged, &c.Properties, &c.Seq, &c.Era, &c.FirstSeenAt, &c.LastSeenAt,
			&d.State, &seq, &era, &d.Took, &ended)
		if err != nil || seq == nil {
			return Standing{Contact: c}, err
		}
		d.ContactID, d.Seq, d.Era, d.Ended = c.ID, *seq, *era, *ended
		return Standing{c, d}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("read contacts after %s: %w", after, err)
	}
	return all, nil
}

// EventsOf are the stored events of some names of contacts, by contact and there by time: of
// each contact itself and of those that were merged into it, for Postgres or for the
// processor. Source, Seq and Era are left out. It fails with ErrTooMuch when those of several
// are more than 64 MiB.
//
// All are looked up in one go: with a look-up for each contact, each partition of events was
// opened for each of them.
func (tx *Tx) EventsOf(ctx context.Context, contacts []*Standing, names []string) (map[string][]StoredEvent, error) {
	const load = `
SELECT contact_id::text, id::text, name, properties::text, occurred_at, received_at
FROM events WHERE contact_id = ANY ($1::text[]::uuid[]) AND name = ANY ($2)`
	owners, ids := ownersOf(contacts)
	rows, err := tx.sql.Query(ctx, load, ids, names)
	if err != nil {
		return nil, fmt.Errorf("read events of %d contacts: %w", len(contacts), err)
	}
	found := make(map[string][]StoredEvent, len(contacts))
	var owner string
	var e StoredEvent
	size := 0
	_, err = pgx.ForEachRow(rows, []any{&owner, &e.ID, &e.Name, &e.Properties, &e.OccurredAt, &e.ReceivedAt}, func() error {
		if size += len(e.Name) + len(e.Properties) + eventOverhead; size > maxStates && len(contacts) > 1 {
			return ErrTooMuch
		}
		for _, contact := range owners[owner] {
			e.ContactID = contact
			found[contact] = append(found[contact], e)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events of %d contacts: %w", len(contacts), err)
	}
	for _, events := range found {
		slices.SortFunc(events, func(a, b StoredEvent) int {
			return cmp.Or(a.OccurredAt.Compare(b.OccurredAt), cmp.Compare(a.ID, b.ID))
		})
	}
	return found, nil
}

// eventOverhead is about what an event takes in memory beside its texts.
const eventOverhead = 200

// ownersOf are the ids under which events of contacts are stored, and for whom each stands.
func ownersOf(contacts []*Standing) (owners map[string][]string, ids []string) {
	owners = make(map[string][]string, len(contacts))
	for _, s := range contacts {
		own := append([]string{s.Contact.ID}, s.Contact.Merged...)
		if s.Derived != nil {
			own = append(own, s.Derived.Took...)
		}
		slices.Sort(own)
		for _, id := range slices.Compact(own) {
			owners[id] = append(owners[id], s.Contact.ID)
		}
	}
	return owners, slices.Collect(maps.Keys(owners))
}

// DestinationSelector is a destination whose filter is a condition on records.
type DestinationSelector struct {
	ID, Name string
	Selector string // JSON
}

// DestinationSelectors are the destinations whose filters are conditions, by name.
func (q queries) DestinationSelectors(ctx context.Context) ([]DestinationSelector, error) {
	rows, err := q.sql.Query(ctx, `SELECT id::text, name, selector FROM destinations WHERE selector <> '' ORDER BY name, id`)
	if err != nil {
		return nil, fmt.Errorf("read filters of destinations: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[DestinationSelector])
	if err != nil {
		return nil, fmt.Errorf("read filters of destinations: %w", err)
	}
	return list, nil
}

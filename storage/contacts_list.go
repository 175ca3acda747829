package storage

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/hogstream/hogstream/schemas"
)

// listedContacts are those that are not deleted and match a search, $1.
const listedContacts = `
FROM contacts AS c
WHERE ($1 = '' OR strpos(lower(c.email), lower($1)) > 0 OR strpos(lower(c.external_id), lower($1)) > 0 OR strpos(lower(c.anonymous_id), lower($1)) > 0)
  AND NOT EXISTS (SELECT FROM identities AS i WHERE i.contact_id = c.id AND i.deleted_at IS NOT NULL)`

// ListContacts returns a page of the contacts, last seen first, and how many
// there are. search is looked for in email, external and anonymous id, whatever
// the case; empty finds all. It reads the whole table: for operators, not for
// the data path, nor to read all contacts, for which there is WalkContacts. (An index
// on when they were last seen would be written by every event.)
func (db *DB) ListContacts(ctx context.Context, search string, limit, offset int) (contacts []*Contact, total int, err error) {
	const list = `SELECT ` + contactColumns + listedContacts + ` ORDER BY c.last_seen_at DESC, c.id LIMIT $2 OFFSET $3`
	if err := db.sql.QueryRow(ctx, `SELECT count(*)`+listedContacts, search).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count contacts: %w", err)
	}
	rows, err := db.sql.Query(ctx, list, search, limit, offset)
	if err == nil {
		contacts, err = pgx.CollectRows(rows, scanContact)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list contacts: %w", err)
	}
	return contacts, total, nil
}

// WalkContacts returns the next contacts in the order of their ids, and the cursor
// of those after them, empty at the end; it begins with an empty cursor. What a call
// costs does not depend on how far it is. ErrListCursor for a cursor that is none.
func (db *DB) WalkContacts(ctx context.Context, search string, limit int, cursor string) (contacts []*Contact, next string, err error) {
	const walk = `SELECT ` + contactColumns + listedContacts + ` AND c.id > $2::text::uuid ORDER BY c.id LIMIT $3`
	after := uuid.Nil.String()
	if cursor != "" {
		if err := readCursor(cursor, &after); err != nil || uuid.Validate(after) != nil {
			return nil, "", ErrListCursor
		}
	}
	rows, err := db.sql.Query(ctx, walk, search, after, limit+1)
	if err == nil {
		contacts, err = pgx.CollectRows(rows, scanContact)
	}
	if err != nil {
		return nil, "", fmt.Errorf("walk contacts: %w", err)
	}
	if len(contacts) > limit {
		contacts = contacts[:limit]
		next, err = writeCursor(contacts[limit-1].ID)
	}
	return contacts, next, err
}

// ContactNamed is the contact that an id names: its own, also of one that was merged away,
// or an identifier of the first of the kinds that somebody has; nil when nobody has it.
func (db *DB) ContactNamed(ctx context.Context, id string, kinds ...string) (*Contact, error) {
	if own, err := uuid.Parse(id); err == nil {
		contact, err := db.GetContact(ctx, own.String())
		if !IsNotFound(err) {
			return contact, err
		}
	}
	for _, kind := range kinds {
		found, err := db.FindContacts(ctx, []schemas.Identifier{{Kind: kind, Value: id}})
		if err != nil || len(found) > 0 {
			return first(found), err
		}
	}
	return nil, nil
}

// ContactsNamed are the ids of the contacts that names stand for, as [DB.ContactNamed] finds
// them: a name that is nobody's is left out. It is a fixed number of statements.
func (db *DB) ContactsNamed(ctx context.Context, names []string, kinds ...string) (map[string]string, error) {
	const find = `
SELECT n.name, coalesce(own.id, known.id)::text
FROM unnest($1::text[], $2::text[]::uuid[]) AS n (name, id)
LEFT JOIN LATERAL (
    SELECT c.id FROM contacts AS c
    WHERE c.id = coalesce((SELECT merged_into FROM identities WHERE contact_id = n.id), n.id)
      AND NOT EXISTS (SELECT FROM identities AS i WHERE i.contact_id = c.id AND i.deleted_at IS NOT NULL)
    OFFSET 0) AS own ON true
LEFT JOIN LATERAL (
    SELECT i.contact_id AS id FROM unnest($3::text[]) WITH ORDINALITY AS k (kind, rank)
    JOIN identifiers AS i ON i.kind = k.kind AND i.value = n.name
    JOIN contacts AS c ON c.id = i.contact_id
    WHERE own.id IS NULL ORDER BY k.rank LIMIT 1) AS known ON true
WHERE own.id IS NOT NULL OR known.id IS NOT NULL`
	own := make([]*string, len(names))
	for i, name := range names {
		if id, err := uuid.Parse(name); err == nil {
			text := id.String()
			own[i] = &text
		}
	}
	rows, err := db.sql.Query(ctx, find, names, own, kinds)
	if err != nil {
		return nil, fmt.Errorf("find %d contacts: %w", len(names), err)
	}
	found := make(map[string]string, len(names))
	var name, id string
	if _, err := pgx.ForEachRow(rows, []any{&name, &id}, func() error {
		found[name] = id
		return nil
	}); err != nil {
		return nil, fmt.Errorf("find %d contacts: %w", len(names), err)
	}
	return found, nil
}

func first(contacts []*Contact) *Contact {
	if len(contacts) == 0 {
		return nil
	}
	return contacts[0]
}

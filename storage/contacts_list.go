package storage

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ListContacts returns a page of the contacts, last seen first, and how many
// there are. search is looked for in email, external and anonymous id, whatever
// the case; empty finds all. It reads the whole table: for operators, not for
// the data path.
func (db *DB) ListContacts(ctx context.Context, search string, limit, offset int) (contacts []*Contact, total int, err error) {
	const (
		where = `
FROM contacts AS c
WHERE ($1 = '' OR strpos(lower(c.email), lower($1)) > 0 OR strpos(lower(c.external_id), lower($1)) > 0 OR strpos(lower(c.anonymous_id), lower($1)) > 0)
  AND NOT EXISTS (SELECT FROM identities AS i WHERE i.contact_id = c.id AND i.deleted_at IS NOT NULL)`
		list = `SELECT ` + contactColumns + where + ` ORDER BY c.last_seen_at DESC, c.id LIMIT $2 OFFSET $3`
	)
	if err := db.QueryRow(ctx, `SELECT count(*)`+where, search).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count contacts: %w", err)
	}
	rows, err := db.Query(ctx, list, search, limit, offset)
	if err == nil {
		contacts, err = pgx.CollectRows(rows, scanContact)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list contacts: %w", err)
	}
	return contacts, total, nil
}

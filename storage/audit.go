package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// AuditEntry says who changed what through the admin API.
type AuditEntry struct {
	ID         string
	Actor      string  // the key's name
	ActorKeyID *string // nil for the bootstrap key
	Action     string  // e.g. "webhooks.create"
	Resource   string  // e.g. "webhooks"
	ResourceID *string
	Detail     json.RawMessage // what was set; no secrets
	IPAddress  *string
	CreatedAt  time.Time
}

// InsertAudit writes an entry; its id is made here.
func (q queries) InsertAudit(ctx context.Context, e AuditEntry) error {
	const insert = `
INSERT INTO audit_logs (id, actor, actor_key_id, action, resource, resource_id, detail, ip_address, created_at)
VALUES ($1::text::uuid, $2, $3::text::uuid, $4, $5, $6, $7::text::json, $8, $9)`
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make an id for audit entry %s: %w", e.Action, err)
	}
	var detail *string
	if len(e.Detail) > 0 {
		text := string(e.Detail)
		detail = &text
	}
	_, err = q.sql.Exec(ctx, insert, id.String(), e.Actor, e.ActorKeyID, e.Action, e.Resource, e.ResourceID, detail, e.IPAddress, e.CreatedAt)
	if err != nil {
		return fmt.Errorf("write audit entry %s: %w", e.Action, err)
	}
	return nil
}

// AuditFilter selects entries; empty fields select all.
type AuditFilter struct {
	Actor, Resource, ResourceID, Action string
	From, To                            time.Time // both inclusive
	Limit, Offset                       int
}

// ListAudit returns a page of the entries, newest first, and how many there are.
func (db *DB) ListAudit(ctx context.Context, f AuditFilter) (entries []*AuditEntry, total int, err error) {
	const (
		where = `
FROM audit_logs
WHERE ($1 = '' OR actor = $1) AND ($2 = '' OR resource = $2) AND ($3 = '' OR resource_id = $3) AND ($4 = '' OR action = $4)
  AND ($5::timestamptz IS NULL OR created_at >= $5) AND ($6::timestamptz IS NULL OR created_at <= $6)`
		list = `SELECT id::text, actor, actor_key_id::text, action, resource, resource_id, detail::text, ip_address, created_at` + where + `
ORDER BY created_at DESC, id DESC LIMIT $7 OFFSET $8`
	)
	args := []any{f.Actor, f.Resource, f.ResourceID, f.Action, timeOrNull(f.From), timeOrNull(f.To)}
	if err := db.sql.QueryRow(ctx, `SELECT count(*)`+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count audit entries: %w", err)
	}
	rows, err := db.sql.Query(ctx, list, append(args, f.Limit, f.Offset)...)
	if err == nil {
		entries, err = pgx.CollectRows(rows, scanAudit)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("list audit entries: %w", err)
	}
	return entries, total, nil
}

// CleanAudit removes at most limit entries from before a time, and says how many.
func (db *DB) CleanAudit(ctx context.Context, before time.Time, limit int) (int64, error) {
	return db.clean(ctx, "audit entries", `
DELETE FROM audit_logs WHERE id IN
    (SELECT id FROM audit_logs WHERE created_at < $1 ORDER BY created_at LIMIT $2)`, before, limit)
}

// timeOrNull is NULL for the zero time.
func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func scanAudit(row pgx.CollectableRow) (*AuditEntry, error) {
	var e AuditEntry
	var detail *string
	err := row.Scan(&e.ID, &e.Actor, &e.ActorKeyID, &e.Action, &e.Resource, &e.ResourceID, &detail, &e.IPAddress, &e.CreatedAt)
	if err != nil {
		return nil, err
	}
	if detail != nil {
		e.Detail = json.RawMessage(*detail)
	}
	e.CreatedAt = e.CreatedAt.UTC()
	return &e, nil
}

package console

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// entry makes an audit row for a request. detail is what was set, without
// anything secret.
func (c *console) entry(r *http.Request, resource, id string, detail any) storage.AuditEntry {
	actor := c.Actor(r.Context())
	e := storage.AuditEntry{
		Actor: actor.Name, ActorKeyID: actor.KeyID, Resource: resource, Action: resource + "." + strings.ToLower(r.Method), CreatedAt: c.Now(),
	}
	if id != "" {
		e.ResourceID = &id
	}
	if actor.Address != "" {
		e.IPAddress = &actor.Address
	}
	if text, err := marshal(detail, ""); err == nil && detail != nil {
		e.Detail = text
	}
	return e
}

// audit writes a row for a change that is done already: a failure is logged and
// does not undo it.
func (c *console) audit(r *http.Request, resource, id string, detail any) {
	e := c.entry(r, resource, id, detail)
	if err := storage.InsertAudit(context.WithoutCancel(r.Context()), c.DB, e); err != nil {
		c.Logger.Error("admin.audit_lost", zap.String("action", e.Action), zap.String("actor", e.Actor), zap.String("resource_id", id), zap.Error(err))
	}
}

type auditJSON struct {
	ID         string          `json:"id"`
	Actor      string          `json:"actor"`
	ActorKeyID *string         `json:"actorKeyId"`
	Action     string          `json:"action"`
	Resource   string          `json:"resource"`
	ResourceID *string         `json:"resourceId"`
	Detail     json.RawMessage `json:"detail"`
	IPAddress  *string         `json:"ipAddress"`
	CreatedAt  schemas.ISOTime `json:"createdAt" format:"date-time"`
}

type auditPage struct {
	Logs   []auditJSON `json:"logs"`
	Total  int         `json:"total"`
	Limit  int         `json:"limit"`
	Offset int         `json:"offset"`
}

// listAudit is GET /audit-logs.
func (c *console) listAudit(r *http.Request) (any, error) {
	f, q := queryForm(r)
	p, from, to := f.pageOf(q), f.queryTime(q, "from"), f.queryTime(q, "to")
	if err := f.err(); err != nil {
		return nil, err
	}
	entries, total, err := c.DB.ListAudit(r.Context(), storage.AuditFilter{
		Actor: q.Get("actor"), Resource: q.Get("resource"), ResourceID: q.Get("resourceId"), Action: q.Get("action"),
		From: from, To: to, Limit: p.limit, Offset: p.offset,
	})
	if err != nil {
		return nil, err
	}
	out := auditPage{Logs: []auditJSON{}, Total: total, Limit: p.limit, Offset: p.offset}
	for _, e := range entries {
		out.Logs = append(out.Logs, auditJSON{
			ID: e.ID, Actor: e.Actor, ActorKeyID: e.ActorKeyID, Action: e.Action, Resource: e.Resource, ResourceID: e.ResourceID,
			Detail: e.Detail, IPAddress: e.IPAddress, CreatedAt: schemas.ISOTime{Time: e.CreatedAt},
		})
	}
	return out, nil
}

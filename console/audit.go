package console

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// entry makes an audit row for a request. detail is what was set, without
// anything secret.
func (c *console) entry(r *web.Request, resource, id string, detail any) storage.AuditEntry {
	caller := r.Exchange.Caller
	e := storage.AuditEntry{
		Actor: caller.Name, Resource: resource, Action: resource + "." + strings.ToLower(r.Method), CreatedAt: time.Now(),
	}
	if id != "" {
		e.ResourceID = &id
	}
	if !caller.Bootstrap() {
		e.ActorKeyID = &caller.ID
	}
	if address := r.Exchange.ClientAddress(r.Request); address != "" {
		e.IPAddress = &address
	}
	if text, err := web.Marshal(detail); err == nil && detail != nil {
		e.Detail = text
	}
	return e
}

// audit writes a row for a change that is done already: a failure is logged and
// does not undo it.
func (c *console) audit(r *web.Request, resource, id string, detail any) {
	e := c.entry(r, resource, id, detail)
	if err := c.DB.InsertAudit(context.WithoutCancel(r.Context()), e); err != nil {
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
	Logs  []auditJSON `json:"logs"`
	Total int         `json:"total"`
	web.Page
}

type auditQuery struct {
	web.Page
	Actor      string    `json:"actor"`
	Resource   string    `json:"resource"`
	ResourceID string    `json:"resourceId"`
	Action     string    `json:"action"`
	From       time.Time `json:"from" doc:"inclusive"`
	To         time.Time `json:"to" doc:"inclusive"`
}

// auditRoutes are those of the audit log.
func (c *console) auditRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/audit-logs", Scopes: reading, Tag: "Audit log", Summary: "List changes",
			Example: `/v1/admin/audit-logs?resource=webhooks&from=2026-01-31T00:00:00Z`, Handle: web.Query(c.listAudit),
		},
	}
}

// listAudit is GET /audit-logs.
func (c *console) listAudit(r *web.Request, q *auditQuery) (out auditPage, err error) {
	entries, total, err := c.DB.ListAudit(r.Context(), storage.AuditFilter{
		Actor: q.Actor, Resource: q.Resource, ResourceID: q.ResourceID, Action: q.Action,
		From: q.From, To: q.To, Limit: q.Limit, Offset: q.Offset,
	})
	if err != nil {
		return out, err
	}
	out = auditPage{Logs: []auditJSON{}, Total: total, Page: q.Page}
	for _, e := range entries {
		out.Logs = append(out.Logs, auditJSON{
			ID: e.ID, Actor: e.Actor, ActorKeyID: e.ActorKeyID, Action: e.Action, Resource: e.Resource, ResourceID: e.ResourceID,
			Detail: e.Detail, IPAddress: e.IPAddress, CreatedAt: schemas.ISOTime{Time: e.CreatedAt},
		})
	}
	return out, nil
}

package main

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
)

type auditCmd struct {
	Ls auditLsCmd `cmd:"" help:"List changes, newest first: who, what, from where."`
}

type auditEntry struct {
	ID         string          `json:"id"`
	Actor      string          `json:"actor"`
	ActorKeyID *string         `json:"actorKeyId"`
	Action     string          `json:"action"`
	Resource   string          `json:"resource"`
	ResourceID *string         `json:"resourceId"`
	Detail     json.RawMessage `json:"detail"`
	IPAddress  *string         `json:"ipAddress"`
	CreatedAt  string          `json:"createdAt"`
}

type auditLsCmd struct {
	apiFlags
	Actor      string `help:"Only by this key, by its name."`
	Resource   string `help:"Only of this kind: webhooks, api-keys, dlq and so on."`
	ResourceID string `help:"Only of this id."`
	Action     string `help:"Only this action, such as webhooks.patch."`
	From       string `help:"Only from this time on: 2026-01-31, or 7d ago."`
	To         string `help:"Only up to this time."`
	Limit      int    `help:"At most so many." default:"50"`
}

// Run lists changes.
func (c *auditLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{}
	setQuery(query, "actor", c.Actor, "resource", c.Resource, "resourceId", c.ResourceID, "action", c.Action, "from", c.From, "to", c.To)
	found, err := offsetPages[auditEntry](ctx, api, "/v1/admin/audit-logs", "logs", query, c.Limit)
	if err != nil {
		return err
	}
	return out.value(found, func(w io.Writer) {
		rows := make([][]string, 0, len(found))
		for _, e := range found {
			rows = append(rows, []string{e.CreatedAt, e.Actor, e.Action, text(e.ResourceID), text(e.IPAddress), string(e.Detail)})
		}
		table(w, []string{"at", "actor", "action", "id", "from", "detail"}, rows)
	})
}

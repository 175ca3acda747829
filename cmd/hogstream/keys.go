package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"
)

type keysCmd struct {
	Create keysCreateCmd `cmd:"" help:"Create an API key; it is shown once."`
	Ls     keysLsCmd     `cmd:"" help:"List API keys."`
	Revoke keysRevokeCmd `cmd:"" help:"Revoke an API key; it stops within a second."`
}

type apiKey struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Key        string     `json:"key,omitempty"`
	KeyPrefix  string     `json:"keyPrefix"`
	Scopes     []string   `json:"scopes"`
	CreatedBy  *string    `json:"createdBy"`
	LastUsedAt *time.Time `json:"lastUsedAt"`
	RevokedAt  *time.Time `json:"revokedAt"`
	ExpiresAt  *time.Time `json:"expiresAt"`
	CreatedAt  time.Time  `json:"createdAt"`
}

type keysCreateCmd struct {
	apiFlags
	Name    string         `arg:"" help:"What the key is for."`
	Scope   []string       `help:"write, ingest, read, journey-admin or full-admin. Repeatable." default:"ingest"`
	Expires *time.Duration `help:"Time until it expires, e.g. 720h; never when not given." placeholder:"DURATION"`
}

// Run creates a key and prints it, the only time it can be seen.
func (c *keysCreateCmd) Run(ctx context.Context, out *output) error {
	if c.Expires != nil && *c.Expires <= 0 {
		return fmt.Errorf("--expires %s: give a time above 0, or leave it out for a key that never expires", c.Expires)
	}
	api, err := c.client()
	if err != nil {
		return err
	}
	body := map[string]any{"name": c.Name, "scopes": c.Scope}
	if c.Expires != nil {
		body["expiresAt"] = time.Now().Add(*c.Expires).UTC().Format(time.RFC3339)
	}
	var key apiKey
	if err := api.call(ctx, "POST", "/v1/admin/api-keys", nil, body, &key); err != nil {
		return err
	}
	return out.value(key, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n\nid %s, scopes %s. Keep it now: it is not shown again.\n", key.Key, key.ID, strings.Join(key.Scopes, ", "))
	})
}

type keysLsCmd struct {
	apiFlags
	All bool `help:"Revoked ones too."`
}

// Run lists keys.
func (c *keysLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"limit": {"100"}}
	if c.All {
		query.Set("includeRevoked", "true")
	}
	var page struct {
		Keys  []apiKey `json:"keys"`
		Total int      `json:"total"`
	}
	if err := api.call(ctx, "GET", "/v1/admin/api-keys", query, nil, &page); err != nil {
		return err
	}
	return out.value(page.Keys, func(w io.Writer) {
		rows := make([][]string, 0, len(page.Keys))
		for _, k := range page.Keys {
			state := "active"
			if k.RevokedAt != nil {
				state = "revoked " + k.RevokedAt.Format(time.DateTime)
			} else if k.ExpiresAt != nil {
				state = "expires " + k.ExpiresAt.Format(time.DateTime)
			}
			rows = append(rows, []string{k.ID, k.Name, k.KeyPrefix + "…", strings.Join(k.Scopes, ","), state})
		}
		table(w, []string{"id", "name", "key", "scopes", "state"}, rows)
		if page.Total > len(page.Keys) {
			fmt.Fprintf(w, "(%d of %d)\n", len(page.Keys), page.Total)
		}
	})
}

type keysRevokeCmd struct {
	apiFlags
	ID string `arg:"" help:"Id of the key."`
}

// Run revokes a key.
func (c *keysRevokeCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer map[string]any
	if err := api.call(ctx, "DELETE", "/v1/admin/api-keys/"+url.PathEscape(c.ID), nil, nil, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, "revoked") })
}

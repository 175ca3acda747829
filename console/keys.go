package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type keyJSON struct {
	ID         string           `json:"id"`
	Name       string           `json:"name"`
	KeyPrefix  string           `json:"keyPrefix"`
	Scopes     []string         `json:"scopes"`
	CreatedBy  *string          `json:"createdBy"`
	LastUsedAt *schemas.ISOTime `json:"lastUsedAt" format:"date-time"`
	RevokedAt  *schemas.ISOTime `json:"revokedAt" format:"date-time"`
	ExpiresAt  *schemas.ISOTime `json:"expiresAt" format:"date-time"`
	CreatedAt  schemas.ISOTime  `json:"createdAt" format:"date-time"`
}

type keyPage struct {
	Keys   []keyJSON `json:"keys"`
	Total  int       `json:"total"`
	Limit  int       `json:"limit"`
	Offset int       `json:"offset"`
}

// newKeyJSON is a new key; only this response ever holds its text.
type newKeyJSON struct {
	ID        string           `json:"id"`
	Name      string           `json:"name"`
	Key       string           `json:"key"`
	KeyPrefix string           `json:"keyPrefix"`
	Scopes    []string         `json:"scopes"`
	ExpiresAt *schemas.ISOTime `json:"expiresAt" format:"date-time"`
	CreatedAt schemas.ISOTime  `json:"createdAt" format:"date-time"`
}

// What bodies look like.
type (
	keyRequest struct {
		Name      string   `json:"name" minLength:"1" maxLength:"100"`
		Scopes    []string `json:"scopes,omitempty" doc:"read (the default), journey-admin, full-admin, ingest, write."`
		ExpiresAt string   `json:"expiresAt,omitempty" format:"date-time"`
	}
	revokedResponse struct {
		Revoked bool `json:"revoked"`
	}
)

// keyRoutes are those of API keys.
func (c *console) keyRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/api-keys", Scopes: reading, Tag: "API keys", Summary: "List API keys",
			Params: append(paging(), flag("includeRevoked", "false when left out")), Answers: map[int]any{200: keyPage{}},
			Example: `/v1/admin/api-keys?limit=10`, Handle: c.listKeys,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/api-keys", Scopes: changing, Tag: "API keys", Summary: "Create an API key",
			Request: keyRequest{}, Answers: map[int]any{201: newKeyJSON{}},
			Example: `/v1/admin/api-keys {"name":"crm","scopes":["ingest"]}`, Handle: c.createKey,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/api-keys/{id}", Scopes: changing, Tag: "API keys", Summary: "Revoke an API key",
			Answers: map[int]any{200: revokedResponse{}},
			Example: `/v1/admin/api-keys/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: c.revokeKey, NotFound: "API key not found or already revoked",
		},
	}
}

// listKeys is GET /api-keys.
func (c *console) listKeys(r *web.Request) (any, error) {
	f, q := r.Values()
	p, revokedToo := f.Page(q), web.QueryFlag(q, "includeRevoked", false)
	if err := f.Err(); err != nil {
		return nil, err
	}
	keys, total, err := c.DB.ListAPIKeys(r.Context(), p.Limit, p.Offset, revokedToo)
	if err != nil {
		return nil, err
	}
	out := keyPage{Keys: []keyJSON{}, Total: total, Limit: p.Limit, Offset: p.Offset}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyJSON{
			ID: k.ID, Name: k.Name, KeyPrefix: k.Prefix, Scopes: k.Scopes, CreatedBy: k.CreatedBy, LastUsedAt: schemas.ISOTimeOf(k.LastUsedAt),
			RevokedAt: schemas.ISOTimeOf(k.RevokedAt), ExpiresAt: schemas.ISOTimeOf(k.ExpiresAt), CreatedAt: schemas.ISOTime{Time: k.CreatedAt},
		})
	}
	return out, nil
}

// createKey is POST /api-keys.
func (c *console) createKey(r *web.Request) (any, error) {
	f := r.Fields()
	name, scopes, expires := f.Text("name", 1, 100), f.Texts("scopes"), f.Time("expiresAt")
	if !f.Has("name") {
		f.Missing("name", "string")
	}
	if !f.Has("scopes") {
		scopes = []string{storage.ScopeRead}
	}
	for i, s := range scopes {
		if !slices.Contains(storage.Scopes(), s) {
			f.Issues = append(f.Issues, web.Issue{Code: "invalid_value", Values: storage.Scopes(), Path: []any{"scopes", i},
				Message: `Invalid option: expected one of "` + strings.Join(storage.Scopes(), `"|"`) + `"`, Fix: "use one of " + strings.Join(storage.Scopes(), ", ")})
		}
	}
	now := time.Now()
	if expires != nil && !expires.After(now) {
		f.Wrong("expiresAt", "too_small", "Too small: the time has passed", "send a time that is to come, or leave the field out")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	by := r.Exchange.Caller.Name
	slices.Sort(scopes)
	n := storage.NewAPIKey{Name: *name, Scopes: slices.Compact(scopes), CreatedBy: &by, ExpiresAt: expires}
	var key *storage.APIKey
	var text string
	err := c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) (err error) {
		if key, text, err = tx.CreateAPIKey(r.Context(), n, now); err != nil {
			return err
		}
		return tx.InsertAudit(r.Context(), c.entry(r, "api-keys", key.ID, keyDetail(key)))
	})
	if err != nil {
		return nil, err
	}
	return web.Answered(http.StatusCreated, newKeyJSON{
		ID: key.ID, Name: key.Name, Key: text, KeyPrefix: key.Prefix, Scopes: key.Scopes, ExpiresAt: schemas.ISOTimeOf(key.ExpiresAt), CreatedAt: schemas.ISOTime{Time: key.CreatedAt},
	}), nil
}

func keyDetail(k *storage.APIKey) map[string]any {
	return map[string]any{"name": k.Name, "keyPrefix": k.Prefix, "scopes": k.Scopes, "expiresAt": schemas.ISOTimeOf(k.ExpiresAt)}
}

// revokeKey is DELETE /api-keys/{id}. All instances refuse the key within a second.
func (c *console) revokeKey(r *web.Request) (any, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	err = c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) error { return c.revoke(r.Context(), tx, r, id) })
	return revokedResponse{true}, err
}

func (c *console) revoke(ctx context.Context, tx *storage.Tx, r *web.Request, id string) error {
	key, err := tx.RevokeAPIKey(ctx, id, time.Now())
	if err != nil {
		return err
	}
	if err := tx.InsertAudit(ctx, c.entry(r, "api-keys", id, keyDetail(key))); err != nil {
		return fmt.Errorf("revoke API key %s: %w", id, err)
	}
	return nil
}

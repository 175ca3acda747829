package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
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
	Keys  []keyJSON `json:"keys"`
	Total int       `json:"total"`
	web.Page
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

// What requests hold, and the answer to one.
type (
	keyQuery struct {
		web.Page
		IncludeRevoked bool `json:"includeRevoked" default:"false"`
	}
	keyRequest struct {
		Name      string     `json:"name" minLength:"1" maxLength:"100"`
		Scopes    []string   `json:"scopes,omitempty" minItems:"1" nullable:"false" enum:"read,journey-admin,full-admin,ingest,write" default:"read"`
		ExpiresAt *time.Time `json:"expiresAt,omitempty"`
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
			Example: `/v1/admin/api-keys?limit=10`, Handle: web.Query(c.listKeys),
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/api-keys", Scopes: changing, Tag: "API keys", Summary: "Create an API key",
			Example: `/v1/admin/api-keys {"name":"crm","scopes":["ingest"]}`, Handle: web.Body(c.createKey), Status: http.StatusCreated,
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/api-keys/{id}", Scopes: changing, Tag: "API keys", Summary: "Revoke an API key",
			Example: `/v1/admin/api-keys/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: web.Path(c.revokeKey), NotFound: "API key not found or already revoked",
		},
	}
}

// listKeys is GET /api-keys.
func (c *console) listKeys(r *web.Request, q *keyQuery) (out keyPage, err error) {
	keys, total, err := c.DB.ListAPIKeys(r.Context(), q.Limit, q.Offset, q.IncludeRevoked)
	if err != nil {
		return out, err
	}
	out = keyPage{Keys: []keyJSON{}, Total: total, Page: q.Page}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyJSON{
			ID: k.ID, Name: k.Name, KeyPrefix: k.Prefix, Scopes: k.Scopes, CreatedBy: k.CreatedBy, LastUsedAt: schemas.ISOTimeOf(k.LastUsedAt),
			RevokedAt: schemas.ISOTimeOf(k.RevokedAt), ExpiresAt: schemas.ISOTimeOf(k.ExpiresAt), CreatedAt: schemas.ISOTime{Time: k.CreatedAt},
		})
	}
	return out, nil
}

// createKey is POST /api-keys.
func (c *console) createKey(r *web.Request, req *keyRequest) (out newKeyJSON, err error) {
	now := time.Now()
	if req.ExpiresAt != nil && !req.ExpiresAt.After(now) {
		return out, web.IssuesError{web.Wrong("expiresAt", "too_small", "Too small: the time has passed", "send a time that is to come, or leave the field out")}
	}
	slices.Sort(req.Scopes)
	n := storage.NewAPIKey{Name: req.Name, Scopes: slices.Compact(req.Scopes), CreatedBy: &r.Exchange.Caller.Name, ExpiresAt: req.ExpiresAt}
	var key *storage.APIKey
	var text string
	err = c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) (err error) {
		if key, text, err = tx.CreateAPIKey(r.Context(), n, now); err != nil {
			return err
		}
		return tx.InsertAudit(r.Context(), c.entry(r, "api-keys", key.ID, keyDetail(key)))
	})
	if err != nil {
		return out, err
	}
	return newKeyJSON{
		ID: key.ID, Name: key.Name, Key: text, KeyPrefix: key.Prefix, Scopes: key.Scopes, ExpiresAt: schemas.ISOTimeOf(key.ExpiresAt), CreatedAt: schemas.ISOTime{Time: key.CreatedAt},
	}, nil
}

func keyDetail(k *storage.APIKey) map[string]any {
	return map[string]any{"name": k.Name, "keyPrefix": k.Prefix, "scopes": k.Scopes, "expiresAt": schemas.ISOTimeOf(k.ExpiresAt)}
}

// revokeKey is DELETE /api-keys/{id}. All instances refuse the key within a second.
func (c *console) revokeKey(r *web.Request) (revokedResponse, error) {
	err := c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) error { return c.revoke(r.Context(), tx, r, r.ID) })
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

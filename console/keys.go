package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
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

// listKeys is GET /api-keys.
func (c *console) listKeys(r *http.Request) (any, error) {
	f, q := queryForm(r)
	p, revokedToo := f.pageOf(q), queryFlag(q, "includeRevoked", false)
	if err := f.err(); err != nil {
		return nil, err
	}
	keys, total, err := c.DB.ListAPIKeys(r.Context(), p.limit, p.offset, revokedToo)
	if err != nil {
		return nil, err
	}
	out := keyPage{Keys: []keyJSON{}, Total: total, Limit: p.limit, Offset: p.offset}
	for _, k := range keys {
		out.Keys = append(out.Keys, keyJSON{
			ID: k.ID, Name: k.Name, KeyPrefix: k.Prefix, Scopes: k.Scopes, CreatedBy: k.CreatedBy, LastUsedAt: schemas.ISOTimeOf(k.LastUsedAt),
			RevokedAt: schemas.ISOTimeOf(k.RevokedAt), ExpiresAt: schemas.ISOTimeOf(k.ExpiresAt), CreatedAt: schemas.ISOTime{Time: k.CreatedAt},
		})
	}
	return out, nil
}

// createKey is POST /api-keys.
func (c *console) createKey(r *http.Request) (any, error) {
	f, err := readForm(r, false)
	if err != nil {
		return nil, err
	}
	name, scopes, expires := f.text("name", 1, 100), f.texts("scopes"), f.time("expiresAt")
	if !f.has("name") {
		f.missing("name", "string")
	}
	if !f.has("scopes") {
		scopes = []string{storage.ScopeRead}
	}
	for i, s := range scopes {
		if !slices.Contains(storage.Scopes(), s) {
			f.issues = append(f.issues, issue{Code: "invalid_value", Values: storage.Scopes(), Path: []any{"scopes", i},
				Message: `Invalid option: expected one of "` + strings.Join(storage.Scopes(), `"|"`) + `"`, Fix: "use one of " + strings.Join(storage.Scopes(), ", ")})
		}
	}
	now := c.Now()
	if expires != nil && !expires.After(now) {
		f.wrong("expiresAt", "too_small", "Too small: the time has passed", "send a time that is to come, or leave the field out")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	by := c.Actor(r.Context()).Name
	slices.Sort(scopes)
	n := storage.NewAPIKey{Name: *name, Scopes: slices.Compact(scopes), CreatedBy: &by, ExpiresAt: expires}
	var key *storage.APIKey
	var text string
	err = c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) (err error) {
		if key, text, err = storage.CreateAPIKey(r.Context(), tx, n, now); err != nil {
			return err
		}
		return storage.InsertAudit(r.Context(), tx, c.entry(r, "api-keys", key.ID, keyDetail(key)))
	})
	if err != nil {
		return nil, err
	}
	return answer{http.StatusCreated, newKeyJSON{
		ID: key.ID, Name: key.Name, Key: text, KeyPrefix: key.Prefix, Scopes: key.Scopes, ExpiresAt: schemas.ISOTimeOf(key.ExpiresAt), CreatedAt: schemas.ISOTime{Time: key.CreatedAt},
	}}, nil
}

func keyDetail(k *storage.APIKey) map[string]any {
	return map[string]any{"name": k.Name, "keyPrefix": k.Prefix, "scopes": k.Scopes, "expiresAt": schemas.ISOTimeOf(k.ExpiresAt)}
}

// revokeKey is DELETE /api-keys/{id}. All instances refuse the key within a second.
func (c *console) revokeKey(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	err = c.DB.InRetriedTx(r.Context(), func(tx *storage.Tx) error { return c.revoke(r.Context(), tx, r, id) })
	return map[string]bool{"revoked": true}, err
}

func (c *console) revoke(ctx context.Context, tx *storage.Tx, r *http.Request, id string) error {
	key, err := tx.RevokeAPIKey(ctx, id, c.Now())
	if err != nil {
		return err
	}
	if err := storage.InsertAudit(ctx, tx, c.entry(r, "api-keys", id, keyDetail(key))); err != nil {
		return fmt.Errorf("revoke API key %s: %w", id, err)
	}
	return nil
}

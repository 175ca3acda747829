package ingest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/singleflight"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// How long what is known of a key holds.
const (
	keyFresh   = 10 * time.Second // then it is read again
	keyOutage  = 5 * time.Minute  // while Postgres is away
	keyUnknown = 5 * time.Second  // that there is no such key
	keyRetry   = time.Second      // after a failed read
	keyTimeout = 2 * time.Second  // of one read
	maxKeys    = 20_000           // of each kind
	useEvery   = 30 * time.Second // last_used_at is written
)

type keyHash = [sha256.Size]byte

// keyCache knows the API keys in use. A revocation takes them out at once (see
// API.Run); reading again now and then is for notifications that got lost.
type keyCache struct {
	db        *storage.DB
	now       func() time.Time
	bootstrap *web.Caller
	adminHash keyHash
	reads     singleflight.Group
	epoch     atomic.Uint64 // grows with each revocation heard of

	mu      sync.RWMutex
	known   map[keyHash]*knownKey
	unknown map[keyHash]time.Time // until when
}

type knownKey struct {
	caller    *web.Caller
	confirmed int64        // when it was read
	next      atomic.Int64 // when it is to be read again
	reading   atomic.Bool
	used      atomic.Int64
	noted     int64 // of used; written by noteUse alone
}

func newKeyCache(adminKey string, db *storage.DB, now func() time.Time) *keyCache {
	k := &keyCache{db: db, now: now, known: map[keyHash]*knownKey{}, unknown: map[keyHash]time.Time{}}
	if adminKey != "" {
		k.adminHash = sha256.Sum256([]byte(adminKey))
		k.bootstrap = &web.Caller{ID: web.BootstrapID, Name: web.BootstrapID, Scopes: []string{storage.ScopeFullAdmin}}
	}
	return k
}

var (
	errUnauthorized = web.Refuse(http.StatusUnauthorized, web.FailureBody{Error: "Unauthorized", Fix: "send Authorization: Bearer <API key>"})
	errExpired      = web.Refuse(http.StatusUnauthorized, web.FailureBody{Error: "API key expired", Fix: "create a new key"})
)

// cached returns the caller of a token without asking the database, or nil.
func (k *keyCache) cached(hash *keyHash) *web.Caller {
	if k.bootstrap != nil && subtle.ConstantTimeCompare(hash[:], k.adminHash[:]) == 1 {
		return k.bootstrap
	}
	k.mu.RLock()
	key := k.known[*hash]
	k.mu.RUnlock()
	now := k.now().UnixNano()
	if key == nil || now >= key.next.Load() && !key.reading.Load() || now-key.confirmed > int64(keyOutage) {
		return nil
	}
	key.use(now)
	return key.caller
}

func (key *knownKey) use(now int64) {
	if now-key.used.Load() > int64(time.Second) { // spares the cache line
		key.used.Store(now)
	}
}

// read asks the database for a key, once for all who ask at the same time.
func (k *keyCache) read(ctx context.Context, hash keyHash) (*web.Caller, error) {
	k.mu.RLock()
	old := k.known[hash]
	until, missing := k.unknown[hash]
	k.mu.RUnlock()
	if missing && k.now().Before(until) {
		return nil, errUnauthorized
	}
	if old != nil {
		old.reading.Store(true)
		defer old.reading.Store(false)
	}
	result, err, _ := k.reads.Do(string(hash[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyTimeout)
		defer cancel()
		return k.load(ctx, hash, old)
	})
	if err != nil {
		return nil, err
	}
	caller, _ := result.(*web.Caller)
	return caller, nil
}

func (k *keyCache) load(ctx context.Context, hash keyHash, old *knownKey) (*web.Caller, error) {
	epoch := k.epoch.Load()
	row, err := k.db.FindAPIKey(ctx, hex.EncodeToString(hash[:]))
	now := k.now()
	switch {
	case storage.IsNotFound(err), err == nil && row.RevokedAt != nil:
		k.forget(hash, now)
		return nil, errUnauthorized
	case err != nil && old != nil && now.UnixNano()-old.confirmed <= int64(keyOutage):
		old.next.Store(now.Add(keyRetry).UnixNano())
		old.use(now.UnixNano())
		return old.caller, nil
	case err != nil:
		return nil, err
	}
	caller := &web.Caller{ID: row.ID, Name: row.Name, Scopes: row.Scopes, ExpiresAt: row.ExpiresAt}
	key := &knownKey{caller: caller, confirmed: now.UnixNano()}
	key.next.Store(now.Add(keyFresh).UnixNano())
	key.used.Store(now.UnixNano())
	k.mu.Lock()
	defer k.mu.Unlock()
	// A revocation that was heard of meanwhile may be of this key.
	if k.epoch.Load() == epoch {
		bound(k.known)
		k.known[hash] = key
	}
	return caller, nil
}

func (k *keyCache) forget(hash keyHash, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.known, hash)
	bound(k.unknown)
	k.unknown[hash] = now.Add(keyUnknown)
}

// bound makes room for one more by dropping any.
func bound[V any](m map[keyHash]V) {
	for hash := range m {
		if len(m) < maxKeys {
			return
		}
		delete(m, hash)
	}
}

// invalidate takes a revoked key out; with an empty hash all keys are read again
// before they are used next, as a revocation may have been missed.
func (k *keyCache) invalidate(hash string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.epoch.Add(1)
	if sum, err := hex.DecodeString(hash); err == nil && len(sum) == sha256.Size {
		delete(k.known, keyHash(sum))
		return
	}
	for _, key := range k.known {
		key.next.Store(0)
	}
}

// takeUse returns when keys were used since the last call, by id.
func (k *keyCache) takeUse() map[string]time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	used := map[string]time.Time{}
	for _, key := range k.known {
		if at := key.used.Load(); at > key.noted {
			key.noted = at
			used[key.caller.ID] = time.Unix(0, at).UTC()
		}
	}
	return used
}

// noteUse writes last_used_at now and then, and a last time at the end.
func (a *API) noteUse(ctx context.Context) {
	tick := time.NewTicker(useEvery)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
		used := a.keys.takeUse()
		if len(used) == 0 {
			continue
		}
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), keyTimeout)
		if err := a.deps.DB.TouchAPIKeys(write, used); err != nil {
			a.log.Warn("keys.use_not_noted", zap.Int("keys", len(used)), zap.Error(err))
		}
		cancel()
	}
}

// gate lets through who has a key and is within its limit.
func (a *API) gate(l *limiter) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := web.ExchangeOf(w)
			if caller := a.authenticate(x, r); caller != nil {
				x.Caller = caller
				if a.limit(x, l, caller.ID) {
					next.ServeHTTP(w, r)
				}
			}
		})
	}
}

// bearer is the token of an Authorization header, or empty. The scheme has no case, and
// spaces around the token are none of it (RFC 9110, 11.4).
func bearer(header string) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(header), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// authenticate returns the caller, or answers and returns nil. Who is not known
// yet is limited by address first, so that guessing keys costs the guesser.
func (a *API) authenticate(x *web.Exchange, r *http.Request) *web.Caller {
	token := bearer(r.Header.Get("Authorization"))
	if token == "" {
		if a.limit(x, a.public, a.edge.ClientAddress(r)) {
			a.refuse(x, errUnauthorized)
		}
		return nil
	}
	hash := sha256.Sum256([]byte(token))
	caller := a.keys.cached(&hash)
	if caller == nil {
		if !a.keys.isKnown(hash) && !a.limit(x, a.public, a.edge.ClientAddress(r)) {
			return nil
		}
		var err error
		if caller, err = a.keys.read(r.Context(), hash); err != nil {
			a.refuse(x, err)
			return nil
		}
	}
	if caller.ExpiresAt != nil && !a.now().Before(*caller.ExpiresAt) {
		a.refuse(x, errExpired)
		return nil
	}
	return caller
}

func (k *keyCache) isKnown(hash keyHash) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.known[hash] != nil
}

func (a *API) refuse(x *web.Exchange, err error) {
	var f *web.RefusalError
	if errors.As(err, &f) {
		if f.Status == http.StatusUnauthorized {
			x.Header().Set("WWW-Authenticate", `Bearer realm="hogstream"`)
		}
		x.FailWith(f.Status, f.Body)
		return
	}
	x.Err = err
	if web.IsOutage(err) {
		x.Unavailable("Service unavailable: the API key cannot be checked", "send the request again")
		return
	}
	x.Fail(http.StatusInternalServerError, "Internal Server Error", "")
}

// allow serves a route to callers who hold one of its scopes.
func (a *API) allow(route web.Route) http.HandlerFunc {
	return web.Handle(func(x *web.Exchange, r *http.Request) {
		if !slices.ContainsFunc(route.Scopes, x.Caller.Holds) {
			failScope(x, route.Scopes)
			return
		}
		route.Serve(x, r)
	})
}

func failScope(x *web.Exchange, scopes []string) {
	x.Fail(http.StatusForbidden, "Forbidden: insufficient scope", "use a key with scope "+strings.Join(scopes, " or "))
}

// unknownAdmin answers where no admin route is: to callers who could read, or change,
// if there were one.
func (a *API) unknownAdmin(x *web.Exchange, r *http.Request) {
	scope := storage.ScopeFullAdmin
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		scope = storage.ScopeRead
	}
	if !x.Caller.Holds(scope) {
		failScope(x, []string{scope})
		return
	}
	a.notFound(x, r)
}

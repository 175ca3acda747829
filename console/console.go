// Package console is what operators see and do: the admin API.
//
// What it promises:
//   - Every change leaves an audit row with who, what and from where. Changes of
//     API keys and their audit rows commit together.
//   - Nothing secret is shown, except a new secret to the one who made it.
//   - A body that is not understood in full changes nothing, and the answer
//     names each field at fault with its fix.
//
// Authentication, scopes and rate limits are around it: whoever mounts it asks
// for scope `read` to read and `full-admin` to change.
package console

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
)

// Actor is who sent a request.
type Actor struct {
	Name    string
	KeyID   *string // nil for the bootstrap key
	Address string
}

// Deps is what the room works with. DB and Actor are needed.
type Deps struct {
	DB *storage.DB
	// Webhooks changes destinations; without it their routes answer 503.
	Webhooks Webhooks
	// Rewinds moves their positions; without it those routes answer 503.
	Rewinds Rewinds
	// Replays runs backfills; without it those routes answer 503.
	Replays Replays
	// Records reads and delivers single records, DeadLetters is what was given
	// up; without them those routes answer 503.
	Records     Records
	DeadLetters DeadLetters
	// Actor says who sent the request of a context.
	Actor  func(context.Context) Actor
	Logger *zap.Logger
	Now    func() time.Time
}

// requestTimeout bounds a request; a test of a destination takes the longest.
const requestTimeout = 25 * time.Second

type console struct {
	Deps
}

// New returns the admin API, to be mounted below /v1/admin on a chi router, or
// behind http.StripPrefix.
func New(deps Deps) (http.Handler, error) {
	if deps.DB == nil || deps.Actor == nil {
		return nil, errors.New("console: DB and Actor are needed")
	}
	if deps.Logger == nil {
		deps.Logger = zap.NewNop()
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	c := &console{deps}
	mux := chi.NewRouter()
	mux.Use(bounded)
	notFound := func(w http.ResponseWriter, _ *http.Request) { fail(w, http.StatusNotFound, "Not Found", "") }
	mux.NotFound(notFound)
	mux.MethodNotAllowed(notFound)

	mux.Get("/api-keys", c.listKeys)
	mux.Post("/api-keys", c.createKey)
	mux.Delete("/api-keys/{id}", c.revokeKey)
	mux.Get("/audit-logs", c.listAudit)
	mux.Get("/contacts", c.listContacts)
	mux.Get("/contacts/{id}", c.getContact)

	mux.Get("/webhooks", c.listWebhooks)
	mux.Post("/webhooks", c.createWebhook)
	mux.Get("/webhooks/{id}", c.getWebhook)
	mux.Patch("/webhooks/{id}", c.updateWebhook)
	mux.Delete("/webhooks/{id}", c.deleteWebhook)
	mux.Post("/webhooks/{id}/rotate-secret", c.rotateSecret)
	mux.Post("/webhooks/{id}/test", c.testWebhook)
	mux.Post("/webhooks/{id}/pause", c.pauseWebhook)
	mux.Post("/webhooks/{id}/resume", c.resumeWebhook)
	mux.Post("/webhooks/{id}/skip", c.skipWebhook)
	mux.Post("/webhooks/{id}/rewind", c.rewindWebhook)
	mux.Get("/webhooks/{id}/deliveries", c.listDeliveries)
	mux.Get("/webhooks/{id}/deliveries/{delivery}", c.getDelivery)
	mux.Post("/webhooks/{id}/deliveries/{delivery}/redeliver", c.redeliver)
	mux.Get("/webhooks/{id}/replays", c.listReplays)
	mux.Post("/webhooks/{id}/replays", c.createReplay)
	mux.Get("/webhooks/{id}/replays/{replay}", c.getReplay)
	mux.Post("/webhooks/{id}/replays/{replay}/pause", c.setReplay(storage.ReplayPaused))
	mux.Post("/webhooks/{id}/replays/{replay}/resume", c.setReplay(storage.ReplayRunning))
	mux.Post("/webhooks/{id}/replays/{replay}/cancel", c.setReplay(storage.ReplayCancelled))

	mux.Get("/dlq", c.listLetters)
	mux.Post("/dlq/retry", c.retryLetters)
	mux.Get("/dlq/{entry}", c.getLetter)
	mux.Post("/dlq/{entry}/retry", c.retryLetter)
	mux.Delete("/dlq/{entry}", c.discardLetter)
	return mux, nil
}

func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// Package console is what operators see and do: the admin API.
//
// What it promises:
//   - Every change leaves an audit row with who, what and from where. Changes of
//     API keys and their audit rows commit together.
//   - Nothing secret is shown, except a new secret to the one who made it.
//   - A request that is not understood in full changes nothing, and the answer
//     names each field or parameter at fault with its fix.
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
	// Details says that the key may see what a failed delivery tells of our network:
	// addresses, names, certificates.
	Details bool
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

	doc := describeItself()
	var undescribed error
	at := func(mux chi.Router, method, path, subject string, h handler) {
		takes, err := acceptedBy(doc, method, path)
		undescribed = errors.Join(undescribed, err)
		mux.Method(method, path, c.route(takes, subject, h))
	}

	at(mux, http.MethodGet, "/api-keys", "", c.listKeys)
	at(mux, http.MethodPost, "/api-keys", "", c.createKey)
	at(mux, http.MethodDelete, "/api-keys/{id}", "API key not found or already revoked", c.revokeKey)
	at(mux, http.MethodGet, "/audit-logs", "", c.listAudit)
	at(mux, http.MethodGet, "/contacts", "", c.listContacts)
	at(mux, http.MethodGet, "/contacts/{id}", "Contact not found", c.getContact)
	at(mux, http.MethodGet, "/webhooks/{id}/deliveries", noWebhook, c.listDeliveries)
	at(mux, http.MethodGet, "/webhooks/{id}/deliveries/{delivery}", noDelivery, c.getDelivery)

	hooks := mux.With(needs(c.Webhooks, "destinations are not managed by this process"))
	at(hooks, http.MethodGet, "/webhooks", "", c.listWebhooks)
	at(hooks, http.MethodPost, "/webhooks", noWebhook, c.createWebhook)
	at(hooks, http.MethodGet, "/webhooks/{id}", noWebhook, c.getWebhook)
	at(hooks, http.MethodPatch, "/webhooks/{id}", noWebhook, c.updateWebhook)
	at(hooks, http.MethodDelete, "/webhooks/{id}", noWebhook, c.deleteWebhook)
	at(hooks, http.MethodPost, "/webhooks/{id}/rotate-secret", noWebhook, c.rotateSecret)
	at(hooks, http.MethodPost, "/webhooks/{id}/test", noWebhook, c.testWebhook)
	at(hooks, http.MethodPost, "/webhooks/{id}/preview", noWebhook, c.previewWebhook)
	at(hooks, http.MethodPost, "/webhooks/{id}/pause", noWebhook, c.pauseWebhook)
	at(hooks, http.MethodPost, "/webhooks/{id}/resume", noWebhook, c.resumeWebhook)

	at(hooks, http.MethodGet, "/parked", "", c.listParkedTotals)
	at(hooks, http.MethodGet, "/webhooks/{id}/parked", noWebhook, c.listParked)
	at(hooks, http.MethodPost, "/webhooks/{id}/parked/retry", noWebhook, c.wishParked("retry", storage.RetryParked))
	at(hooks, http.MethodPost, "/webhooks/{id}/parked/skip", noWebhook, c.wishParked("skip", storage.SkipParked))
	at(hooks, http.MethodGet, "/webhooks/{id}/parked/{key}", noParkedKey, c.getParked)

	rewinds := mux.With(needs(c.Rewinds, noPositions))
	at(rewinds, http.MethodPost, "/webhooks/{id}/skip", noWebhook, c.skipWebhook)
	at(rewinds, http.MethodPost, "/webhooks/{id}/rewind", noWebhook, c.rewindWebhook)

	replays := mux.With(needs(c.Replays, noPositions))
	at(replays, http.MethodGet, "/webhooks/{id}/replays", noWebhook, c.listReplays)
	at(replays, http.MethodPost, "/webhooks/{id}/replays", noWebhook, c.createReplay)
	at(replays, http.MethodGet, "/webhooks/{id}/replays/{replay}", noWebhook, c.getReplay)
	at(replays, http.MethodPost, "/webhooks/{id}/replays/{replay}/pause", noWebhook, c.setReplay(storage.ReplayPaused))
	at(replays, http.MethodPost, "/webhooks/{id}/replays/{replay}/resume", noWebhook, c.setReplay(storage.ReplayRunning))
	at(replays, http.MethodPost, "/webhooks/{id}/replays/{replay}/cancel", noWebhook, c.setReplay(storage.ReplayCancelled))

	records := mux.With(needs(c.Records, "records are not read by this process"))
	at(records, http.MethodPost, "/webhooks/{id}/deliveries/{delivery}/redeliver", noDelivery, c.redeliver)

	letters := mux.With(needs(c.DeadLetters, "dead letters are not read by this process"))
	at(letters, http.MethodGet, "/dlq", "", c.listLetters)
	at(letters, http.MethodPost, "/dlq/retry", noLettersDestination, c.retryLetters)
	at(letters, http.MethodGet, "/dlq/{entry}", noLettersDestination, c.getLetter)
	at(letters, http.MethodPost, "/dlq/{entry}/retry", noLettersDestination, c.retryLetter)
	at(letters, http.MethodDelete, "/dlq/{entry}", noLettersDestination, c.discardLetter)
	return mux, undescribed
}

func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

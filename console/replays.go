package console

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/google/uuid"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Replays sends destinations again what they were sent, or what was appended
// before they were there, beside what they are sent live. Implemented by
// *stream.Replayer.
type Replays interface {
	Backfill(ctx context.Context, id string, req stream.BackfillRequest) (*stream.Backfilled, error)
	Replays(ctx context.Context, id string, limit int) ([]*stream.Backfill, error)
	Replay(ctx context.Context, id, replayID string) (*stream.Backfill, error)
	// SetReplay pauses, resumes or cancels; stream.ErrReplayState when it has ended.
	SetReplay(ctx context.Context, id, replayID string, status storage.ReplayStatus) (*stream.Backfill, error)
}

type replayPage struct {
	Replays []*stream.Backfill `json:"replays"`
}

const noReplay = "Backfill not found"

func (c *console) replays(w http.ResponseWriter) bool {
	if c.Replays == nil {
		fail(w, http.StatusServiceUnavailable, "Service unavailable: positions are not managed by this process", "")
	}
	return c.Replays != nil
}

// createReplay is POST /webhooks/{id}/replays: begins a backfill, or with dryRun
// says what it would send.
func (c *console) createReplay(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.replays(w) {
		return
	}
	f := readForm(w, r, true)
	if f == nil {
		return
	}
	var req stream.BackfillRequest
	from, to, rate, dry := f.text("from", 1, 40), f.text("to", 1, 40), f.number("rate"), f.flag("dryRun")
	req.Types, req.Keys = f.texts("types"), f.texts("keys")
	if !f.ok(w) {
		return
	}
	take(&req.From, from)
	take(&req.To, to)
	take(&req.Rate, rate)
	take(&req.DryRun, dry)
	out, err := c.Replays.Backfill(r.Context(), id, req)
	if err != nil {
		c.failReplay(w, r, err, noWebhook)
		return
	}
	status := http.StatusOK
	if out.Replay != nil {
		status = http.StatusCreated
		c.audit(r, "webhooks", id, map[string]any{"operation": "backfill", "replayId": out.Replay.ID, "from": out.Replay.From, "to": out.Replay.To, "types": req.Types, "rate": req.Rate, "records": out.Preview.Records})
	}
	respond(w, status, out)
}

func (c *console) listReplays(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.replays(w) {
		return
	}
	f := &form{}
	p := f.pageOf(r.URL.Query())
	if !f.ok(w) {
		return
	}
	list, err := c.Replays.Replays(r.Context(), id, p.limit)
	if err != nil {
		c.failReplay(w, r, err, noWebhook)
		return
	}
	respond(w, http.StatusOK, replayPage{list})
}

func (c *console) getReplay(w http.ResponseWriter, r *http.Request) {
	id, replay := pathID(w, r), replayOf(r)
	if id == "" || !c.replays(w) {
		return
	}
	b, err := c.Replays.Replay(r.Context(), id, replay)
	if err != nil {
		c.failReplay(w, r, err, noReplay)
		return
	}
	respond(w, http.StatusOK, b)
}

// replayOf reads {replay}; what is no id is that of no backfill.
func replayOf(r *http.Request) string {
	id, err := uuid.Parse(chi.URLParam(r, "replay"))
	if err != nil {
		return uuid.Nil.String()
	}
	return id.String()
}

// setReplay makes the handler of POST /webhooks/{id}/replays/{replay}/pause and the like.
func (c *console) setReplay(status storage.ReplayStatus) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, replay := pathID(w, r), replayOf(r)
		if id == "" || !c.replays(w) {
			return
		}
		b, err := c.Replays.SetReplay(r.Context(), id, replay, status)
		if err != nil {
			c.failReplay(w, r, err, noReplay)
			return
		}
		c.audit(r, "webhooks", id, map[string]any{"operation": "backfill", "replayId": replay, "status": status})
		respond(w, http.StatusOK, b)
	}
}

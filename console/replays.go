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

// createReplay is POST /webhooks/{id}/replays: begins a backfill, or with dryRun
// says what it would send.
func (c *console) createReplay(r *http.Request) (any, error) {
	id, f, err := target(r, true)
	if err != nil {
		return nil, err
	}
	var req stream.BackfillRequest
	from, to, rate, dry := f.text("from", 1, 40), f.text("to", 1, 40), f.number("rate"), f.flag("dryRun")
	req.Types, req.Keys = f.texts("types"), f.texts("keys")
	if err := f.err(); err != nil {
		return nil, err
	}
	take(&req.From, from)
	take(&req.To, to)
	take(&req.Rate, rate)
	take(&req.DryRun, dry)
	out, err := c.Replays.Backfill(r.Context(), id, req)
	if err != nil || out.Replay == nil {
		return out, err
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "backfill", "replayId": out.Replay.ID, "from": out.Replay.From, "to": out.Replay.To, "types": req.Types, "rate": req.Rate, "records": out.Preview.Records})
	return answer{http.StatusCreated, out}, nil
}

// listReplays is GET /webhooks/{id}/replays.
func (c *console) listReplays(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	f, q := queryForm(r)
	p := f.pageOf(q)
	if err := f.err(); err != nil {
		return nil, err
	}
	list, err := c.Replays.Replays(r.Context(), id, p.limit)
	return replayPage{list}, err
}

// getReplay is GET /webhooks/{id}/replays/{replay}.
func (c *console) getReplay(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	return c.Replays.Replay(r.Context(), id, replayOf(r))
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
func (c *console) setReplay(status storage.ReplayStatus) handler {
	return func(r *http.Request) (any, error) {
		id, err := pathID(r)
		if err != nil {
			return nil, err
		}
		replay := replayOf(r)
		b, err := c.Replays.SetReplay(r.Context(), id, replay, status)
		if err != nil {
			return nil, err
		}
		c.audit(r, "webhooks", id, map[string]any{"operation": "backfill", "replayId": replay, "status": status})
		return b, nil
	}
}

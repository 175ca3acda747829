package console

import (
	"context"
	"net/http"

	"github.com/hogstream/hogstream/stream/replay"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// Replays sends destinations again what they were sent, or what was appended
// before they were there, beside what they are sent live. Implemented by
// *replay.Replayer.
type Replays interface {
	Backfill(ctx context.Context, id string, req replay.BackfillRequest) (*replay.Backfilled, error)
	Replays(ctx context.Context, id string, limit int) ([]*replay.Backfill, error)
	Replay(ctx context.Context, id, replayID string) (*replay.Backfill, error)
	// SetReplay pauses, resumes or cancels; replay.ErrReplayState when it has ended.
	SetReplay(ctx context.Context, id, replayID string, status storage.ReplayStatus) (*replay.Backfill, error)
}

type replayPage struct {
	Replays []*replay.Backfill `json:"replays"`
}

// What bodies look like.
type (
	backfillRequest struct {
		From   string   `json:"from,omitempty" minLength:"1" maxLength:"40" doc:"start (the default), a time, or an offset."`
		To     string   `json:"to,omitempty" minLength:"1" maxLength:"40" doc:"live (where the destination stands now, the default), latest, a time, or an offset."`
		Types  []string `json:"types,omitempty" minItems:"1" nullable:"false" doc:"Only these of those that the destination subscribes to."`
		Keys   []string `json:"keys,omitempty" minItems:"1" nullable:"false" doc:"Only these contact ids."`
		Rate   float64  `json:"rate,omitempty" minimum:"0" doc:"Records a second; 0 for no limit of its own."`
		DryRun bool     `json:"dryRun,omitempty" doc:"Say what would be sent, and begin nothing."`
	}
	replayQuery struct {
		Limit int `json:"limit" minimum:"1" maximum:"100" default:"50"`
	}
	backfillPreviewed struct {
		Preview replay.Preview `json:"preview"`
		Replay  *string        `json:"replay" doc:"null: a dry run begins none."`
	}
)

// replayRoutes are those of backfills.
func (c *console) replayRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/replays", Scopes: reading, Tag: "Replay", Summary: "List backfills",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays?limit=10`, Handle: web.Query(c.listReplays), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/replays", Scopes: changing, Tag: "Replay", Summary: "Begin a backfill, previewed first",
			Answers: map[int]any{201: replay.Backfilled{}, 200: backfillPreviewed{}},
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays {"from":"start","types":["contact.created"],"dryRun":true}`, Handle: web.Body(c.createReplay), NotFound: noWebhook,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/webhooks/{id}/replays/{replay}", Scopes: reading, Tag: "Replay", Summary: "Show how far a backfill is",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01`, Handle: web.Path(c.getReplay), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/replays/{replay}/pause", Scopes: changing, Tag: "Replay", Summary: "Pause a backfill",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/pause`, Handle: c.setReplay(storage.ReplayPaused), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/replays/{replay}/resume", Scopes: changing, Tag: "Replay", Summary: "Resume a backfill",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/resume`, Handle: c.setReplay(storage.ReplayRunning), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/replays/{replay}/cancel", Scopes: changing, Tag: "Replay", Summary: "Cancel a backfill",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/replays/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/cancel`, Handle: c.setReplay(storage.ReplayCancelled), NotFound: noWebhook,
		},
	}
}

// createReplay is POST /webhooks/{id}/replays: begins a backfill, or with dryRun
// says what it would send.
func (c *console) createReplay(r *web.Request, req *backfillRequest) (any, error) {
	out, err := c.Replays.Backfill(r.Context(), r.ID, replay.BackfillRequest(*req))
	if err != nil || out.Replay == nil {
		return out, err
	}
	c.audit(r, "webhooks", r.ID, map[string]any{"operation": "backfill", "replayId": out.Replay.ID, "from": out.Replay.From, "to": out.Replay.To, "types": req.Types, "rate": req.Rate, "records": out.Preview.Records})
	return web.Answered(http.StatusCreated, out), nil
}

// listReplays is GET /webhooks/{id}/replays.
func (c *console) listReplays(r *web.Request, q *replayQuery) (replayPage, error) {
	list, err := c.Replays.Replays(r.Context(), r.ID, q.Limit)
	return replayPage{list}, err
}

// getReplay is GET /webhooks/{id}/replays/{replay}.
func (c *console) getReplay(r *web.Request) (*replay.Backfill, error) {
	return c.Replays.Replay(r.Context(), r.ID, replayOf(r))
}

// replayOf reads {replay}; what is no id is that of no backfill.
func replayOf(r *web.Request) string {
	id, err := uuid.Parse(r.Param("replay"))
	if err != nil {
		return uuid.Nil.String()
	}
	return id.String()
}

// setReplay makes the handler of POST /webhooks/{id}/replays/{replay}/pause and the like.
func (c *console) setReplay(status storage.ReplayStatus) web.Handler {
	return web.Path(func(r *web.Request) (*replay.Backfill, error) {
		id := replayOf(r)
		b, err := c.Replays.SetReplay(r.Context(), r.ID, id, status)
		if err != nil {
			return nil, err
		}
		c.audit(r, "webhooks", r.ID, map[string]any{"operation": "backfill", "replayId": id, "status": status})
		return b, nil
	})
}

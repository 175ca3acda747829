package console

import (
	"context"
	"net/http"

	"github.com/hogstream/hogstream/stream/replay"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/web"
)

// Rewinds moves the positions of destinations. Implemented by *replay.Replayer.
type Rewinds interface {
	// Rewind previews and, unless it is a dry run, moves. A wrong request is a
	// *replay.Error, one that would leave out what was not delivered a
	// *replay.UndeliveredError.
	Rewind(ctx context.Context, id string, req replay.RewindRequest) (*replay.Rewound, error)
	// Skip moves to the ends of the topics, else as Rewind.
	Skip(ctx context.Context, id string, req replay.SkipRequest) (*replay.Rewound, error)
}

// What bodies look like.
type (
	rewindRequest struct {
		To        string        `json:"to" minLength:"1" maxLength:"40" doc:"start or earliest; latest, end or now; a time (2026-01-31T12:00:00Z, 2026-01-31, or 36h and 7d ago); an offset, a negative one back from the end."`
		Topic     schemas.Topic `json:"topic,omitempty" minLength:"1" maxLength:"40" doc:"Only this one: lifecycle or events."`
		Partition *int32        `json:"partition,omitempty" minimum:"0" maximum:"2147483647" doc:"Only this one."`

		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"Leave out what was not delivered yet and lies before that: dead letters. Without it, that is refused."`
		DryRun          bool `json:"dryRun,omitempty" doc:"Say what would be sent and left out, and change nothing."`
	}
	skipRequest struct {
		SkipUndelivered bool `json:"skipUndelivered,omitempty" doc:"Leave out what was not delivered yet: dead letters. Without it, that is refused."`
		DryRun          bool `json:"dryRun,omitempty" doc:"Say what would be sent and left out, and change nothing."`
	}
)

// rewindRoutes are those that move a destination.
func (c *console) rewindRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/skip", Scopes: changing, Tag: "Replay", Summary: "Go on from now",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/skip {"dryRun":true}`, Handle: web.Body(c.skipWebhook), NotFound: noWebhook,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/webhooks/{id}/rewind", Scopes: changing, Tag: "Replay", Summary: "Go on from somewhere else, previewed first",
			Example: `/v1/admin/webhooks/0198f0a0-3c4e-7d2a-9b1e-5a6f7c8d9e01/rewind {"to":"2026-01-31T12:00:00Z","dryRun":true}`, Handle: web.Body(c.rewindWebhook), NotFound: noWebhook,
		},
	}
}

// rewindWebhook is POST /webhooks/{id}/rewind: the destination goes on from
// somewhere else; with dryRun, only what that would send is said.
func (c *console) rewindWebhook(r *web.Request, req *rewindRequest) (*replay.Rewound, error) {
	out, err := c.Rewinds.Rewind(r.Context(), r.ID, replay.RewindRequest(*req))
	if err != nil {
		return nil, err
	}
	if out.Applied {
		c.audit(r, "webhooks", r.ID, map[string]any{"operation": "rewind", "to": req.To, "topic": req.Topic, "partition": req.Partition, "undelivered": out.Undelivered, "positions": out.Positions})
	}
	return out, nil
}

// skipWebhook is POST /webhooks/{id}/skip: the destination goes on from the ends of
// its topics.
func (c *console) skipWebhook(r *web.Request, req *skipRequest) (*replay.Rewound, error) {
	out, err := c.Rewinds.Skip(r.Context(), r.ID, replay.SkipRequest(*req))
	if err != nil {
		return nil, err
	}
	if out.Applied {
		c.audit(r, "webhooks", r.ID, map[string]any{"operation": "skip", "undelivered": out.Undelivered, "positions": out.Positions})
	}
	return out, nil
}

package console

import (
	"context"
	"net/http"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Rewinds moves the positions of destinations. Implemented by *stream.Replayer.
type Rewinds interface {
	// Rewind previews and, unless it is a dry run, moves. A wrong request is a
	// *stream.ReplayError, one that would leave out what was not delivered a
	// *stream.UndeliveredError.
	Rewind(ctx context.Context, id string, req stream.RewindRequest) (*stream.Rewound, error)
	// Skip moves to the ends of the topics, else as Rewind.
	Skip(ctx context.Context, id string, req stream.SkipRequest) (*stream.Rewound, error)
}

// noPositions is why routes of rewinds and backfills answer 503.
const noPositions = "positions are not managed by this process"

// rewindWebhook is POST /webhooks/{id}/rewind: the destination goes on from
// somewhere else; with dryRun, only what that would send is said.
func (c *console) rewindWebhook(r *http.Request) (any, error) {
	id, f, err := target(r, false)
	if err != nil {
		return nil, err
	}
	var req stream.RewindRequest
	to, topic, partition, dry := f.text("to", 1, 40), f.text("topic", 1, 40), f.whole("partition"), f.flag("dryRun")
	skip := f.flag("skipUndelivered")
	if !f.has("to") {
		f.missing("to", "string")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	take(&req.To, to)
	take(&req.DryRun, dry)
	take(&req.SkipUndelivered, skip)
	if topic != nil {
		req.Topic = schemas.Topic(*topic)
	}
	if partition != nil {
		p := int32(*partition)
		req.Partition = &p
	}
	out, err := c.Rewinds.Rewind(r.Context(), id, req)
	if err != nil {
		return nil, err
	}
	if out.Applied {
		c.audit(r, "webhooks", id, map[string]any{"operation": "rewind", "to": req.To, "topic": req.Topic, "partition": req.Partition, "undelivered": out.Undelivered, "positions": out.Positions})
	}
	return out, nil
}

// skipWebhook is POST /webhooks/{id}/skip: the destination goes on from the ends of
// its topics.
func (c *console) skipWebhook(r *http.Request) (any, error) {
	id, f, err := target(r, true)
	if err != nil {
		return nil, err
	}
	var req stream.SkipRequest
	skip, dry := f.flag("skipUndelivered"), f.flag("dryRun")
	if err := f.err(); err != nil {
		return nil, err
	}
	take(&req.SkipUndelivered, skip)
	take(&req.DryRun, dry)
	out, err := c.Rewinds.Skip(r.Context(), id, req)
	if err != nil {
		return nil, err
	}
	if out.Applied {
		c.audit(r, "webhooks", id, map[string]any{"operation": "skip", "undelivered": out.Undelivered, "positions": out.Positions})
	}
	return out, nil
}

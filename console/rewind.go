package console

import (
	"context"
	"errors"
	"net/http"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Rewinds moves the positions of destinations. Implemented by *stream.Replayer.
type Rewinds interface {
	// Rewind previews and, unless it is a dry run, moves. A wrong request is a
	// *stream.ReplayError.
	Rewind(ctx context.Context, id string, req stream.RewindRequest) (*stream.Rewound, error)
	// Skip moves to the ends of the topics.
	Skip(ctx context.Context, id string) (*stream.Rewound, error)
}

func (c *console) rewinds(w http.ResponseWriter) bool {
	if c.Rewinds == nil {
		fail(w, http.StatusServiceUnavailable, "Service unavailable: positions are not managed by this process", "")
	}
	return c.Rewinds != nil
}

// failReplay says an error of replays in the words of the API.
func (c *console) failReplay(w http.ResponseWriter, r *http.Request, err error, subject string) {
	var wrong *stream.ReplayError
	switch {
	case errors.As(err, &wrong):
		failIssues(w, []issue{{Code: "custom", Path: []any{wrong.Field}, Message: wrong.Message, Fix: wrong.Message}})
	case errors.Is(err, stream.ErrNoReplay):
		fail(w, http.StatusNotFound, subject, "")
	case errors.Is(err, stream.ErrReplayState):
		fail(w, http.StatusConflict, err.Error(), "start another one")
	default:
		c.failErr(w, r, err, subject)
	}
}

// rewindWebhook is POST /webhooks/{id}/rewind: the destination goes on from
// somewhere else; with dryRun, only what that would send is said.
func (c *console) rewindWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.rewinds(w) {
		return
	}
	f := readForm(w, r, false)
	if f == nil {
		return
	}
	var req stream.RewindRequest
	to, topic, partition, dry := f.text("to", 1, 40), f.text("topic", 1, 40), f.whole("partition"), f.flag("dryRun")
	if !f.has("to") {
		f.missing("to", "string")
	}
	if !f.ok(w) {
		return
	}
	take(&req.To, to)
	take(&req.DryRun, dry)
	if topic != nil {
		req.Topic = schemas.Topic(*topic)
	}
	if partition != nil {
		p := int32(*partition)
		req.Partition = &p
	}
	out, err := c.Rewinds.Rewind(r.Context(), id, req)
	if err != nil {
		c.failReplay(w, r, err, noWebhook)
		return
	}
	if out.Applied {
		c.audit(r, "webhooks", id, map[string]any{"operation": "rewind", "to": req.To, "topic": req.Topic, "partition": req.Partition, "positions": out.Positions})
	}
	respond(w, http.StatusOK, out)
}

// skipWebhook is POST /webhooks/{id}/skip.
func (c *console) skipWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.rewinds(w) {
		return
	}
	out, err := c.Rewinds.Skip(r.Context(), id)
	if err != nil {
		c.failReplay(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": "skip", "positions": out.Positions})
	respond(w, http.StatusOK, out)
}

// pauseWebhook is POST /webhooks/{id}/pause: nothing is sent, nothing is lost.
func (c *console) pauseWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	f := readForm(w, r, true)
	if f == nil {
		return
	}
	reason := f.text("reason", 0, maxDescribed)
	if !f.ok(w) {
		return
	}
	text := ""
	take(&text, reason)
	c.setState(w, r, id, storage.DestinationPaused, text)
}

// resumeWebhook is POST /webhooks/{id}/resume: after a pause or a suspension it
// goes on where it stands, or from now on with skipToNow.
func (c *console) resumeWebhook(w http.ResponseWriter, r *http.Request) {
	id := pathID(w, r)
	if id == "" || !c.webhooks(w) {
		return
	}
	f := readForm(w, r, true)
	if f == nil {
		return
	}
	skip := f.flag("skipToNow")
	if !f.ok(w) {
		return
	}
	if skip != nil && *skip {
		if !c.rewinds(w) {
			return
		}
		if _, err := c.Rewinds.Skip(r.Context(), id); err != nil {
			c.failReplay(w, r, err, noWebhook)
			return
		}
	}
	c.setState(w, r, id, storage.DestinationActive, "")
}

func (c *console) setState(w http.ResponseWriter, r *http.Request, id string, state storage.DestinationStatus, reason string) {
	v, err := c.Webhooks.SetState(r.Context(), id, state, reason)
	if err != nil {
		c.failErr(w, r, err, noWebhook)
		return
	}
	c.audit(r, "webhooks", id, map[string]any{"operation": state, "reason": reason})
	respond(w, http.StatusOK, v)
}

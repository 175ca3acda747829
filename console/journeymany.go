package console

import (
	"net/http"
	"time"

	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

// What is done to many runs at once is done in steps: each request takes the next ones, tells
// the processor what a request for a single run would tell, and answers with the cursor of
// the rest. A command names the step at which it found its run and when the run came there:
// told again, after an interruption, it does nothing more.

// What requests hold, and the answers.
type (
	// ManyRuns says which runs are meant.
	ManyRuns struct {
		Version    string     `json:"version,omitempty" doc:"Only those of this version of the journey."`
		Step       string     `json:"step,omitempty" doc:"Only those at this step."`
		Reason     string     `json:"reason,omitempty" doc:"Only those that ended for this reason."`
		UserID     string     `json:"userId,omitempty" doc:"Only those of this contact: a user id, an anonymous id or a contact id."`
		Since      *time.Time `json:"since,omitempty" doc:"Only those that began then or later."`
		Until      *time.Time `json:"until,omitempty" doc:"Only those that began before."`
		EndedSince *time.Time `json:"endedSince,omitempty" doc:"Only those that ended then or later."`
		EndedUntil *time.Time `json:"endedUntil,omitempty" doc:"Only those that ended before."`
		DryRun     bool       `json:"dryRun,omitempty" doc:"Say how many there are, and show some; tell nobody anything."`
		Limit      int        `json:"limit,omitempty" minimum:"1" maximum:"1000" default:"500" doc:"How many a request takes."`
		Cursor     string     `json:"cursor,omitempty" doc:"nextCursor of the request before; empty to begin."`
	}
	manyRetried struct {
		ManyRuns
		FromStart bool `json:"fromStart,omitempty" doc:"Begin at the first step again: what was done is done once more."`
	}
	manyPreviewed struct {
		Total   int             `json:"total" doc:"Runs."`
		Until   schemas.ISOTime `json:"until" format:"date-time" doc:"To be sent with what is done then, so that runs that begin meanwhile are not meant."`
		Sample  []runJSON       `json:"sample" doc:"The newest ten."`
		Effects int64           `json:"effects" doc:"How much all of them have done since they began (mails, calls, changes and events): what fromStart does once more, at least."`
	}
	manyTold struct {
		Told       int     `json:"told" doc:"Runs, of this request."`
		NextCursor *string `json:"nextCursor" doc:"Of the next request; null when this was the last."`
	}
)

// journeyManyRoutes are those that act on many runs.
func (c *console) journeyManyRoutes() []web.Route {
	const text = "A request takes so many of the runs that match, the newest first, and answers with the cursor of the rest; with dryRun it says how many there are. Sent again it does nothing twice."
	answers := map[int]any{http.StatusOK: manyPreviewed{}, http.StatusAccepted: manyTold{}}
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/states/cancel", Scopes: switching, Tag: "Journeys", Summary: "Cancel many runs", Text: text, Answers: answers,
			Params: journeyParams, Example: `/v1/admin/journeys/cart/states/cancel {"step":"wait-0","dryRun":true}`, Handle: web.Body(c.cancelRuns), NotFound: noJourney,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/states/skip", Scopes: switching, Tag: "Journeys", Summary: "End the open waits of many runs", Text: text, Answers: answers,
			Params: journeyParams, Example: `/v1/admin/journeys/cart/states/skip {"step":"wait-0","dryRun":true}`, Handle: web.Body(c.skipRuns), NotFound: noJourney,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/states/retry", Scopes: switching, Tag: "Journeys", Summary: "Go on with many runs that failed", Text: text, Answers: answers,
			Params: journeyParams, Example: `/v1/admin/journeys/cart/states/retry {"step":"call-1","dryRun":true}`, Handle: web.Body(c.retryRuns), NotFound: noJourney,
		},
	}
}

// cancelRuns is POST /journeys/{id}/states/cancel. Without a step, a run that has gone on
// meanwhile is ended all the same.
func (c *console) cancelRuns(r *web.Request, req *ManyRuns) (any, error) {
	return c.commandRuns(r, req, storage.RunWaiting, func(*storage.JourneyRun) journeys.Command {
		return journeys.Command{What: journeys.CommandCancel, Step: req.Step}
	})
}

// skipRuns is POST /journeys/{id}/states/skip.
func (c *console) skipRuns(r *web.Request, req *ManyRuns) (any, error) {
	return c.commandRuns(r, req, storage.RunWaiting, func(run *storage.JourneyRun) journeys.Command {
		return journeys.Command{What: journeys.CommandSkip, Step: run.Step, Since: run.StepSince}
	})
}

// retryRuns is POST /journeys/{id}/states/retry.
func (c *console) retryRuns(r *web.Request, req *manyRetried) (any, error) {
	return c.commandRuns(r, &req.ManyRuns, storage.RunFailed, func(run *storage.JourneyRun) journeys.Command {
		return journeys.Command{What: journeys.CommandRetry, Since: run.StepSince, FromStart: req.FromStart}
	})
}

// runsMeant is what a request asks for, of runs of a status; false when it names nobody.
func (c *console) runsMeant(r *web.Request, req *ManyRuns, status string) (f storage.JourneyRunFilter, anybody bool, err error) {
	f = storage.JourneyRunFilter{
		JourneyID: r.TextParam("id"), Status: status, Version: req.Version, Step: req.Step, Reason: req.Reason,
		Began: spanOf(req.Since, req.Until), Ended: spanOf(req.EndedSince, req.EndedUntil),
	}
	if req.UserID == "" {
		return f, true, nil
	}
	contact, err := c.contactNamed(r.Context(), req.UserID)
	if contact != nil {
		f.ContactID = contact.ID
	}
	return f, contact != nil, err
}

func spanOf(from, until *time.Time) (s storage.Span) {
	if from != nil {
		s.From = *from
	}
	if until != nil {
		s.Until = *until
	}
	return s
}

// commandRuns tells the processor what to do with the next runs of a status.
func (c *console) commandRuns(r *web.Request, req *ManyRuns, status string, command func(*storage.JourneyRun) journeys.Command) (any, error) {
	f, anybody, err := c.runsMeant(r, req, status)
	if err != nil {
		return nil, err
	}
	if req.DryRun {
		return c.previewRuns(r, f, anybody)
	}
	var runs []storage.JourneyRun
	next := ""
	if anybody {
		runs, next, err = c.DB.WalkJourneyRuns(r.Context(), f, req.Limit, req.Cursor)
	}
	if err != nil {
		return nil, err
	}
	if len(runs) == 0 {
		return web.Answered(http.StatusAccepted, manyTold{}), c.known(r)
	}
	commands := make([]journeyCommand, len(runs))
	for i := range runs {
		commands[i] = journeyCommand{contact: runs[i].ContactID, Command: command(&runs[i])}
		commands[i].Run = runs[i].ID
	}
	if err := c.tellJourneys(r.Context(), commands); err != nil {
		return nil, err
	}
	c.audit(r, "journeys", f.JourneyID, map[string]any{"operation": commands[0].What, "runs": len(runs), "first": runs[0].ID, "last": runs[len(runs)-1].ID})
	return web.Answered(http.StatusAccepted, manyTold{len(runs), optional(next)}), nil
}

// known is ErrNotFound when the journey of the path is not defined.
func (c *console) known(r *web.Request) error {
	_, err := c.journey(r.Context(), r.TextParam("id"))
	return err
}

// previewRuns says how many runs there are, and shows some. Of a journey that is defined no
// more there may be runs still.
func (c *console) previewRuns(r *web.Request, f storage.JourneyRunFilter, anybody bool) (_ any, err error) {
	if f.Began.Until.IsZero() {
		f.Began.Until = time.Now()
	}
	out := manyPreviewed{Until: schemas.ISOTime{Time: f.Began.Until}, Sample: []runJSON{}}
	if anybody {
		if out.Total, err = c.DB.CountJourneyRuns(r.Context(), f); err != nil {
			return nil, err
		}
	}
	if out.Total == 0 {
		return web.Answered(http.StatusOK, out), c.known(r)
	}
	if out.Effects, err = c.DB.CountJourneyEffects(r.Context(), f); err != nil {
		return nil, err
	}
	sample, err := c.DB.ListJourneyRuns(r.Context(), f, recently, 0)
	out.Sample = runsOf(sample)
	return web.Answered(http.StatusOK, out), err
}

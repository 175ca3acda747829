package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/explain"
	"github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/web"
)

type journeyJSON struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Description *string           `json:"description,omitempty"`
	Enabled     bool              `json:"enabled"`
	Paused      bool              `json:"paused"`
	Version     string            `json:"version" doc:"What runs that begin now belong to."`
	Trigger     journeyTrigger    `json:"trigger"`
	EntryLimit  string            `json:"entryLimit" enum:"once,once_per_period,unlimited"`
	Counts      journeyCountsJSON `json:"counts"`
	reactionJSON
}

type journeyTrigger struct {
	Event  string   `json:"event" doc:"What begins it; the first of several; empty of one that a schedule begins."`
	Others []string `json:"others,omitempty" doc:"The rest of several."`
	Where  any      `json:"where,omitempty" doc:"What must hold of the properties of the first."`
}

type journeyCountsJSON struct {
	Active    int64 `json:"active" doc:"Always 0: a run that lives waits, also for the answer of a call."`
	Waiting   int64 `json:"waiting"`
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	Exited    int64 `json:"exited"`
	Skipped   int64 `json:"skipped" doc:"Triggers that did not enrol."`
	Converted int64 `json:"converted" doc:"Who reached the goal, those held out among them."`
}

// add counts what happened to runs as a whole.
func (c *journeyCountsJSON) add(n *storage.JourneyCount) {
	switch n.What {
	case storage.RunStarted:
		c.Waiting += n.N
	case storage.RunRetried: // and it had failed before
		c.Waiting, c.Failed = c.Waiting+n.N, c.Failed-n.N
	case storage.RunCompleted:
		c.Completed, c.Waiting = c.Completed+n.N, c.Waiting-n.N
	case storage.RunExited:
		c.Exited, c.Waiting = c.Exited+n.N, c.Waiting-n.N
	case storage.RunFailed:
		c.Failed, c.Waiting = c.Failed+n.N, c.Waiting-n.N
	case storage.RunSkipped:
		c.Skipped += n.N
	case storage.RunConverted:
		c.Converted += n.N
	}
}

type journeyDetail struct {
	journeyJSON
	ExitOn       any               `json:"exitOn,omitempty" doc:"As the definition has it."`
	Suppress     *string           `json:"suppress" doc:"Always null: how soon somebody may begin again, entryLimit says."`
	Definition   any               `json:"definition" doc:"In its one form."`
	Counters     []journeyCounter  `json:"counters" doc:"How often what happened, by version and step; without a step, to runs as a whole. At each step came = step + exited + failed + those that stand there."`
	RecentStates []runJSON         `json:"recentStates" doc:"The ten runs that began last."`
	Versions     []journeyVersions `json:"versions" doc:"In use, or with runs that live."`
}

type journeyCounter struct {
	Version string `json:"version"`
	Step    string `json:"step,omitempty"`
	What    string `json:"what"`
	Detail  string `json:"detail,omitempty" doc:"What came of the step; the reason of an end, or of a skip."`
	Arm     string `json:"arm,omitempty"`
	Count   int64  `json:"count"`
}

type journeyVersions struct {
	Version string `json:"version"`
	InUse   bool   `json:"inUse"`
	Live    int64  `json:"live" doc:"Runs."`
	// Definition is what its runs follow.
	Definition any `json:"definition,omitempty" doc:"In its one form; none of one in Go."`
}

// versionOf is a version with the steps that its runs follow.
func versionOf(v *storage.JourneyVersion) journeyVersions {
	out := journeyVersions{Version: v.Version, InUse: v.Superseded.IsZero(), Live: v.Live}
	if v.Definition != "" {
		out.Definition = json.RawMessage(v.Definition)
	}
	return out
}

type runJSON struct {
	ID          string           `json:"id"`
	UserID      string           `json:"userId"`
	UserEmail   *string          `json:"userEmail"`
	ContactID   string           `json:"contactId"`
	JourneyID   string           `json:"journeyId"`
	Version     string           `json:"version"`
	Key         *string          `json:"key,omitempty" doc:"JSON."`
	Arm         *string          `json:"arm,omitempty"`
	Status      string           `json:"status" enum:"waiting,completed,exited,failed"`
	CurrentNode string           `json:"currentNodeId" doc:"The step that it stands on, or ended at."`
	Since       schemas.ISOTime  `json:"since" format:"date-time" doc:"When it came to that step."`
	EntryCount  int64            `json:"entryCount" doc:"Which run of the contact, journey and key it is."`
	Reason      *string          `json:"reason,omitempty"`
	Error       *string          `json:"errorMessage"`
	Trigger     string           `json:"triggerId" doc:"The record that began it."`
	Context     web.Object       `json:"context" doc:"Of a single run that lives: what its journey reads of the properties that began it. Else empty."`
	HatchetRun  *string          `json:"hatchetRunId" doc:"Always null: no other engine runs it."`
	CompletedAt *schemas.ISOTime `json:"completedAt" format:"date-time"`
	ExitedAt    *schemas.ISOTime `json:"exitedAt" format:"date-time"`
	UpdatedAt   schemas.ISOTime  `json:"updatedAt" format:"date-time"`
	CreatedAt   schemas.ISOTime  `json:"createdAt" format:"date-time"`
	EndedAt     *schemas.ISOTime `json:"endedAt" format:"date-time"`
	ConvertedAt *schemas.ISOTime `json:"convertedAt" format:"date-time" doc:"When its goal was reached."`
}

func runOf(r *storage.JourneyRun) runJSON {
	out := runJSON{
		ID: r.ID, UserID: r.UserID, UserEmail: optional(r.Email), ContactID: r.ContactID, JourneyID: r.JourneyID, Version: r.Version, Key: optional(r.Key),
		Arm: optional(r.Arm), Status: r.Status, CurrentNode: r.Step, Since: schemas.ISOTime{Time: r.StepSince}, EntryCount: r.Entry, Reason: optional(r.Reason),
		Error: optional(r.Error), Trigger: r.TriggerID, CreatedAt: schemas.ISOTime{Time: r.EnteredAt}, EndedAt: isoOrNil(r.EndedAt), ConvertedAt: isoOrNil(r.ConvertedAt),
		Context: web.Object("{}"), UpdatedAt: schemas.ISOTime{Time: latest(r.StepSince, r.EndedAt, r.ConvertedAt)},
	}
	switch r.Status {
	case storage.RunCompleted:
		out.CompletedAt = out.EndedAt
	case storage.RunExited:
		out.ExitedAt = out.EndedAt
	}
	return out
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare)
}

func runsOf(runs []storage.JourneyRun) []runJSON {
	out := make([]runJSON, len(runs))
	for i := range runs {
		out[i] = runOf(&runs[i])
	}
	return out
}

// What requests hold, and the answers.
type (
	journeyQuery struct {
		web.Page
		Enabled *bool `json:"enabled"`
	}
	journeyPage struct {
		Journeys []journeyJSON `json:"journeys"`
		Total    int           `json:"total"`
		web.Page
	}
	journeyResponse struct {
		Journey journeyDetail `json:"journey"`
	}
	journeySwitch struct {
		Enabled *bool `json:"enabled,omitempty" doc:"false: nobody is enrolled; runs go on."`
		Paused  *bool `json:"paused,omitempty" doc:"true: nobody is enrolled, and runs stand still."`
	}
	journeySwitched struct {
		Journey journeySwitchedJSON `json:"journey"`
	}
	journeySwitchedJSON struct {
		ID        string          `json:"id"`
		Name      string          `json:"name"`
		Enabled   bool            `json:"enabled"`
		Paused    bool            `json:"paused"`
		UpdatedAt schemas.ISOTime `json:"updatedAt" format:"date-time"`
	}
	runQuery struct {
		web.Page
		Status  string    `json:"status" enum:"active,waiting,completed,exited,failed" doc:"active is none: a run that lives waits."`
		UserID  string    `json:"userId" doc:"A user id, an anonymous id or a contact id."`
		Version string    `json:"version"`
		Step    string    `json:"step"`
		Reason  string    `json:"reason"`
		Since   time.Time `json:"since" doc:"Only those that began then or later."`
		Until   time.Time `json:"until" doc:"Only those that began before."`
		Cursor  *string   `json:"cursor" doc:"empty to read all runs, then nextCursor of the page before; in place of offset"`
	}
	runPage struct {
		States []runJSON `json:"states"`
		Total  int       `json:"total"`
		web.Page
		NextCursor *string `json:"nextCursor,omitempty" doc:"Of the next page, when the request had a cursor and this is not the last one."`
	}
	runResponse struct {
		State runJSON   `json:"state"`
		Logs  []runLine `json:"logs" doc:"What happened to it, in its order: the first 16 KiB."`
		Job   *runJob   `json:"job,omitempty" doc:"While it waits for a function in Go."`
	}
	runJob struct {
		Step     string          `json:"step"`
		Attempts int             `json:"attempts" doc:"That began."`
		Running  bool            `json:"running" doc:"Whether a process has it in hand."`
		Error    *string         `json:"error" doc:"Of the last attempt that has ended."`
		Due      schemas.ISOTime `json:"due" format:"date-time" doc:"When the next attempt begins; of one that runs, when another process takes it over unless its own keeps it."`
	}
	runLine struct {
		ID        string          `json:"id"`
		From      *string         `json:"fromNodeId"`
		To        *string         `json:"toNodeId"`
		Action    string          `json:"action" enum:"started,step,converted,completed,exited,failed,retried"`
		Detail    *runDetail      `json:"detail"`
		CreatedAt schemas.ISOTime `json:"createdAt" format:"date-time"`
	}
	runDetail struct {
		Outcome string `json:"outcome,omitempty"`
		Reason  string `json:"reason,omitempty"`
		Error   string `json:"error,omitempty" doc:"Its first 200 bytes."`
	}
	runCancelled struct {
		State     cancelledRun `json:"state"`
		Cancelled bool         `json:"hatchetCancelled" doc:"That it has ended. false with 202: its processor has not obeyed yet, and will."`
	}
	cancelledRun struct {
		ID       string           `json:"id"`
		Status   string           `json:"status" enum:"waiting,exited"`
		ExitedAt *schemas.ISOTime `json:"exitedAt" format:"date-time"`
	}
	runRetry struct {
		FromStart bool `json:"fromStart,omitempty" doc:"Begin at the first step again: what was done is done once more."`
	}
	runCommanded struct {
		ID        string `json:"id" doc:"Of the run."`
		CommandID string `json:"commandId"`
	}
)

const (
	noJourney = "Journey not found"
	noRun     = "State not found"
)

var (
	journeyParams = []web.Param{{Name: "id", Text: "id of the journey, as its definition has it"}}
	runParams     = append(journeyParams[:1:1], web.Param{Name: "stateId", Text: "id of the run"})
)

// journeyRoutes are those of journeys.
func (c *console) journeyRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodGet, Path: "/v1/admin/journeys", Scopes: reading, Tag: "Journeys", Summary: "List journeys",
			Example: `/v1/admin/journeys?enabled=true`, Handle: web.Query(c.listJourneys),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/journeys/{id}", Scopes: reading, Tag: "Journeys", Summary: "Show a journey",
			Params: journeyParams, Example: `/v1/admin/journeys/cart`, Handle: web.Path(c.getJourney), NotFound: noJourney,
		},
		{
			Method: http.MethodPatch, Path: "/v1/admin/journeys/{id}", Scopes: switching, Tag: "Journeys", Summary: "Enable, disable, pause or resume a journey",
			Text:   "What is said here goes before its definition, until that is removed.",
			Params: journeyParams, Example: `/v1/admin/journeys/cart {"enabled":false}`, Handle: web.Body(c.switchJourney), NotFound: noJourney,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/journeys/{id}/states", Scopes: reading, Tag: "Journeys", Summary: "List runs of a journey, the newest first",
			Params: journeyParams, Example: `/v1/admin/journeys/cart/states?status=waiting`, Handle: web.Query(c.listRuns), NotFound: noJourney,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/journeys/{id}/states/{stateId}", Scopes: reading, Tag: "Journeys", Summary: "Show a run, with what happened to it",
			Params: runParams, Example: `/v1/admin/journeys/cart/states/0192f000-0000-7000-8000-0000000000ab`, Handle: web.Path(c.getRun), NotFound: noRun,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/journey-logs/{stateId}", Scopes: reading, Tag: "Journeys", Summary: "Show a run of any journey, with what happened to it",
			Params: runParams[1:], Example: `/v1/admin/journey-logs/0192f000-0000-7000-8000-0000000000ab`, Handle: web.Path(c.getLogs), NotFound: "Journey state not found",
		},
		{
			Method: http.MethodDelete, Path: "/v1/admin/journeys/{id}/states/{stateId}", Scopes: switching, Tag: "Journeys", Summary: "Cancel a run",
			Text:    "202: it will be cancelled, and was not within some seconds.",
			Answers: map[int]any{http.StatusOK: runCancelled{}, http.StatusAccepted: runCancelled{}},
			Params:  runParams, Example: `/v1/admin/journeys/cart/states/0192f000-0000-7000-8000-0000000000ab`, Handle: web.Path(c.cancelRun), NotFound: noRun,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/states/{stateId}/skip", Scopes: switching, Tag: "Journeys", Summary: "End the open wait of a run", Status: http.StatusAccepted,
			Params: runParams, Example: `/v1/admin/journeys/cart/states/0192f000-0000-7000-8000-0000000000ab/skip`, Handle: web.Path(c.skipRun), NotFound: noRun,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/journeys/{id}/states/{stateId}/retry", Scopes: switching, Tag: "Journeys", Summary: "Go on with a run that failed", Status: http.StatusAccepted,
			Params: runParams, Example: `/v1/admin/journeys/cart/states/0192f000-0000-7000-8000-0000000000ab/retry {"fromStart":false}`, Handle: web.Body(c.retryRun), NotFound: noRun,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/journeys/{id}/why/{userId}", Scopes: reading, Tag: "Journeys", Summary: "Say why a contact did not begin a journey, or how it stands with it",
			Params:  append([]web.Param{{Name: "userId", Text: "a userId, an anonymousId or a contact id"}}, journeyParams...),
			Example: `/v1/admin/journeys/cart/why/u-1`, Handle: web.Path(c.whyJourney), NotFound: noJourney,
		},
	}
}

// whyJourney is GET /journeys/{id}/why/{userId}.
func (c *console) whyJourney(r *web.Request) (*explain.JourneyAnswer, error) {
	j, err := c.journey(r.Context(), r.TextParam("id"))
	if err != nil {
		return nil, err
	}
	out, err := c.Explain.Journey(r.Context(), r.TextParam("id"), r.TextParam("userId"))
	if errors.Is(err, explain.ErrNoContact) {
		return nil, refuse(http.StatusNotFound, noContact, "name a userId, an anonymousId or a contact id: nobody has this one, or whoever had it was erased")
	}
	if err == nil && j.Trigger.Bucket != "" && out.Next.IsZero() {
		out.Text += "; its time comes for members of bucket " + j.Trigger.Bucket + " alone"
	}
	return out, err
}

// journey is one that is defined.
func (c *console) journey(ctx context.Context, id string) (*definition.JourneyInUse, error) {
	set, err := definition.Current(ctx, c.DB)
	if err != nil {
		return nil, err
	}
	if j := set.FindJourney(id); j != nil {
		return j, nil
	}
	return nil, web.ErrNotFound
}

func journeyOf(j *definition.JourneyInUse, counts journeyCountsJSON) journeyJSON {
	limit := j.EntryLimit
	if limit == "" {
		limit = journeys.EntryOnce
	}
	trigger := journeyTrigger{Event: eventOf(j)}
	for i := range j.Trigger.Records {
		if i > 0 {
			trigger.Others = append(trigger.Others, j.Trigger.Records[i].Event)
		}
	}
	return journeyJSON{j.ID, j.Name, optional(j.Description), j.Enabled, j.Paused, j.Identity(), trigger, limit, counts, reactionOf(j)}
}

// listJourneys is GET /journeys.
func (c *console) listJourneys(r *web.Request, q *journeyQuery) (out journeyPage, err error) {
	set, err := definition.Current(r.Context(), c.DB)
	if err != nil {
		return out, err
	}
	found, err := c.DB.JourneyCounts(r.Context(), "")
	if err != nil {
		return out, err
	}
	counts := map[string]journeyCountsJSON{}
	for i := range found {
		n := counts[found[i].JourneyID]
		n.add(&found[i])
		counts[found[i].JourneyID] = n
	}
	out = journeyPage{Journeys: []journeyJSON{}, Page: q.Page}
	all := set.AllJourneys()
	for i := range all {
		j := &all[i]
		if q.Enabled != nil && *q.Enabled != j.Enabled {
			continue
		}
		if out.Total >= q.Offset && len(out.Journeys) < q.Limit {
			out.Journeys = append(out.Journeys, journeyOf(j, counts[j.ID]))
		}
		out.Total++
	}
	return out, nil
}

// getJourney is GET /journeys/{id}.
func (c *console) getJourney(r *web.Request) (out journeyResponse, err error) {
	j, err := c.journey(r.Context(), r.TextParam("id"))
	if err != nil {
		return out, err
	}
	found, err := c.DB.JourneyCounts(r.Context(), j.ID)
	if err != nil {
		return out, err
	}
	versions, err := c.DB.JourneyVersions(r.Context())
	if err != nil {
		return out, err
	}
	recent, err := c.DB.ListJourneyRuns(r.Context(), storage.JourneyRunFilter{JourneyID: j.ID}, recently, 0)
	if err != nil {
		return out, err
	}
	d := journeyDetail{Definition: json.RawMessage(j.Canonical()), Counters: []journeyCounter{}, RecentStates: runsOf(recent), Versions: []journeyVersions{}}
	var counts journeyCountsJSON
	for i := range found {
		n := &found[i]
		if n.Step == "" {
			counts.add(n)
		}
		d.Counters = append(d.Counters, journeyCounter{n.Version, n.Step, n.What, n.Detail, n.Arm, n.N})
	}
	for i := range versions {
		if v := &versions[i]; v.JourneyID == j.ID {
			d.Versions = append(d.Versions, versionOf(v))
		}
	}
	d.journeyJSON = journeyOf(j, counts)
	d.Trigger.Where, d.ExitOn, err = conditionsOf(j)
	return journeyResponse{d}, err
}

// switchJourney is PATCH /journeys/{id}.
func (c *console) switchJourney(r *web.Request, req *journeySwitch) (out journeySwitched, err error) {
	id, by := r.TextParam("id"), r.Exchange.Caller.Name
	if req.Enabled == nil && req.Paused == nil {
		return out, refuse(http.StatusBadRequest, "Nothing to change", `write {"enabled":false} or {"paused":true}`)
	}
	j, err := c.journey(r.Context(), id)
	if err != nil {
		return out, err
	}
	if j.Reaction != nil {
		return out, refuse(http.StatusConflict, fmt.Sprintf("Journey %s stands with bucket %s", id, j.Bucket), "switch the bucket: it is switched with that")
	}
	var done *definition.Outcome
	if req.Enabled != nil {
		done, err = definition.Switch(r.Context(), c.DB, definition.JourneyRef(id), *req.Enabled, by)
	}
	if err == nil && req.Paused != nil {
		done, err = definition.Pause(r.Context(), c.DB, id, *req.Paused, by)
	}
	switch {
	case errors.Is(err, definition.ErrUnknown):
		return out, web.ErrNotFound
	case err != nil:
		return out, err
	}
	j = done.Set.FindJourney(id)
	c.audit(r, "journeys", j.ID, map[string]any{"enabled": j.Enabled, "paused": j.Paused})
	return journeySwitched{journeySwitchedJSON{j.ID, j.Name, j.Enabled, j.Paused, schemas.ISOTime{Time: done.Set.AppliedAt}}}, nil
}

// listRuns is GET /journeys/{id}/states. Of a journey that is defined no more runs are shown
// as long as there are any.
func (c *console) listRuns(r *web.Request, q *runQuery) (out runPage, err error) {
	f := storage.JourneyRunFilter{JourneyID: r.TextParam("id"), Status: q.Status, Version: q.Version, Step: q.Step, Reason: q.Reason, Began: storage.Span{From: q.Since, Until: q.Until}}
	out = runPage{States: []runJSON{}, Page: q.Page}
	if q.UserID != "" {
		contact, err := c.contactNamed(r.Context(), q.UserID)
		if err != nil || contact == nil {
			return out, err
		}
		f.ContactID = contact.ID
	}
	if out.Total, err = c.DB.CountJourneyRuns(r.Context(), f); err != nil {
		return out, err
	}
	var runs []storage.JourneyRun
	if q.Cursor != nil {
		var next string
		runs, next, err = c.DB.WalkJourneyRuns(r.Context(), f, q.Limit, *q.Cursor)
		out.NextCursor = optional(next)
	} else {
		runs, err = c.DB.ListJourneyRuns(r.Context(), f, q.Limit, q.Offset)
	}
	if err != nil {
		return out, err
	}
	if out.States = runsOf(runs); out.Total == 0 {
		_, err = c.journey(r.Context(), f.JourneyID)
	}
	return out, err
}

// conditionsOf are where of the first trigger and exitOn, as the definition has them.
func conditionsOf(j *definition.JourneyInUse) (where, exitOn any, err error) {
	var written struct {
		Trigger json.RawMessage `json:"trigger"`
		ExitOn  json.RawMessage `json:"exitOn"`
	}
	if err := json.Unmarshal([]byte(j.Canonical()), &written); err != nil {
		return nil, nil, err
	}
	type rule struct {
		Where json.RawMessage `json:"where"`
	}
	var rules []rule
	if json.Unmarshal(written.Trigger, &rules) != nil { // a single one
		rules = make([]rule, 1)
		if err := json.Unmarshal(written.Trigger, &rules[0]); err != nil {
			return nil, nil, err
		}
	}
	if rules[0].Where != nil {
		where = rules[0].Where
	}
	if written.ExitOn != nil {
		exitOn = written.ExitOn
	}
	return where, exitOn, nil
}

// anyRun is the one in the path.
func (c *console) anyRun(r *web.Request) (*storage.JourneyRun, error) {
	id := r.TextParam("stateId")
	if uuid.Validate(id) != nil {
		return nil, web.ErrNotFound
	}
	run, err := c.DB.JourneyRun(r.Context(), id)
	if storage.IsNotFound(err) {
		return nil, web.ErrNotFound
	}
	return run, err
}

// run is one of the journey in the path.
func (c *console) run(r *web.Request) (*storage.JourneyRun, error) {
	run, err := c.anyRun(r)
	if err == nil && run.JourneyID != r.TextParam("id") {
		return nil, web.ErrNotFound
	}
	return run, err
}

// getRun is GET /journeys/{id}/states/{stateId}.
func (c *console) getRun(r *web.Request) (out runResponse, err error) {
	run, err := c.run(r)
	if err != nil {
		return out, err
	}
	return c.story(r.Context(), run)
}

// getLogs is GET /journey-logs/{stateId}.
func (c *console) getLogs(r *web.Request) (out runResponse, err error) {
	run, err := c.anyRun(r)
	if err != nil {
		return out, err
	}
	return c.story(r.Context(), run)
}

// story is a run with what happened to it.
func (c *console) story(ctx context.Context, run *storage.JourneyRun) (out runResponse, err error) {
	out = runResponse{State: runOf(run), Logs: []runLine{}}
	lines, err := c.DB.JourneyLog(ctx, run.ID)
	if err != nil {
		return out, err
	}
	for i := range lines {
		out.Logs = append(out.Logs, lineOf(run.ID, i, &lines[i]))
	}
	job, err := c.DB.OpenJourneyJob(ctx, run.ID)
	if err != nil {
		return out, err
	}
	if job != nil && !job.Done {
		out.Job = &runJob{job.Step, job.Attempts, job.Running, optional(job.Error), schemas.ISOTime{Time: job.Due}}
	}
	trigger, err := c.Explain.TriggerOf(ctx, run.ContactID, run.ID)
	if trigger != "" {
		out.State.Context = web.Object(trigger)
	}
	return out, err
}

func lineOf(run string, n int, l *storage.JourneyLogLine) runLine {
	line := runLine{
		ID: schemas.Derive(run, "journey.log", n), From: optional(l.Step), To: optional(l.Next), Action: l.Kind, CreatedAt: schemas.ISOTime{Time: l.At},
	}
	detail := runDetail{Error: l.Error}
	switch l.Kind {
	case storage.RunExited, storage.RunFailed, storage.RunCompleted:
		detail.Reason = l.Detail
	default:
		detail.Outcome = l.Detail
	}
	if detail != (runDetail{}) {
		line.Detail = &detail
	}
	return line
}

// What a cancelled run is waited for: its processor obeys within a second or so.
const (
	obeyed = 10 * time.Second
	glance = 50 * time.Millisecond
)

// cancelRun is DELETE /journeys/{id}/states/{stateId}. It is answered when the run has ended.
func (c *console) cancelRun(r *web.Request) (any, error) {
	told, err := c.commandRun(r, storage.RunWaiting, "cancel", journeys.Command{What: journeys.CommandCancel})
	if err != nil {
		return nil, err
	}
	ctx, done := context.WithTimeout(r.Context(), obeyed)
	defer done()
	look := time.NewTicker(glance)
	defer look.Stop()
	for {
		run, err := c.DB.JourneyRun(ctx, told.ID)
		switch {
		case ctx.Err() != nil:
			return web.Answered(http.StatusAccepted, runCancelled{State: cancelledRun{told.ID, storage.RunWaiting, nil}}), r.Context().Err()
		case storage.IsNotFound(err):
			return nil, web.ErrNotFound
		case err != nil:
			return nil, err
		case run.Status == storage.RunExited:
			return web.Answered(http.StatusOK, runCancelled{cancelledRun{run.ID, run.Status, isoOrNil(run.EndedAt)}, true}), nil
		case run.Status != storage.RunWaiting:
			return nil, refuse(http.StatusConflict, fmt.Sprintf("Cannot cancel journey in '%s' status", run.Status), "name a run whose status is "+storage.RunWaiting)
		}
		select {
		case <-ctx.Done():
		case <-look.C:
		}
	}
}

// skipRun is POST /journeys/{id}/states/{stateId}/skip.
func (c *console) skipRun(r *web.Request) (out runCommanded, err error) {
	return c.commandRun(r, storage.RunWaiting, "skip a wait of", journeys.Command{What: journeys.CommandSkip})
}

// retryRun is POST /journeys/{id}/states/{stateId}/retry.
func (c *console) retryRun(r *web.Request, req *runRetry) (out runCommanded, err error) {
	return c.commandRun(r, storage.RunFailed, "retry", journeys.Command{What: journeys.CommandRetry, FromStart: req.FromStart})
}

// commandRun tells the processor what to do with a run, which is of a status.
func (c *console) commandRun(r *web.Request, status, what string, command journeys.Command) (out runCommanded, err error) {
	run, err := c.run(r)
	if err != nil {
		return out, err
	}
	if run.Status != status {
		return out, refuse(http.StatusConflict, fmt.Sprintf("Cannot %s journey in '%s' status", what, run.Status), "name a run whose status is "+status)
	}
	if command.Run = run.ID; command.What != journeys.CommandCancel {
		command.Since = run.StepSince
	}
	told := []journeyCommand{{contact: run.ContactID, Command: command}}
	if err := c.tellJourneys(r.Context(), told); err != nil {
		return out, err
	}
	c.audit(r, "journeys", run.JourneyID, map[string]any{"operation": command.What, "run": run.ID, "contactId": run.ContactID})
	return runCommanded{run.ID, told[0].id}, nil
}

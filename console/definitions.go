package console

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/web"
)

// What requests hold, and the answers.
type (
	planRequest struct {
		Files   []definition.Text `json:"files,omitempty" maxItems:"2000" doc:"All files of definitions: what stands in none of them is removed."`
		Version *int64            `json:"version,omitempty" minimum:"0" doc:"Instead of files: a rollback to this version. 0 is before the first."`
		Members *bool             `json:"members,omitempty" doc:"Whether to look who would enter and leave buckets; true when left out."`
		Sample  *int              `json:"sample,omitempty" minimum:"0" maximum:"1000" doc:"How many contacts to name of those that would enter a bucket, and of those that would leave; 10 when left out."`
	}
	applyRequest struct {
		Files []definition.Text `json:"files" required:"true" maxItems:"2000" doc:"Those of the plan."`
		Hash  string            `json:"hash" required:"true" maxLength:"100" doc:"Of the plan."`
	}
	rollbackRequest struct {
		Version int64  `json:"version" required:"true" minimum:"0"`
		Hash    string `json:"hash" required:"true" maxLength:"100" doc:"Of the plan of this rollback."`
	}
	appliedJSON struct {
		Version int64                `json:"version" doc:"Of the set in use."`
		Changed bool                 `json:"changed" doc:"Whether it is another than before."`
		Changes []definition.Change  `json:"changes"`
		Failing []definition.Failing `json:"failing"`
	}
	historyQuery struct {
		Limit int   `json:"limit" minimum:"1" maximum:"100" default:"20"`
		Below int64 `json:"below" minimum:"0" doc:"Versions below this one."`
	}
	historyPage struct {
		Versions []definition.Entry `json:"versions" doc:"The newest first."`
		Next     *int64             `json:"next" doc:"To be sent as below for the next page; null at the end."`
	}
	diffJSON struct {
		From        int64                   `json:"from"`
		To          int64                   `json:"to"`
		Differences []definition.Difference `json:"differences" doc:"By kind and id."`
	}
)

// Check is that a plan is of one thing.
func (p *planRequest) Check() web.IssuesError {
	if (p.Files == nil) == (p.Version == nil) {
		return web.IssuesError{web.Wrong("files", "custom", "Either files or a version", "send one of the two")}
	}
	return nil
}

const noVersion = "Version not found"

// definitionRoutes are those of definitions.
func (c *console) definitionRoutes() []web.Route {
	return []web.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/definitions/plan", Scopes: reading, Tag: "Definitions", Summary: "Plan a change of the definitions",
			Text:    "Says what applying these files, or a rollback, would change, and looks at contacts, for 15 seconds at most, to say who would enter and leave buckets. Nothing is changed.",
			Example: `/v1/admin/definitions/plan {"files":[{"name":"buckets/pros.yaml","text":"id: pros\nname: Pros\nenabled: true\ncriteria: {type: property, property: plan, operator: eq, value: pro}\n"}]}`,
			Handle:  web.Body(c.planDefinitions), NotFound: noVersion,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/definitions/apply", Scopes: changing, Tag: "Definitions", Summary: "Put definitions in use as planned",
			Text:    "409 when what the plan stands on has moved: the set in use, or the definitions.",
			Example: `/v1/admin/definitions/apply {"hash":"12-5d2c9e1f00a1b2c3-9f86d081","files":[]}`, Handle: web.Body(c.applyDefinitions),
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/definitions/rollback", Scopes: changing, Tag: "Definitions", Summary: "Put a version of the definitions in use again as planned",
			Text:    "As a new version. 409 when what the plan stands on has moved.",
			Example: `/v1/admin/definitions/rollback {"hash":"12-5d2c9e1f00a1b2c3-9f86d081","version":11}`, Handle: web.Body(c.rollbackDefinitions), NotFound: noVersion,
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/definitions/history", Scopes: reading, Tag: "Definitions", Summary: "List the versions of the definitions",
			Example: `/v1/admin/definitions/history?limit=10`, Handle: web.Query(c.definitionHistory),
		},
		{
			Method: http.MethodGet, Path: "/v1/admin/definitions/history/{a}/diff/{b}", Scopes: reading, Tag: "Definitions", Summary: "Show how two versions of the definitions differ",
			Params:  []web.Param{{Name: "a", Text: "a version; 0 is before the first"}, {Name: "b", Text: "another version"}},
			Example: `/v1/admin/definitions/history/11/diff/12`, Handle: web.Path(c.diffDefinitions), NotFound: noVersion,
		},
	}
}

// A plan looks at contacts for so long, and names so many of each kind.
const (
	planTime   = 15 * time.Second
	planSample = 10
)

// planDefinitions is POST /definitions/plan.
func (c *console) planDefinitions(r *web.Request, req *planRequest) (*definition.Report, error) {
	until := time.Now().Add(planTime)
	want, err := c.wanted(r, req)
	if err != nil {
		return nil, err
	}
	inUse, err := definition.Current(r.Context(), c.DB)
	if err != nil {
		return nil, err
	}
	plan, err := definition.NewPlan(inUse, want, c.Checked)
	if err != nil {
		return nil, refusedPlan(err)
	}
	var members *definition.Forecast
	if req.Members == nil || *req.Members {
		sample := planSample
		if req.Sample != nil {
			sample = *req.Sample
		}
		if members, err = c.Foresee(r.Context(), plan, sample, until); err != nil {
			return nil, err
		}
	}
	return plan.Reported(r.Context(), c.DB, members)
}

// wanted is what is to be planned.
func (c *console) wanted(r *web.Request, req *planRequest) (definition.Wanted, error) {
	if req.Version == nil {
		return c.files(req.Files)
	}
	return c.former(r, *req.Version)
}

func (c *console) former(r *web.Request, version int64) (definition.Wanted, error) {
	set, err := definition.Version(r.Context(), c.DB, version)
	if errors.Is(err, definition.ErrNoVersion) {
		return nil, web.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &definition.Former{Set: set}, nil
}

// files reads files without faults; those of others are said by the file's place in the
// request.
func (c *console) files(texts []definition.Text) (definition.Wanted, error) {
	files, err := definition.Read(texts, c.Checked)
	if err != nil {
		return nil, err
	}
	var issues web.IssuesError
	for _, bad := range files.Faulty {
		at := slices.IndexFunc(texts, func(t definition.Text) bool { return t.Name == bad.File })
		for _, fault := range bad.Faults {
			issues = append(issues, web.Issue{Code: "custom", Path: []any{"files", at}, Message: fault.String(), Fix: fault.Message})
		}
	}
	if len(issues) > 0 {
		return nil, issues
	}
	return files, nil
}

// refusedPlan says why a plan is not made, or not carried out.
func refusedPlan(err error) error {
	var moved *definition.MovedError
	var broken *definition.BrokenError
	var former *definition.NotAllowedError
	switch {
	case errors.As(err, &moved):
		return refuse(http.StatusConflict, moved.Error(), "make a new plan")
	case errors.As(err, &broken):
		return refuse(http.StatusConflict, broken.Error(), "change the filters of those destinations first, or keep the buckets")
	case errors.As(err, &former):
		return refuse(http.StatusConflict, former.Error(), "apply files in which that is mended")
	}
	return err
}

// applyDefinitions is POST /definitions/apply.
func (c *console) applyDefinitions(r *web.Request, req *applyRequest) (out appliedJSON, err error) {
	want, err := c.files(req.Files)
	if err != nil {
		return out, err
	}
	return c.carryOut(r, want, req.Hash, "apply")
}

// rollbackDefinitions is POST /definitions/rollback.
func (c *console) rollbackDefinitions(r *web.Request, req *rollbackRequest) (out appliedJSON, err error) {
	want, err := c.former(r, req.Version)
	if err != nil {
		return out, err
	}
	return c.carryOut(r, want, req.Hash, "rollback to "+strconv.FormatInt(req.Version, 10))
}

// carryOut puts in use what was planned.
func (c *console) carryOut(r *web.Request, want definition.Wanted, hash, operation string) (out appliedJSON, err error) {
	basis, err := definition.ParseHash(hash)
	if err != nil {
		return out, web.IssuesError{web.Wrong("hash", "custom", err.Error(), "send the hash as the plan said it")}
	}
	done, err := definition.ApplyPlan(r.Context(), c.DB, want, c.Checked, r.Exchange.Caller.Name, basis)
	if err != nil {
		return out, refusedPlan(err)
	}
	c.audit(r, "definitions", strconv.FormatInt(done.Set.Version, 10), map[string]any{"operation": operation, "hash": hash, "changes": done.Changes})
	return appliedJSON{done.Set.Version, done.Changed, append([]definition.Change{}, done.Changes...), append([]definition.Failing{}, done.Set.Failing...)}, nil
}

// definitionHistory is GET /definitions/history.
func (c *console) definitionHistory(r *web.Request, q *historyQuery) (out historyPage, err error) {
	if out.Versions, err = definition.History(r.Context(), c.DB, q.Below, q.Limit); err != nil {
		return out, err
	}
	if n := len(out.Versions); n > 0 && out.Versions[n-1].Version > 1 {
		out.Next = &out.Versions[n-1].Version
	}
	return out, nil
}

// diffDefinitions is GET /definitions/history/{a}/diff/{b}.
func (c *console) diffDefinitions(r *web.Request) (out diffJSON, err error) {
	var sets [2]*definition.Set
	for i, name := range []string{"a", "b"} {
		version, err := strconv.ParseInt(r.Param(name), 10, 64)
		if err != nil {
			return out, web.ErrNotFound
		}
		sets[i], err = definition.Version(r.Context(), c.DB, version)
		if errors.Is(err, definition.ErrNoVersion) {
			return out, web.ErrNotFound
		}
		if err != nil {
			return out, err
		}
	}
	return diffJSON{sets[0].Version, sets[1].Version, definition.Diff(sets[0], sets[1])}, nil
}

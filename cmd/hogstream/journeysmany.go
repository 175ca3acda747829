package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
)

// runsFlags say what is done to one run, or to many.
type runsFlags struct {
	journeyFlags
	ID         string `arg:"" name:"run" optional:"" help:"Id of the run, which may also stand alone; without, all runs are meant that the flags leave."`
	Of         string `help:"Only runs of this version of the journey." placeholder:"VERSION"`
	Step       string `help:"Only those at this step."`
	Reason     string `help:"Only those that ended for this reason."`
	UserID     string `help:"Only those of this contact: a user id, an anonymous id or a contact id."`
	Since      string `help:"Only those that began since: a time (2026-01-31T12:00:00Z, 2026-01-31), or how long ago (36h, 7d)."`
	Until      string `help:"Only those that began before; as --since."`
	EndedSince string `help:"Only those that ended since; as --since."`
	EndedUntil string `help:"Only those that ended before; as --since."`
	DryRun     bool   `help:"Of many runs: only say how many there are, and show some."`
	Yes        bool   `help:"Of many runs: do not ask." short:"y"`
}

// isOne says whether a single run is named, by its id alone or behind its journey.
func (f *runsFlags) isOne() bool { return f.ID != "" || uuid.Validate(f.Journey) == nil }

func (f *runsFlags) one() *runFlags { return &runFlags{f.apiFlags, f.Journey, f.ID} }

// body is the request for many runs.
func (f *runsFlags) body(now time.Time) (map[string]any, error) {
	body := map[string]any{}
	for field, value := range map[string]string{"version": f.Of, "step": f.Step, "reason": f.Reason, "userId": f.UserID} {
		if value != "" {
			body[field] = value
		}
	}
	for field, value := range map[string]string{"since": f.Since, "until": f.Until, "endedSince": f.EndedSince, "endedUntil": f.EndedUntil} {
		if value == "" {
			continue
		}
		at, ok := schemas.ParseMoment(value, now)
		if !ok {
			return nil, fmt.Errorf("%s: %q is no time: write %s", flagName(field), value, schemas.MomentForms)
		}
		body[field] = at.UTC()
	}
	return body, nil
}

// act does something to one run, or to many, which are previewed first. extra are fields of
// either request; what is said in a preview of what is done.
func (f *runsFlags) act(ctx context.Context, out *output, what string, extra map[string]any, look func(io.Writer, *runsPreview)) error {
	api, err := f.client()
	if err != nil {
		return err
	}
	body, err := f.body(time.Now())
	if err != nil {
		return err
	}
	for field, value := range extra {
		body[field] = value
	}
	path := f.path() + "/states/" + what
	preview, err := f.preview(ctx, api, path, body)
	if err != nil {
		return err
	}
	show := func(w io.Writer) {
		fmt.Fprintf(w, "%d runs\n", preview.Total)
		printRuns(w, preview.Sample)
		if look != nil {
			look(w, preview)
		}
	}
	if f.DryRun {
		return out.value(preview, show)
	}
	if !f.Yes && preview.Total > 0 {
		show(stderr)
		if err := confirm(ctx, fmt.Sprintf("%s %d runs of %s?", what, preview.Total, f.Journey)); err != nil {
			return err
		}
	}
	body["until"] = preview.Until // who begins meanwhile is not meant
	told, err := tellAll(ctx, api, path, body, preview.Total, what, out.JSON)
	if err != nil {
		return fmt.Errorf("%d of %d runs were told before; the same command goes on with the rest: %w", told, preview.Total, err)
	}
	return out.value(map[string]int{"told": told}, func(w io.Writer) {
		fmt.Fprintf(w, "%d runs told\n", told)
		next(w, "what came of it", "journeys runs "+f.Journey)
	})
}

// runsPreview is what many runs come to.
type runsPreview struct {
	Total   int          `json:"total"`
	Until   time.Time    `json:"until"`
	Sample  []journeyRun `json:"sample"`
	Effects int64        `json:"effects"`
}

func (f *runsFlags) preview(ctx context.Context, api *client, path string, body map[string]any) (*runsPreview, error) {
	body["dryRun"] = true
	defer delete(body, "dryRun")
	var p runsPreview
	return &p, api.call(ctx, http.MethodPost, path, nil, body, &p)
}

// tellAll asks for step after step of many runs until none is left, and says how many were
// told.
func tellAll(ctx context.Context, api *client, path string, body map[string]any, total int, what string, quiet bool) (told int, err error) {
	bar := newProgress(max(int64(total), 1), what, false, quiet)
	for {
		var part struct {
			Told       int     `json:"told"`
			NextCursor *string `json:"nextCursor"`
		}
		if err := api.call(ctx, http.MethodPost, path, nil, body, &part); err != nil {
			return told, err
		}
		told += part.Told
		_ = bar.Set(min(told, total))
		if part.NextCursor == nil {
			return told, bar.Finish()
		}
		body["cursor"] = *part.NextCursor
	}
}

type journeysCancelCmd struct{ runsFlags }

// Run ends a run, or many.
func (c *journeysCancelCmd) Run(ctx context.Context, out *output) error {
	if c.isOne() {
		return c.one().tell(ctx, out, http.MethodDelete, "", nil)
	}
	return c.act(ctx, out, "cancel", nil, nil)
}

type journeysSkipCmd struct{ runsFlags }

// Run ends the open wait of a run, or of many.
func (c *journeysSkipCmd) Run(ctx context.Context, out *output) error {
	if c.isOne() {
		return c.one().tell(ctx, out, http.MethodPost, "/skip", nil)
	}
	return c.act(ctx, out, "skip", nil, nil)
}

type journeysRetryCmd struct {
	runsFlags
	FromStart bool `help:"Begin at the first step again: what was done is done once more."`
}

// Run goes on with a run that failed, or with many.
func (c *journeysRetryCmd) Run(ctx context.Context, out *output) error {
	body := map[string]any{"fromStart": c.FromStart}
	if c.isOne() {
		return c.one().tell(ctx, out, http.MethodPost, "/retry", body)
	}
	return c.act(ctx, out, "retry", body, func(w io.Writer, p *runsPreview) {
		if c.FromStart && p.Effects > 0 {
			fmt.Fprintf(w, "from the start: %d mails, calls, changes and events are done once more\n", p.Effects)
		}
	})
}

// tell has the processor do something with a run.
func (f *runFlags) tell(ctx context.Context, out *output, method, path string, body any) error {
	api, err := f.client()
	if err != nil {
		return err
	}
	if err := f.whose(ctx, api); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := api.call(ctx, method, f.path()+path, nil, body, &answer); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) {
		fmt.Fprintf(w, "told: hogstream journeys run %s shows what came of it\n", f.ID)
	})
}

type journeysPauseCmd struct{ switchFlags }

// Run pauses journeys.
func (c *journeysPauseCmd) Run(ctx context.Context, out *output) error {
	return c.pause(ctx, out, true)
}

type journeysResumeCmd struct{ switchFlags }

// Run resumes journeys.
func (c *journeysResumeCmd) Run(ctx context.Context, out *output) error {
	return c.pause(ctx, out, false)
}

// switchFlags name journeys.
type switchFlags struct {
	apiFlags
	Journeys []string `arg:"" name:"journey" optional:"" help:"Ids of journeys."`
	All      bool     `help:"All journeys but those in definitions of buckets, which are switched with these."`
	DryRun   bool     `help:"Only say which, and how many of their runs live."`
	Yes      bool     `help:"Do not ask." short:"y"`
}

// pause has journeys stand still, or go on. Of several it shows which, and asks first.
func (f *switchFlags) pause(ctx context.Context, out *output, paused bool) error {
	api, err := f.client()
	if err != nil {
		return err
	}
	meant, err := f.meant(ctx, api, paused)
	if err != nil {
		return err
	}
	word, question := "goes on", "Resume"
	if paused {
		word, question = "is paused", "Pause"
	}
	if f.DryRun {
		return out.value(map[string]any{"journeys": meant}, func(w io.Writer) { printJourneys(w, meant) })
	}
	if len(meant) > 1 && !f.Yes {
		printJourneys(stderr, meant)
		if err := confirm(ctx, fmt.Sprintf("%s %d journeys?", question, len(meant))); err != nil {
			return err
		}
	}
	done := []json.RawMessage{}
	for i := range meant {
		var answer struct {
			Journey json.RawMessage `json:"journey"`
		}
		path := journeysPath + "/" + url.PathEscape(meant[i].ID)
		if err := api.call(ctx, http.MethodPatch, path, nil, map[string]any{"paused": paused}, &answer); err != nil {
			return fmt.Errorf("%s: %w", meant[i].ID, err)
		}
		done = append(done, answer.Journey)
	}
	return out.value(map[string]any{"journeys": done}, func(w io.Writer) {
		for i := range meant {
			fmt.Fprintf(w, "%s %s\n", meant[i].ID, word)
		}
	})
}

// meant are the journeys that are named, or all that are not as they shall be.
func (f *switchFlags) meant(ctx context.Context, api *client, paused bool) ([]journeySummary, error) {
	if f.All == (len(f.Journeys) > 0) {
		return nil, errors.New("name journeys, or say --all")
	}
	all, err := allJourneys(ctx, api)
	if err != nil {
		return nil, err
	}
	byID := map[string]*journeySummary{}
	meant := []journeySummary{}
	for i := range all {
		byID[all[i].ID] = &all[i]
		if f.All && all[i].Paused != paused && all[i].SourceBucketID == nil { // the others are switched with their bucket
			meant = append(meant, all[i])
		}
	}
	for _, id := range f.Journeys {
		if byID[id] == nil {
			return nil, fmt.Errorf("%s: there is no such journey: hogstream journeys ls has all", id)
		}
		meant = append(meant, *byID[id])
	}
	return meant, nil
}

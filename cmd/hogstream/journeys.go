package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/google/uuid"
)

type journeysCmd struct {
	Ls       journeysLsCmd       `cmd:"" help:"List journeys, with how many runs wait and ended."`
	Show     journeysShowCmd     `cmd:"" help:"Show a journey: how many runs came to each step, went on, ended there and stand there."`
	Runs     journeysRunsCmd     `cmd:"" help:"List runs of a journey, the newest first."`
	Run      journeysRunCmd      `cmd:"" help:"Show a run."`
	Enroll   journeysEnrollCmd   `cmd:"" help:"Enrol a contact by hand, those of a file, or the members of a bucket; the guards hold."`
	Cancel   journeysCancelCmd   `cmd:"" help:"End a run, or many at once."`
	Skip     journeysSkipCmd     `cmd:"" help:"End the open wait of a run, or of many, as if its time had come."`
	Retry    journeysRetryCmd    `cmd:"" help:"Go on with a run that failed, or with many, at the step that did."`
	Versions journeysVersionsCmd `cmd:"" help:"List versions of journeys: those in use, and those that runs belong to."`
	Why      journeysWhyCmd      `cmd:"" help:"Say why a contact did not begin a journey, or how it stands with it."`
	Pause    journeysPauseCmd    `cmd:"" help:"Have journeys enrol nobody and their runs stand still."`
	Resume   journeysResumeCmd   `cmd:"" help:"Have paused journeys go on."`
}

const journeysPath = "/v1/admin/journeys"

type journeySummary struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Enabled bool   `json:"enabled"`
	Paused  bool   `json:"paused"`
	Version string `json:"version"`
	// SourceBucketID is the bucket in whose definition it stands; nil of one by itself.
	SourceBucketID *string `json:"sourceBucketId"`
	Counts         struct {
		Waiting   int64 `json:"waiting"`
		Completed int64 `json:"completed"`
		Failed    int64 `json:"failed"`
		Exited    int64 `json:"exited"`
		Skipped   int64 `json:"skipped"`
		Converted int64 `json:"converted"`
	} `json:"counts"`
}

// state is the journey in a word.
func (j *journeySummary) state() string {
	switch {
	case j.Paused:
		return "paused"
	case !j.Enabled:
		return "disabled"
	}
	return "live"
}

type journeyRun struct {
	ID          string  `json:"id"`
	UserID      string  `json:"userId"`
	JourneyID   string  `json:"journeyId"`
	Version     string  `json:"version"`
	Key         *string `json:"key"`
	Arm         *string `json:"arm"`
	Status      string  `json:"status"`
	CurrentNode string  `json:"currentNodeId"`
	Since       string  `json:"since"`
	EntryCount  int64   `json:"entryCount"`
	Reason      *string `json:"reason"`
	Error       *string `json:"errorMessage"`
	Trigger     string  `json:"triggerId"`
	CreatedAt   string  `json:"createdAt"`
	EndedAt     *string `json:"endedAt"`
	ConvertedAt *string `json:"convertedAt"`
}

func printRuns(w io.Writer, runs []journeyRun) {
	rows := make([][]string, 0, len(runs))
	for _, r := range runs {
		rows = append(rows, []string{r.ID, r.UserID, text(r.Key), r.Status, r.CurrentNode, r.CreatedAt, text(r.EndedAt), text(r.Reason) + text(r.Error)})
	}
	table(w, []string{"run", "user id", "key", "status", "step", "began", "ended", "why"}, rows)
}

// journeyFlags name a journey.
type journeyFlags struct {
	apiFlags
	Journey string `arg:"" help:"Id of the journey."`
}

func (f *journeyFlags) path() string { return journeysPath + "/" + url.PathEscape(f.Journey) }

// runFlags name a run. Its id alone is enough, for it is that of no other journey's.
type runFlags struct {
	apiFlags
	Journey string `arg:"" help:"Id of the journey; may be left out before that of a run."`
	ID      string `arg:"" name:"run" optional:"" help:"Id of the run."`
}

func (f *runFlags) path() string {
	return journeysPath + "/" + url.PathEscape(f.Journey) + "/states/" + url.PathEscape(f.ID)
}

// whose has the journey of a run looked up when only the run is named.
func (f *runFlags) whose(ctx context.Context, api *client) error {
	if f.ID != "" {
		return nil
	}
	if uuid.Validate(f.Journey) != nil {
		return fmt.Errorf("<run>: %q is no id of a run: give one of those that hogstream journeys runs %[1]s shows", f.Journey)
	}
	var answer struct {
		State journeyRun `json:"state"`
	}
	if err := api.call(ctx, http.MethodGet, "/v1/admin/journey-logs/"+url.PathEscape(f.Journey), nil, nil, &answer); err != nil {
		return err
	}
	f.Journey, f.ID = answer.State.JourneyID, answer.State.ID
	return nil
}

type journeysLsCmd struct{ apiFlags }

// Run lists journeys.
func (c *journeysLsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	all, err := allJourneys(ctx, api)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"journeys": all}, func(w io.Writer) { printJourneys(w, all) })
}

func allJourneys(ctx context.Context, api *client) ([]journeySummary, error) {
	return offsetPages[journeySummary](ctx, api, journeysPath, "journeys", url.Values{}, math.MaxInt)
}

func printJourneys(w io.Writer, all []journeySummary) {
	rows := make([][]string, 0, len(all))
	for i := range all {
		j := &all[i]
		row := []string{j.ID, j.Name, j.state()}
		for _, n := range []int64{j.Counts.Waiting, j.Counts.Completed, j.Counts.Exited, j.Counts.Failed, j.Counts.Skipped, j.Counts.Converted} {
			row = append(row, strconv.FormatInt(n, 10))
		}
		rows = append(rows, row)
	}
	table(w, []string{"id", "name", "state", "waiting", "completed", "exited", "failed", "skipped", "converted"}, rows)
}

type journeysShowCmd struct{ journeyFlags }

// Run shows a journey.
func (c *journeysShowCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer struct {
		Journey json.RawMessage `json:"journey"`
	}
	if err := api.call(ctx, http.MethodGet, c.path(), nil, nil, &answer); err != nil {
		return err
	}
	var j struct {
		journeySummary
		Counters []journeyCounter `json:"counters"`
		Recent   []journeyRun     `json:"recentStates"`
		Versions []struct {
			Version    string          `json:"version"`
			InUse      bool            `json:"inUse"`
			Live       int64           `json:"live"`
			Definition json.RawMessage `json:"definition"`
		} `json:"versions"`
	}
	if err := json.Unmarshal(answer.Journey, &j); err != nil {
		return err
	}
	return out.value(answer.Journey, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s  %s\n", j.ID, j.Name, j.state())
		fmt.Fprintf(w, "  runs     %d wait, %d completed, %d exited, %d failed\n", j.Counts.Waiting, j.Counts.Completed, j.Counts.Exited, j.Counts.Failed)
		for _, n := range j.Counters {
			if n.Step == "" && n.Detail != "" {
				fmt.Fprintf(w, "  %-8s %s: %d\n", n.What, n.Detail, n.Count)
			}
		}
		for _, v := range j.Versions {
			use := "runs that began before"
			if v.InUse {
				use = "in use"
			}
			fmt.Fprintf(w, "\nVersion %s (%s), %d runs live:\n", v.Version, use, v.Live)
			printSteps(w, j.Counters, v.Version, graphOf(v.Definition))
		}
		if len(j.Recent) > 0 {
			fmt.Fprintln(w, "\nRuns that began last:")
			printRuns(w, j.Recent)
		}
	})
}

type journeysVersionsCmd struct {
	apiFlags
	Unknown bool `help:"Only those that the process which answers cannot run."`
}

type journeyVersion struct {
	JourneyID string `json:"journeyId"`
	Version   string `json:"version"`
	InUse     bool   `json:"inUse"`
	Since     string `json:"since"`
	Live      int64  `json:"live"`
	Known     bool   `json:"known"`
	Why       string `json:"why,omitempty"`
}

// Run lists versions.
func (c *journeysVersionsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var page struct {
		Versions []journeyVersion `json:"versions"`
	}
	if err := api.call(ctx, http.MethodGet, "/v1/admin/journey-versions", nil, nil, &page); err != nil {
		return err
	}
	if c.Unknown {
		page.Versions = slices.DeleteFunc(page.Versions, func(v journeyVersion) bool { return v.Known })
	}
	return out.value(page, func(w io.Writer) {
		rows := make([][]string, len(page.Versions))
		for i, v := range page.Versions {
			state := "runs that began before"
			switch {
			case !v.Known:
				state = "unknown here: " + v.Why
			case v.InUse:
				state = "in use"
			}
			rows[i] = []string{v.JourneyID, v.Version, strconv.FormatInt(v.Live, 10), v.Since, state}
		}
		table(w, []string{"journey", "version", "live runs", "since", "state"}, rows)
	})
}

type journeysRunsCmd struct {
	journeyFlags
	Status string `help:"waiting, completed, exited or failed." enum:",waiting,completed,exited,failed" default:""`
	UserID string `help:"Only of this contact: a user id, an anonymous id or a contact id."`
	Of     string `help:"Only of this version of the journey." placeholder:"VERSION"`
	Step   string `help:"Only those at this step."`
	Reason string `help:"Only those that ended for this reason."`
	Since  string `help:"Only those that began since: a time, a date, or how long ago (7d)."`
	Until  string `help:"Only those that began before; as --since."`
	Limit  int    `help:"At most so many." default:"50"`
}

// Run lists runs.
func (c *journeysRunsCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	query := url.Values{"cursor": {""}}
	setQuery(query, "status", c.Status)
	setQuery(query, "userId", c.UserID)
	setQuery(query, "version", c.Of)
	setQuery(query, "step", c.Step)
	setQuery(query, "reason", c.Reason)
	setQuery(query, "since", c.Since)
	setQuery(query, "until", c.Until)
	all, err := pages[journeyRun](ctx, api, c.path()+"/states", "states", query, c.Limit, 100)
	if err != nil {
		return err
	}
	return out.value(map[string]any{"states": all}, func(w io.Writer) { printRuns(w, all) })
}

type journeysRunCmd struct{ runFlags }

// Run shows a run.
func (c *journeysRunCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	if err := c.whose(ctx, api); err != nil {
		return err
	}
	var raw json.RawMessage
	if err := api.call(ctx, http.MethodGet, c.path(), nil, nil, &raw); err != nil {
		return err
	}
	var answer struct {
		State journeyRun     `json:"state"`
		Logs  []loggedChange `json:"logs"`
		Job   *runJob        `json:"job"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return err
	}
	r := &answer.State
	return out.value(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s  %s of %s, version %s\n", r.ID, r.JourneyID, r.UserID, r.Version)
		fmt.Fprintf(w, "  %s at %s since %s\n  began %s with record %s, entry %d\n", r.Status, r.CurrentNode, r.Since, r.CreatedAt, r.Trigger, r.EntryCount)
		for _, line := range []struct {
			what string
			says *string
		}{{"key", r.Key}, {"arm", r.Arm}, {"reason", r.Reason}, {"error", r.Error}, {"ended", r.EndedAt}, {"reached its goal", r.ConvertedAt}} {
			if line.says != nil {
				fmt.Fprintf(w, "  %s: %s\n", line.what, *line.says)
			}
		}
		if answer.Job != nil {
			fmt.Fprintf(w, "  %s\n", answer.Job)
		}
		fmt.Fprintln(w)
		printLog(w, answer.Logs)
	})
}

// runJob is the function in Go that a run waits for.
type runJob struct {
	Step     string  `json:"step"`
	Attempts int     `json:"attempts"`
	Running  bool    `json:"running"`
	Error    *string `json:"error"`
	Due      string  `json:"due"`
}

// String says how it stands with it, and what came of the last attempt.
func (j *runJob) String() string {
	said := fmt.Sprintf("function %s: attempt %d begins at %s", j.Step, j.Attempts+1, j.Due)
	if j.Running {
		said = fmt.Sprintf("function %s: attempt %d runs, kept for its process until %s", j.Step, j.Attempts, j.Due)
	}
	if j.Error != nil {
		said += "; the one before: " + *j.Error
	}
	return said
}

// loggedChange is something that happened to a run.
type loggedChange struct {
	From      *string `json:"fromNodeId"`
	To        *string `json:"toNodeId"`
	Action    string  `json:"action"`
	CreatedAt string  `json:"createdAt"`
	Detail    struct {
		Outcome string `json:"outcome"`
		Reason  string `json:"reason"`
		Error   string `json:"error"`
	} `json:"detail"`
}

func printLog(w io.Writer, lines []loggedChange) {
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l.CreatedAt, l.Action, text(l.From), l.Detail.Outcome + l.Detail.Reason, text(l.To), l.Detail.Error}
	}
	table(w, []string{"at", "what", "step", "outcome", "next", "error"}, rows)
}

type journeysWhyCmd struct {
	apiFlags
	UserID  string `arg:"" help:"A user id, an anonymous id or a contact id."`
	Journey string `arg:"" help:"Id of the journey."`
}

// Run says why.
func (c *journeysWhyCmd) Run(ctx context.Context, out *output) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if err := api.call(ctx, http.MethodGet, journeysPath+"/"+url.PathEscape(c.Journey)+"/why/"+url.PathEscape(c.UserID), nil, nil, &answer); err != nil {
		return err
	}
	var why struct {
		Text string `json:"text"`
	}
	if err := json.Unmarshal(answer, &why); err != nil {
		return err
	}
	return out.value(answer, func(w io.Writer) { fmt.Fprintln(w, why.Text) })
}

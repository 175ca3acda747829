package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/schollz/progressbar/v3"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/storage"
)

// exitError ends the program with a code of its own. What there was to say is said.
type exitError int

// Error implements error.
func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// errChanges is the exit code of a plan that changes something, so that a pipeline can tell.
const errChanges exitError = 2

// forecastFlags say how a plan looks at members.
type forecastFlags struct {
	Sample    int  `help:"How many contacts to name of those that would enter a bucket, and of those that would leave." default:"10"`
	NoMembers bool `help:"Do not look at contacts: say what changes, and not who would enter and leave."`
}

type planCmd struct {
	Dir      string `arg:"" optional:"" help:"Directory of definitions; DEFINITIONS_DIR, or ./definitions, when not given."`
	Rollback int64  `help:"Plan a rollback to this version, instead of the files."`
	Out      string `help:"File to keep the plan in, for apply --plan." type:"path"`
	Export   string `help:"File to write everybody to who would enter or leave: lines of JSON, or CSV when its name ends in .csv." type:"path"`
	forecastFlags
	infraFlags
}

// Run says what apply would do. Nothing is changed.
func (c *planCmd) Run(ctx context.Context, out *output) error {
	p, err := openPlanner(ctx, c.infraFlags)
	if err != nil {
		return err
	}
	defer p.db.Close()
	if err := p.want(ctx, c.Dir, c.Rollback); err != nil {
		return err
	}
	if err := p.make(ctx, c.forecastFlags, c.Export, out.JSON); err != nil {
		return err
	}
	if err := p.keep(c.Out); err != nil {
		return err
	}
	err = out.value(p.report, func(w io.Writer) {
		printPlan(w, p.report)
		if p.report.Changed && len(p.report.Broken) == 0 {
			next(w, "put it in use, as long as nothing has moved", p.command(c.Out))
		}
	})
	if err == nil && p.report.Changed {
		err = errChanges
	}
	return err
}

// planner makes plans against Postgres.
type planner struct {
	cfg  hogstream.Config
	opts definition.Options
	db   *storage.DB

	wanted  definition.Wanted
	dir     string            // of files
	files   *definition.Files // nil for a rollback
	version int64             // of a rollback
	plan    *definition.Plan
	report  *definition.Report
}

func openPlanner(ctx context.Context, flags infraFlags) (*planner, error) {
	cfg, err := flags.config()
	if err != nil {
		return nil, err
	}
	if cfg.Database.URL == "" {
		return nil, errors.New("DATABASE_URL is not set: give a postgres:// URL")
	}
	db, err := storage.Open(ctx, storage.Config{URL: cfg.Database.URL, MaxConns: int32(runtime.GOMAXPROCS(0)) + 2})
	if err != nil {
		return nil, err
	}
	if err := db.RequireSchema(ctx); err != nil {
		db.Close()
		return nil, err
	}
	return &planner{cfg: cfg, opts: cfg.DefinitionOptions(), db: db}, nil
}

// want reads what is to be put in use: files without faults, or a version before.
func (p *planner) want(ctx context.Context, dir string, rollback int64) error {
	if rollback != 0 {
		former, err := definition.Version(ctx, p.db, rollback)
		if err != nil {
			return fmt.Errorf("%w: `hogstream history` has those there are", err)
		}
		p.wanted, p.version = &definition.Former{Set: former}, rollback
		return nil
	}
	files, err := load(dir, &p.cfg)
	if err != nil {
		return err
	}
	if faults := files.Faults(); len(faults) > 0 {
		return fmt.Errorf("%w\n%w", faults, faulty(len(faults)))
	}
	p.wanted, p.files, p.dir = files, files, files.Dir
	return nil
}

// make compares with what is in use, and looks who would enter and leave.
func (p *planner) make(ctx context.Context, flags forecastFlags, export string, quiet bool) error {
	inUse, err := definition.Current(ctx, p.db)
	if err != nil {
		return err
	}
	if p.plan, err = definition.NewPlan(inUse, p.wanted, p.opts); err != nil {
		return err
	}
	var members *definition.Forecast
	if !flags.NoMembers {
		if members, err = p.foresee(ctx, flags, export, quiet); err != nil {
			return err
		}
	}
	p.report, err = p.plan.Reported(ctx, p.db, members)
	return err
}

func (p *planner) foresee(ctx context.Context, flags forecastFlags, export string, quiet bool) (*definition.Forecast, error) {
	zone, err := p.cfg.Zone()
	if err != nil {
		return nil, err
	}
	to, err := openExport(export)
	if err != nil {
		return nil, err
	}
	seen := &lookedAt{quiet: quiet}
	f := buckets.Foresight{
		DB: p.db, Options: buckets.Options{Limits: p.opts.Limits, Zone: zone}, Workers: runtime.GOMAXPROCS(0), Sample: flags.Sample, Passed: seen.at,
	}
	if to != nil {
		f.Each = to.write
	}
	members, err := f.Foresee(ctx, p.plan)
	seen.done()
	return members, errors.Join(err, to.close())
}

// lookedAt draws how many contacts were looked at, from the first that were.
type lookedAt struct {
	quiet bool
	begin sync.Once
	bar   *progressbar.ProgressBar
}

// at is called by several goroutines.
func (l *lookedAt) at(contacts, total int64) {
	l.begin.Do(func() { l.bar = newProgress(total, "contacts", false, l.quiet) })
	_ = l.bar.Set64(min(contacts, total))
}

func (l *lookedAt) done() {
	if l.bar != nil {
		_ = l.bar.Finish()
	}
}

// exported is a file of who would enter and leave.
type exported struct {
	file *os.File
	csv  *csv.Writer // or
	json *json.Encoder
}

// openExport begins a file; nil for none.
func openExport(path string) (*exported, error) {
	if path == "" {
		return nil, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	e := &exported{file: file}
	if filepath.Ext(path) != ".csv" {
		e.json = json.NewEncoder(file)
		e.json.SetEscapeHTML(false)
		return e, nil
	}
	e.csv = csv.NewWriter(file)
	return e, e.csv.Write([]string{"bucket", "move", "contactId", "userId", "email"})
}

func (e *exported) write(m definition.Move) error {
	if e.json != nil {
		return e.json.Encode(m)
	}
	return e.csv.Write([]string{m.Bucket, m.Move, m.ContactID, m.UserID, m.Email})
}

func (e *exported) close() error {
	if e == nil {
		return nil
	}
	if e.csv != nil {
		e.csv.Flush()
		return errors.Join(e.csv.Error(), e.file.Close())
	}
	return e.file.Close()
}

// savedPlan is the file of a plan.
type savedPlan struct {
	Hash        string                     `json:"hash"`
	Rollback    int64                      `json:"rollback,omitempty"`    // the version
	Definitions map[string]json.RawMessage `json:"definitions,omitempty"` // of the files, in their one form
	Report      *definition.Report         `json:"report"`
}

// keep writes the plan to a file, if one is named.
func (p *planner) keep(path string) error {
	if path == "" {
		return nil
	}
	saved := savedPlan{Hash: p.report.Hash, Rollback: p.version, Report: p.report, Definitions: canonicalOf(p.files)}
	text, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600) // it names contacts
}

// canonicalOf are definitions in their one form, by what people call them.
func canonicalOf(files *definition.Files) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	if files != nil {
		for name, text := range files.Canonical() {
			out[name] = json.RawMessage(text)
		}
	}
	return out
}

// command is how the plan is carried out.
func (p *planner) command(saved string) string {
	hash := cmp.Or(saved, p.report.Hash)
	if p.files == nil {
		return fmt.Sprintf("rollback %d --plan %s", p.version, hash)
	}
	return fmt.Sprintf("apply %s --plan %s", p.dir, hash)
}

// printPlan says what a plan does.
func printPlan(w io.Writer, r *definition.Report) {
	if !r.Changed {
		fmt.Fprintf(w, "Nothing changes: version %d is in use.\n", r.Version)
	} else {
		fmt.Fprintf(w, "Against version %d, which is in use:\n\n", r.Version)
		for _, c := range r.Changes {
			fmt.Fprintf(w, "  %s %s\n", signs[c.What], c)
		}
	}
	printForecast(w, r.Members)
	for _, gone := range r.Removed {
		fmt.Fprintf(w, "\n%s is removed with %s: they are evaluated no more, and told nothing; `hogstream buckets purge %s` forgets them then.\n", gone.Bucket, counted(int(gone.Members), "member"), gone.Bucket)
	}
	printRunsLeft(w, r.Runs)
	for _, f := range r.Failing {
		fmt.Fprintf(w, "\nFAULT in %s, which changes nothing: what is in use of it stays:\n%s\n", f.File, indented(f.Faults))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s.\n", note)
	}
	if len(r.Broken) > 0 {
		fmt.Fprintf(w, "\nIt cannot be applied: %v.\n", &definition.BrokenError{References: r.Broken})
	}
	if r.Changed {
		fmt.Fprintf(w, "\nPlan %s: %s.\n", r.Hash, definition.Summary(r.Changes))
	}
}

// printRunsLeft says what becomes of live runs.
func printRunsLeft(w io.Writer, runs []definition.RunsLeft) {
	if len(runs) == 0 {
		return
	}
	fmt.Fprint(w, "\nLive runs of journeys that change (finish: they go on with their version; exit: they end there):\n\n")
	rows := make([][]string, len(runs))
	for i, r := range runs {
		rows[i] = []string{r.Journey, r.Version, r.Step, fmt.Sprint(r.Runs), r.Then}
	}
	table(w, []string{"journey", "version", "step", "runs", "then"}, rows)
}

// signs are those of changes.
var signs = map[string]string{definition.Added: "+", definition.Changed: "~", definition.Removed: "-"}

func indented(lines string) string { return "  " + strings.ReplaceAll(lines, "\n", "\n  ") }

// printForecast says who would enter and leave.
func printForecast(w io.Writer, f *definition.Forecast) {
	if f == nil || len(f.Effects) == 0 {
		return
	}
	fmt.Fprintf(w, "\nMembers, of %s as of %s:\n\n", counted(int(f.Contacts), "contact"), f.At.Local().Format("2006-01-02 15:04:05"))
	rows := make([][]string, len(f.Effects))
	for i, e := range f.Effects {
		rows[i] = []string{e.Bucket, e.Why, fmt.Sprint(e.Members), fmt.Sprintf("+%d", e.Enter), fmt.Sprintf("-%d", e.Leave), fmt.Sprint(e.Members + e.Enter - e.Leave), fmt.Sprint(e.Told)}
	}
	table(w, []string{"bucket", "why", "members", "enter", "leave", "then", "told"}, rows)
	for _, e := range f.Effects {
		printSample(w, e.Bucket, e.Entering, e.Enter)
		printSample(w, e.Bucket, e.Leaving, e.Leave)
	}
	if !f.Whole {
		fmt.Fprintf(w, "\nThere was no time for all: %d of %d contacts were looked at.\n", f.Contacts, f.Total)
	}
	if f.Filling != nil {
		fmt.Fprintf(w, "\nThe set in use is still being filled (%d of %d contacts): what is left of that is in the numbers.\n", f.Filling.Passed, f.Filling.Total)
	}
	if f.Waiting > 0 {
		fmt.Fprintf(w, "\nOf %s records are still under way to the processor.\n", counted(int(f.Waiting), "contact"))
	}
	if f.Failed > 0 {
		fmt.Fprintf(w, "\nThe definitions fail for %s, who would stay as they are.\n", counted(int(f.Failed), "contact"))
	}
}

// printSample names some of those who would enter or leave a bucket.
func printSample(w io.Writer, bucket string, sample []definition.Move, all int64) {
	if len(sample) == 0 {
		return
	}
	fmt.Fprintf(w, "\n  %s %s\n", sample[0].Move, bucket)
	for _, m := range sample {
		fmt.Fprintf(w, "    %s  %s  %s\n", m.ContactID, cell(m.UserID), cell(m.Email))
	}
	if more := all - int64(len(sample)); more > 0 {
		fmt.Fprintf(w, "    and %d more\n", more)
	}
}

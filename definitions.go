package hogstream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/storage"
)

// appliesFiles says whether this process puts the definitions of its files in use.
func (c *Config) appliesFiles() bool {
	return c.Definitions.Dir != "" && (c.Dev || c.Definitions.Apply)
}

// readDefinitions reads the files, if there are any, beside what was built in Go.
func (a *App) readDefinitions() (*definition.Files, error) {
	opts := a.cfg.DefinitionOptions()
	if a.cfg.Definitions.Dir == "" {
		if !a.added.built {
			return nil, nil
		}
		return definition.Built(a.added.defined, opts)
	}
	files, err := definition.Load(a.cfg.Definitions.Dir, opts)
	if err != nil || !a.added.built {
		return files, err
	}
	return files.With(a.added.defined, opts)
}

// startDefinitions puts in use what this process is to put in use, and reads what is.
func (a *App) startDefinitions(ctx context.Context) error {
	a.definitions = definition.NewWatcher(a.db)
	if err := a.measureDefinitions(); err != nil {
		return err
	}
	return a.retry(ctx, "Postgres", storage.IsUnavailable, func(ctx context.Context) error {
		if err := a.applyAtStart(ctx); err != nil {
			return err
		}
		return a.definitions.Refresh(ctx)
	})
}

func (a *App) applyAtStart(ctx context.Context) error {
	if a.cfg.appliesFiles() {
		out, err := a.applyDefinitions(ctx)
		if err == nil && a.cfg.Dev && a.added.applied != nil && (out.Changed || len(out.Set.Failing) > 0) {
			a.added.applied(out, nil)
		}
		return err
	}
	if !a.added.built {
		return nil
	}
	files, err := definition.Built(a.added.defined, a.cfg.DefinitionOptions())
	if err == nil {
		_, err = a.apply(ctx, files)
	}
	return err
}

// applyDefinitions applies the files and what was built in Go.
func (a *App) applyDefinitions(ctx context.Context) (*definition.Outcome, error) {
	files, err := a.readDefinitions()
	if err != nil {
		return nil, err
	}
	return a.apply(ctx, files)
}

func (a *App) apply(ctx context.Context, files *definition.Files) (*definition.Outcome, error) {
	members := a.foresee(ctx, files)
	out, err := definition.Apply(ctx, a.db, files, a.cfg.DefinitionOptions(), a.cfg.Instance)
	if err != nil {
		return nil, fmt.Errorf("apply definitions: %w", err)
	}
	out.Members = members
	for _, r := range out.Broken {
		a.tel.Logger.Warn("definitions.removed_while_asked_for", zap.String("bucket", r.Bucket), zap.String(r.Kind, r.Name))
	}
	for _, u := range out.Unasked {
		a.tel.Logger.Warn("definitions.asks_nobody", zap.String(u.Ref.Kind, u.Ref.ID), zap.String("destination", u.Destination), zap.String("why", u.Why))
	}
	if out.Changed {
		a.tel.Logger.Info("definitions.applied", zap.Int64("version", out.Set.Version), zap.Strings("changes", inWords(out.Changes)))
	}
	return out, nil
}

// foreseeFor is for how long a save in dev mode looks who would enter and leave.
const foreseeFor = 2 * time.Second

// foresee looks, in dev mode, who would enter and leave when files are applied. It is for a
// person to read, and no reason not to apply them: nil when it fails.
func (a *App) foresee(ctx context.Context, files *definition.Files) *definition.Forecast {
	if !a.cfg.Dev || a.added.applied == nil {
		return nil
	}
	members, err := a.foreseeMembers(ctx, files)
	if err != nil && ctx.Err() == nil {
		a.tel.Logger.Warn("definitions.not_foreseen", zap.Error(err))
	}
	return members
}

func (a *App) foreseeMembers(ctx context.Context, files *definition.Files) (*definition.Forecast, error) {
	inUse, err := definition.Current(ctx, a.db)
	if err != nil {
		return nil, err
	}
	plan, err := definition.NewPlan(inUse, files, a.cfg.DefinitionOptions())
	if err != nil || len(plan.Moving()) == 0 {
		return nil, err
	}
	return a.foreseePlan(ctx, plan, 0, time.Now().Add(foreseeFor))
}

// foreseePlan looks who would enter and leave, with what is left of the process's cores and
// connections.
func (a *App) foreseePlan(ctx context.Context, plan *definition.Plan, sample int, until time.Time) (*definition.Forecast, error) {
	zone, err := a.cfg.Zone()
	if err != nil {
		return nil, err
	}
	f := buckets.Foresight{
		DB: a.db, Options: buckets.Options{Limits: a.cfg.DefinitionOptions().Limits, Zone: zone},
		Workers: max(1, runtime.GOMAXPROCS(0)/2), Sample: sample, Until: until,
	}
	return f.Foresee(ctx, plan)
}

// watchFiles applies the files after each save, or says how they differ from what is in
// use, until ctx ends.
func (a *App) watchFiles(ctx context.Context) error {
	first := true
	return definition.WatchDir(ctx, a.cfg.Definitions.Dir, func() {
		if !a.cfg.Dev {
			a.compareDefinitions(a.definitions.Set())
			return
		}
		out, err := a.applyDefinitions(ctx)
		if err != nil && ctx.Err() == nil {
			a.tel.Logger.Warn("definitions.not_applied", zap.Error(err))
		}
		if told := a.added.applied; told != nil && ctx.Err() == nil && (!first || err != nil || out.Changed) {
			told(out, err)
		}
		first = false
	})
}

// watchDefinitions says what fails and what differs here whenever another set is in use.
func (a *App) watchDefinitions(ctx context.Context) error {
	for set := (*definition.Set)(nil); ; {
		next, err := a.definitions.Next(ctx, set)
		if err != nil {
			return nil // ctx has ended
		}
		set = next
		for _, f := range set.Failing {
			a.tel.Logger.Warn("definitions.failing", zap.String("file", f.File), zap.Strings("buckets", f.IDs), zap.Time("since", f.Since), zap.String("faults", f.Faults))
		}
		a.compareDefinitions(set)
	}
}

// compareDefinitions says how the files of this process differ from the set in use.
func (a *App) compareDefinitions(set *definition.Set) {
	if a.cfg.Definitions.Dir == "" {
		return
	}
	files, err := a.readDefinitions()
	if err != nil {
		a.tel.Logger.Warn("definitions.unread", zap.Error(err))
		return
	}
	changes, failing := definition.Compare(set, files, a.cfg.DefinitionOptions())
	a.differing.Store(int64(len(changes) + len(failing)))
	if len(changes)+len(failing) > 0 && !a.cfg.Dev {
		a.tel.Logger.Warn("definitions.differ", zap.Int64("version", set.Version), zap.String("dir", a.cfg.Definitions.Dir),
			zap.Strings("changes", inWords(changes)), zap.Int("faulty", len(failing)))
	}
}

func inWords(changes []definition.Change) []string {
	words := make([]string, len(changes))
	for i, c := range changes {
		words[i] = c.String()
	}
	return words
}

// measureDefinitions registers the figures of definitions.
func (a *App) measureDefinitions() error {
	gauge := func(name, help string, value func(*definition.Set) float64) error {
		return a.tel.Metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "definitions", Name: name, Help: help,
		}, func() float64 { return value(a.definitions.Set()) }))
	}
	return errors.Join(
		gauge("version", "Version of the set of definitions in use, as far as this process knows.",
			func(s *definition.Set) float64 { return float64(s.Version) }),
		gauge("failing_files", "Files of definitions that had faults when they were applied last; what is in use of them is their last good form.",
			func(s *definition.Set) float64 { return float64(len(s.Failing)) }),
		gauge("failing_seconds", "For how long the file that has been failing longest has had faults; 0 when none has.", longestFailing),
		gauge("differing", "Definitions in which the files of this process (DEFINITIONS_DIR) differ from what is in use, and files with faults.",
			func(*definition.Set) float64 { return float64(a.differing.Load()) }),
	)
}

func longestFailing(s *definition.Set) float64 {
	longest := time.Duration(0)
	for _, f := range s.Failing {
		longest = max(longest, time.Since(f.Since))
	}
	return longest.Seconds()
}

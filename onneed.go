package hogstream

import (
	"context"
	"sync/atomic"

	"github.com/hogstream/hogstream/processors"
	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/loop"
)

// onNeed runs a processor from when it is needed.
type onNeed struct {
	app   *App
	line  processors.Processor
	run   func(context.Context) error
	begun atomic.Bool
}

// Run waits until the processor is needed, unless it has begun before, and runs it until ctx
// ends.
func (o *onNeed) Run(ctx context.Context) error {
	if o.line.Needed != nil {
		if err := o.await(ctx); err != nil || ctx.Err() != nil {
			return unlessEnded(ctx, err)
		}
	}
	o.begun.Store(true)
	return o.run(ctx)
}

// await returns when the processor is needed and it is noted where it begins.
func (o *onNeed) await(ctx context.Context) error {
	a := o.app
	unavailable := func(err error) bool { return stream.IsUnavailable(err) || storage.IsUnavailable(err) }
	before := false
	err := a.retry(ctx, "Postgres", unavailable, func(ctx context.Context) error {
		rows, err := a.db.LoadProgress(ctx, o.line.Name, nil)
		before = len(rows) > 0
		return err
	})
	if err != nil || before {
		return err
	}
	for set := a.definitions.Set(); !o.line.Needed(set); {
		if set, err = a.definitions.Next(ctx, set); err != nil {
			return err
		}
	}
	return a.retry(ctx, "Kafka or Postgres", unavailable, func(ctx context.Context) error {
		return loop.NoteBeginning(ctx, a.admin, a.db, o.line.Name, o.line.Topics)
	})
}

// unlessEnded is nil when what failed only did because ctx has ended.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// neededProcessors are those for which there is something to do.
func (a *App) neededProcessors() (names []string) {
	for _, line := range processors.All() {
		if line.Needed == nil || line.Needed(a.definitions.Set()) {
			names = append(names, line.Name)
		}
	}
	return names
}

// fillsWhenBegun has nobody be filled before the processor has begun.
type fillsWhenBegun struct {
	derive.Filling
	processor *onNeed
}

// FillVersion implements derive.Filling.
func (f fillsWhenBegun) FillVersion(ctx context.Context, tx *storage.Tx) (int64, error) {
	if !f.processor.begun.Load() {
		return 0, nil
	}
	return f.Filling.FillVersion(ctx, tx)
}

package derive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/storage"
)

// Foresight says what a filling with other definitions would make of everybody: with the
// logic that would be in use, at one instant, on what Postgres knows. It writes nothing.
type Foresight[S any] struct {
	DB        *storage.DB
	Processor Processor[S]
	Logic     Refills[S]
	Workers   int // how many contacts are looked at at once; each has a connection
	// Seen is given what would follow for a contact that would be filled, or taken over: who
	// would not is left out. It is called by several workers at once, and in no order.
	Seen func(c *storage.Contact, r Result[S])
	// Passed is told how many contacts have been passed; by several workers at once. May be nil.
	Passed func(contacts int64)
}

// Foreseen is what came of a Foresight.
type Foreseen struct {
	At     time.Time // as of when, by Postgres's clock
	Passed int64     // contacts
	// Waiting are contacts of which records are still under way to the processor: they are
	// filled when those have come.
	Waiting int64
	// Failed are contacts of which the definitions fail: they would stay as they are.
	Failed int64
	// Whole is false when there was no time for all contacts.
	Whole bool
}

// foreseenAtOnce is how many contacts a worker reads at a time.
const foreseenAtOnce = 500

// Run passes all contacts, or as many as can be until a time, which may be zero for never.
func (f *Foresight[S]) Run(ctx context.Context, until time.Time) (Foreseen, error) {
	at, err := f.DB.Clock(ctx)
	if err != nil {
		return Foreseen{}, err
	}
	run := &foresightRun[S]{Foresight: f, now: at.UTC(), until: until}
	group, ctx := errgroup.WithContext(ctx)
	for range max(1, f.Workers) {
		group.Go(func() error { return run.work(ctx) })
	}
	if err := group.Wait(); err != nil {
		return Foreseen{}, err
	}
	return Foreseen{run.now, run.passed.Load(), run.waiting.Load(), run.failed.Load(), run.after == uuid.Max}, nil
}

type foresightRun[S any] struct {
	*Foresight[S]
	now   time.Time
	until time.Time

	mu    sync.Mutex
	after uuid.UUID // up to where contacts are given out

	passed, waiting, failed atomic.Int64
}

// next gives out the next contacts, (after, until]; ok is false when there are none.
func (f *foresightRun[S]) next(ctx context.Context) (after, until uuid.UUID, ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.after == uuid.Max || !f.until.IsZero() && time.Now().After(f.until) {
		return after, until, false, nil
	}
	after = f.after
	if until, err = f.DB.ContactRange(ctx, after, foreseenAtOnce); err != nil {
		return after, until, false, err
	}
	f.after = until
	return after, until, true, nil
}

func (f *foresightRun[S]) work(ctx context.Context) error {
	for {
		after, until, ok, err := f.next(ctx)
		if err != nil || !ok {
			return err
		}
		if err := f.DB.InSnapshot(ctx, func(tx *storage.Tx) error { return f.pass(ctx, tx, after, until) }); err != nil {
			return err
		}
		if f.Passed != nil {
			f.Passed(f.passed.Load())
		}
	}
}

// outlook is a contact that would be filled, or taken over.
type outlook[S any] struct {
	*storage.Standing
	state S
}

func (f *foresightRun[S]) pass(ctx context.Context, tx *storage.Tx, after, until uuid.UUID) error {
	all, err := tx.Standings(ctx, f.Processor.Name(), after, until)
	if err != nil {
		return err
	}
	var behind []outlook[S]
	var versions []int64
	for i := range all {
		state, is, err := f.isBehind(&all[i])
		if err != nil {
			return err
		}
		if is {
			behind, versions = append(behind, outlook[S]{&all[i], state}), append(versions, f.version(&all[i], state))
		}
	}
	if err := f.lookAt(ctx, tx, behind, namesFor(f.Logic, versions)); err != nil {
		return err
	}
	f.passed.Add(int64(len(all)))
	return nil
}

// lookAt reads the events of contacts, of fewer at once where they have many, and looks.
func (f *foresightRun[S]) lookAt(ctx context.Context, tx *storage.Tx, behind []outlook[S], names []string) error {
	var events map[string][]storage.StoredEvent
	if len(behind) > 0 && len(names) > 0 {
		standings := make([]*storage.Standing, len(behind))
		for i, o := range behind {
			standings[i] = o.Standing
		}
		var err error
		events, err = tx.EventsOf(ctx, standings, names)
		if errors.Is(err, storage.ErrTooMuch) {
			half := len(behind) / 2
			if err := f.lookAt(ctx, tx, behind[:half], names); err != nil {
				return err
			}
			return f.lookAt(ctx, tx, behind[half:], names)
		}
		if err != nil {
			return err
		}
	}
	for _, o := range behind {
		f.look(o, events[o.Contact.ID])
	}
	return nil
}

// isBehind says whether a contact would be filled, or taken over, and its state now.
func (f *foresightRun[S]) isBehind(s *storage.Standing) (state S, is bool, err error) {
	switch {
	case s.Derived == nil:
		return state, true, nil
	case s.Derived.Ended || s.Derived.State == nil:
		return state, false, nil
	}
	if state, err = f.Processor.Decode(s.Derived.State); err != nil {
		return state, false, fmt.Errorf("state of contact %s: %w", s.Contact.ID, err)
	}
	return state, f.Logic.VersionOf(state) < f.Logic.Version(), nil
}

// version is that of the definitions that a contact is filled with; of one that would be
// taken over before all.
func (f *foresightRun[S]) version(s *storage.Standing, state S) int64 {
	if s.Derived == nil {
		return 0
	}
	return f.Logic.VersionOf(state)
}

func (f *foresightRun[S]) look(o outlook[S], events []storage.StoredEvent) {
	known := &Known{Contact: o.Contact, Events: events}
	result, err := guarded(true, func() (Result[S], error) {
		if o.Derived != nil {
			return f.Logic.Refill(o.state, known, f.now)
		}
		taken, timers := f.Logic.TakeOver(o.state, known, f.now)
		return Result[S]{State: taken, Timers: timers}, nil
	})
	if err != nil {
		f.failed.Add(1)
		return
	}
	if d := o.Derived; d == nil || d.Seq != o.Contact.Seq || d.Era != o.Contact.Era {
		f.waiting.Add(1)
	}
	f.Seen(o.Contact, result)
}

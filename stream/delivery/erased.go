package delivery

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// noted are ids that are noted in Postgres, all of them in memory (some 40 bytes each):
// contacts that were erased, and outbox records that were taken back. Every attempt asks, so it
// must cost nothing. What is asked is right from the moment at which the notification of a note
// arrives, which is a few milliseconds after it is committed; where notifications fail, from
// the next look on. While Postgres is away nothing is noted. Safe for concurrent use.
type noted struct {
	each func(ctx context.Context, since time.Time, fn func(id uuid.UUID, at time.Time)) error
	log  *zap.Logger
	// told is called when some may have come.
	told func()

	mu    sync.RWMutex
	ids   map[uuid.UUID]struct{}
	fresh map[uuid.UUID]struct{} // those that came while all are read; nil when they are not
	until time.Time              // of the newest, by Postgres's clock
}

const (
	// erasedLook is the poll interval for notes whose notification was lost, and
	// erasedOverlap how far back it looks: a transaction may take that long.
	erasedLook    = 5 * time.Second
	erasedOverlap = time.Minute
	// erasedAgain is how often all of them are read: those that are past all retention
	// go, and what a transaction has held back for longer comes.
	erasedAgain = 10 * time.Minute
)

func newNoted(each func(context.Context, time.Time, func(uuid.UUID, time.Time)) error, log *zap.Logger, told func()) *noted {
	return &noted{each: each, log: log, told: told, ids: map[uuid.UUID]struct{}{}}
}

// has says whether a record is about somebody who was erased and must not leave: all
// that is keyed by them but the fact that they were deleted, which receivers wait for.
func (e *noted) has(r *stream.Record) bool {
	return e.hasKey(string(r.Key)) && r.Type != schemas.FactContactDeleted
}

func (e *noted) hasKey(key string) bool {
	if e == nil {
		return false
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(e.ids) == 0 {
		return false
	}
	id, err := uuid.Parse(key)
	if err != nil {
		return false
	}
	_, erased := e.ids[id]
	return erased
}

// load reads all of them.
func (e *noted) load(ctx context.Context) error {
	e.mu.Lock()
	e.fresh = map[uuid.UUID]struct{}{}
	e.mu.Unlock()
	ids := map[uuid.UUID]struct{}{}
	var until time.Time
	err := e.each(ctx, time.Time{}, func(id uuid.UUID, at time.Time) {
		ids[id] = struct{}{}
		until = later(until, at)
	})
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		maps.Copy(ids, e.fresh)
		e.ids, e.until = ids, until
	}
	e.fresh = nil
	return err
}

// look adds those that came since the last look.
func (e *noted) look(ctx context.Context) error {
	e.mu.RLock()
	since := e.until.Add(-erasedOverlap)
	e.mu.RUnlock()
	return e.each(ctx, since, e.add)
}

func (e *noted) add(id uuid.UUID, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ids[id] = struct{}{}
	if e.fresh != nil {
		e.fresh[id] = struct{}{}
	}
	e.until = later(e.until, at)
}

// heard takes in a notification; an empty one says that some may have been missed.
func (e *noted) heard(ctx context.Context, ids string) {
	defer e.told()
	if ids == "" {
		e.note(e.look(ctx))
		return
	}
	for _, text := range strings.Fields(ids) {
		if id, err := uuid.Parse(text); err == nil {
			e.add(id, time.Time{})
		}
	}
}

// run looks for what was not heard until ctx ends.
func (e *noted) run(ctx context.Context) {
	tick := time.NewTicker(erasedLook)
	defer tick.Stop()
	loaded := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Since(loaded) < erasedAgain {
			e.note(e.look(ctx))
			continue
		}
		loaded = time.Now()
		e.note(e.load(ctx))
	}
}

func (e *noted) note(err error) {
	if err != nil {
		e.log.Warn("delivery.notes_read_failed", zap.Error(err))
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

package definition

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hogstream/hogstream/storage"
)

// watchRetry is the pause after the set in use could not be read.
const watchRetry = 250 * time.Millisecond

// Watcher knows the set in use, from shortly after it was applied, wherever that was. Safe
// for concurrent use.
type Watcher struct {
	db *storage.DB

	mu      sync.Mutex
	set     *Set
	changed chan struct{} // closed when there is another set
}

// NewWatcher returns a Watcher that knows an empty set until Run runs.
func NewWatcher(db *storage.DB) *Watcher {
	return &Watcher{db: db, set: &Set{}, changed: make(chan struct{})}
}

// Run keeps the set up to date until ctx ends, and returns nil then. An outage of the
// database delays it and loses nothing.
func (w *Watcher) Run(ctx context.Context) error {
	told := make(chan struct{}, 1)
	tell := func(string) {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	listening := make(chan error, 1)
	go func() { listening <- w.db.Listen(ctx, storage.ChannelDefinitions, tell) }()
	for {
		select {
		case <-ctx.Done():
			return <-listening
		case <-told:
		}
		if w.Refresh(ctx) != nil {
			select {
			case <-ctx.Done():
			case <-time.After(watchRetry):
				tell("")
			}
		}
	}
}

// Refresh reads the set in use, when no transaction is at hand.
func (w *Watcher) Refresh(ctx context.Context) error {
	set, err := Current(ctx, w.db)
	if err != nil {
		return err
	}
	w.keep(set)
	return nil
}

func (w *Watcher) keep(set *Set) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set = set
	close(w.changed)
	w.changed = make(chan struct{})
}

// At is the set in use as of the transaction. It is one small statement when that is
// known already.
func (w *Watcher) At(ctx context.Context, tx *storage.Tx) (*Set, error) {
	version, err := tx.DefinitionVersion(ctx)
	if err != nil {
		return nil, err
	}
	return w.version(ctx, tx, version)
}

// Hold is At, and has the set stay in use until the transaction ends.
func (w *Watcher) Hold(ctx context.Context, tx *storage.Tx) (*Set, error) {
	version, err := tx.HoldDefinitions(ctx)
	if err != nil {
		return nil, err
	}
	return w.version(ctx, tx, version)
}

// Referenced returns who says which events some bucket looks at, whether it is enabled or
// not. It holds the set: an event that comes after a bucket was applied is told apart by
// what that bucket looks at, however late this process hears of it.
func (w *Watcher) Referenced(ctx context.Context, tx *storage.Tx) (func(event string) bool, error) {
	set, err := w.Hold(ctx, tx)
	if err != nil {
		return nil, err
	}
	return set.LooksAt, nil
}

func (w *Watcher) version(ctx context.Context, tx *storage.Tx, version int64) (*Set, error) {
	if set := w.Set(); set.Version == version {
		return set, nil
	}
	set, err := Current(ctx, tx)
	if err == nil && set.Version > w.Set().Version {
		w.keep(set)
	}
	return set, err
}

// Set is the set in use, as far as it is known here. It does not change.
func (w *Watcher) Set() *Set {
	set, _ := w.state()
	return set
}

func (w *Watcher) state() (*Set, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.set, w.changed
}

// Next returns the set known here once it is another one than before, which [Watcher.Set]
// or Next returned. What is known to fail may be all that differs.
func (w *Watcher) Next(ctx context.Context, before *Set) (*Set, error) {
	for {
		set, changed := w.state()
		if set != before {
			return set, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for definitions: %w", context.Cause(ctx))
		case <-changed:
		}
	}
}

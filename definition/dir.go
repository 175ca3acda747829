package definition

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is for how long nothing changes before files are read: an editor saves in several
// steps, and some do so by another name.
const quiet = 100 * time.Millisecond

// WatchDir calls changed when it has begun to watch a directory of definitions, and after
// each change below it, until ctx ends; it returns nil then. The directory may go away and
// come back. It calls changed on the caller's goroutine.
func WatchDir(ctx context.Context, dir string, changed func()) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("watch definitions: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch definitions: %w", err)
	}
	defer w.Close()
	if err := watchAll(w, dir); err != nil {
		return err
	}
	settled := time.NewTimer(0)
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-settled.C:
			changed()
		case event := <-w.Events:
			if matters(event, dir) {
				settled.Reset(quiet)
			}
		case err := <-w.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch definitions: %w", err)
			}
			settled.Reset(quiet) // anything may have changed
		}
		if err := watchAll(w, dir); err != nil {
			return err
		}
	}
}

// watchAll watches the directory, those below it, and from where it would come back. What
// is watched already stays so.
func watchAll(w *fsnotify.Watcher, dir string) error {
	watch := func(path string) error {
		if err := w.Add(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		return nil
	}
	if err := watch(filepath.Dir(dir)); err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // comes back, or went away meanwhile
		case err != nil:
			return fmt.Errorf("watch %s: %w", path, err)
		case !entry.IsDir():
			return nil
		}
		return watch(path)
	})
}

// matters says whether an event is about definitions, and not about who reads them.
func matters(event fsnotify.Event, dir string) bool {
	return event.Op != fsnotify.Chmod && (event.Name == dir || strings.HasPrefix(event.Name, dir+string(filepath.Separator)))
}

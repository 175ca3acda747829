package definition_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	d "github.com/hogstream/hogstream/definition"
)

func TestEachSaveBelowTheDirectoryIsNoticedHoweverTheEditorSaves(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "definitions")
	write(t, dir, map[string]string{"vip.yaml": vip})
	ctx, stop := context.WithCancel(t.Context())
	seen := make(chan []string)
	ended := make(chan error, 1)
	go func() {
		ended <- d.WatchDir(ctx, dir, func() {
			ids := []string{}
			if files, err := d.Load(dir, options()); err == nil {
				for _, b := range files.Buckets {
					ids = append(ids, b.ID)
				}
			}
			select {
			case seen <- ids:
			case <-ctx.Done():
			}
		})
	}()
	until := func(what string, want ...string) {
		t.Helper()
		var last []string
		for deadline := time.After(20 * time.Second); ; {
			select {
			case last = <-seen:
				if assert.ObjectsAreEqual(append([]string{}, want...), last) {
					return
				}
			case <-deadline:
				require.Failf(t, "not noticed", "%s: want %v, last %v", what, want, last)
			}
		}
	}
	buckets := filepath.Join(dir, "buckets")
	file := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(buckets, name), []byte(text), 0o600))
	}

	until("as it was", "vip")
	file("old.yaml", old)
	until("a new file", "old", "vip")
	file("old.yaml", "id: {")
	until("written in place", "vip")
	file(".old.yaml.swp", old)
	require.NoError(t, os.Rename(filepath.Join(buckets, ".old.yaml.swp"), filepath.Join(buckets, "old.yaml")))
	until("written under another name and moved there", "old", "vip")
	require.NoError(t, os.Rename(filepath.Join(buckets, "old.yaml"), filepath.Join(buckets, "old.yaml~")))
	until("the old one moved away", "vip")
	file("old.yaml", old)
	until("and written anew", "old", "vip")
	require.NoError(t, os.Remove(filepath.Join(buckets, "vip.yaml")))
	until("removed", "old")
	require.NoError(t, os.RemoveAll(dir))
	until("the directory goes away")
	require.NoError(t, os.MkdirAll(buckets, 0o700))
	file("vip.yaml", vip)
	until("and comes back", "vip")
	stop()
	require.NoError(t, <-ended)
}

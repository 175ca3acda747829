package hogstream

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func lockedID(t *testing.T, dir string) string {
	t.Helper()
	lock, err := lockDataDir(dir)
	require.NoError(t, err)
	defer lock.unlock()
	id, err := lock.instanceID()
	require.NoError(t, err)
	require.NotEmpty(t, id)
	return id
}

func TestAnInstanceIsTheSameAfterARestartOnItsDataDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	before := lockedID(t, dir)
	require.Equal(t, before, lockedID(t, dir))
}

func TestACopyOfADataDirectoryIsAnotherInstance(t *testing.T) {
	dir, twin := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	id := lockedID(t, dir)
	require.NoError(t, os.CopyFS(twin, os.DirFS(dir)))
	for _, file := range []string{"lock", "instance-id"} {
		ours, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		theirs, err := os.ReadFile(filepath.Join(twin, file))
		require.NoError(t, err)
		require.Equal(t, ours, theirs, "all of it was copied")
	}
	require.NotEqual(t, id, lockedID(t, twin))
}

func TestADataDirectoryWhoseLockWasRemovedIsAnotherInstance(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDataDir(dir) // it lives on
	require.NoError(t, err)
	defer first.unlock()
	id, err := first.instanceID()
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "lock")))
	require.NotEqual(t, id, lockedID(t, dir))
}

func TestALockedDataDirectorySaysWhoHoldsIt(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDataDir(dir)
	require.NoError(t, err)
	_, err = lockDataDir(dir)
	require.ErrorContains(t, err, fmt.Sprintf("%s is held by process %d: stop it, or set HOGSTREAM_DATA_DIR", dir, os.Getpid()))
	lock.unlock()
	lockedID(t, dir)
}

// As in a child that is being started: it has all open files until it runs its program.
func TestADataDirectoryThatWasLetGoIsFreeThoughItsLockIsStillOpen(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDataDir(dir)
	require.NoError(t, err)
	inherited, err := syscall.Dup(int(lock.file.Fd()))
	require.NoError(t, err)
	defer func() { _ = syscall.Close(inherited) }()
	lock.unlock()
	again, err := lockDataDir(dir)
	require.NoError(t, err)
	again.unlock()
}

func TestAnInstanceIsAnotherByDirectoryBootDeviceOrFile(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{
		instanceDigest("a", "b", 1, 2), instanceDigest("x", "b", 1, 2), instanceDigest("a", "x", 1, 2),
		instanceDigest("a", "b", 9, 2), instanceDigest("a", "b", 1, 9),
	} {
		require.False(t, seen[id])
		seen[id] = true
	}
}

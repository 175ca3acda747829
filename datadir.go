package hogstream

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"
)

// dataLock is the lock of a data directory. The kernel lets it go when the process
// is gone with all its threads, and not before.
type dataLock struct {
	dir  string
	file *os.File
}

// heldError says that another process has the lock.
type heldError struct{ dir, holder string }

func (e heldError) Error() string {
	return fmt.Sprintf("the data directory %s is held by process %s: stop it, or set HOGSTREAM_DATA_DIR to another", e.dir, e.holder)
}

// lockDataDir makes this process the only one on dir, with a heldError while another
// is.
func lockDataDir(dir string) (*dataLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		return nil, heldError{dir, strings.TrimSpace(string(holder))}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock the data directory %s: %w", dir, err)
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return &dataLock{dir, f}, nil
}

// unlock lets the next process in. Nothing that the lock stands for may go on after
// it, so a process that serves leaves it to its end. It is not left to the closing alone: a
// child that another goroutine starts just now has the file open, too, until it runs its
// program, and with it would have the lock.
func (l *dataLock) unlock() {
	_ = syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN)
	_ = l.file.Close()
}

// instanceID is an id that no two living processes have, and that a process has
// again after a restart. It is a digest of
//
//   - a random id that the directory keeps,
//   - the device and inode of the lock file: the same for two processes of one kernel
//     only if they mean the same file, which the lock lets only one have,
//   - the boot of that kernel.
//
// So whoever finds its own id with a lease knows that the process that took it had
// this very lock, and is dead. A copy of the directory has another inode; one on
// another machine, or a network file system that several mount, is under another boot,
// whatever its locks are worth. After a reboot the id is a new one: a lease has then
// run out, or is waited for.
func (l *dataLock) instanceID() (string, error) {
	boot, err := bootID()
	if err != nil {
		return "", fmt.Errorf("which boot of the machine this is: %w", err)
	}
	random, err := keptInFile(l.dir, "instance-id", func() (string, error) { return uuid.NewString(), nil })
	if err != nil {
		return "", err
	}
	info, err := l.file.Stat()
	if err != nil {
		return "", fmt.Errorf("look at the lock of the data directory: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("this system does not number files")
	}
	return instanceDigest(random, boot, uint64(stat.Dev), stat.Ino), nil //nolint:unconvert // its type differs between systems
}

func instanceDigest(random, boot string, device, inode uint64) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d:%d", random, boot, device, inode))
	return hex.EncodeToString(sum[:16])
}

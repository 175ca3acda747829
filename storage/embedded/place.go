package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	superuser  = "postgres"
	socketPort = "5432"
	// maxSocketPath is what every Unix allows for the path of a socket, less
	// room for the suffix of Postgres's own lock file.
	maxSocketPath = 95
	// noteFile says, in the directory asked for, where the data is instead.
	noteFile = "elsewhere"
)

// rootBase is where data goes that the server's user could not reach. Only
// tests change it.
var rootBase = "/var/lib/hogstream"

// account is the user the server runs as.
type account struct {
	uid, gid uint32
	// drop says that we are root and must become it.
	drop bool
}

// place is where a server lives. home holds data/, run/ (unless its path is too
// long for a socket), lock and postgres.log.
type place struct {
	home      string
	socketDir string
	as        account
}

func (p place) dataDir() string  { return filepath.Join(p.home, "data") }
func (p place) lockFile() string { return filepath.Join(p.home, "lock") }
func (p place) logFile() string  { return filepath.Join(p.home, "postgres.log") }
func (p place) pidFile() string  { return filepath.Join(p.dataDir(), "postmaster.pid") }

// findPlace decides where the server of dir lives and as whom, and makes the
// directories.
func findPlace(dir string) (place, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return place{}, fmt.Errorf("embedded postgres: %w", err)
	}
	as, err := serverAccount(dir)
	if err != nil {
		return place{}, err
	}
	p := place{home: dir, as: as}
	if !as.reaches(dir) {
		if p.home, err = findElsewhere(dir); err != nil {
			return place{}, err
		}
	}
	if p.socketDir, err = makeSocketDir(p.home, as); err != nil {
		return place{}, err
	}
	return p, nil
}

// serverAccount is ourselves, or as root whoever owns the data already, else
// postgres, else nobody.
func serverAccount(dir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{uid: uint32(os.Geteuid()), gid: uint32(os.Getegid())}, nil
	}
	if info, err := os.Stat(filepath.Join(dir, "data", "PG_VERSION")); err == nil {
		if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 {
			return account{uid: st.Uid, gid: st.Gid, drop: true}, nil
		}
	}
	for _, name := range []string{"postgres", "_postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return account{uid: uint32(uid), gid: uint32(gid), drop: true}, nil
	}
	return account{}, errors.New("embedded postgres: Postgres does not run as root, and there is neither a user postgres nor nobody: start as another user, or set DATABASE_URL to a server")
}

// credential is nil unless we must become the account.
func (a account) credential() *syscall.Credential {
	if !a.drop {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// reaches reports whether the account may enter path and all above it.
func (a account) reaches(path string) bool {
	if !a.drop {
		return true
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return false
	}
	for dir := real; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		st := info.Sys().(*syscall.Stat_t)
		bit := fs.FileMode(0o001)
		switch {
		case st.Uid == a.uid:
			bit = 0o100
		case st.Gid == a.gid:
			bit = 0o010
		}
		if info.Mode().Perm()&bit == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// findElsewhere returns the reachable directory that stands for dir. The note in
// dir decides; when it is gone, so was dir, and what stood for it is thrown
// away: a database that outlives the log beside it would only contradict it.
func findElsewhere(dir string) (string, error) {
	note := filepath.Join(dir, noteFile)
	if text, err := os.ReadFile(note); err == nil {
		home := strings.TrimSpace(string(text))
		if filepath.Dir(home) == rootBase {
			return home, os.MkdirAll(home, 0o755)
		}
	}
	home := filepath.Join(rootBase, pathHash(dir))
	if err := discard(home, dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	if err := os.WriteFile(note, []byte(home+"\n"), 0o644); err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	return home, nil
}

// discard removes a home nobody holds, stopping a server that was left in it.
func discard(home, dir string) error {
	if _, err := os.Stat(home); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := holdLock(filepath.Join(home, "lock"), dir)
	if err != nil {
		return err
	}
	defer letGo(lock)
	stopOrphan(place{home: home})
	if err := os.RemoveAll(home); err != nil {
		return fmt.Errorf("embedded postgres: remove data of a directory that is gone: %w", err)
	}
	return nil
}

func pathHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}

// makeSocketDir prefers <home>/run, and else a short path under the temporary
// directory, derived from home so that the next start finds it.
func makeSocketDir(home string, as account) (string, error) {
	if dir := filepath.Join(home, "run"); len(dir) <= maxSocketPath-len("/.s.PGSQL."+socketPort) {
		return dir, ownDir(dir, as)
	}
	base := os.TempDir()
	if !as.reaches(base) || len(base) > maxSocketPath-50 {
		base = "/tmp"
	}
	dir := filepath.Join(base, fmt.Sprintf("hogstream-%d-%s", as.uid, pathHash(home)))
	return dir, ownDir(dir, as)
}

// ownDir makes a directory that the account alone can enter, and refuses one
// that somebody else put there: in a shared temporary directory that would be
// an invitation.
func ownDir(dir string, as account) error {
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if err == nil {
		if err := as.give(dir); err != nil {
			return err
		}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || st.Uid != as.uid {
		return fmt.Errorf("embedded postgres: %s belongs to user %d, the server runs as user %d: start as the user who made it, or remove it",
			dir, st.Uid, as.uid)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	return os.Chmod(dir, 0o700)
}

// give hands a file that root made to the account, so that its owner can start
// without root later.
func (a account) give(path string) error {
	if !a.drop {
		return nil
	}
	if err := os.Lchown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	return nil
}

// holdLock takes the directory for as long as the file stays open; the kernel
// lets go of it when the process dies, however it dies.
func holdLock(path, dir string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("embedded postgres: lock %s: %w", path, err)
		}
		text := make([]byte, 20)
		n, _ := file.ReadAt(text, 0)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, &HeldError{Dir: dir, PID: pid}
	}
	if err := file.Truncate(0); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	if _, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	return file, nil
}

// letGo unlocks before it closes: a child that another goroutine starts just now has the
// file open, too, until it runs its program, and with it would have the lock.
func letGo(lock *os.File) {
	_ = syscall.Flock(int(lock.Fd()), syscall.LOCK_UN)
	_ = lock.Close()
}

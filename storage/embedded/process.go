package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// poll is how often a start or a stop looks whether it is done. Postgres tells
// nobody but its pid file.
const poll = 5 * time.Millisecond

// process is a postmaster: our child, or one found running. It needs no
// goroutine, so that tests that count them are not disturbed.
type process struct {
	id    int
	child bool
}

func (p process) pid() int { return p.id }

func (p process) signal(sig syscall.Signal) {
	if p.id > 0 {
		_ = syscall.Kill(p.id, sig)
	}
}

// gone reports whether the process has ended; a child is reaped on the way.
func (p process) gone() bool {
	if p.id <= 0 {
		return true
	}
	if p.child {
		pid, err := syscall.Wait4(p.id, nil, syscall.WNOHANG, nil)
		// ECHILD: reaped by an earlier call.
		return pid == p.id || errors.Is(err, syscall.ECHILD)
	}
	return !alive(p.id)
}

// wait reports whether the process ended before ctx.
func (p process) wait(ctx context.Context) bool {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !p.gone() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// launch starts a server on the data, which it makes when there is none. The
// server is a session of its own: neither Ctrl-C in the terminal nor the death
// of this process reaches it. (Pdeathsig would: a killed process must not take
// its database down with it, the next start adopts it.)
func (s *Server) launch(ctx context.Context) error {
	bin, err := s.prepareCluster(ctx)
	if err != nil {
		return err
	}
	log, err := openLog(s.place)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(bin.path("postgres"), s.arguments()...)
	cmd.Dir = s.place.dataDir()
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: s.place.as.credential()}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("embedded postgres: start %s: %w", cmd.Path, err)
	}
	s.proc = process{id: cmd.Process.Pid, child: true}
	if err := s.awaitReady(ctx); err != nil {
		s.proc.signal(syscall.SIGQUIT)
		s.proc.wait(context.WithoutCancel(ctx))
		return err
	}
	return nil
}

// arguments keep the server small; everything else is Postgres's default.
func (s *Server) arguments() []string {
	settings := []string{
		"listen_addresses=",
		"unix_socket_directories=" + s.place.socketDir,
		"unix_socket_permissions=0700",
		"port=" + socketPort,
		"max_connections=" + strconv.Itoa(s.opts.MaxConnections),
		"shared_buffers=" + strconv.FormatUint(bufferMiB(memory()), 10) + "MB",
		"max_wal_size=1GB", // Postgres's own default; with 256MB a filling had a checkpoint each second, and pages written whole after each
		"wal_level=minimal",
		"max_wal_senders=0",
		// Statements are short; compiling them costs more than they do.
		"jit=off",
		"timezone=UTC",
		"log_timezone=UTC",
		"logging_collector=off",
		"log_min_messages=warning",
	}
	if s.opts.Disposable {
		// Commits stay synchronous: without fsync they cost next to nothing, and
		// a test that crashes the server must find what it committed.
		settings = append(settings, "fsync=off", "full_page_writes=off")
	}
	args := []string{"-D", s.place.dataDir()}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	return args
}

// bufferMiB is how much of the memory of the machine the server keeps pages in: taken as it is
// used. With Postgres's own default, the least of it, what a page cost that was not there, and
// what made room for it, was a third of a filling of 200,000 contacts. A dedicated server is
// given a quarter.
func bufferMiB(memory uint64) uint64 {
	const least, most = 128, 1024
	return min(max(memory>>20/16, least), most)
}

// serverEnv has the C library of Linux (glibc) keep what a statement took, up to 64 MB of a
// session, for the next: by default each batch is asked of the system and given back, a page
// fault for each page of it. That was a fifth of what Postgres spent on an event of identity
// and contacts.
func serverEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", //nolint:forbidigo // no setting: where the server finds its tools
		"MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TRIM_THRESHOLD_=67108864",
	}
}

// awaitReady waits for the word "ready" in the pid file, which the postmaster
// writes when it accepts connections.
func (s *Server) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if s.proc.gone() {
			return fmt.Errorf("embedded postgres: the server ended at once:\n%s", logTail(s.place))
		}
		if pid, status := readPIDFile(s.place); pid == s.proc.id && status == "ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("embedded postgres: not ready in time: %w:\n%s", context.Cause(ctx), logTail(s.place))
		case <-tick.C:
		}
	}
}

// readPIDFile returns the postmaster's process and status, 0 and "" when there
// is no such file or it is being written.
func readPIDFile(p place) (pid int, status string) {
	text, err := os.ReadFile(p.pidFile())
	if err != nil {
		return 0, ""
	}
	lines := strings.Split(string(text), "\n")
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return 0, ""
	}
	if len(lines) > 7 {
		status = strings.TrimSpace(lines[7])
	}
	return pid, status
}

// adoptPatience is how long a server that runs but answers nobody (its socket
// was removed by a cleaner, say) is waited for before it is stopped.
const adoptPatience = 2 * time.Second

// adopt takes over the server that a killed predecessor left running. It
// returns false when there is none, or none any more.
func (s *Server) adopt(ctx context.Context) (bool, error) {
	pid, _ := readPIDFile(s.place)
	if pid == 0 || !alive(pid) {
		// A pid file without its process is what a crash leaves; Postgres
		// clears it away itself.
		return false, nil
	}
	if !isPostgres(pid) {
		// The number belongs to somebody else now, which Postgres could take
		// for a running server and refuse to start.
		if err := os.Remove(s.place.pidFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("embedded postgres: remove stale pid file: %w", err)
		}
		return false, nil
	}
	s.proc = process{id: pid}
	if s.answers(ctx) {
		return true, nil
	}
	if s.proc.gone() {
		return false, nil
	}
	return false, s.shutDown(ctx)
}

// answers tries to connect to a server found running, patiently as long as that
// says that it is starting or stopping.
func (s *Server) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	patience := time.Now().Add(adoptPatience)
	tick := time.NewTicker(4 * poll)
	defer tick.Stop()
	for !s.proc.gone() {
		attempt, done := context.WithTimeout(ctx, adoptPatience)
		conn, err := pgx.Connect(attempt, s.URL("postgres"))
		if err == nil {
			_ = conn.Close(attempt)
		}
		done()
		if err == nil {
			return true
		}
		var pe *pgconn.PgError
		busy := errors.As(err, &pe) && pe.Code == "57P03"
		if !busy && time.Now().After(patience) {
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return false
}

// stopOrphan ends the server that was left in a place, if any.
func stopOrphan(p place) {
	pid, _ := readPIDFile(p)
	if pid == 0 || !alive(pid) || !isPostgres(pid) {
		return
	}
	proc := process{id: pid}
	proc.signal(syscall.SIGQUIT)
	ctx, cancel := context.WithTimeout(context.Background(), fastStop)
	defer cancel()
	proc.wait(ctx)
}

// isPostgres looks at the name of a running process.
func isPostgres(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		text, err = exec.Command("ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	}
	// When nobody can tell, believe the pid file: stopping is graceful.
	return err != nil || bytes.Contains(text, []byte("postgres"))
}

// openLog starts a new log and keeps the one before, which tells of the last end.
func openLog(p place) (*os.File, error) {
	_ = os.Rename(p.logFile(), p.logFile()+".1")
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	return log, p.as.give(p.logFile())
}

func logTail(p place) string {
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-2000):])
}

// prepareCluster returns the binaries that fit the data, after making the data
// when there is none. initdb works beside and is renamed into place, so that a
// killed first start leaves nothing half made.
func (s *Server) prepareCluster(ctx context.Context) (binaries, error) {
	data := s.place.dataDir()
	if text, err := os.ReadFile(filepath.Join(data, "PG_VERSION")); err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return binaries{}, fmt.Errorf("embedded postgres: %s/PG_VERSION: %w", data, err)
		}
		if err := ownDir(data, s.place.as); err != nil {
			return binaries{}, err
		}
		return findBinaries(ctx, s.opts, s.place.as, major)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return binaries{}, fmt.Errorf("embedded postgres: %w", err)
	}
	bin, err := findBinaries(ctx, s.opts, s.place.as, 0)
	if err != nil {
		return binaries{}, err
	}
	made := data + ".new"
	if s.opts.Template != "" {
		err = s.copyTemplate(ctx, bin, made)
	} else {
		fmt.Fprintf(s.opts.Progress, "Making a Postgres %d database in %s\n", bin.major, data)
		err = initdb(ctx, bin, made, s.place.as, !s.opts.Disposable)
	}
	if err != nil {
		return binaries{}, err
	}
	if err := os.Remove(data); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return binaries{}, fmt.Errorf("embedded postgres: %s holds something that is no database: %w", data, err)
	}
	if err := os.Rename(made, data); err != nil {
		return binaries{}, fmt.Errorf("embedded postgres: %w", err)
	}
	return bin, nil
}

func initdb(ctx context.Context, bin binaries, dir string, as account, durable bool) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if err := ownDir(dir, as); err != nil {
		return err
	}
	args := []string{"-D", dir, "-U", superuser, "--auth=trust", "--encoding=UTF8", "--locale=C"}
	if !durable {
		// Small segments keep the template small to copy.
		args = append(args, "--no-sync", "--wal-segsize=4")
	}
	return runAs(ctx, as, dir, bin.path("initdb"), args...)
}

// copyTemplate copies a cluster that one process of this user initialised for
// all.
func (s *Server) copyTemplate(ctx context.Context, bin binaries, to string) error {
	as := s.place.as
	if err := os.MkdirAll(s.opts.Template, 0o755); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	name := filepath.Join(s.opts.Template, fmt.Sprintf("%d-%d.%d-%s", as.uid, bin.major, bin.minor, pathHash(bin.dir)))
	lock, err := os.OpenFile(name+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	defer letGo(lock)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("embedded postgres: lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		if err := initdb(ctx, bin, name+".new", as, false); err != nil {
			return err
		}
		if err := os.Rename(name+".new", name); err != nil {
			return fmt.Errorf("embedded postgres: %w", err)
		}
	}
	// Also refuses a template that somebody else planted.
	if err := ownDir(name, as); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if err := ownDir(to, as); err != nil {
		return err
	}
	return runAs(ctx, as, to, "cp", "-R", name+"/.", to)
}

func runAs(ctx context.Context, as account, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: as.credential()}
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return fmt.Errorf("embedded postgres: %s: %w", filepath.Base(name), ctx.Err()) // what it said until it was killed is no answer
	}
	if err != nil {
		return fmt.Errorf("embedded postgres: %s: %w:\n%s", filepath.Base(name), err, out)
	}
	return nil
}

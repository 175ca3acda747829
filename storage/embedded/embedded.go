// Package embedded runs a Postgres of our own, for development and for tests,
// from binaries that the machine has or that are fetched once.
//
// What it promises:
//   - Data outlives its starter. The server is a session of its own; when the
//     process that started it is killed, it goes on with nothing lost, and the
//     next [Start] on the same directory adopts it.
//   - One holder. A second Start on a directory in use fails with a
//     [*HeldError] that names the holder's process.
//   - It works as a normal user and as root. Postgres refuses to run as root,
//     so then the server runs as the user postgres, or else nobody. When that
//     user cannot reach the directory asked for (a home with mode 0700, say),
//     the data is kept under /var/lib/hogstream in a subdirectory named after a
//     hash of the directory, and a file named "elsewhere" in the directory asked
//     for says where. Removing the directory asked for still removes the data:
//     the next Start finds the note gone and begins anew.
//   - It listens on a Unix socket in a directory that only the server's user
//     (and root) can enter, and on nothing else; so it needs no password.
//
// It needs a Unix.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say where the data is and how much care it deserves.
type Options struct {
	// Dir holds everything: data, socket, log, lock. Created when missing.
	Dir string
	// Database is created when missing; empty means "hogstream".
	Database string
	// Disposable turns fsync and everything like it off: for tests. Data then
	// survives a crash of the server, not one of the machine.
	Disposable bool
	// Tethered ends the server (at once, not gracefully) when this process
	// ends, in whatever way, and removes Dir: for tests. Such a server is never
	// adopted.
	Tethered bool
	// Template is a directory in which an initialised cluster of each version is
	// kept, to be copied instead of running initdb: for tests. It may be shared
	// by processes of one user.
	Template string
	// MaxConnections is the server's bound; 0 means 100.
	MaxConnections int
	// BinDir holds initdb and postgres; empty means the newest found.
	BinDir string
	// FetchFrom is a Maven repository to fetch binaries from when the machine
	// has none; empty means Maven Central.
	FetchFrom string
	// CacheDir keeps fetched binaries; empty means the user's cache directory
	// (as root: /var/lib/hogstream).
	CacheDir string
	// Progress is told, in a line each, what takes long: a fetch, the first
	// initdb. Nil means silence.
	Progress io.Writer
}

func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, errors.New("embedded postgres: Options.Dir is empty")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("embedded postgres: %w", err)
	}
	o.Dir = dir
	if o.Database == "" {
		o.Database = "hogstream"
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 100
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	return o, nil
}

// HeldError says that another process holds the directory.
type HeldError struct {
	// Dir is the directory asked for.
	Dir string
	// PID is its holder's process, 0 when that is unknown.
	PID int
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("embedded postgres: %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("embedded postgres: %s is in use by process %d; stop it first", e.Dir, e.PID)
}

// Server is a running Postgres. Its methods are safe for concurrent use, but
// Stop ends it for all.
type Server struct {
	opts  Options
	place place
	lock  *os.File
	proc  process
	// tether is nil unless Options.Tethered.
	tether *tether
	// Adopted says that the server was found running and taken over.
	Adopted bool
}

// startTimeout bounds the wait for a server to accept connections; recovery
// after a crash is part of it, a fetch and initdb are not.
const startTimeout = 60 * time.Second

// Start takes the directory, makes a cluster in it when it is empty, adopts or
// starts its server, and returns when that accepts connections and has the
// database. The first start takes as long as initdb (a second or two, more when
// binaries must be fetched), later ones a fraction of a second.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts}
	if s.place, err = findPlace(opts.Dir); err != nil {
		return nil, err
	}
	if s.lock, err = holdLock(s.place.lockFile(), opts.Dir); err != nil {
		return nil, err
	}
	if err := s.bringUp(ctx); err != nil {
		letGo(s.lock)
		s.tether.cut()
		return nil, err
	}
	return s, nil
}

func (s *Server) bringUp(ctx context.Context) error {
	if err := s.place.as.give(s.place.lockFile()); err != nil {
		return err
	}
	if s.opts.Tethered && s.tether == nil {
		var err error
		if s.tether, err = tie(s.place.home, s.opts.Dir); err != nil {
			return err
		}
	}
	adopted, err := s.adopt(ctx)
	if err != nil {
		return err
	}
	if !adopted {
		if err := s.launch(ctx); err != nil {
			return err
		}
	}
	s.Adopted = adopted
	if err := s.EnsureDatabase(ctx, s.opts.Database); err != nil {
		_ = s.Stop(context.WithoutCancel(ctx))
		return err
	}
	return nil
}

// URL is the address of a database of this server, for pgx and libpq alike.
func (s *Server) URL(database string) string {
	return s.place.url(database)
}

func (p place) url(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database}
	query := url.Values{
		"host":    {p.socketDir},
		"port":    {socketPort},
		"sslmode": {"disable"},
	}
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq does not read + as a space
	return u.String()
}

// PID is the process of the server.
func (s *Server) PID() int { return s.proc.pid() }

// EnsureDatabase creates a database of this server unless it exists.
func (s *Server) EnsureDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return fmt.Errorf("embedded postgres: connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var found bool
	const exists = `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`
	if err := conn.QueryRow(ctx, exists, name).Scan(&found); err != nil {
		return fmt.Errorf("embedded postgres: look for database %s: %w", name, err)
	}
	if found {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("embedded postgres: create database %s: %w", name, err)
	}
	return nil
}

// fastStop is how long open sessions get to end before the server is made to
// stop without a checkpoint.
const fastStop = 4 * time.Second

// Stop shuts the server down (open transactions roll back), waits until it is
// gone and lets go of the directory. It may be called twice. When ctx ends
// first, or after 4 s, the server is stopped without a checkpoint, which costs
// its next start a recovery and nothing else.
func (s *Server) Stop(ctx context.Context) error {
	defer s.tether.cut()
	defer letGo(s.lock)
	if err := s.shutDown(ctx); err != nil {
		return err
	}
	if s.place.socketDir != filepath.Join(s.place.home, "run") {
		_ = os.Remove(s.place.socketDir) // the next start makes it again
	}
	return nil
}

// Halt shuts the server down and keeps the directory, so that [Server.Relaunch] starts
// it again at the same URL. Clients are refused meanwhile.
func (s *Server) Halt(ctx context.Context) error { return s.shutDown(ctx) }

// Relaunch starts the server again after [Server.Halt].
func (s *Server) Relaunch(ctx context.Context) error { return s.launch(ctx) }

func (s *Server) shutDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fastStop)
	defer cancel()
	s.proc.signal(syscall.SIGINT)
	if s.proc.wait(ctx) {
		return nil
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), fastStop)
	defer cancel()
	s.proc.signal(syscall.SIGQUIT)
	if s.proc.wait(ctx) {
		return nil
	}
	return fmt.Errorf("embedded postgres: process %d does not stop", s.proc.pid())
}

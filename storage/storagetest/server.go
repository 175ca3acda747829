package storagetest

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/embedded"
)

// Server is a private server for tests of outages. Its methods fail the test
// when they cannot do as they say.
type Server struct {
	t      testing.TB
	server *embedded.Server
	url    string
	thaw   func()
}

// NewServer starts a private server with one migrated schema; it ends with the
// test. It takes a fraction of a second. The server is always an embedded one.
func NewServer(t testing.TB) *Server {
	t.Helper()
	server, err := startDisposable(100)
	if err != nil {
		t.Fatalf("storagetest: %v", err)
	}
	s := &Server{t: t, server: server, url: server.URL("postgres")}
	t.Cleanup(func() {
		s.Resume()
		if err := server.Stop(context.Background()); err != nil {
			t.Errorf("storagetest: %v", err)
		}
	})
	db := open(t, s.url)
	defer db.Close()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatalf("storagetest: %v", err)
	}
	return s
}

// URL is the address of the migrated schema; it stays the same over restarts.
func (s *Server) URL() string { return s.url }

// DB opens a DB on the migrated schema. It ends with the test and lives through
// outages.
func (s *Server) DB() *storage.DB {
	s.t.Helper()
	return open(s.t, s.url)
}

// Stop shuts the server down in good order; clients are refused from then on.
func (s *Server) Stop() {
	s.t.Helper()
	s.Resume()
	if err := s.server.Halt(context.Background()); err != nil {
		s.t.Fatalf("storagetest: %v", err)
	}
}

// Crash ends the server like a lost machine, without a checkpoint; what was committed
// stays.
func (s *Server) Crash() {
	s.t.Helper()
	s.Resume()
	_ = syscall.Kill(s.server.PID(), syscall.SIGQUIT)
	s.Stop()
}

// Start starts the server again and returns when it accepts connections.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.server.Relaunch(context.Background()); err != nil {
		s.t.Fatalf("storagetest: %v", err)
	}
}

// Pause freezes the server: clients wait for answers that do not come.
func (s *Server) Pause() {
	s.t.Helper()
	s.Resume()
	thaw, err := freeze(context.Background(), s.server)
	if err != nil {
		s.t.Fatalf("storagetest: %v", err)
	}
	s.thaw = thaw
}

// freeze stops the server and all its sessions in their tracks, as a hanging disk or
// network does. It returns how to let them go on, which must be called.
func freeze(ctx context.Context, server *embedded.Server) (thaw func(), err error) {
	conn, err := pgx.Connect(ctx, server.URL("postgres"))
	if err != nil {
		return nil, fmt.Errorf("freeze: connect: %w", err)
	}
	// The postmaster first, so that it starts no session that we do not see.
	frozen := []int{server.PID()}
	thaw = func() {
		for _, pid := range slices.Backward(frozen) {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
		_ = conn.Close(context.WithoutCancel(ctx))
	}
	_ = syscall.Kill(server.PID(), syscall.SIGSTOP)
	pids, err := sessions(ctx, conn)
	if err != nil {
		thaw()
		return nil, fmt.Errorf("freeze: list sessions: %w", err)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
		frozen = append(frozen, pid)
	}
	return thaw, nil
}

func sessions(ctx context.Context, conn *pgx.Conn) ([]int, error) {
	rows, err := conn.Query(ctx, `SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// Resume lets a paused server go on; it does nothing otherwise.
func (s *Server) Resume() {
	if s.thaw != nil {
		s.thaw()
		s.thaw = nil
	}
}

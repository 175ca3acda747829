package storagetest

import (
	"context"
	"testing"

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
func (s *Server) Stop() { s.halt(false) }

// Crash ends the server without any order; what was committed stays.
func (s *Server) Crash() { s.halt(true) }

func (s *Server) halt(crash bool) {
	s.t.Helper()
	s.Resume()
	if err := s.server.Halt(context.Background(), crash); err != nil {
		s.t.Fatalf("storagetest: %v", err)
	}
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
	thaw, err := s.server.Freeze(context.Background())
	if err != nil {
		s.t.Fatalf("storagetest: %v", err)
	}
	s.thaw = thaw
}

// Resume lets a paused server go on; it does nothing otherwise.
func (s *Server) Resume() {
	if s.thaw != nil {
		s.thaw()
		s.thaw = nil
	}
}

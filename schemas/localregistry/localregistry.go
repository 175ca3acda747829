// Package localregistry is the schema registry of embedded mode and of tests: it
// speaks Confluent's API on a loopback port and keeps what was registered in a
// file, so that the ids in a broker's records mean the same after a restart.
//
// It promises that an id is on disk before it is given out, and never means
// another schema. It does not check compatibility; a test of package schemas does.
package localregistry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// fileName holds the schemas, in the directory given to Start.
const fileName = "schemas.json"

// Server is a running registry.
type Server struct {
	path     string // empty: memory only
	registry *srfake.Registry
	listener net.Listener
	http     *http.Server
	served   chan struct{}
	moved    bool

	mu sync.Mutex // one registration at a time, with its write to disk
}

// entry is one version of a subject as the file keeps it.
type entry struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
	ID      int    `json:"id"`
	Schema  string `json:"schema"`
}

// Start starts a registry on loopback with the schemas found in dir,
// which is created if it is missing. An empty dir keeps everything in memory. A
// file that cannot be read is an error: giving out its ids anew would make every
// record unreadable.
func Start(dir string) (*Server, error) { return StartOn(dir, 0) }

// StartOn is Start on a port of loopback, which must be free. 0 is the port of the last
// start in dir when it is free, else any.
func StartOn(dir string, port int) (*Server, error) {
	s := &Server{registry: srfake.NewRegistry(), served: make(chan struct{})}
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("start the schema registry: %w", err)
		}
		s.path = filepath.Join(dir, fileName)
		if err := s.load(); err != nil {
			return nil, fmt.Errorf("start the schema registry: read %s: %w", s.path, err)
		}
	}
	if err := s.listen(dir, port); err != nil {
		return nil, fmt.Errorf("start the schema registry: %w", err)
	}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(s.listener) // ends with ErrServerClosed
	}()
	return s, nil
}

// listen takes the port, and keeps it in dir for the next start.
func (s *Server) listen(dir string, port int) (err error) {
	kept := filepath.Join(dir, "port")
	last := 0
	if dir != "" && port == 0 {
		if text, err := os.ReadFile(kept); err == nil {
			last, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		}
	}
	s.listener, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(max(port, last))))
	if err != nil && port == 0 && last != 0 {
		s.moved = true
		s.listener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil || dir == "" {
		return err
	}
	_, at, err := net.SplitHostPort(s.listener.Addr().String())
	if err == nil {
		err = os.WriteFile(kept, []byte(at+"\n"), 0o600)
	}
	if err != nil {
		_ = s.listener.Close()
	}
	return err
}

// Moved reports whether the port of the last start was taken, and another one is used.
func (s *Server) Moved() bool { return s.moved }

// URL returns the address of the registry, `http://127.0.0.1:<port>`.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close lets requests in hand finish and stops the server. Calling it twice is
// harmless.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	<-s.served
	return err
}

// serve passes requests on. What may change a schema is answered after the
// change is on disk.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if s.path == "" || r.Method == http.MethodGet {
		s.registry.Handler().ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := httptest.NewRecorder()
	s.registry.Handler().ServeHTTP(answer, r)
	if answer.Code < 300 {
		if err := s.save(); err != nil {
			http.Error(w, `{"error_code":50001,"message":"the schemas could not be written to disk"}`, http.StatusInternalServerError)
			return
		}
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// load seeds the registry. Subjects with the same schema share an id: the first
// brings it, the others are registered and find it.
func (s *Server) load() (err error) {
	text, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var entries []entry
	if err := json.Unmarshal(text, &entries); err != nil {
		return err
	}
	// The fake panics on what it cannot seed, such as one version twice.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	seeded := make(map[int]bool)
	for _, e := range entries {
		schema := sr.Schema{Schema: e.Schema, Type: sr.TypeAvro}
		if !seeded[e.ID] {
			s.registry.SeedSchema(e.Subject, e.Version, e.ID, schema)
			seeded[e.ID] = true
			continue
		}
		id, _, err := s.registry.RegisterSchema(e.Subject, schema)
		if err != nil {
			return err
		}
		if id != e.ID {
			return fmt.Errorf("subject %s version %d has id %d, its schema has id %d", e.Subject, e.Version, e.ID, id)
		}
	}
	return nil
}

// save writes all schemas to a new file that then takes the old one's place.
func (s *Server) save() error {
	entries, err := s.entries()
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(entries, "", " ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(s.path), fileName+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already when all went well
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), s.path)
}

// entries asks the fake for all it has, also what was marked as deleted: records
// may still carry its id. Lower versions come first, as load needs them.
func (s *Server) entries() ([]entry, error) {
	answer := httptest.NewRecorder()
	s.registry.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/schemas?deleted=true", strings.NewReader("")))
	var all []sr.SubjectSchema
	if err := json.Unmarshal(answer.Body.Bytes(), &all); err != nil {
		return nil, fmt.Errorf("list the schemas: %w", err)
	}
	entries := make([]entry, 0, len(all))
	for _, v := range all {
		entries = append(entries, entry{v.Subject, v.Version, v.ID, v.Schema.Schema})
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Subject, b.Subject))
	})
	return entries, nil
}

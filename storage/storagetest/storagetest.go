// Package storagetest gives tests a real Postgres.
//
// [New] and [URL] give each test a migrated schema of its own, on one server
// shared by the tests of a binary; they may run in parallel. The server is the
// one of HOGSTREAM_TEST_DATABASE_URL when that is set (its user must be allowed
// to create schemas), else an embedded one, started at the first use and gone
// when the test binary ends, however it ends.
//
// [NewServer] gives a private server that a test can stop, crash, freeze and
// start again.
package storagetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/embedded"
	"github.com/hogstream/hogstream/storage/internal/raw"
)

// envURL names a server to use instead of an embedded one.
const envURL = "HOGSTREAM_TEST_DATABASE_URL"

// patience bounds every step on the way to a database and away from it.
const patience = time.Minute

// New returns a DB on a fresh, migrated schema. Both end with the test.
func New(t testing.TB) *storage.DB {
	t.Helper()
	return open(t, URL(t))
}

// URL returns the address of a fresh, migrated schema, for tests that open
// their own DB or start a whole process. The schema is dropped when the test
// ends, after the cleanups registered later than this call.
func URL(t testing.TB) string {
	t.Helper()
	fresh := EmptyURL(t)
	db := open(t, fresh)
	defer db.Close()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatalf("storagetest: %v", err)
	}
	return fresh
}

// EmptyURL is [URL] without the migrations: for tests of migrating.
func EmptyURL(t testing.TB) string {
	t.Helper()
	server, err := sharedURL()
	if err != nil {
		t.Fatalf("storagetest: %v", err)
	}
	return schemaURL(t, server)
}

func open(t testing.TB, address string) *storage.DB {
	t.Helper()
	db, err := storage.Open(t.Context(), storage.Config{URL: address, MaxConns: 10})
	if err != nil {
		t.Fatalf("storagetest: %v", err)
	}
	t.Cleanup(db.Close)
	return db
}

// SQL runs statements that a test writes itself, on a *storage.DB or in a *storage.Tx.
func SQL(on interface{ Raw(raw.Key) raw.Querier }) raw.Querier { return on.Raw(raw.Key{}) }

// schemaURL creates a schema on a server and returns an address whose
// search_path is that schema.
func schemaURL(t testing.TB, server string) string {
	t.Helper()
	suffix := make([]byte, 8)
	_, _ = rand.Read(suffix) // never fails
	schema := "test_" + hex.EncodeToString(suffix)
	run(t, server, `CREATE SCHEMA `+schema)
	t.Cleanup(func() {
		// A process that still holds a lock must not hang the tests.
		run(t, server, `SET lock_timeout = '10s'; SET client_min_messages = warning; DROP SCHEMA `+schema+` CASCADE`)
	})
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("storagetest: %s: %v", envURL, err)
	}
	query := u.Query()
	query.Set("search_path", schema)
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq does not read + as a space
	return u.String()
}

func run(t testing.TB, server, sql string) {
	t.Helper()
	// The test's own context is cancelled before its cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Errorf("storagetest: connect: %v", err)
		return
	}
	defer conn.Close(ctx)
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	for deadlocked(err) {
		// A process that was killed may still have a statement under way, which takes
		// locks in another order. One of the two is asked to come again.
		_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	}
	if err != nil {
		t.Errorf("storagetest: %s: %v", sql, err)
	}
}

func deadlocked(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40P01"
}

// sharedURL starts the server of this test binary, once.
var sharedURL = sync.OnceValues(func() (string, error) {
	if address := os.Getenv(envURL); address != "" {
		return address, nil
	}
	server, err := startDisposable(300)
	if err != nil {
		return "", err
	}
	return server.URL("postgres"), nil
})

func startDisposable(maxConnections int) (*embedded.Server, error) {
	dir, err := disposableDir()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return embedded.Start(ctx, embedded.Options{
		Dir:            dir,
		Database:       "postgres",
		Disposable:     true,
		Tethered:       true,
		MaxConnections: maxConnections,
		Template:       filepath.Join(os.TempDir(), fmt.Sprintf("hogstream-pg-templates-%d", os.Getuid())),
	})
}

// disposableDir is not made by os.MkdirTemp, whose mode 0700 the server's user
// could not enter when the tests run as root.
func disposableDir() (string, error) {
	suffix := make([]byte, 8)
	_, _ = rand.Read(suffix)
	dir := filepath.Join(os.TempDir(), "hogstream-pg-"+hex.EncodeToString(suffix))
	return dir, os.Mkdir(dir, 0o755)
}

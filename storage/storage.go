// Package storage is Hogstream's Postgres: what must be looked up lives here,
// and each table group has one file with its SQL.
//
// What the package promises the others:
//   - It is the only importer of pgx and goose. What must be in a transaction is
//     a method of *Tx, the rest of *DB; what may be called in and out of one both
//     have. Other packages see rows as structs.
//   - A transaction commits as a whole or leaves nothing. Whether a commit
//     whose connection broke took effect is unknown; who needs to know reads
//     again under the lock of a row it owns.
//   - An error is told apart: [IsRetryable] (run the same work again),
//     [IsUnavailable] (an outage: wait, lose nothing), [IsRecordFault] (the
//     data can never be stored). What is none of these is a defect of ours.
//   - Everything happens in the schema that search_path of the URL names, also
//     notifications and the lock of migrations, so several Hogstreams can
//     share one database.
//   - Times are UTC at the border.
package storage

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Config says which database and how much of it to use. The zero value of every
// field but URL means its default.
type Config struct {
	// URL is a libpq URL or key/value string. A search_path in it is honoured;
	// a schema it names that does not exist yet is created by Migrate. So are
	// application_name, connect_timeout (5 s unless it says so) and
	// idle_in_transaction_session_timeout.
	URL string
	// MaxConns bounds the pool; 0 means 16. Each processor worker holds one
	// connection while it applies a batch. Listen takes one more for each call.
	MaxConns int32
}

// Validate reports everything that is wrong, one line a field.
func (c Config) Validate() error {
	var errs []error
	if strings.TrimSpace(c.URL) == "" {
		errs = append(errs, errors.New("storage: URL is empty: set DATABASE_URL, for example postgres://user:password@localhost:5432/hogstream"))
	} else if _, err := pgxpool.ParseConfig(c.URL); err != nil {
		// pgx redacts the password in its message.
		errs = append(errs, fmt.Errorf("storage: URL: %w", err))
	}
	if c.MaxConns < 0 {
		errs = append(errs, fmt.Errorf("storage: MaxConns %d: must be positive, or 0 for the default", c.MaxConns))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.MaxConns == 0 {
		c.MaxConns = 16
	}
	return c
}

const (
	connectTimeout = 5 * time.Second
	// idleTxTimeout ends a transaction whose client has gone silent, so that a
	// stopped process, or one whose machine is gone, does not keep the locks that its
	// successor waits for: as long as a lease lasts.
	idleTxTimeout = 15 * time.Second
)

// Option adds what the process shares with the database to [Open].
type Option func(*options)

type options struct {
	log      *zap.Logger
	registry prometheus.Registerer
	traces   trace.TracerProvider
}

// WithLogger logs reconnects; without it, nothing is logged.
func WithLogger(log *zap.Logger) Option { return func(o *options) { o.log = log } }

// WithRegisterer registers the pool's figures (hogstream_postgres_*). Close
// takes them out again.
func WithRegisterer(r prometheus.Registerer) Option { return func(o *options) { o.registry = r } }

// WithTracerProvider sets where query spans go; without it, to the global one.
// Spans carry the statement, never its parameters, and are made only within a
// span that is recorded.
func WithTracerProvider(p trace.TracerProvider) Option { return func(o *options) { o.traces = p } }

// DB is a pool of connections to one schema of one database. It is safe for
// concurrent use and outlives outages of the server: connections that broke are
// replaced when the server is back.
type DB struct {
	queries

	pool      *pgxpool.Pool
	log       *zap.Logger
	unmeasure func()
}

// Open connects and checks that the server answers. An error that
// [IsUnavailable] accepts may go away by itself; any other is a wrong Config.
// It neither looks at nor changes the schema: see [DB.RequireSchema] and
// [DB.Migrate].
func Open(ctx context.Context, cfg Config, opts ...Option) (*DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := options{log: zap.NewNop()}
	for _, opt := range opts {
		opt(&o)
	}
	pool, err := pgxpool.NewWithConfig(ctx, poolConfig(cfg.withDefaults(), o))
	if err != nil {
		return nil, fmt.Errorf("open postgres pool: %w", err)
	}
	db := &DB{queries: queries{pool}, pool: pool, log: o.log, unmeasure: func() {}}
	if err := db.Ping(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	if o.registry != nil {
		db.unmeasure = measurePool(o.registry, pool)
	}
	return db, nil
}

// poolConfig is called with a validated Config. Statements are prepared once a
// connection and cached (pgx's default), which is worth a third of the time of
// a small batch.
func poolConfig(cfg Config, o options) *pgxpool.Config {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		panic("storage: poolConfig before Validate: " + err.Error())
	}
	pc.MaxConns = cfg.MaxConns
	pc.MaxConnLifetimeJitter = pc.MaxConnLifetime / 10
	conn := pc.ConnConfig
	if conn.ConnectTimeout == 0 {
		conn.ConnectTimeout = connectTimeout
	}
	conn.DialFunc = newDialer().DialContext
	setDefault(conn.RuntimeParams, "application_name", "hogstream")
	setDefault(conn.RuntimeParams, "timezone", "UTC")
	setDefault(conn.RuntimeParams, "idle_in_transaction_session_timeout", fmt.Sprint(idleTxTimeout.Milliseconds()))
	traceOpts := []otelpgx.Option{otelpgx.WithDisableConnectionDetailsInAttributes()}
	if o.traces != nil {
		traceOpts = append(traceOpts, otelpgx.WithTracerProvider(o.traces))
	}
	conn.Tracer = otelpgx.NewTracer(traceOpts...)
	return pc
}

func setDefault(params map[string]string, name, value string) {
	if _, set := params[name]; !set {
		params[name] = value
	}
}

// Close waits for running transactions and closes every connection. It may be
// called twice. Calls made after it fail with an error that [IsUnavailable]
// accepts.
func (db *DB) Close() {
	db.unmeasure()
	db.pool.Close()
}

// Ping reports whether the server answers a statement now.
func (db *DB) Ping(ctx context.Context) error {
	if err := db.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping postgres: %w", err)
	}
	return nil
}

// URL is the address this DB was opened with, without password, for logs and
// for `hogstream doctor`.
func (db *DB) URL() string {
	c := db.pool.Config().ConnConfig
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Path: "/" + c.Database}
	query := url.Values{}
	if strings.HasPrefix(c.Host, "/") {
		query.Set("host", c.Host)
		query.Set("port", fmt.Sprint(c.Port))
	} else {
		u.Host = fmt.Sprintf("%s:%d", c.Host, c.Port)
	}
	if path := c.RuntimeParams["search_path"]; path != "" {
		query.Set("search_path", path)
	}
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq does not read + as a space
	return u.String()
}

// rollbackTime bounds a rollback when the caller's context is gone; after it
// the connection is thrown away, which rolls back too.
const rollbackTime = 5 * time.Second

// InTx runs fn in a READ COMMITTED transaction and commits it when fn returns
// nil; on an error or a panic of fn it rolls back. fn runs once: on an error
// that [IsRetryable] accepts the caller runs the whole work again, or has
// [DB.InRetriedTx] do so. When the
// commit itself fails on a broken connection, its outcome is unknown.
func (db *DB) InTx(ctx context.Context, fn func(*Tx) error) error {
	return db.inTx(ctx, pgx.TxOptions{}, fn)
}

// maxTries is how often InRetriedTx runs work that loses races.
const maxTries = 6

// InRetriedTx is InTx for work that may lose a race with others, such as a deadlock:
// while it fails with an error that [IsRetryable] accepts, fn runs again from its
// start in a new transaction, a few times. fn sets all that it sets anew each time.
func (db *DB) InRetriedTx(ctx context.Context, fn func(*Tx) error) error {
	for try := 1; ; try++ {
		err := db.InTx(ctx, fn)
		if err == nil || !IsRetryable(err) || try == maxTries {
			return err
		}
	}
}

// InBatch is InTx for statements that touch rows by their keys, for as many
// keys as a batch has. Left to itself the planner reads a whole table when a
// batch has a tenth as many keys as the table has rows, and plans anew each
// time. Measured with 5,000 keys and 50,000 contacts: identity's lookup took 457 ms
// to 751 ms so and 292 ms by keys; Postgres spent about 6% more on an event.
//
// What is only written goes to the server with what is read next, and at the end with the
// commit, so an error of it may come from there. It stands in the order of all statements.
func (db *DB) InBatch(ctx context.Context, fn func(*Tx) error) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer conn.Release()
	defer rollBack(ctx, conn.Conn())
	tx := newBatchTx(db.pool, conn, `BEGIN`)
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.pipeline.commit(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// byKeys has statements of a transaction touch rows by keys, and planned once.
const byKeys = `SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)`

// rollBack ends the transaction that a connection is in; none is left after a commit. The
// caller's context may be why it failed.
func rollBack(ctx context.Context, conn *pgx.Conn) {
	const idle = 'I'
	if conn.IsClosed() || conn.PgConn().TxStatus() == idle {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_, _ = conn.Exec(ctx, `ROLLBACK`) // if that fails, the pool throws the connection away
}

// InLongTx is InTx for work that may be silent for long between two statements, as
// when it reads a whole topic: IdleTxTimeout does not end it.
func (db *DB) InLongTx(ctx context.Context, fn func(*Tx) error) error {
	return db.inTx(ctx, pgx.TxOptions{BeginQuery: `BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0`}, fn)
}

func (db *DB) inTx(ctx context.Context, opts pgx.TxOptions, fn func(*Tx) error) error {
	tx, err := db.pool.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer rollback(ctx, tx) // a no-op after Commit
	if err := fn(&Tx{queries: queries{tx}, pool: db.pool}); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("commit transaction: %w", err)
	}
	return nil
}

// rollback ends a transaction, also when the caller's context is why it failed.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_ = tx.Rollback(ctx)
}

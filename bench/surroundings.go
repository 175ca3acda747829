package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/localregistry"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/embedded"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
)

// surroundings are a broker in a process of its own, a schema registry, and
// Postgres when it was asked for.
type surroundings struct {
	kafka stream.Config
	codec *schemas.Codec
	db    *storage.DB   // nil without Postgres
	sql   *pgxpool.Pool // plain SQL on the same database: the other side of a ratio

	brokerPID, postgresPID int
	registryURL, dbURL     string

	opened []func() error // to be closed, last first
}

// brokerPart is kfake in memory.
func brokerPart(_ []string, stop <-chan struct{}, say func(string)) error {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	defer cluster.Close()
	localbroker.StampAppendTime(cluster)
	say(cluster.ListenAddrs()[0])
	<-stop
	return nil
}

// surround starts what a bench needs. close must be called, also after an error.
func surround(ctx context.Context, cfg Config, withPostgres bool, dbOpts ...storage.Option) (s *surroundings, err error) {
	s = &surroundings{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	broker, err := startPart(ctx, "broker")
	if err != nil {
		return s, err
	}
	s.onClose(func() error { broker.close(); return nil })
	s.brokerPID = broker.cmd.Process.Pid
	s.kafka = stream.Config{Brokers: []string{broker.addr}, Prefix: "bench.", Instance: "bench"}
	if err := stream.EnsureTopics(ctx, s.kafka, cfg.Logger); err != nil {
		return s, err
	}
	if err := s.startRegistry(ctx); err != nil {
		return s, err
	}
	if withPostgres {
		return s, s.startPostgres(ctx, cfg, true, dbOpts...)
	}
	return s, nil
}

func (s *surroundings) startRegistry(ctx context.Context) error {
	server, err := localregistry.Start("")
	if err != nil {
		return err
	}
	s.onClose(server.Close)
	s.registryURL = server.URL()
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{s.registryURL}, Prefix: s.kafka.Prefix})
	if err != nil {
		return err
	}
	s.codec = registry.Codec()
	return registry.Register(ctx)
}

// startPostgres starts one, with fsync off when it is disposable and as `hogstream dev` has
// it otherwise.
func (s *surroundings) startPostgres(ctx context.Context, cfg Config, disposable bool, opts ...storage.Option) error {
	dir, err := os.MkdirTemp("", "hogstream-bench-")
	if err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	s.onClose(func() error { return os.RemoveAll(dir) })
	server, err := embedded.Start(ctx, embedded.Options{
		Dir: filepath.Join(dir, "postgres"), Disposable: disposable, Tethered: true, Progress: cfg.Progress,
	})
	if err != nil {
		return err
	}
	s.onClose(func() error { return server.Stop(context.WithoutCancel(ctx)) })
	s.postgresPID = server.PID()
	s.dbURL = server.URL("")
	if s.db, err = storage.Open(ctx, storage.Config{URL: s.dbURL}, opts...); err != nil {
		return err
	}
	s.onClose(func() error { s.db.Close(); return nil })
	if _, err = s.db.Migrate(ctx); err != nil {
		return err
	}
	if s.sql, err = pgxpool.New(ctx, s.dbURL); err != nil {
		return err
	}
	s.onClose(func() error { s.sql.Close(); return nil })
	return nil
}

// atRest leaves nothing of what was just made for later: rows to be vacuumed, the longer the more
// there are, and pages to be written, which the kernel does all at once when they are half a
// minute old. Either would fall into the midst of a round.
func (s *surroundings) atRest(ctx context.Context) error {
	for _, sql := range []string{`VACUUM ANALYZE`, `CHECKPOINT`} {
		if _, err := s.sql.Exec(ctx, sql); err != nil {
			return fmt.Errorf("put what was made to rest: %w", err)
		}
	}
	syscall.Sync()
	return nil
}

func (s *surroundings) onClose(f func() error) { s.opened = append(s.opened, f) }

// close ends everything that was started.
func (s *surroundings) close() error {
	var errs []error
	for i := len(s.opened) - 1; i >= 0; i-- {
		errs = append(errs, s.opened[i]())
	}
	s.opened = nil
	return errors.Join(errs...)
}

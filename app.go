package hogstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/ingest"
	"github.com/hogstream/hogstream/program"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
)

// App is Hogstream in a process: it opens storage and stream, builds the services
// of its roles, runs them and stops them. Made by New, run once by Run.
type App struct {
	cfg   Config
	added options // by a program that embeds us
	tel   *Telemetry
	box   *storage.Box
	db    *storage.DB
	reg   *schemas.Registry
	codec *schemas.Codec
	log   *stream.Log
	admin *stream.Admin

	deliverer    *sinks.Deliverer
	programs     *program.Workers // of processors; nil where none run
	zone         *time.Location   // the deployment's
	destinations *storage.Destinations
	operations   *destinations.Operations
	definitions  *definition.Watcher
	differing    atomic.Int64 // definitions here from those in use

	lock      *dataLock           // of the data directory; nil where it proves nothing
	moved     []string            // servers of dev mode that are not where they were
	ownBroker *localbroker.Broker // lives and dies with this process; nil for others

	// ready are asked by the readiness probe.
	ready []check
}

// check is nil while a part works, and otherwise says what it waits for.
type check struct {
	name string
	run  func(ctx context.Context) error
}

// New checks the settings and what the options add. Nothing is opened before Run.
func New(cfg Config, with ...Option) (*App, error) {
	if err := cfg.ValidateServing(); err != nil {
		return nil, err
	}
	var added options
	for _, option := range with {
		option(&added)
	}
	if err := (sinks.Config{OwnKinds: added.kinds}).Validate(); err != nil {
		return nil, err
	}
	if cfg.Instance == "" {
		name, err := keptInFile(cfg.DataDir, "instance", newInstanceName)
		if err != nil {
			return nil, fmt.Errorf("HOGSTREAM_INSTANCE is not set and cannot be kept: %w", err)
		}
		cfg.Instance = name
	}
	app := &App{cfg: cfg, added: added}
	if _, err := app.readDefinitions(); err != nil {
		return nil, err
	}
	return app, nil
}

// newInstanceName is unique, and says where the instance was first started.
func newInstanceName() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "hogstream"
	}
	return host + "-" + uuid.NewString()[:8], nil
}

// Run opens everything, calls ready with the address of the API, or of health alone,
// once all roles have started, and serves until
// ctx ends or a role fails. It stops in the order that loses nothing: no new
// requests, then processors and deliveries finish what is in hand.
func (a *App) Run(ctx context.Context, ready func(net.Addr) error) (err error) {
	defer func() { err = errors.Join(err, a.close(ctx)) }()
	if err := a.open(ctx); err != nil {
		return err
	}
	a.resealDestinations(ctx)
	a.seedDestinations(ctx)
	if err := a.startDefinitions(ctx); err != nil {
		return err
	}
	if err := a.noteBeginnings(ctx); err != nil {
		return err
	}
	services, err := a.services()
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	group, running := errgroup.WithContext(ctx)
	addr, err := a.serve(running, group, &services)
	if err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	for _, r := range services {
		group.Go(func() error {
			if err := r.run(running); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			return nil
		})
	}
	group.Go(func() error { return ready(addr) })
	return group.Wait()
}

// service runs until its context ends.
type service struct {
	name string
	run  func(ctx context.Context) error
}

// open opens what all roles share. Postgres, the registry and the brokers may come
// up later than we do, or go away meanwhile: they are waited for.
func (a *App) open(ctx context.Context) (err error) {
	if a.tel, err = NewTelemetry(ctx, a.cfg.Log, a.cfg.Instance); err != nil {
		return err
	}
	for _, what := range a.moved {
		a.tel.Logger.Warn("dev.port_taken", zap.String("moved", what))
	}
	if err := a.lockData(); err != nil {
		return err
	}
	if err := a.openStorage(ctx); err != nil {
		return err
	}
	if err := a.openStream(ctx); err != nil {
		return err
	}
	return a.openSinks()
}

// lockData locks the data directory of a process that delivers, to its end, so that
// a restart can prove that this process is dead. A directory that cannot be written
// proves nothing, and is no reason not to serve; one that another process has is.
func (a *App) lockData() (err error) {
	if a.lock != nil || !a.cfg.Plays(RoleSinks) {
		return nil
	}
	a.lock, err = lockDataDir(a.cfg.DataDir)
	var held heldError
	if err != nil && !errors.As(err, &held) {
		a.tel.Logger.Warn("instance.unproven", zap.Error(err))
		return nil
	}
	return err
}

// instanceID is the proof that leases carry; "" for none.
func (a *App) instanceID() string {
	if a.lock == nil {
		return ""
	}
	id, err := a.lock.instanceID()
	if err != nil {
		a.tel.Logger.Warn("instance.unproven", zap.Error(err))
	}
	return id
}

func (a *App) openStorage(ctx context.Context) (err error) {
	keys, err := a.cfg.Keys()
	if err != nil {
		return err
	}
	if a.box, err = storage.NewBox(keys[0], keys[1:]...); err != nil {
		return err
	}
	err = a.retry(ctx, "Postgres", storage.IsUnavailable, func(ctx context.Context) (err error) {
		a.db, err = storage.Open(ctx, storage.Config{URL: a.cfg.Database.URL, MaxConns: a.cfg.Database.MaxConns},
			storage.WithLogger(a.tel.Logger.Logger), storage.WithRegisterer(a.tel.Metrics), storage.WithTracerProvider(otel.GetTracerProvider()))
		return err
	})
	if err != nil {
		return fmt.Errorf("open Postgres: %w", err)
	}
	return a.retry(ctx, "Postgres", storage.IsUnavailable, a.prepareSchema)
}

// prepareSchema brings the schema of a developer's instance up to date, and checks
// that it is.
func (a *App) prepareSchema(ctx context.Context) error {
	if a.cfg.Dev {
		if _, err := a.db.Migrate(ctx); err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
	}
	if a.cfg.Database.SkipSchemaCheck {
		return nil
	}
	return a.db.RequireSchema(ctx)
}

func (a *App) openStream(ctx context.Context) (err error) {
	kafka := a.kafka()
	kafka.ClientMetrics = a.tel.Metrics
	a.reg, err = schemas.NewRegistry(a.cfg.registryConfig(func(err error, wait time.Duration) {
		a.tel.Logger.Warn("schemas.registry_unavailable", zap.Error(err), zap.Duration("wait", wait))
	}))
	if err != nil {
		return err
	}
	if err := a.reg.Register(ctx); err != nil {
		var certificate *tls.CertificateVerificationError
		if errors.As(err, &certificate) {
			err = fmt.Errorf("%w: name the file of its CA in SCHEMA_REGISTRY_TLS_CA", err)
		}
		return fmt.Errorf("register schemas: %w", err)
	}
	a.codec = a.reg.Codec()
	kafka.Contents = a.codec
	if a.admin, err = stream.OpenAdmin(kafka, a.tel.Logger.Logger); err != nil {
		return err
	}
	if err := a.retry(ctx, "Kafka", stream.IsUnavailable, a.admin.EnsureTopics); err != nil {
		return err
	}
	a.log, err = stream.OpenLog(ctx, kafka, a.codec, a.tel.Logger.Logger, a.tel.Metrics)
	return err
}

// kafka is what the settings say of Kafka, and how this process reaches a broker of its own.
func (a *App) kafka() stream.Config {
	kafka := a.cfg.StreamConfig()
	if a.ownBroker != nil {
		kafka.Dialer = a.ownBroker.Dial
	}
	return kafka
}

// StreamConfig is what the settings say of Kafka.
func (c *Config) StreamConfig() stream.Config {
	k := c.Kafka
	return stream.Config{
		Brokers: k.Brokers, Prefix: k.Prefix, Instance: c.Instance,
		TLSEnabled: k.TLS || k.TLSCA != "", TLSCAFile: k.TLSCA,
		Login: stream.Login{
			Mechanism: k.SASLMechanism, Username: k.SASLUsername, Password: k.SASLPassword,
			TokenURL: k.OAuthTokenURL, Scopes: k.OAuthScopes, Extensions: k.OAuthExtensions,
		},
		Partitions: k.Partitions, ReplicationFactor: k.ReplicationFactor, MinInSync: k.MinInSync,
		Retention: k.Retention(), Compression: k.Compression, AppendTimeout: k.AppendTimeout,
	}
}

func (c *Config) registryConfig(retrying func(error, time.Duration)) schemas.RegistryConfig {
	return schemas.RegistryConfig{
		URLs: []string{c.Registry.URL}, TLSCAFile: c.Registry.TLSCA, User: c.Registry.Username, Password: c.Registry.Password,
		Prefix: c.Kafka.Prefix, Retrying: retrying,
	}
}

// retry runs f until it succeeds, ctx ends, or the error is not one that waiting mends.
func (a *App) retry(ctx context.Context, what string, temporary func(error) bool, f func(context.Context) error) error {
	for wait := 250 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := f(ctx)
		if err == nil || !temporary(err) || ctx.Err() != nil {
			return err
		}
		a.tel.Logger.Warn(what+" does not answer; trying again", zap.Error(err), zap.Duration("wait", wait))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// close closes what open opened, in reverse.
func (a *App) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	var err error
	if a.deliverer != nil {
		a.deliverer.Close()
	}
	if a.programs != nil {
		a.programs.Close()
	}
	if a.log != nil {
		err = errors.Join(err, a.log.Close(ctx))
	}
	if a.admin != nil {
		a.admin.Close()
	}
	if a.db != nil {
		a.db.Close()
	}
	if a.tel != nil {
		err = errors.Join(err, a.tel.Close(ctx))
	}
	return err
}

// serve listens for the API, or for health alone when this process does not play
// ingest, and for metrics.
// It adds what keeps the API current to services.
func (a *App) serve(ctx context.Context, group *errgroup.Group, services *[]service) (net.Addr, error) {
	if a.cfg.HTTP.MetricsAddr != "" {
		separate := http.NewServeMux()
		separate.Handle("/metrics", a.metrics())
		if _, err := a.listen(ctx, group, a.cfg.HTTP.MetricsAddr, separate); err != nil {
			return nil, err
		}
	}
	open := a.openHealth
	if a.cfg.Plays(RoleIngest) {
		open = a.openAPI
	}
	handler, more, err := open()
	if err != nil {
		return nil, err
	}
	*services = append(*services, more...)
	return a.listen(ctx, group, a.cfg.ListenAddr(), a.added.wrap(handler))
}

// onlyOwnHosts refuses requests to a listener on loopback under a name that is not this
// machine's: a page elsewhere can have its own name resolve to 127.0.0.1, and would be
// served by us as if it were ours.
func (a *App) onlyOwnHosts(at net.Addr, next http.Handler) http.Handler {
	if tcp, ok := at.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return next
	}
	public := ""
	if u, err := url.Parse(a.cfg.HTTP.PublicURL); err == nil {
		public = strings.ToLower(u.Hostname())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isOwnHost(r.Host, public) {
			next.ServeHTTP(w, r)
			return
		}
		http.Error(w, "this address listens on loopback: name it as localhost or 127.0.0.1, or set API_PUBLIC_URL to the name that it has behind a proxy", http.StatusMisdirectedRequest)
	})
}

// isOwnHost says whether the Host of a request names this machine, or the public name of
// the API.
func isOwnHost(host, public string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.Unmap().IsLoopback() || host != "" && host == public
}

// listen serves handler on addr until ctx ends, then lets requests finish.
func (a *App) listen(ctx context.Context, group *errgroup.Group, addr string, handler http.Handler) (net.Addr, error) {
	listener, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: stop what listens there, or choose another port (--port)", err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	server := ingest.NewServer(a.onlyOwnHosts(listener.Addr(), handler))
	server.ErrorLog = zap.NewStdLog(a.tel.Logger.Logger)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if err := server.Shutdown(stopCtx); err != nil {
			return server.Close()
		}
		return nil
	})
	return listener.Addr(), nil
}

// Codec reads record values by the schemas of the configured registry; it
// registers nothing. For tools.
func (c *Config) Codec() (*schemas.Codec, error) {
	reg, err := c.registry()
	if err != nil {
		return nil, err
	}
	return reg.Codec(), nil
}

// WritingCodec is a Codec that also writes: it registers the schemas first. For tools.
func (c *Config) WritingCodec(ctx context.Context) (*schemas.Codec, error) {
	reg, err := c.registry()
	if err != nil {
		return nil, err
	}
	if err := reg.Register(ctx); err != nil {
		return nil, fmt.Errorf("register the schemas: %w", err)
	}
	return reg.Codec(), nil
}

func (c *Config) registry() (*schemas.Registry, error) {
	if c.Registry.URL == "" {
		return nil, errors.New("SCHEMA_REGISTRY_URL is not set: give the URL of a Confluent-compatible schema registry")
	}
	return schemas.NewRegistry(c.registryConfig(nil))
}

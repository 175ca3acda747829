package hogstream

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hogstream/hogstream/schemas/localregistry"
	"github.com/hogstream/hogstream/storage/embedded"
	"github.com/hogstream/hogstream/stream/localbroker"
)

// RunDev runs everything in this process on cfg.DataDir: broker, registry,
// Postgres, all roles unless cfg names some; settings that name servers of your own are taken
// instead. It calls ready once the API answers, returns nil when ctx ends, and
// leaves nothing running. State survives; a second start on the same directory
// fails and says who holds it. Options are those of New.
func RunDev(ctx context.Context, cfg Config, ready func(*Running), with ...Option) (err error) {
	lock, err := lockDataDir(cfg.DataDir)
	if err != nil {
		return err
	}
	defer lock.unlock()
	if err := tighten(cfg.DataDir); err != nil {
		return fmt.Errorf("keep the data directory to its owner: %w", err)
	}
	cfg.Dev = true
	if len(cfg.Roles) == 0 {
		cfg.Roles = Roles()
	}
	if cfg.HTTP.Addr == "" { // nobody else's unless somebody says so
		cfg.HTTP.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.HTTP.Port))
	}
	var added options
	for _, option := range with {
		option(&added)
	}
	parts, err := startParts(ctx, &cfg, &added)
	defer func() {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, parts.stop(stopCtx))
	}()
	if err != nil {
		return err
	}
	if err := keepKeys(&cfg); err != nil {
		return err
	}
	app, err := New(cfg, with...)
	if err != nil {
		return err
	}
	app.lock, app.ownBroker = lock, parts.broker
	added.say("opening the database and the topics")
	app.moved = parts.moved()
	return app.Run(ctx, func(addr net.Addr) error {
		running := &Running{
			PID: os.Getpid(), URL: localURL(addr), APIKey: cfg.AdminAPIKey,
			Brokers: cfg.Kafka.Brokers, Registry: cfg.Registry.URL, Database: cfg.Database.URL,
			EncryptionKey: cfg.EncryptionKey, Partitions: cfg.Kafka.Partitions,
		}
		if err := running.write(cfg.DataDir); err != nil {
			return fmt.Errorf("write down where this instance is: %w", err)
		}
		ready(running)
		return nil
	})
}

// devParts are the servers that dev mode started itself.
type devParts struct {
	dataDir  string
	postgres *embedded.Server
	broker   *localbroker.Broker
	registry *localregistry.Server
}

// startParts starts what the settings do not name, side by side.
func startParts(ctx context.Context, cfg *Config, added *options) (*devParts, error) {
	parts := &devParts{dataDir: cfg.DataDir}
	group, ctx := errgroup.WithContext(ctx)
	if cfg.Database.URL == "" {
		group.Go(func() (err error) {
			added.say("starting Postgres")
			parts.postgres, err = embedded.Start(ctx, embedded.Options{Dir: filepath.Join(cfg.DataDir, "postgres"), Progress: steps{added}})
			if err != nil {
				return fmt.Errorf("start Postgres: %w", err)
			}
			cfg.Database.URL = parts.postgres.URL("hogstream")
			return nil
		})
	}
	if len(cfg.Kafka.Brokers) == 0 {
		group.Go(func() (err error) {
			added.say("starting the Kafka broker")
			parts.broker, err = localbroker.Start(localbroker.Config{Dir: filepath.Join(cfg.DataDir, "kafka"), Port: cfg.Local.BrokerPort})
			if err != nil {
				return fmt.Errorf("start the broker: %w", err)
			}
			cfg.Kafka.Brokers = []string{parts.broker.Addr()}
			return nil
		})
	}
	if cfg.Registry.URL == "" {
		group.Go(func() (err error) {
			added.say("starting the schema registry")
			parts.registry, err = localregistry.StartOn(filepath.Join(cfg.DataDir, "registry"), cfg.Local.RegistryPort)
			if err != nil {
				return fmt.Errorf("start the schema registry: %w", err)
			}
			cfg.Registry.URL = parts.registry.URL()
			return nil
		})
	}
	return parts, group.Wait()
}

// steps tells of what is written to it, a line each.
type steps struct{ added *options }

// Write implements [io.Writer].
func (s steps) Write(p []byte) (int, error) {
	s.added.say(strings.TrimSpace(string(p)))
	return len(p), nil
}

// moved are the servers whose port of the last start was taken: clients that were told it
// must be told the new one.
func (p *devParts) moved() (names []string) {
	if p.broker != nil && p.broker.Moved() {
		names = append(names, "broker, now "+p.broker.Addr()+": HOGSTREAM_BROKER_PORT sets it")
	}
	if p.registry != nil && p.registry.Moved() {
		names = append(names, "registry, now "+p.registry.URL()+": HOGSTREAM_REGISTRY_PORT sets it")
	}
	return names
}

func (p *devParts) stop(ctx context.Context) error {
	err := os.Remove(runningPath(p.dataDir))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if p.registry != nil {
		err = errors.Join(err, p.registry.Close())
	}
	if p.broker != nil {
		err = errors.Join(err, p.broker.Stop())
	}
	if p.postgres != nil {
		err = errors.Join(err, p.postgres.Stop(ctx))
	}
	return err
}

// keepKeys makes the keys that a developer did not set and keeps them in the
// data directory, so that secrets can be opened and calls go on after a restart.
func keepKeys(cfg *Config) (err error) {
	if cfg.EncryptionKey == "" {
		cfg.EncryptionKey, err = keptInFile(cfg.DataDir, "encryption-key", func() (string, error) {
			return base64.StdEncoding.EncodeToString(randomBytes(32)), nil
		})
		if err != nil {
			return err
		}
	}
	if cfg.AdminAPIKey == "" {
		cfg.AdminAPIKey, err = keptInFile(cfg.DataDir, "api-key", func() (string, error) {
			return "hsk_" + base64.RawURLEncoding.EncodeToString(randomBytes(32)), nil
		})
	}
	return err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, crypto/rand says
	return b
}

// tighten keeps a data directory to its owner, also one that was made before: keys,
// secrets and people's data stand in it. Postgres does so itself with what is its own.
// For root it runs as somebody else, who must get through the directory to there.
func tighten(dir string) error {
	passable := fs.FileMode(0o700)
	if os.Geteuid() == 0 {
		passable = 0o711
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // what a process that is stopping takes with it
		case err != nil:
			return err
		case path == ".":
			return root.Chmod(path, passable)
		case e.IsDir() && path == "postgres":
			return fs.SkipDir
		case e.IsDir():
			return root.Chmod(path, 0o700)
		case e.Type().IsRegular():
			return root.Chmod(path, 0o600)
		}
		return nil
	})
}

// localURL is how a program on this machine reaches a listener.
func localURL(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return "http://" + addr.String()
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Package localbroker is the Kafka broker of embedded mode: kfake, in this
// process, with its files in a directory.
//
// It promises: what was acknowledged survives the death of the process (not of
// the machine: writes go to the page cache); the address stays the same from
// start to start; one process at a time.
//
// It has limits that a real broker has not. One goroutine does all its work
// (some 350,000 records a second). The end of a transaction is not atomic when
// the process is killed. Every ten minutes (Config.RetentionInterval) retention
// drops whole batches and compaction rewrites a partition, all but its last
// batch. kfake keeps message.timestamp.type and ignores it; StampAppendTime
// stands in. A start reads every batch's frame: a million records took 0.1 s in
// large batches and 2 s in batches of one.
package localbroker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/zap"
	"google.golang.org/grpc/test/bufconn"
)

// Config of the local broker.
type Config struct {
	// Dir holds the data; it is made when missing. Required.
	Dir string
	// Port on 127.0.0.1. 0 takes the one of the last start, or a free one; a
	// port given here must be free.
	Port int
	// RetentionInterval is how often retention and compaction run; default 10
	// minutes.
	RetentionInterval time.Duration
	// Fsync syncs every batch, so that an acknowledged record survives the
	// machine too; about a hundred times slower.
	Fsync bool
	// Logger may be nil.
	Logger *zap.Logger
	// Options are more options of kfake, for tests.
	Options []kfake.Opt
}

// Broker is a running local broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File
	inside  *bufconn.Listener
	addr    string
	moved   bool
}

// ErrInUse is wrapped by Start's error when another process uses the directory.
var ErrInUse = errors.New("data directory is in use")

// Start starts the broker. It returns when it accepts connections. The error
// wraps ErrInUse, and names the process, when another one holds the directory.
func Start(cfg Config) (_ *Broker, err error) {
	if cfg.Dir == "" {
		return nil, errors.New("local broker: no data directory given")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("local broker: %w", err)
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("local broker: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	l, err := cfg.listen()
	if err != nil {
		return nil, fmt.Errorf("local broker: %w", err)
	}
	inside := bufconn.Listen(insideBytes)
	cluster, err := kfake.NewCluster(cfg.options(listenInside(l, inside))...)
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("local broker: load %s: %w", cfg.Dir, err)
	}
	StampAppendTime(cluster)
	b := &Broker{cluster: cluster, lock: lock, inside: inside, addr: cluster.ListenAddrs()[0], moved: l.moved}
	if err = rememberPort(cfg.Dir, b.addr); err != nil {
		cluster.Close()
		return nil, fmt.Errorf("local broker: %w", err)
	}
	return b, nil
}

func (cfg Config) options(l net.Listener) []kfake.Opt {
	interval := cfg.RetentionInterval
	if interval <= 0 {
		interval = 10 * time.Minute
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return l, nil }),
		kfake.ClusterID("hogstream-local"),
		kfake.DataDir(filepath.Join(cfg.Dir, "log")),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms":     strconv.FormatInt(interval.Milliseconds(), 10),
			"default.replication.factor": "1",
			"state.log.compact.bytes":    stateLogBytes,
		}),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
	}
	if cfg.Fsync {
		opts = append(opts, kfake.SyncWrites())
	}
	if cfg.Logger != nil {
		opts = append(opts, kfake.WithLogger(logger{cfg.Logger.Named("broker").Sugar()}))
	}
	return append(opts, cfg.Options...)
}

// stateLogBytes is how much of a log of offsets and transactions is kept before it is
// rewritten, in which time the broker does nothing else: with kfake's 10 MiB it stood still
// for 90 to 160 ms every half minute at 2,000 events a second, which alone made the p99 of
// joins miss its target (bench joins).
const stateLogBytes = "1048576"

// Addr is the broker's address, host:port.
func (b *Broker) Addr() string { return b.addr }

// Moved reports whether the port of the last start was taken, and another one is used.
func (b *Broker) Moved() bool { return b.moved }

// Stop closes connections and files and lets go of the directory. Clients
// should be closed before.
func (b *Broker) Stop() error {
	b.cluster.Close()
	return errors.Join(letGo(b.lock), b.lock.Close())
}

// lockDir takes the directory for this process. The kernel lets go of the lock
// when the process dies, however it dies.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		holder, _ := os.ReadFile(f.Name())
		return nil, fmt.Errorf("%w: %s is held by %s", ErrInUse, dir, strings.TrimSpace(string(holder)))
	}
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(fmt.Sprintf("process %d (%s)\n", os.Getpid(), filepath.Base(os.Args[0]))), 0)
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// letGo unlocks before the file is closed: a child that another goroutine starts just now
// has it open, too, until it runs its program, and with it would have the lock.
func letGo(lock *os.File) error { return syscall.Flock(int(lock.Fd()), syscall.LOCK_UN) }

// A listener is the port on which the broker is reached.
type listener struct {
	net.Listener
	moved bool // the port of the last start was taken
}

// listen takes the port. It is asked for once and then kept: one that is only found to be
// free may be anybody's a moment later.
func (cfg Config) listen() (listener, error) {
	if cfg.Port != 0 {
		l, err := listenOn(cfg.Port)
		if err != nil {
			return listener{}, fmt.Errorf("port %d is in use; choose another one, or none to let the broker choose: %w", cfg.Port, err)
		}
		return listener{Listener: l}, nil
	}
	last, err := lastPort(cfg.Dir)
	if err != nil {
		return listener{}, err
	}
	l, err := listenOn(last)
	if err == nil || last == 0 {
		return listener{Listener: l}, err
	}
	if cfg.Logger != nil {
		cfg.Logger.Warn("localbroker.port_in_use", zap.Int("port", last))
	}
	l, err = listenOn(0)
	return listener{l, true}, err
}

// listenOn listens on a port of loopback, 0 for any.
func listenOn(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// lastPort is the port of the last start, 0 when none is known.
func lastPort(dir string) (int, error) {
	text, err := os.ReadFile(portFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || port < 1 || port > 65535 {
		return 0, nil
	}
	return port, nil
}

func rememberPort(dir, addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	tmp := portFile(dir) + ".tmp"
	if err := os.WriteFile(tmp, []byte(port+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, portFile(dir))
}

func portFile(dir string) string { return filepath.Join(dir, "port") }

// logger passes kfake's warnings on.
type logger struct{ to *zap.SugaredLogger }

func (l logger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.to.Errorf(format, args...)
	case kfake.LogLevelWarn:
		l.to.Warnf(format, args...)
	}
}

package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Config says what a processor loop runs and within which bounds. The
// zero value of a field that is not required means its default.
type Config struct {
	// Kafka is where the log is; its Instance must be set and be the same after
	// a restart, for it is the name by which the broker knows a predecessor.
	Kafka     stream.Config
	DB        *storage.DB
	Encoder   stream.Encoder
	Processor Processor

	// Workers is how many independent members of the group this process runs,
	// each with its loop, its transactional id and a Postgres connection.
	// Default 1.
	Workers int
	// MaxBatchRecords bounds a batch, which is what is waiting up to this and
	// never waits to fill up; of a processor that reads several topics, to twice this:
	// what one batch of contacts brings on two. Default 5,000.
	MaxBatchRecords int
	// SessionTimeout is how long the group waits for a member that went silent,
	// and within which a restart moves nothing. Default 10 s.
	SessionTimeout time.Duration
	// Incarnation is added to the transactional ids, for a broker that dies with
	// this process: kfake, when it loads its files, counts a transaction that was
	// open as aborted and writes no marker, so a reader that meets its records
	// drops what the same producer commits later, too. A start of its own name
	// has producers of its own. Empty against every other broker, where the
	// stable name ends what a predecessor left open.
	Incarnation string

	Logger     *zap.Logger
	Registerer prometheus.Registerer

	hooks  loopHooks
	timing timing
}

// timing are durations that only tests change. The zero value of each means its
// default.
type timing struct {
	// Heartbeat is how often the member reports. Default 3 s, or a third of a
	// shorter SessionTimeout.
	Heartbeat time.Duration
	// RevokeGrace bounds how long a revocation waits for the transaction in
	// hand. It is a courtesy; nothing depends on it. Default 5 s.
	RevokeGrace time.Duration
	// Txn is after how long the broker aborts a transaction whose owner
	// is gone, unless the owner is back before. Brokers look for such transactions
	// every 10 s (Apache Kafka's transaction.abort.timed.out.transaction.cleanup.
	// interval.ms), and until then readers stand still before it, the deliveries of
	// other instances too. Default 8 s, so that these go on within 20 s.
	Txn time.Duration
	// Idle is when a partition without records is tidied: its offsets move
	// over transaction markers, and its row is marked published. Default 5 s.
	Idle time.Duration
	// Recheck is how often a stopped partition is looked at again, so
	// that `processors accept` needs no restart. Default 10 s.
	Recheck time.Duration
	// Overdue is how long the other topics of a partition wait for one that has records and
	// brings none: its leader is away, or a transaction is open there. They go on without it
	// then, until it brings something: a processor that needs the order waits by itself
	// (derive holds). Default 10 s, longer than the election of a leader takes.
	Overdue time.Duration
}

const (
	maxBatchBytes = 8 << 20  // keys and values of a batch
	fetchBytes    = 16 << 20 // fetched ahead from each broker
	// stopTimeout bounds the batch in hand at a graceful stop.
	stopTimeout = 10 * time.Second
)

// errCrash is injected by tests: the worker ends at once and tidies nothing.
var errCrash = errors.New("crash injected by a test")

// Validate reports every field that cannot work.
func (c Config) Validate() error {
	errs := []error{c.Kafka.Validate()}
	bad := func(field, why string) { errs = append(errs, fmt.Errorf("processor config %s: %s", field, why)) }
	if c.Kafka.Instance == "" {
		bad("Kafka.Instance", "empty; set an instance name that survives a restart")
	}
	if c.DB == nil {
		bad("DB", "missing")
	}
	if c.Encoder == nil {
		bad("Encoder", "missing")
	}
	if c.Processor == nil || len(c.Processor.Topics()) == 0 {
		bad("Processor", "missing, or without topics")
	}
	if c.Workers < 0 || c.MaxBatchRecords < 0 {
		bad("Workers, MaxBatchRecords", "must not be negative")
	}
	return errors.Join(errs...)
}

// batchLimit is how many records a batch has at most.
func (c *Config) batchLimit() int {
	if len(c.Processor.Topics()) > 1 {
		return 2 * c.MaxBatchRecords
	}
	return c.MaxBatchRecords
}

func (c Config) withDefaults() Config {
	stream.SetDefault(&c.Workers, 1)
	stream.SetDefault(&c.MaxBatchRecords, 5000)
	stream.SetDefault(&c.SessionTimeout, 10*time.Second)
	stream.SetDefault(&c.timing.Heartbeat, min(3*time.Second, c.SessionTimeout/3))
	stream.SetDefault(&c.timing.RevokeGrace, 5*time.Second)
	stream.SetDefault(&c.timing.Txn, 8*time.Second)
	stream.SetDefault(&c.timing.Idle, 5*time.Second)
	stream.SetDefault(&c.timing.Recheck, 10*time.Second)
	stream.SetDefault(&c.timing.Overdue, 10*time.Second)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	// Members and producers come and go; the metrics of their clients would
	// have to be registered and taken out each time.
	c.Kafka.ClientMetrics = nil
	return c
}

// Loop runs one processor: apply in Postgres, publish in a Kafka
// transaction, exactly once. Its workers are independent
// members of one consumer group.
type Loop struct {
	cfg     Config
	workers []*worker
}

// New checks the configuration and registers the metrics. It
// connects to nothing yet.
func New(cfg Config) (*Loop, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	metrics, err := loopMetricsFor(cfg.Registerer, cfg.Processor.Name())
	if err != nil {
		return nil, fmt.Errorf("processor %s: %w", cfg.Processor.Name(), err)
	}
	l := &Loop{cfg: cfg}
	for i := range cfg.Workers {
		l.workers = append(l.workers, newWorker(cfg, i, metrics))
	}
	return l, nil
}

// Run works until ctx ends, then finishes the batch in hand, marks what is
// published, and returns nil. It keeps its membership, so that a restart within
// SessionTimeout moves no partition. Outages of Kafka or Postgres do not end
// it; ErrTwin does. It must be called once.
func (l *Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	errs := make([]error, len(l.workers))
	for i, w := range l.workers {
		wg.Go(func() {
			if err := w.run(ctx); err != nil {
				errs[i] = fmt.Errorf("processor %s, worker %d: %w", w.name, w.number, err)
				cancel(errs[i]) // the others stop gracefully
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Ready is nil while every worker works, and otherwise says what one of them
// waits for. Safe for concurrent use.
func (l *Loop) Ready() error {
	for _, w := range l.workers {
		if trouble := w.trouble.Load(); trouble != nil {
			return *trouble
		}
	}
	return nil
}

// StoppedPartition is a partition that waits for an operator.
type StoppedPartition struct {
	Partition int32
	Reason    string
	// Newer says that it waits for no operator's decision: an instance of a newer release
	// goes on with it.
	Newer bool
}

// Stopped lists the partitions that wait for an operator. Safe for concurrent use.
func (l *Loop) Stopped() []StoppedPartition {
	var all []StoppedPartition
	for _, w := range l.workers {
		if s := w.stopped.Load(); s != nil {
			all = append(all, *s...)
		}
	}
	return all
}

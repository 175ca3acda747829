package delivery

import (
	"errors"
	"fmt"
	"time"

	"github.com/hogstream/hogstream/stream"
)

// Config are the settings of delivery. The zero value of a field stands for its
// default, in brackets. A process sets those that operators can set (docs/operate.md);
// the others let tests see within seconds what takes hours.
type Config struct {
	// Instance names this process; leases and static membership carry it. Required.
	Instance string
	// InstanceID proves that a process is the same instance: no two have it that live
	// at the same time. With it a restart takes back at once the leases that its
	// former process left; without it ("") it waits until they run out.
	InstanceID string

	// Lease is how long the lease of a partition number lasts (15 s), Renew how
	// often it is renewed (3 s), Deadline how long one attempt may take (8 s).
	// Renew and Deadline together must be less than Lease.
	Lease, Renew, Deadline time.Duration
	// Drain is how long a revocation or a stop lets what is in flight finish (5 s).
	Drain time.Duration
	// SessionTimeout of the group: a process that stays away longer loses its
	// partition numbers (10 s).
	SessionTimeout time.Duration

	// Window and WindowBytes bound the unfinished records of one destination on one
	// partition number (2,048 and 8 MiB), HeldBytes those of the process (128 MiB),
	// of which one destination has a quarter at most.
	Window, WindowBytes int
	HeldBytes           int64

	// Concurrency is how many requests one destination has in flight in this
	// process unless it says otherwise (64; BatchConcurrency, 4, for kinds that
	// send batches).
	Concurrency, BatchConcurrency int
	// RetryHorizon is how long a record is retried, counted in time in which the
	// destination is delivered to, unless the destination says otherwise (72 h).
	RetryHorizon time.Duration
	// BackoffBase and BackoffMax bound the pause before a retry (500 ms, 5 min).
	BackoffBase, BackoffMax time.Duration
	// ParkedMax bounds the pause before the next attempt of a parked key (30 min).
	ParkedMax time.Duration

	// FlushEvery is the least time between two flushes of results (25 ms).
	FlushEvery time.Duration
	// MaxUnflushed stops new attempts while so many results wait for Postgres (10,000).
	MaxUnflushed int
	// DeliveryLog is which attempts are logged of destinations that do not say so
	// themselves: all (the default), failures or off.
	DeliveryLog string
	// MirrorEvery is how often positions are mirrored into consumer groups (5 s).
	MirrorEvery time.Duration
	// LogRetention is how long the delivery log is kept, in whole days (30 d).
	LogRetention time.Duration
}

func (c Config) withDefaults() Config {
	stream.SetDefault(&c.Lease, 15*time.Second)
	stream.SetDefault(&c.Renew, 3*time.Second)
	stream.SetDefault(&c.Deadline, 8*time.Second)
	stream.SetDefault(&c.Drain, 5*time.Second)
	stream.SetDefault(&c.SessionTimeout, 10*time.Second)
	stream.SetDefault(&c.Window, 2048)
	stream.SetDefault(&c.WindowBytes, 8<<20)
	stream.SetDefault(&c.HeldBytes, 128<<20)
	stream.SetDefault(&c.Concurrency, 64)
	stream.SetDefault(&c.BatchConcurrency, 4)
	stream.SetDefault(&c.RetryHorizon, 72*time.Hour)
	stream.SetDefault(&c.BackoffBase, 500*time.Millisecond)
	stream.SetDefault(&c.BackoffMax, 5*time.Minute)
	stream.SetDefault(&c.ParkedMax, 30*time.Minute)
	stream.SetDefault(&c.FlushEvery, 25*time.Millisecond)
	stream.SetDefault(&c.MaxUnflushed, 10_000)
	stream.SetDefault(&c.MirrorEvery, 5*time.Second)
	stream.SetDefault(&c.LogRetention, 30*24*time.Hour)
	return c
}

// Validate reports every field that cannot work, each named.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("sinks config %s: %s", field, fmt.Sprintf(format, args...)))
	}
	if c.Instance == "" {
		bad("Instance", "empty; leases need the name of the process")
	}
	for name, d := range map[string]time.Duration{
		"Lease": c.Lease, "Renew": c.Renew, "Deadline": c.Deadline, "Drain": c.Drain, "SessionTimeout": c.SessionTimeout,
		"RetryHorizon": c.RetryHorizon, "BackoffBase": c.BackoffBase, "BackoffMax": c.BackoffMax, "ParkedMax": c.ParkedMax, "FlushEvery": c.FlushEvery, "MirrorEvery": c.MirrorEvery,
	} {
		if d < 0 {
			bad(name, "%s; must be positive", d)
		}
	}
	if c.Renew+c.Deadline >= c.Lease {
		bad("Lease", "%s; must be more than Renew (%s) and Deadline (%s) together, or attempts wait for renewals", c.Lease, c.Renew, c.Deadline)
	}
	for name, n := range map[string]int{
		"Window": c.Window, "WindowBytes": c.WindowBytes, "HeldBytes": int(c.HeldBytes),
		"Concurrency": c.Concurrency, "BatchConcurrency": c.BatchConcurrency, "MaxUnflushed": c.MaxUnflushed,
	} {
		if n < 1 {
			bad(name, "%d; at least 1", n)
		}
	}
	return errors.Join(errs...)
}

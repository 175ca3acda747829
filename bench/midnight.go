package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/hogstream/hogstream/definition"
	"github.com/hogstream/hogstream/predicate"
	"github.com/hogstream/hogstream/processors/buckets"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/timers"
)

const (
	midnightTimers = 100_000
	pendingTimers  = 1_000_000
	aloneTimers    = 40
	aloneApart     = 500 * time.Millisecond
	calmRounds     = 3
	timedBucket    = "timed"
)

// timersBench has the time of many contacts come within one second, beside live events, and
// then that of a few, one after the other.
func timersBench(ctx context.Context, cfg Config) (*section, error) {
	m := &midnight{timers: cfg.scaled(midnightTimers), tells: [2]string{schemas.FactBucketLeft, timedBucket}}
	if err := m.measure(ctx, cfg); err != nil {
		return nil, err
	}
	pending, err := measurePending(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &section{
		title: "Timers",
		about: fmt.Sprintf("`hogstream dev` and the live events of section \"Joining a bucket\"; %s other contacts are in a bucket because of an event an hour ago, all of them within one second, "+
			"and leave it when it is longer ago than that. Handled: from the middle of that second until a reader of committed records has the last `bucket.left`. Live latency is that of joins, "+
			"by pieces of %g s before, and of the events accepted while timers were handled; the medians of their p99 are compared. Alone: %d leaves, one each %s, from the instant at which they are due, without other load. "+
			"Memory: a ticker in this process, after a collection, with %s timers of the next month in Postgres against none.",
			thousands(float64(m.timers)), joinsSeconds/2, aloneTimers, aloneApart, thousands(float64(cfg.scaled(pendingTimers)))),
		figures: slices.Concat([]figure{
			costFigure(fmt.Sprintf("%s timers due in one second, all handled", thousands(float64(m.timers))), "s", []float64{m.handled.Seconds()}, 25*cfg.Scale),
		}, liveFigures(m.calm, m.busy), []figure{
			costFigure("alone, a leave by time after it is due, latest", "ms", []float64{millis(m.alone, 1)}, 1000),
			costFigure("alone, a leave by time after it is due, median", "ms", []float64{millis(m.alone, 0.5)}, 0),
			costFigure(fmt.Sprintf("memory of the process for %s pending timers", thousands(float64(cfg.scaled(pendingTimers)))), "MiB", []float64{pending}, 16),
		}),
	}, nil
}

// midnight is what was measured.
type midnight struct {
	timers int
	tells  [2]string // what is told when one is handled

	handled time.Duration
	calm    []joins // in pieces
	busy    []joins
	alone   []time.Duration // how late, ascending
}

func (m *midnight) measure(ctx context.Context, cfg Config) (err error) {
	due := time.Now().Add(time.Minute + time.Duration(benchContacts+m.timers)*time.Millisecond/2).Truncate(time.Second)
	alone := due.Add(90 * time.Second)
	timed := definition.Bucket{ID: timedBucket, Name: "Timed", Enabled: true, Criteria: predicate.Event("timed").Within(predicate.Hours(1)).Exists()}
	l, err := startLive(ctx, cfg, devSettings{Embedded: true}, func(ctx context.Context, env *surroundings) error { return m.seed(ctx, env, due, alone) }, timed)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	if err := l.warm(ctx, 4); err != nil {
		return err
	}
	if err := m.calmly(ctx, l); err != nil {
		return err
	}
	if err := m.strike(ctx, l, due); err != nil {
		return err
	}
	return m.singly(ctx, l, alone)
}

// calmly sends live events while no timer is due.
func (m *midnight) calmly(ctx context.Context, l *liveInstance) error {
	for range 2 * l.cfg.rounds(calmRounds) {
		all, err := l.measure(ctx, joinsSeconds/2*l.cfg.Scale)
		if err != nil {
			return err
		}
		m.calm = append(m.calm, all)
	}
	return nil
}

// seed makes contacts: those of the live events first, then those whose time comes together,
// then those whose time comes alone.
func (m *midnight) seed(ctx context.Context, env *surroundings, due, alone time.Time) error {
	if err := seedContacts(ctx, env, benchContacts+m.timers+aloneTimers); err != nil {
		return err
	}
	const store = `
INSERT INTO events (id, contact_id, name, properties, occurred_at, received_at, source)
SELECT gen_random_uuid(), id, 'timed', '{}', CASE WHEN n < $2 THEN $3::timestamptz + random() * interval '1 second' ELSE $4::timestamptz + (n - $2) * $5::interval END - interval '1 hour', now(), 'api'
FROM seed WHERE n >= $1`
	if _, err := env.sql.Exec(ctx, store, benchContacts, benchContacts+m.timers, due, alone, aloneApart); err != nil {
		return fmt.Errorf("store %d events: %w", m.timers, err)
	}
	return nil
}

// strike sends live events while the timers become due.
func (m *midnight) strike(ctx context.Context, l *liveInstance, due time.Time) error {
	if err := sleepUntil(ctx, due.Add(-time.Second)); err != nil {
		return err
	}
	l.told.forget()
	sent := make(chan error, 1)
	began := time.Now()
	load := loadResult{}
	go func() {
		var err error
		load, err = l.send(ctx, 2+25*l.cfg.Scale)
		sent <- err
	}()
	left, err := l.told.await(ctx, m.tells, m.timers)
	if err = errors.Join(err, <-sent); err != nil {
		return err
	}
	last := left[m.timers-1].seen
	m.handled = last.Sub(due.Add(500 * time.Millisecond))
	entered, err := l.told.await(ctx, l.follows, load.Joins)
	if err != nil {
		return err
	}
	each := time.Duration(joinsSeconds / 2 * l.cfg.Scale * float64(time.Second))
	m.busy, err = l.pieces(ctx, began, entered, due, last, each)
	l.cfg.say("  all handled in %s; live p99 meanwhile %.1f ms, before %.1f ms", m.handled.Round(time.Millisecond), median(quantiles(m.busy, 0.99)), median(quantiles(m.calm, 0.99)))
	return err
}

// singly waits for those whose time comes alone.
func (m *midnight) singly(ctx context.Context, l *liveInstance, first time.Time) error {
	l.told.forget()
	if err := sleepUntil(ctx, first.Add(-time.Second)); err != nil {
		return err
	}
	left, err := l.told.await(ctx, m.tells, aloneTimers)
	if err != nil {
		return err
	}
	for _, t := range left {
		m.alone = append(m.alone, t.seen.Sub(t.occurred))
	}
	slices.Sort(m.alone)
	return nil
}

func sleepUntil(ctx context.Context, at time.Time) error {
	if time.Now().After(at) {
		return errors.New("this machine is too slow: timers became due before all was ready")
	}
	select {
	case <-time.After(time.Until(at)):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// measurePending is what many timers that are not due add to the memory of a process, in MiB.
func measurePending(ctx context.Context, cfg Config) (added float64, err error) {
	env, err := surround(ctx, cfg, true)
	defer func() { err = errors.Join(err, env.close()) }()
	if err != nil {
		return 0, err
	}
	none, err := tickerMemory(ctx, cfg, env)
	if err != nil {
		return 0, err
	}
	const arm = `
INSERT INTO timers (owner, contact_id, what, partition, due, epoch)
SELECT $1, gen_random_uuid(), 'due', i % $2, now() + interval '1 hour' + random() * interval '30 days', 1 FROM generate_series(1, $3::integer) AS i`
	if _, err := env.sql.Exec(ctx, arm, buckets.Name, stream.DefaultPartitions, cfg.scaled(pendingTimers)); err != nil {
		return 0, fmt.Errorf("arm timers: %w", err)
	}
	many, err := tickerMemory(ctx, cfg, env)
	return max(0, many-none), err
}

// tickerMemory is the resident memory of this process, in MiB, while a ticker waits.
func tickerMemory(ctx context.Context, cfg Config, env *surroundings) (float64, error) {
	log, err := stream.OpenLog(ctx, env.kafka, env.codec, cfg.Logger, nil)
	if err != nil {
		return 0, err
	}
	ticker, err := timers.New(timers.Config{DB: env.db, Log: log, Behind: func(context.Context, time.Time) (string, error) { return "", nil }, Logger: cfg.Logger})
	if err != nil {
		return 0, err
	}
	work, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- ticker.Run(work) }()
	err = sleepUntil(ctx, time.Now().Add(3*time.Second))
	debug.FreeOSMemory()
	resident := residentMiB(os.Getpid())
	stop()
	return resident, errors.Join(err, <-ended, log.Close(context.WithoutCancel(ctx)))
}

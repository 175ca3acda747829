// Package timers sends what is due: each timer that a processor has armed in Postgres
// becomes, when its time has come, a signal to that processor in the order of its contact.
//
// What it promises:
//   - A timer is sent once or more, never before it is due by Postgres's clock, and
//     within a second after it. The processor knows by its epoch one that came again.
//   - One that was sent and is not taken for an hour is sent again: its signal may have been
//     lost with its topic.
//   - Of a midnight's timers no more than some hundreds are under way at once, so that live
//     records come in between.
//   - Nothing is looked for again and again: the next due is known, and who arms an earlier
//     one says so. No more than what is sent at once is in memory.
//   - While what was sent before is not yet applied by identity and contacts, timers wait, an
//     hour at most: who was active during an outage is not "quiet".
package timers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// Config is what a Ticker needs. All but Logger and Registerer are required.
type Config struct {
	DB  *storage.DB
	Log stream.Appender
	// Behind says who has not yet applied what stands on the log since before a time; ""
	// when nobody is behind.
	Behind func(ctx context.Context, before time.Time) (string, error)

	Logger     *zap.Logger
	Registerer prometheus.Registerer
}

// LagAllowed is how far identity and contacts may be behind before timers wait for them.
const LagAllowed = 30 * time.Second

const (
	sentAtOnce  = 2000 // that are looked for again
	underWay    = 500  // timers, sent and not taken: live records wait behind them
	underWayFor = 5 * time.Second
	roomAgain   = 10 * time.Millisecond // when there is no room for more
	longestWait = time.Hour             // for them
	lookAgain   = time.Second           // when timers wait, or another ticker has them in hand, and who is behind
	clockCheck  = time.Minute           // a clock that is set back or forward is noticed so soon
	takenWithin = time.Hour             // of its being sent a timer is taken, or it is sent again
)

// Ticker sends timers. There is one in each process that runs processors; several share
// the work.
type Ticker struct {
	cfg  Config
	wake chan struct{}
	next atomic.Int64 // when the next timer is due that is known of, in Unix nanoseconds; 0 while it is not known

	looked   time.Time // when timers that are not taken were looked for, by Postgres's clock
	waiting  string    // who timers wait for
	caughtUp time.Time // when nobody was behind, by Postgres's clock
	late     prometheus.Histogram
	held     prometheus.Gauge
	overdue  prometheus.Gauge
}

// New makes a Ticker.
func New(cfg Config) (*Ticker, error) {
	if cfg.DB == nil || cfg.Log == nil || cfg.Behind == nil {
		return nil, errors.New("timers: DB, Log and Behind are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	t := &Ticker{cfg: cfg, wake: make(chan struct{}, 1),
		late: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hogstream", Subsystem: "timers", Name: "late_seconds", Help: "How long after it was due a timer was sent.",
			Buckets: []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600},
		}),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "timers", Name: "waiting", Help: "1 while timers that are due wait because identity or contacts are behind.",
		}),
		overdue: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hogstream", Subsystem: "timers", Name: "overdue_seconds", Help: "For how long the earliest timer that was not sent has been due; 0 when none is due.",
		}),
	}
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{t.late, t.held, t.overdue} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("timers: register figures: %w", err)
			}
		}
	}
	return t, nil
}

// Run sends timers until ctx ends, and returns nil then. It waits out outages. It must be
// called once.
func (t *Ticker) Run(ctx context.Context) error {
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() { _ = t.cfg.DB.Listen(ctx, storage.ChannelTimers, t.heard) })
	for ctx.Err() == nil {
		wait, err := t.round(ctx)
		if err != nil && ctx.Err() == nil {
			t.cfg.Logger.Warn("timers.failed", zap.Error(err))
			wait = lookAgain
		}
		t.pause(ctx, wait)
	}
	return nil
}

// heard wakes the ticker when a timer was armed that is due before all it knows of.
func (t *Ticker) heard(payload string) {
	due, err := time.Parse(time.RFC3339Nano, payload)
	if next := t.next.Load(); err == nil && next != 0 && due.UnixNano() >= next {
		return
	}
	stream.Signal(t.wake)
}

func (t *Ticker) pause(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(min(wait, clockCheck))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-t.wake:
	case <-timer.C:
	}
}

// round sends what is due, and says after how long to look again.
func (t *Ticker) round(ctx context.Context) (time.Duration, error) {
	t.next.Store(0) // what is armed from here on is heard
	due, now, err := t.cfg.DB.NextTimer(ctx)
	if err != nil {
		return 0, err
	}
	t.overdue.Set(Overdue(due, now).Seconds())
	if again, err := t.sendAgain(ctx, now); err != nil || again {
		return 0, err
	}
	if due.IsZero() {
		return clockCheck, nil
	}
	if due.After(now) {
		t.next.Store(due.UnixNano())
		return due.Sub(now), nil
	}
	room, err := t.room(ctx, now)
	if err != nil || room == 0 {
		return roomAgain, err
	}
	behind, err := t.behind(ctx, now)
	if err != nil {
		return 0, err
	}
	t.noteWait(behind, due, now)
	sent, err := t.send(ctx, sendBy(now, behind), now, room)
	if err != nil {
		return 0, err
	}
	if sent == 0 {
		return lookAgain, nil
	}
	return 0, nil
}

// behind is who has not applied what stands on the log. That nobody is behind holds for a
// second: it is asked of the brokers, and a midnight takes hundreds of rounds.
func (t *Ticker) behind(ctx context.Context, now time.Time) (string, error) {
	if since := now.Sub(t.caughtUp); since >= 0 && since < lookAgain {
		return "", nil
	}
	behind, err := t.cfg.Behind(ctx, now.Add(-LagAllowed))
	if t.caughtUp = now; err != nil || behind != "" {
		t.caughtUp = time.Time{}
	}
	return behind, err
}

// room is how many timers may be sent now: so many that live records, which are taken in
// the order in which they were appended, do not wait behind a midnight's. A few at a time
// would cost more than they gain. What is not taken for long, because its processor does not
// run, holds up no others.
func (t *Ticker) room(ctx context.Context, now time.Time) (int, error) {
	n, err := t.cfg.DB.TimersUnderWay(ctx, now.Add(-underWayFor), underWay)
	if room := underWay - n; err == nil && room >= underWay/2 {
		return room, nil
	}
	return 0, err
}

// Overdue is for how long the next timer has been due; a zero time is no timer.
func Overdue(due, now time.Time) time.Duration {
	if due.IsZero() {
		return 0
	}
	return max(0, now.Sub(due))
}

// sendAgain looks, now and then, for timers that were sent long ago and are not taken; true
// when there are any, which are due now.
func (t *Ticker) sendAgain(ctx context.Context, now time.Time) (bool, error) {
	if since := now.Sub(t.looked); since >= 0 && since < clockCheck {
		return false, nil
	}
	n, err := t.cfg.DB.ForgetSending(ctx, now.Add(-takenWithin), sentAtOnce)
	if err != nil {
		return false, err
	}
	if n == 0 {
		t.looked = now
		return false, nil
	}
	t.cfg.Logger.Warn("timers.not_taken", zap.Int64("sent_again", n))
	return true, nil
}

// sendBy is up to when a timer must have been due to be sent now.
func sendBy(now time.Time, behind string) time.Time {
	if behind != "" {
		return now.Add(-longestWait)
	}
	return now
}

// send appends timers to the log and marks them as sent. When it fails in between they
// are sent again.
func (t *Ticker) send(ctx context.Context, by, now time.Time, limit int) (sent int, err error) {
	err = t.cfg.DB.InBatch(ctx, func(tx *storage.Tx) error {
		due, err := tx.TakeDueTimers(ctx, by, limit)
		if err != nil || len(due) == 0 {
			return err
		}
		signals := make([]schemas.Message, len(due))
		for i := range due {
			signals[i] = signalOf(&due[i])
			t.late.Observe(now.Sub(due[i].Due).Seconds())
		}
		sent = len(due)
		return t.cfg.Log.Append(ctx, signals...)
	})
	return sent, err
}

func signalOf(t *storage.DueTimer) *schemas.Signal {
	return &schemas.Signal{
		ID: schemas.Derive(t.ContactID, "timer:"+t.Processor, int(t.Epoch)), Type: schemas.SignalTimer, For: t.Processor,
		ContactID: t.ContactID, OccurredAt: t.Due, Epoch: t.Epoch, What: t.What,
	}
}

// noteWait tells when timers begin to wait for somebody, and when they go on.
func (t *Ticker) noteWait(behind string, due, now time.Time) {
	if behind == t.waiting {
		return
	}
	if t.waiting = behind; behind == "" {
		t.held.Set(0)
		t.cfg.Logger.Info("timers.go_on")
		return
	}
	t.held.Set(1)
	t.cfg.Logger.Warn("timers.wait", zap.String("for", behind), zap.Time("first_due", due), zap.Time("until_at_most", now.Add(longestWait)))
}

package loop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// thread is one member of the processor's group with its loop. One goroutine
// runs it; only trouble and stopped are read by others.
type thread struct {
	cfg     Config
	name    string // of the processor
	number  int
	topics  []string // without prefix
	log     *zap.Logger
	metrics *loopMetrics

	member    *member
	intake    *intake
	publisher *publisher

	assignment *membership
	parts      map[int32]*part
	narrow     narrowing
	emitting   bool // the last batch had outputs
	formats    formats

	failures int // turns in a row that failed
	since    time.Time
	lastLog  time.Time
	trouble  atomic.Pointer[error]
	stopped  atomic.Pointer[[]StoppedPartition]
}

// stage is what may be done on a partition.
type stage int

const (
	unsettled stage = iota // owned; the table of recovery has to say where it stands
	ready                  // applied and published up to its ranges
	halted                 // waits for an operator
)

// part is a partition number that this member owns.
type part struct {
	number    int32
	stage     stage
	format    int32                // as the row has it
	ranges    storage.Ranges       // as the row has them
	left      storage.Ranges       // what the row has of topics that are no longer consumed
	at        map[string]int64     // how far the log was read, by topic: next, or further over markers
	ids       map[string]uuid.UUID // of the logs that are read, by topic
	published bool                 // the row says so
	active    time.Time            // when it last moved
	doubt     string               // a mismatch seen once
	reason    string               // why it is halted
	recheck   time.Time            // when a halted partition is looked at again
}

func newThread(cfg Config, number int, metrics *loopMetrics) *thread {
	t := &thread{
		cfg: cfg, name: cfg.Processor.Name(), number: number, metrics: metrics,
		log:        cfg.Logger.With(zap.String("processor", cfg.Processor.Name()), zap.Int("thread", number)),
		assignment: newMembership("", -1, nil),
		parts:      make(map[int32]*part),
		publisher:  newPublisher(cfg, number),
		formats:    formats{highest: FormatOf(cfg.Processor)},
	}
	for _, topic := range cfg.Processor.Topics() {
		t.topics = append(t.topics, string(topic))
	}
	return t
}

// run is the life of a thread: turns until ctx ends, then a tidy end. Whatever
// goes wrong in a turn is waited out and the turn made again, except what ends
// the process.
func (t *thread) run(ctx context.Context) (err error) {
	if t.member, err = newMember(t.cfg, t.number); err != nil {
		return err
	}
	defer t.member.close()
	if t.intake, err = newIntake(t.cfg); err != nil {
		return err
	}
	defer t.intake.close()
	defer t.publisher.close()
	defer t.letGo(nil)

	for ctx.Err() == nil {
		err := t.turn(ctx)
		switch {
		case errors.Is(err, stream.ErrTwin), errors.Is(err, errCrash):
			return err
		case err != nil && ctx.Err() == nil:
			t.suffer(ctx, err)
		case err == nil:
			t.recovered()
		}
	}
	if errors.Is(context.Cause(ctx), errCrash) {
		return errCrash // only tests kill so
	}
	t.leave(ctx)
	return nil
}

// turn does what there is to do: follow the assignment, settle partitions that
// are new or whose last publish failed, tidy idle ones, and take a batch
// through apply and publish; or it waits for records.
func (t *thread) turn(ctx context.Context) error {
	t.follow()
	if err := t.member.err(); err != nil {
		return err
	}
	if err := t.settle(ctx); err != nil {
		return err
	}
	if err := t.tidy(ctx, time.Now()); err != nil {
		return err
	}
	if err := t.takeIn(); err != nil {
		return err
	}
	b := t.nextBatch()
	if b == nil {
		if err := t.publisher.rest(ctx); err != nil {
			return err
		}
		t.await(ctx)
		return nil
	}
	return t.process(ctx, b)
}

// follow takes over the newest assignment. Partitions that stay are settled
// again, for between two assignments another member may have owned them.
func (t *thread) follow() {
	a := t.member.assignment()
	if a == t.assignment {
		return
	}
	t.letGo(a.partitions)
	t.assignment = a
	for _, p := range a.partitions {
		if t.parts[p] == nil {
			t.parts[p] = &part{number: p}
		}
		t.parts[p].stage = unsettled
	}
	if len(a.partitions) > 0 {
		t.log.Info("processor.assigned", zap.Int32s("partitions", a.partitions), zap.Int32("generation", a.generation))
	}
}

// letGo forgets all partitions but those kept.
func (t *thread) letGo(kept []int32) {
	for p := range t.parts {
		if slices.Contains(kept, p) {
			continue
		}
		t.intake.drop(p)
		t.metrics.forget(p)
		delete(t.parts, p)
	}
	t.noteStopped()
}

// await waits for records, a new assignment, or the time to tidy.
func (t *thread) await(ctx context.Context) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.assignment.ended, cancel)()
	if due := t.nextDue(); !due.IsZero() {
		wait, cancel = context.WithDeadline(wait, due)
		defer cancel()
	}
	t.recovered() // waiting for records is no trouble
	t.intake.await(wait)
}

// takeIn takes over what was fetched.
func (t *thread) takeIn() error {
	t.intake.hurry()
	broken, err := t.intake.take()
	for _, b := range broken {
		if p := t.parts[b.partition]; p != nil && p.stage == ready {
			t.unsettle(p)
			err = errors.Join(err, b.err)
		}
	}
	t.measureLag()
	return err
}

// unsettle makes the table of recovery decide where the partition stands.
func (t *thread) unsettle(p *part) {
	p.stage = unsettled
	t.intake.drop(p.number)
}

// nextDue is when a partition is to be tidied or looked at again; zero for never.
func (t *thread) nextDue() time.Time {
	var due time.Time
	for _, p := range t.parts {
		var at time.Time
		switch {
		case p.stage == halted:
			at = p.recheck
		case p.stage == ready && !p.tidied():
			at = p.active.Add(t.cfg.IdleAfter)
		default:
			continue
		}
		if due.IsZero() || at.Before(due) {
			due = at
		}
	}
	return due
}

// tidied says that the row is marked published and the log was read no further
// than the row says.
func (p *part) tidied() bool { return p.published && !p.ahead() }

// ahead says that the log was read beyond the row, over what is no record.
func (p *part) ahead() bool {
	for topic, at := range p.at {
		if at > p.ranges[topic].Next {
			return true
		}
	}
	return false
}

// tidy moves the offsets of idle partitions over transaction markers and
// aborted data, so that they never fall below the log's start, and marks their
// rows published, so that their group may expire.
func (t *thread) tidy(ctx context.Context, now time.Time) error {
	b := t.emptyBatch()
	marks := make(map[int32]storage.Ranges)
	for _, p := range t.parts {
		if p.stage != ready || p.tidied() || now.Sub(p.active) < t.cfg.IdleAfter {
			continue
		}
		if p.ahead() {
			b.add(p)
		}
		marks[p.number] = nil
	}
	if len(marks) == 0 {
		return nil
	}
	if len(b.parts) > 0 {
		if err := t.process(ctx, b); err != nil {
			return err
		}
	}
	for n := range marks {
		p := t.parts[n]
		if p.stage != ready || p.ahead() {
			delete(marks, n)
			continue
		}
		marks[n] = p.ranges.With(p.left)
	}
	if len(marks) == 0 {
		return nil
	}
	if err := storage.MarkPublished(ctx, t.cfg.DB, t.name, marks, t.formats.highest); err != nil {
		return err
	}
	for n := range marks {
		t.parts[n].published = true
		t.parts[n].ranges = t.parts[n].ranges.Settled()
	}
	return t.cfg.hooks.step(stepTidied, keys(marks))
}

// leave is the end of a graceful stop. It keeps the membership.
func (t *thread) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.cfg.StopTimeout)
	defer cancel()
	// Everything is due now.
	if err := t.tidy(ctx, time.Now().Add(t.cfg.IdleAfter)); err != nil {
		t.log.Info("processor.left_untidy", zap.Error(err)) // the table of recovery takes it from here
	}
}

// finishing outlives ctx for as long as the batch in hand may take at a
// graceful stop.
func (t *thread) finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(t.cfg.StopTimeout, cancel)
		context.AfterFunc(work, func() { late.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// suffer waits before the next turn: shortly when the group has moved on, for a
// new assignment comes soon; longer in an outage, which is logged when it
// begins and then once a minute.
func (t *thread) suffer(ctx context.Context, err error) {
	t.failures++
	longest := 5 * time.Second
	if errors.Is(err, errStale) {
		longest = 500 * time.Millisecond
		t.log.Info("processor.stale", zap.Error(err))
	} else {
		t.endure(err)
	}
	pause := time.NewTimer(min(10*time.Millisecond<<min(t.failures, 10), longest))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-t.assignment.ended.Done():
	case <-ctx.Done():
	}
}

func (t *thread) endure(err error) {
	now := time.Now()
	if t.trouble.Load() == nil {
		t.since = now
	}
	wrapped := fmt.Errorf("processor %s: %w", t.name, err)
	t.trouble.Store(&wrapped)
	if now.Sub(t.lastLog) >= time.Minute {
		t.lastLog = now
		t.log.Warn("processor.waiting", zap.Error(err), zap.Duration("for", now.Sub(t.since)))
	}
}

// recovered ends an outage.
func (t *thread) recovered() {
	t.failures = 0
	if t.trouble.Swap(nil) != nil {
		t.lastLog = time.Time{}
		t.log.Info("processor.recovered", zap.Duration("after", time.Since(t.since)))
	}
}

// noteStopped publishes which partitions wait for an operator.
func (t *thread) noteStopped() {
	var all []StoppedPartition
	for _, p := range t.parts {
		if p.stage == halted {
			all = append(all, StoppedPartition{p.number, p.reason})
		}
	}
	slices.SortFunc(all, func(a, b StoppedPartition) int { return int(a.Partition - b.Partition) })
	t.stopped.Store(&all)
}

func (t *thread) measureLag() {
	for n, p := range t.parts {
		if p.stage != ready {
			continue
		}
		var lag int64
		for topic, at := range p.at {
			if end := t.intake.stableEnd(t.topicName(topic), n); end > at {
				lag += end - at
			}
		}
		t.metrics.setLag(n, lag)
	}
}

// topicName is a topic's name on the brokers.
func (t *thread) topicName(topic string) string { return t.cfg.Kafka.Topic(schemas.Topic(topic)) }

func keys[V any](m map[int32]V) []int32 {
	ks := make([]int32, 0, len(m))
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

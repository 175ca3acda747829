package loop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// worker is one member of the processor's group with its loop. One goroutine
// runs it; only trouble and stopped are read by others.
type worker struct {
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
	emitting   bool      // the last batch had outputs
	begun      time.Time // when the last batch was
	formats    formats
	takesOver  TakesOver // the processor, if it does

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
	newer     bool                 // it is halted because a newer release wrote it
	waits     bool                 // it is halted until its take-over may begin, by itself
	recheck   time.Time            // when a halted partition is looked at again
}

func newWorker(cfg Config, number int, metrics *loopMetrics) *worker {
	w := &worker{
		cfg: cfg, name: cfg.Processor.Name(), number: number, metrics: metrics,
		log:        cfg.Logger.With(zap.String("processor", cfg.Processor.Name()), zap.Int("worker", number)),
		assignment: newMembership("", -1, nil),
		parts:      make(map[int32]*part),
		publisher:  newPublisher(cfg, number),
		formats:    formats{highest: FormatOf(cfg.Processor)},
	}
	w.takesOver, _ = cfg.Processor.(TakesOver)
	for _, topic := range cfg.Processor.Topics() {
		w.topics = append(w.topics, string(topic))
	}
	return w
}

// run takes turns until ctx ends, then stops gracefully. After an error it waits and
// takes the turn again, except for errors that end the process.
func (w *worker) run(ctx context.Context) (err error) {
	if w.member, err = newMember(w.cfg, w.number); err != nil {
		return err
	}
	defer w.member.close()
	if w.intake, err = newIntake(w.cfg); err != nil {
		return err
	}
	defer w.intake.close()
	defer w.publisher.close()
	defer w.letGo(nil)

	for ctx.Err() == nil {
		err := w.turn(ctx)
		switch {
		case errors.Is(err, stream.ErrTwin), errors.Is(err, errCrash):
			return err
		case err != nil && ctx.Err() == nil:
			w.backOff(ctx, err)
		case err == nil:
			w.recovered()
		}
	}
	if errors.Is(context.Cause(ctx), errCrash) {
		return errCrash // only tests kill so
	}
	w.leave(ctx)
	return nil
}

// turn does what there is to do: follow the assignment, settle partitions that
// are new or whose last publish failed, raise formats, tidy idle ones, and take a batch
// through apply and publish; or it waits for records.
func (w *worker) turn(ctx context.Context) error {
	w.follow()
	if err := w.member.err(); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	if err := w.raise(ctx, time.Now()); err != nil {
		return err
	}
	if err := w.tidy(ctx, time.Now()); err != nil {
		return err
	}
	w.pause(ctx)
	if err := w.takeIn(); err != nil {
		return err
	}
	b := w.nextBatch()
	if b == nil {
		if err := w.publisher.rest(ctx); err != nil {
			return err
		}
		w.await(ctx)
		return nil
	}
	w.begun = time.Now()
	return w.process(ctx, b)
}

// follow takes over the newest assignment. Partitions that stay are settled
// again, for between two assignments another member may have owned them.
func (w *worker) follow() {
	a := w.member.assignment()
	if a == w.assignment {
		return
	}
	w.letGo(a.partitions)
	w.assignment = a
	for _, p := range a.partitions {
		if w.parts[p] == nil {
			w.parts[p] = &part{number: p}
		}
		w.parts[p].stage = unsettled
	}
	if len(a.partitions) > 0 {
		w.log.Info("processor.assigned", zap.Int32s("partitions", a.partitions), zap.Int32("generation", a.generation))
	}
}

// letGo forgets all partitions but those kept.
func (w *worker) letGo(kept []int32) {
	for p := range w.parts {
		if slices.Contains(kept, p) {
			continue
		}
		w.intake.drop(p)
		w.metrics.forget(p)
		delete(w.parts, p)
	}
	w.noteStopped()
}

// await waits for records, a new assignment, or the time to tidy.
func (w *worker) await(ctx context.Context) {
	wait, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.assignment.ended, cancel)()
	if due := w.nextDue(); !due.IsZero() {
		wait, cancel = context.WithDeadline(wait, due)
		defer cancel()
	}
	w.recovered() // waiting for records is no trouble
	w.intake.await(wait)
}

// takeIn takes over what was fetched.
func (w *worker) takeIn() error {
	w.intake.hurry()
	broken, err := w.intake.take()
	for _, b := range broken {
		if p := w.parts[b.partition]; p != nil && p.stage == ready {
			w.unsettle(p)
			err = errors.Join(err, b.err)
		}
	}
	w.measureLag()
	return err
}

// unsettle makes the table of recovery decide where the partition stands.
func (w *worker) unsettle(p *part) {
	p.stage = unsettled
	w.intake.drop(p.number)
}

// nextDue is when a partition is to be tidied or looked at again; zero for never.
func (w *worker) nextDue() time.Time {
	var due time.Time
	for _, p := range w.parts {
		var at time.Time
		switch {
		case p.stage == halted:
			at = p.recheck
		case p.stage == ready && p.format < w.formats.highest:
			at = w.formats.askedAt.Add(askFormatsAgain)
		case p.stage == ready && !p.tidied():
			at = p.active.Add(w.cfg.timing.Idle)
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

// raise writes partitions in a higher format as soon as all members of the group know it.
func (w *worker) raise(ctx context.Context, now time.Time) error {
	b := w.emptyBatch()
	for _, p := range w.toRaise(ctx, now) {
		b.add(p)
	}
	if len(b.parts) == 0 {
		return nil
	}
	return w.process(ctx, b)
}

// tidy moves the offsets of idle partitions over transaction markers and
// aborted data, so that they never fall below the log's start, and marks their
// rows published, so that their group may expire.
func (w *worker) tidy(ctx context.Context, now time.Time) error {
	b := w.emptyBatch()
	marks := make(map[int32]storage.Ranges)
	for _, p := range w.parts {
		if p.stage != ready || p.tidied() || now.Sub(p.active) < w.cfg.timing.Idle {
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
		if err := w.process(ctx, b); err != nil {
			return err
		}
	}
	for n := range marks {
		p := w.parts[n]
		if p.stage != ready || p.ahead() {
			delete(marks, n)
			continue
		}
		marks[n] = p.ranges.With(p.left)
	}
	if len(marks) == 0 {
		return nil
	}
	if err := w.cfg.DB.MarkPublished(ctx, w.name, marks, w.formats.highest); err != nil {
		return err
	}
	for n := range marks {
		w.parts[n].published = true
		w.parts[n].ranges = w.parts[n].ranges.Settled()
	}
	return w.cfg.hooks.step(stepTidied, slices.Sorted(maps.Keys(marks)))
}

// leave is the end of a graceful stop. It keeps the membership.
func (w *worker) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	// Everything is due now.
	if err := w.tidy(ctx, time.Now().Add(w.cfg.timing.Idle)); err != nil {
		w.log.Info("processor.left_untidy", zap.Error(err)) // the table of recovery takes it from here
	}
}

// finishing outlives ctx for as long as the batch in hand may take at a
// graceful stop.
func (w *worker) finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(stopTimeout, cancel)
		context.AfterFunc(work, func() { late.Stop() })
	})
	return work, func() { stop(); cancel() }
}

// backOff waits before the next turn: briefly when the group has moved on, since a
// new assignment comes soon; longer in an outage, which is logged when it
// begins and then once a minute.
func (w *worker) backOff(ctx context.Context, err error) {
	w.failures++
	longest := 5 * time.Second
	if errors.Is(err, errStale) {
		longest = 500 * time.Millisecond
		w.log.Info("processor.stale", zap.Error(err))
	} else {
		w.noteOutage(err)
	}
	pause := time.NewTimer(min(10*time.Millisecond<<min(w.failures, 10), longest))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-w.assignment.ended.Done():
	case <-ctx.Done():
	}
}

// noteOutage makes the loop not ready and logs why.
func (w *worker) noteOutage(err error) {
	now := time.Now()
	if w.trouble.Load() == nil {
		w.since = now
	}
	wrapped := fmt.Errorf("processor %s: %w", w.name, err)
	w.trouble.Store(&wrapped)
	if now.Sub(w.lastLog) >= time.Minute {
		w.lastLog = now
		w.log.Warn("processor.waiting", zap.Error(err), zap.Duration("for", now.Sub(w.since)))
	}
}

// recovered ends an outage.
func (w *worker) recovered() {
	w.failures = 0
	if w.trouble.Swap(nil) != nil {
		w.lastLog = time.Time{}
		w.log.Info("processor.recovered", zap.Duration("after", time.Since(w.since)))
	}
}

// noteStopped publishes which partitions wait for an operator.
func (w *worker) noteStopped() {
	var all []StoppedPartition
	for _, p := range w.parts {
		if p.stage == halted && !p.waits {
			all = append(all, StoppedPartition{p.number, p.reason, p.newer})
		}
	}
	slices.SortFunc(all, func(a, b StoppedPartition) int { return int(a.Partition - b.Partition) })
	w.stopped.Store(&all)
}

func (w *worker) measureLag() {
	for n, p := range w.parts {
		if p.stage != ready {
			continue
		}
		var lag int64
		for topic, at := range p.at {
			if end := w.intake.stableEnd(w.topicName(topic), n); end > at {
				lag += end - at
			}
		}
		w.metrics.setLag(n, lag)
	}
}

// topicName is a topic's name on the brokers.
func (w *worker) topicName(topic string) string { return w.cfg.Kafka.Topic(schemas.Topic(topic)) }

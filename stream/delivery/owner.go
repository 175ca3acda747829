package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
)

// sinksGroup is the consumer group, without prefix, that decides which instance
// owns which partition number. It reads nothing and commits nothing.
const sinksGroup = "sinks"

// Deps are what delivery works with.
type Deps struct {
	Kafka     stream.Config
	DB        *storage.DB
	Appender  stream.Appender // for dead letters and receipts
	Codec     OutboxCodec     // required
	Deliverer Deliverer
	// Destinations is read at the start, whenever storage.ChannelDestinations is
	// notified, and every 10 s.
	Destinations *storage.Destinations
	Log          *zap.Logger           // may be nil
	Registerer   prometheus.Registerer // may be nil
}

// Sinks delivers the log to destinations. One instance a
// process; several processes share the partition numbers.
type Sinks struct {
	cfg    Config
	kafka  stream.Config
	db     *storage.DB
	known  *storage.Destinations
	log    *zap.Logger
	env    *courierEnv
	flush  *flusher
	reader *reader.Reader

	changed  chan struct{} // one token: reconcile
	noted    chan struct{} // one token: something that stands still may have ended
	strayed  chan struct{} // one token: outbox records were read
	stopping chan struct{} // closed when a stop begins
	running  backfills     // as reconcile last saw them; its own
	ended    []*courier    // of deleted destinations, until nothing of them is under way; reconcile's own
	fatal    chan error    // ends Run
	skipper  skipper
	health   struct { // of destinations, as it is written
		sync.Mutex
		begun bool // what a former process of this name wrote is forgotten
	}

	mu       sync.Mutex
	couriers map[string]*courier
	holdings map[int32]*holding
	assigned map[int32]context.CancelFunc // ends the wait for the lease
	// unconfirmed are numbers that were taken back and that the group has not assigned yet.
	unconfirmed []int32
	tasks       sync.WaitGroup
}

// NewSinks makes the delivery; Run starts it.
func NewSinks(cfg Config, deps Deps) (*Sinks, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	if deps.Codec == nil {
		return nil, errors.New("sinks: Deps.Codec is nil: outbox records are decoded with it")
	}
	if deps.Log == nil {
		deps.Log = zap.NewNop()
	}
	metrics, err := newSinkMetrics(deps.Registerer)
	if err != nil {
		return nil, err
	}
	r, err := reader.New(deps.Kafka, deps.Log, deps.Registerer)
	if err != nil {
		return nil, fmt.Errorf("sinks: %w", err)
	}
	s := &Sinks{
		cfg: cfg, kafka: deps.Kafka, db: deps.DB, known: deps.Destinations, log: deps.Log, reader: r,
		changed: make(chan struct{}, 1), stopping: make(chan struct{}), fatal: make(chan error, 1),
		skipper:  skipper{signal: make(chan struct{}, 1)},
		couriers: map[string]*courier{}, holdings: map[int32]*holding{}, assigned: map[int32]context.CancelFunc{},
	}
	s.noted, s.strayed = make(chan struct{}, 1), make(chan struct{}, 1)
	s.flush = newFlusher(cfg, deps.DB, deps.Log, metrics)
	s.flush.stale, s.flush.flushed = s.refresh, s.wakeCouriers
	s.env = &courierEnv{cfg: cfg, deliverer: deps.Deliverer, appender: deps.Appender, flush: s.flush, log: deps.Log, metrics: metrics, suspend: s.suspend, refresh: s.refresh}
	s.env.db, s.env.cpu = deps.DB, r.CPULimiter
	s.env.codec = deps.Codec
	told := func() {
		s.env.notes.Add(1)
		stream.Signal(s.noted)
	}
	s.env.erased, s.env.cancelled = newNoted(deps.DB.EachErased, deps.Log, told), newNoted(deps.DB.EachCancelled, deps.Log, told)
	s.flush.erased, s.flush.cancelled, s.flush.appender = s.env.erased, s.env.cancelled, deps.Appender
	s.env.loader = newLoader(deps.DB, deps.Log, s.listTracks)
	s.flush.parked = s.env.loader.wake
	r.Wake = s.wakeFeeder
	metrics.watch(s)
	return s, nil
}

// Run delivers until ctx ends, then stops in good order: nothing new starts, what
// is in flight may finish for Drain, results are flushed, leases are released and
// the group is left, so that another instance takes over at once. It returns an
// error only when it cannot go on: another live process has this instance's name.
func (s *Sinks) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	s.prepare(ctx)
	s.tasks.Go(func() { s.reader.Run(work) })
	s.tasks.Go(func() { s.flush.run(work) })
	s.tasks.Go(func() { s.env.loader.run(work) })
	s.tasks.Go(func() { s.renewLeases(work) })
	s.tasks.Go(func() { s.manage(work) })
	s.tasks.Go(func() { s.housekeeping(work) })
	s.tasks.Go(func() { s.mirror(work) })
	s.tasks.Go(func() { s.skip(work) })
	s.tasks.Go(func() { s.env.erased.run(work) })
	s.tasks.Go(func() { s.env.cancelled.run(work) })
	s.tasks.Go(func() { s.end(work) })
	s.tasks.Go(func() { s.stray(work) })
	s.tasks.Go(func() {
		_ = s.db.ListenAll(work, map[string]func(string){
			storage.ChannelDestinations: func(string) { s.refresh() },
			storage.ChannelParked:       func(string) { s.env.loader.wake() },
			storage.ChannelErased:       func(ids string) { s.env.erased.heard(work, ids) },
			storage.ChannelCancelled:    func(ids string) { s.env.cancelled.heard(work, ids) },
		})
	})
	s.takeBack(ctx)
	member, err := s.join()
	if err == nil {
		s.log.Info("delivery.started")
		select {
		case <-ctx.Done():
		case err = <-s.fatal:
		}
		s.shutdown(ctx, member)
	}
	stop()
	s.tasks.Wait()
	s.env.metrics.unregister()
	return err
}

// prepare makes the delivery log ready for today and reads who was erased, waiting for
// Postgres if need be. Nothing else keeps deliveries waiting: what has no day of its
// own in the log stands in its default partition, and it is tried again each hour.
func (s *Sinks) prepare(ctx context.Context) {
	s.await(ctx, s.env.erased.load)
	s.await(ctx, s.env.cancelled.load)
	s.await(ctx, func(ctx context.Context) error { return s.db.PrepareAttempts(ctx, time.Now(), 2) })
}

// await does what deliveries wait for, again while Postgres is away.
func (s *Sinks) await(ctx context.Context, do func(context.Context) error) {
	for {
		err := do(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case !storage.IsUnavailable(err) && !storage.IsRetryable(err):
			s.log.Error("delivery.prepare_failed", zap.Error(err))
			return
		}
		s.log.Warn("delivery.waiting_for_postgres", zap.Error(err))
		stream.Pause(ctx, time.Second)
	}
}

// join becomes a member of the group. The client fetches nothing: it is there for
// the assignment alone.
func (s *Sinks) join() (*kgo.Client, error) {
	topic := s.kafka.Topic(schemas.TopicLifecycle)
	member, err := s.kafka.NewClient("sinks-group", s.log,
		kgo.ConsumerGroup(s.kafka.Group(sinksGroup)),
		kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.InstanceID(s.cfg.Instance),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.DisableAutoCommit(),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.cfg.SessionTimeout/3)),
		kgo.RebalanceTimeout(s.cfg.Drain+s.cfg.SessionTimeout),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) { s.assign(got[topic]) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) { s.revoke(ctx, gone[topic]) }),
		kgo.OnPartitionsLost(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) { s.revoke(ctx, gone[topic]) }),
		kgo.WithHooks(sinksGroupErrors(s.groupFailed)),
	)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", sinksGroup, err)
	}
	member.PauseFetchTopics(topic)
	return member, nil
}

type sinksGroupErrors func(error)

// OnGroupManageError implements kgo.HookGroupManageError.
func (f sinksGroupErrors) OnGroupManageError(err error) { f(err) }

func (s *Sinks) groupFailed(err error) {
	if errors.Is(err, kerr.FencedInstanceID) {
		select {
		case s.fatal <- fmt.Errorf("%w: instance %s of group %s: %w", stream.ErrTwin, s.cfg.Instance, sinksGroup, err):
		default:
		}
		return
	}
	s.log.Warn("delivery.group_error", zap.Error(err))
}

// assign begins to wait for the leases of partition numbers. The first assignment
// also says which of those that were taken back at the start are another's by now.
func (s *Sinks) assign(partitions []int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range partitions {
		if s.assigned[p] == nil {
			s.own(p)
		}
	}
	moved := slices.DeleteFunc(s.unconfirmed, func(p int32) bool { return slices.Contains(partitions, p) })
	s.unconfirmed = nil
	if gone := s.disown(moved); len(gone) > 0 {
		// The group need not wait: the new owner waits for the lease.
		s.tasks.Go(func() { s.giveUp(context.Background(), gone) })
	}
}

// own takes the lease when it is free and then starts to deliver. The mutex is held.
func (s *Sinks) own(partition int32) {
	ctx, cancel := context.WithCancel(context.Background())
	s.assigned[partition] = cancel
	s.tasks.Go(func() {
		h, err := s.acquire(ctx, partition)
		if err != nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if ctx.Err() != nil {
			s.tasks.Go(func() { s.giveUp(context.Background(), []*holding{h}) })
			return
		}
		s.hold(h)
	})
}

// hold delivers under a lease. The mutex is held.
func (s *Sinks) hold(h *holding) {
	s.holdings[h.partition] = h
	s.tasks.Go(func() { s.feed(h) })
	s.refresh()
	s.log.Info("delivery.lease_acquired", zap.Int32("partition", h.partition))
}

// revoke ends the ownership of partition numbers in good order.
func (s *Sinks) revoke(ctx context.Context, partitions []int32) {
	s.mu.Lock()
	gone := s.disown(partitions)
	s.mu.Unlock()
	s.giveUp(ctx, gone)
}

// disown forgets partition numbers and returns the holdings to give up. The mutex is
// held.
func (s *Sinks) disown(partitions []int32) (gone []*holding) {
	for _, p := range partitions {
		if cancel := s.assigned[p]; cancel != nil {
			cancel()
			delete(s.assigned, p)
		}
		if h := s.holdings[p]; h != nil {
			delete(s.holdings, p)
			gone = append(gone, h)
		}
	}
	return gone
}

// giveUp lets what is in flight finish for a while, writes what came of it, and
// releases the leases.
func (s *Sinks) giveUp(ctx context.Context, holdings []*holding) {
	if len(holdings) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*s.cfg.Drain)
	defer cancel()
	for _, h := range holdings {
		h.closing.Store(true)
	}
	patience := time.NewTimer(s.cfg.Drain)
	defer patience.Stop()
	for _, h := range holdings {
		for _, t := range h.list() {
			select {
			case <-t.courier.retire(t):
			case <-patience.C:
				patience.Reset(0)
			}
		}
	}
	// What is still in flight is cut off: the next owner may begin.
	for _, h := range holdings {
		h.cancel()
	}
	s.flushAll(ctx)
	leases := make([]storage.Lease, len(holdings))
	for i, h := range holdings {
		h.lost.Store(true)
		s.reader.Forget(h.partition)
		leases[i] = h.lease()
	}
	if err := s.db.ReleaseLeases(ctx, leases); err != nil {
		s.log.Warn("delivery.lease_release_failed", zap.Error(err))
	}
}

// flushAll writes what is known, trying again until ctx ends: a connection to
// Postgres that breaks just now must not have all of it sent again by the next
// owner.
func (s *Sinks) flushAll(ctx context.Context) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.flush.sync(ctx)
		if err == nil {
			return
		}
		s.log.Warn("delivery.flush_failed", zap.String("at", "revocation"), zap.Error(err))
		if ctx.Err() != nil {
			return
		}
		stream.Pause(ctx, wait)
	}
}

// loseLease ends a holding whose lease somebody else has, and waits for it again:
// the group still says that the partition number is ours.
func (s *Sinks) loseLease(h *holding) {
	h.lost.Store(true)
	h.cancel()
	for _, t := range h.list() {
		t.courier.retire(t)
	}
	s.log.Warn("delivery.lease_lost", zap.Int32("partition", h.partition))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holdings[h.partition] != h {
		return
	}
	delete(s.holdings, h.partition)
	s.reader.Forget(h.partition)
	s.own(h.partition)
}

// shutdown stops in good order.
func (s *Sinks) shutdown(ctx context.Context, member *kgo.Client) {
	s.env.stopped.Store(true)
	close(s.stopping)
	s.mu.Lock()
	var all []int32
	for p := range s.assigned {
		all = append(all, p)
	}
	s.mu.Unlock()
	s.revoke(ctx, all)
	member.Close() // a static member does not leave by itself
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	leave := kadm.LeaveGroup(s.kafka.Group(sinksGroup)).Reason("stopping").InstanceIDs(s.cfg.Instance)
	if _, err := kadm.NewClient(s.reader.Far).LeaveGroup(ctx, leave); err != nil {
		s.log.Warn("delivery.leave_failed", zap.Error(err))
	}
	s.log.Info("delivery.stopped")
}

// feed reads on for the tracks of a partition number whenever there is something
// to read, or room for it.
func (s *Sinks) feed(h *holding) {
	low := map[schemas.Topic]int64{}
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.feedMe:
		}
		clear(low)
		for _, t := range h.list() {
			t.courier.feed(t, s.reader, low)
		}
		s.feedStrays(h, low)
		for topic, at := range low {
			s.reader.Passed(topic, h.partition, at)
		}
	}
}

func (s *Sinks) wakeFeeder(partition int32) {
	s.mu.Lock()
	h := s.holdings[partition]
	s.mu.Unlock()
	if h != nil {
		h.wake()
	}
}

func (s *Sinks) wakeCouriers() {
	for _, c := range s.listCouriers() {
		c.wakeUp()
	}
}

func (s *Sinks) listCouriers() []*courier {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*courier, 0, len(s.couriers))
	for _, c := range s.couriers {
		all = append(all, c)
	}
	return all
}

func (s *Sinks) listTracks() []*track {
	var all []*track
	for _, h := range s.listHoldings() {
		all = append(all, h.list()...)
	}
	return all
}

func (s *Sinks) listHoldings() []*holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*holding, 0, len(s.holdings))
	for _, h := range s.holdings {
		all = append(all, h)
	}
	return all
}

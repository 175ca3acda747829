package delivery

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// A holding is a partition number whose lease this process has. Two processes may
// both believe that they own a partition for a while; the lease makes that
// harmless. What is written is fenced by its token. What is sent is fenced by
// time: an attempt starts only if its deadline ends before the lease could have
// run out, counted from when the last renewal that succeeded was sent. So the
// former owner's last attempt ends before the next owner's first begins.
type holding struct {
	partition int32
	token     string
	feedMe    chan struct{} // one token: there may be something to read

	until   atomic.Pointer[time.Time] // by this process's monotonic clock
	closing atomic.Bool               // given up in good order: nothing new starts
	lost    atomic.Bool               // somebody else has it: nothing is written

	ctx    context.Context // of its attempts and its feeder
	cancel context.CancelFunc

	strays strays // records of topic outbox that no destination takes

	mu     sync.Mutex
	tracks []*track // never changed in place
}

func newHolding(l storage.Lease, sentAt time.Time, lasts time.Duration) *holding {
	h := &holding{
		partition: l.Partition, token: l.Token, feedMe: make(chan struct{}, 1),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.renewed(sentAt, lasts)
	return h
}

func (h *holding) lease() storage.Lease {
	return storage.Lease{Partition: h.partition, Token: h.token}
}

// renewed notes a renewal by the time it was sent, not answered.
func (h *holding) renewed(sentAt time.Time, lasts time.Duration) {
	until := sentAt.Add(lasts)
	h.until.Store(&until)
}

// mayStart says whether an attempt that ends at deadline may start.
func (h *holding) mayStart(deadline time.Time) bool {
	return !h.closing.Load() && !h.lost.Load() && deadline.Before(*h.until.Load())
}

// wake lets the feeder look for records.
func (h *holding) wake() { stream.Signal(h.feedMe) }

// list is the holding's tracks, those included that are retired and not idle or
// not flushed yet. It is not to be changed.
func (h *holding) list() []*track {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tracks
}

func (h *holding) put(t *track) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracks = append(slices.Clone(h.tracks), t)
}

func (h *holding) remove(t *track) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracks = slices.DeleteFunc(slices.Clone(h.tracks), func(o *track) bool { return o == t })
}

// leasePoll is how often an owner that waits for the former one's lease looks.
const leasePoll = 500 * time.Millisecond

// takeBack takes the leases that a dead process of this instance left, and delivers
// under them at once: before the group has answered, which may have to wait for a
// member that died too. It waits for Postgres, until ctx ends.
func (s *Sinks) takeBack(ctx context.Context) {
	if s.cfg.InstanceID == "" {
		return
	}
	sentAt := time.Now()
	leases, err := s.db.TakeBackLeases(ctx, s.holder(), s.cfg.Lease)
	for ; err != nil; leases, err = s.db.TakeBackLeases(ctx, s.holder(), s.cfg.Lease) {
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("delivery.lease_take_back_failed", zap.Error(err))
		stream.Pause(ctx, leasePoll)
		sentAt = time.Now()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range leases {
		s.assigned[l.Partition] = func() {}
		s.unconfirmed = append(s.unconfirmed, l.Partition)
		s.hold(newHolding(l, sentAt, s.cfg.Lease))
	}
}

func (s *Sinks) holder() storage.Holder {
	return storage.Holder{Name: s.cfg.Instance, InstanceID: s.cfg.InstanceID}
}

// acquire waits until the lease of the partition is free and takes it. It ends
// with ctx only.
func (s *Sinks) acquire(ctx context.Context, partition int32) (*holding, error) {
	for told := false; ; {
		sentAt := time.Now()
		leases, err := s.db.AcquireLeases(ctx, s.holder(), []int32{partition}, s.cfg.Lease)
		if len(leases) == 1 {
			return newHolding(leases[0], sentAt, s.cfg.Lease), nil
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.lease_acquire_failed", zap.Int32("partition", partition), zap.Error(err))
		} else if !told {
			told = true
			s.log.Info("delivery.lease_waiting", zap.Int32("partition", partition))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lease of partition %d: %w", partition, context.Cause(ctx))
		case <-time.After(min(leasePoll, s.cfg.Lease/4)):
		}
	}
}

// renewLeases keeps the leases until ctx ends. A renewal that fails is tried again
// soon; meanwhile attempts stop by themselves as the time runs out.
func (s *Sinks) renewLeases(ctx context.Context) {
	wait := s.cfg.Renew
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = s.cfg.Renew
		if err := s.renewOnce(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.lease_renew_failed", zap.Error(err))
			wait = min(s.cfg.Renew, time.Second)
		}
	}
}

func (s *Sinks) renewOnce(ctx context.Context) error {
	holdings := s.listHoldings()
	if len(holdings) == 0 {
		return nil
	}
	leases := make([]storage.Lease, len(holdings))
	for i, h := range holdings {
		leases[i] = h.lease()
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Renew)
	defer cancel()
	sentAt := time.Now()
	kept, err := s.db.RenewLeases(ctx, leases, s.cfg.Lease)
	if err != nil {
		return err
	}
	ours := map[int32]bool{}
	for _, p := range kept {
		ours[p] = true
	}
	for _, h := range holdings {
		if !ours[h.partition] {
			s.loseLease(h)
			continue
		}
		h.renewed(sentAt, s.cfg.Lease)
		for _, t := range h.list() {
			t.courier.release(t)
		}
	}
	return nil
}

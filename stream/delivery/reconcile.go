package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// refreshEvery is the poll interval for destinations.
const refreshEvery = 10 * time.Second

// refresh has destinations and cursors reconciled soon.
func (s *Sinks) refresh() { stream.Signal(s.changed) }

// manage brings tracks in line with destinations, leases and cursors whenever one
// of them has changed.
func (s *Sinks) manage(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		case <-tick.C:
		}
		if err := s.reconcile(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("delivery.reconcile_failed", zap.Error(err))
			stream.Pause(ctx, time.Second)
			s.refresh()
		}
	}
}

// reconcile is the only place where tracks begin, and where they end while the
// lease is kept. A track whose cursor was moved, whose topics changed or whose
// destination is paused is retired; when nothing of it is in flight and its
// results are flushed, the next round reads its cursors and begins a new one.
func (s *Sinks) reconcile(ctx context.Context) error {
	destinations, err := s.known.List(ctx)
	if err != nil {
		return err
	}
	holdings := s.listHoldings()
	s.updateCouriers(destinations)
	running, listed, err := s.readBackfills(ctx, s.running)
	if err != nil {
		return err
	}
	s.running = running
	s.retireUnwanted(holdings)
	if err := s.dropRetired(ctx, holdings); err != nil {
		return err
	}
	s.releaseUnused()
	if len(holdings) == 0 {
		return nil
	}
	partitions := make([]int32, len(holdings))
	for i, h := range holdings {
		partitions[i] = h.partition
	}
	through := drainedTracks(holdings)
	stored, err := s.db.LoadCursors(ctx, partitions)
	if err != nil {
		return err
	}
	cursors := map[cursorKey]storage.Cursor{}
	for _, c := range stored {
		cursors[cursorKey{c.DestinationID, c.ReplayID, schemas.Topic(c.Topic), c.Partition}] = c
	}
	s.retireRewound(holdings, cursors)
	s.forgetMarks(through, cursors)
	running.share(listed, cursors)
	return errors.Join(
		s.begin(ctx, running, holdings, cursors),
		s.beginStrays(ctx, holdings),
		s.readySkips(ctx, holdings, partitions),
		s.finishBackfills(ctx, running),
	)
}

type cursorKey struct {
	destination string
	replay      string // storage.LiveReplay for the live one
	topic       schemas.Topic
	partition   int32
}

// updateCouriers brings the couriers up to date; those of deleted destinations end.
func (s *Sinks) updateCouriers(destinations []*storage.Destination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	alive := map[string]bool{}
	for _, d := range destinations {
		alive[d.ID] = true
		c := s.couriers[d.ID]
		var err error
		if c != nil {
			err = c.update(d)
		} else if c, err = newCourier(s.env, d); err == nil {
			s.couriers[d.ID] = c
		}
		if err != nil {
			s.log.Error("delivery.destination_unusable", zap.String("destination", d.Name), zap.Error(err))
		}
	}
	for id, c := range s.couriers {
		if !alive[id] {
			delete(s.couriers, id)
			c.end()
			s.ended = append(s.ended, c)
		}
	}
}

// releaseUnused has the Deliverer let go of what it keeps for destinations of which
// nothing is under way here any more.
func (s *Sinks) releaseUnused() {
	deliverer, ok := s.env.deliverer.(Releaser)
	if !ok {
		return
	}
	s.ended = slices.DeleteFunc(s.ended, func(c *courier) bool {
		idle := c.idles()
		if idle {
			deliverer.Forget(c.id)
		}
		return idle
	})
	for _, c := range s.listCouriers() {
		if c.idles() && c.takeUsed() {
			deliverer.Release(c.id)
		}
	}
}

// idles says whether the courier has no track and nothing under way of former ones.
func (c *courier) idles() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.tracks) == 0 && c.flying == 0
}

func (c *courier) takeUsed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	used := c.used
	c.used = false
	return used
}

// end stops a courier for good.
func (c *courier) end() {
	c.mu.Lock()
	c.halt(true)
	c.ended = true
	for _, t := range []*time.Timer{c.timer, c.limiter.timer, c.inFlight.timer} {
		if t != nil {
			t.Stop()
		}
	}
	c.mu.Unlock()
	c.env.metrics.forget(c.dest)
}

// wants are the topics on which the courier should have cursors now: while nothing is sent,
// those of which something may end all the same.
func (c *courier) wants() []schemas.Topic {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	if c.halted {
		return schemas.Answering(c.subscription.Topics())
	}
	return c.subscription.Topics()
}

func (t *track) topics() []schemas.Topic {
	topics := make([]schemas.Topic, len(t.places))
	for i, p := range t.places {
		topics[i] = p.topic
	}
	return topics
}

func (s *Sinks) retireUnwanted(holdings []*holding) {
	for _, h := range holdings {
		for _, t := range h.list() {
			if !s.isWanted(t) {
				s.retire(t)
			}
		}
	}
}

// isWanted says whether a track should go on.
func (s *Sinks) isWanted(t *track) bool {
	if t.backfill == nil {
		return slices.Equal(t.courier.wants(), t.topics())
	}
	c := t.courier
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.halted && s.running[t.replay] == t.backfill && !t.ended()
}

// retire ends a track and comes back when it is idle.
func (s *Sinks) retire(t *track) {
	idle := t.courier.retire(t)
	if t.watched.Swap(true) {
		return
	}
	s.tasks.Go(func() {
		<-idle
		s.refresh()
	})
}

// dropRetired forgets tracks that are idle once all they did is flushed.
func (s *Sinks) dropRetired(ctx context.Context, holdings []*holding) error {
	type gone struct {
		h *holding
		t *track
	}
	var idle []gone
	for _, h := range holdings {
		for _, t := range h.list() {
			select {
			case <-t.idle:
				idle = append(idle, gone{h, t})
			default:
			}
		}
	}
	if len(idle) == 0 {
		return nil
	}
	if err := s.flush.sync(ctx); err != nil {
		return err
	}
	for _, g := range idle {
		g.h.remove(g.t)
	}
	return nil
}

func (s *Sinks) retireRewound(holdings []*holding, cursors map[cursorKey]storage.Cursor) {
	for _, h := range holdings {
		for _, t := range h.list() {
			for _, p := range t.places {
				stored, ok := cursors[cursorKey{t.courier.id, t.replayID(), p.topic, h.partition}]
				if !ok || stored.Epoch != p.epoch {
					s.retire(t)
				}
			}
		}
	}
}

// begin starts a track wherever a destination should have one and has none. What
// cannot begin keeps nothing else from it: a topic may lack a partition, or a cursor be
// damaged.
func (s *Sinks) begin(ctx context.Context, running backfills, holdings []*holding, cursors map[cursorKey]storage.Cursor) error {
	var fresh []beginning
	var failed error // the first of them; it is tried again soon
	for _, c := range s.listCouriers() {
		topics := c.wants()
		if len(topics) == 0 {
			continue
		}
		for _, h := range holdings {
			if c.onHolding(h, "") {
				continue
			}
			places, missing, err := placesOf(c.id, storage.LiveReplay, topics, h.partition, cursors)
			switch {
			case err == nil && len(missing) > 0:
				if err = s.createMissing(ctx, c.id, missing, h.partition); err != nil {
					err = fmt.Errorf("make cursors of destination %s on partition %d: %w", c.id, h.partition, err)
				}
			case err == nil:
				fresh = append(fresh, beginning{c, h, places, nil})
			}
			failed = cmp.Or(failed, err)
		}
	}
	if err := s.addTracks(ctx, fresh); err != nil {
		return err
	}
	failed = cmp.Or(failed, s.beginBackfills(ctx, running, holdings, cursors))
	// All at once, so that those that stand at one place share the read.
	for _, h := range holdings {
		h.wake()
	}
	return failed
}

// A beginning is a track about to be added.
type beginning struct {
	courier *courier
	holding *holding
	places  []*place
	replay  *backfill // nil for live
}

// addTracks adds tracks, each with the marks of what it has parked.
func (s *Sinks) addTracks(ctx context.Context, fresh []beginning) error {
	if len(fresh) == 0 {
		return nil
	}
	tracks, asked := make([]*track, len(fresh)), make([]storage.ParkedTrack, len(fresh))
	for i, b := range fresh {
		key := trackKey{partition: b.holding.partition}
		if b.replay != nil {
			key.replay = b.replay.id
		}
		tracks[i] = b.courier.newTrack(b.holding, key, b.places, b.replay)
		asked[i] = tracks[i].parkedTrack()
	}
	err := s.db.EachParkedKey(ctx, asked, func(i int, key string, records int, failing time.Duration) {
		c := tracks[i].courier
		c.mu.Lock()
		defer c.mu.Unlock()
		tracks[i].setMark(key, records, failing)
	})
	if err != nil {
		return err
	}
	for i, b := range fresh {
		b.courier.add(tracks[i])
		b.holding.put(tracks[i])
	}
	s.env.loader.wake()
	return nil
}

// onHolding says whether the courier has a track there, be it one that is ending.
func (c *courier) onHolding(h *holding, replay string) bool {
	return slices.ContainsFunc(h.list(), func(t *track) bool { return t.courier == c && t.replay == replay })
}

func placesOf(id, replay string, topics []schemas.Topic, partition int32, cursors map[cursorKey]storage.Cursor) (places []*place, missing []schemas.Topic, err error) {
	for _, topic := range topics {
		stored, ok := cursors[cursorKey{id, replay, topic, partition}]
		if !ok {
			missing = append(missing, topic)
			continue
		}
		finished, err := UnpackRanges(stored.Position, stored.Finished)
		if err != nil {
			return nil, nil, fmt.Errorf("cursor of destination %s on %s/%d: %w", id, topic, partition, err)
		}
		p := &place{topic: topic, cursor: NewCursor(stored.Position, finished), epoch: stored.Epoch, id: stored.TopicID, end: -1}
		feed, _ := schemas.FeedOf(topic)
		p.answers = feed.Answers
		if stored.EndOffset != nil {
			p.end = *stored.EndOffset
		}
		places = append(places, p)
	}
	return places, missing, nil
}

// createMissing makes cursors that creating the destination should have made: it
// was put into the table by hand, or the topic has grown.
func (s *Sinks) createMissing(ctx context.Context, id string, topics []schemas.Topic, partition int32) error {
	var starts []storage.CursorStart
	ids, err := s.kafka.IDsOf(ctx, s.reader.Far, topics)
	if err != nil {
		return err
	}
	for _, topic := range topics {
		_, end, err := s.reader.Bounds(ctx, stream.TopicPartition{Topic: topic, Partition: partition})
		if err != nil {
			return err
		}
		starts = append(starts, storage.CursorStart{Topic: string(topic), Partition: partition, Offset: end, TopicID: ids[topic]})
	}
	s.log.Warn("delivery.cursor_created_at_end", zap.String("id", id), zap.Int32("partition", partition))
	if err := s.db.CreateCursors(ctx, id, starts); err != nil {
		return err
	}
	s.refresh()
	return nil
}

// suspend records a suspension, trying until it is known.
func (s *Sinks) suspend(dest *storage.Destination, reason string) {
	s.tasks.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			_, err := s.db.SuspendDestination(ctx, dest.ID, dest.Revision, reason)
			cancel()
			if err == nil {
				s.refresh()
				return
			}
			s.log.Warn("delivery.suspend_failed", zap.String("destination", dest.Name), zap.Error(err))
			select {
			case <-time.After(wait):
			case <-s.stopping:
				return
			}
		}
	})
}

// housekeeping stamps deliveries, writes how they go, makes tomorrow's part of the delivery log and drops
// what is older than its retention.
func (s *Sinks) housekeeping(ctx context.Context) {
	stamps := time.NewTicker(5 * time.Second)
	defer stamps.Stop()
	days := time.NewTicker(time.Hour)
	defer days.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-stamps.C:
			s.stampDeliveries(ctx)
			s.writeHealth(ctx)
		case <-days.C:
			s.rollLog(ctx)
		}
	}
}

func (s *Sinks) stampDeliveries(ctx context.Context) {
	last := map[string]time.Time{}
	for _, c := range s.listCouriers() {
		c.mu.Lock()
		if c.lastDelivery.After(c.stamped) {
			c.stamped = c.lastDelivery
			last[c.id] = c.lastDelivery
		}
		c.mu.Unlock()
	}
	if len(last) == 0 {
		return
	}
	if err := s.db.StampDeliveries(ctx, last); err != nil && ctx.Err() == nil {
		s.log.Warn("delivery.stamp_failed", zap.Error(err))
	}
}

func (s *Sinks) rollLog(ctx context.Context) {
	now := time.Now()
	if err := s.db.PrepareAttempts(ctx, now, 2); err != nil && ctx.Err() == nil {
		s.log.Warn("delivery.log_prepare_failed", zap.Error(err))
	}
	if _, err := s.db.DropAttempts(ctx, now.Add(-s.cfg.LogRetention)); err != nil && ctx.Err() == nil {
		s.log.Warn("delivery.log_drop_failed", zap.Error(err))
	}
	if err := s.db.DropHealth(ctx, now.Add(-s.cfg.LogRetention)); err != nil && ctx.Err() == nil {
		s.log.Warn("delivery.health_drop_failed", zap.Error(err))
	}
}

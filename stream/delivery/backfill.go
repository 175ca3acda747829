package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream/reader"
)

// A backfill is a second set of cursors of a destination, each with an end, beside
// the live ones. Each process delivers it on the partition numbers it owns, in
// tracks of its own: in order within itself, not against live. Its state is in
// Postgres, so any process may stop at any time. Live goes first: a backfill takes
// at most three quarters of a destination's requests in flight and half of the
// memory for open records.
type backfill struct {
	id          string
	destination string
	wanted      reader.Wanted // its subscription is the courier's
	pace        pace
}

func newBackfill(r storage.Replay) (*backfill, error) {
	b := &backfill{id: r.ID, destination: r.DestinationID}
	if len(r.Types) > 0 {
		types, err := schemas.ParseSubscription(r.Types)
		if err != nil {
			return nil, fmt.Errorf("backfill %s: %w", r.ID, err)
		}
		b.wanted.Types = &types
	}
	for _, k := range r.Keys {
		b.wanted.Keys = append(b.wanted.Keys, []byte(k))
	}
	return b, nil
}

// takes says whether the backfill takes records of a type that the destination
// subscribes to. A nil backfill is live and takes all.
func (b *backfill) takes(typ string) bool {
	return b == nil || b.wanted.Types == nil || b.wanted.Types.Matches(typ)
}

func (b *backfill) takesKey(key []byte) bool { return b == nil || b.wanted.TakesKey(key) }

func (b *backfill) takesAllKeys() bool { return b == nil || len(b.wanted.Keys) == 0 }

// ended says whether a track of a backfill has nothing left to do. The courier's
// mutex is held.
func (t *track) ended() bool { return len(t.parking.marks) == 0 && t.drained() }

// drained says whether a track of a backfill has read all it was to, and has
// nothing under way but what is parked. The courier's mutex is held.
func (t *track) drained() bool {
	return t.backfill != nil && t.open == 0 &&
		!slices.ContainsFunc(t.places, func(p *place) bool { return p.cursor.Next() < p.end })
}

// drainedTracks are the tracks that wait only for what they have parked, if anything:
// all of that is in Postgres.
func drainedTracks(holdings []*holding) (through []*track) {
	for _, h := range holdings {
		for _, t := range h.list() {
			t.courier.mu.Lock()
			if !t.retired && t.drained() {
				through = append(through, t)
			}
			t.courier.mu.Unlock()
		}
	}
	return through
}

// forgetMarks clears the marks of tracks that were drained before cursors was read
// and have nothing parked there: after a restart a record that is parked already
// may be counted twice.
func (s *Sinks) forgetMarks(through []*track, cursors map[cursorKey]storage.Cursor) {
	for _, t := range through {
		if slices.ContainsFunc(t.places, func(p *place) bool {
			return cursors[cursorKey{t.courier.id, t.replay, p.topic, t.partition}].Parked
		}) {
			continue
		}
		t.courier.mu.Lock()
		if len(t.parking.marks) > 0 && t.drained() {
			clear(t.parking.marks)
			s.refresh()
		}
		t.courier.mu.Unlock()
	}
}

// aheadOfPace says whether the pace of its backfill has the track wait before the next
// record; it arranges to be fed again then. The courier's mutex is held.
func (t *track) aheadOfPace() bool {
	if t.backfill == nil {
		return false
	}
	wait := t.backfill.pace.take(time.Now())
	if wait > 0 && t.pausing.CompareAndSwap(false, true) {
		time.AfterFunc(wait, func() {
			t.pausing.Store(false)
			t.holding.wake()
		})
	}
	return wait > 0
}

// A pace is a token bucket: this process's part of a backfill's rate. Safe for
// concurrent use.
type pace struct {
	mu     sync.Mutex
	rate   float64 // records a second, 0 for no limit
	tokens float64
	at     time.Time
}

// paceBurst is how much of a second's records may go at once.
const paceBurst = 0.05

func (p *pace) set(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// take takes a token and returns 0, or says how long to wait for one.
func (p *pace) take(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate <= 0 {
		return 0
	}
	most := max(1, p.rate*paceBurst)
	if p.at.IsZero() {
		p.tokens = 1
	} else {
		p.tokens = min(most, p.tokens+now.Sub(p.at).Seconds()*p.rate)
	}
	p.at = now
	if p.tokens >= 1 {
		p.tokens--
		return 0
	}
	// For a handful at once, so that a fast backfill does not wake for each record.
	return max(time.Duration((1-p.tokens)/p.rate*float64(time.Second)), 5*time.Millisecond)
}

// backfills is what the manager knows of running ones, by id.
type backfills map[string]*backfill

// readBackfills brings them in line with the table. Each keeps its pace as long as
// it runs; the rate is divided by the cursors that are open here and elsewhere.
func (s *Sinks) readBackfills(ctx context.Context, known backfills) (backfills, []storage.Replay, error) {
	running, err := s.db.RunningReplays(ctx)
	if err != nil {
		return known, nil, err
	}
	now := backfills{}
	for _, r := range running {
		b := known[r.ID]
		if b == nil {
			if b, err = newBackfill(r); err != nil {
				s.log.Error("delivery.backfill_unusable", zap.Error(err))
				continue
			}
			b.pace.set(r.Rate)
		}
		now[r.ID] = b
	}
	return now, running, nil
}

// share divides the rates of backfills among the processes, by open cursors.
func (b backfills) share(running []storage.Replay, cursors map[cursorKey]storage.Cursor) {
	here := map[string]int{}
	for key, c := range cursors {
		if c.EndOffset != nil && c.Position < *c.EndOffset {
			here[key.replay]++
		}
	}
	for _, r := range running {
		if bf := b[r.ID]; bf != nil && r.Rate > 0 && r.OpenCursors > 0 {
			bf.pace.set(r.Rate * float64(here[r.ID]) / float64(max(r.OpenCursors, here[r.ID])))
		}
	}
}

// beginBackfills starts tracks of running backfills wherever this process owns the
// partition number and cursors have not reached their ends, or records are parked.
func (s *Sinks) beginBackfills(ctx context.Context, running backfills, holdings []*holding, cursors map[cursorKey]storage.Cursor) error {
	if len(running) == 0 {
		return nil
	}
	open := map[trackOf][]schemas.Topic{}
	for key, c := range cursors {
		if running[key.replay] != nil && c.EndOffset != nil && (c.Position < *c.EndOffset || c.Parked) {
			at := trackOf{key.destination, key.replay, key.partition}
			open[at] = append(open[at], key.topic)
		}
	}
	var fresh []beginning
	var failed error
	for _, c := range s.listCouriers() {
		if c.isHalted() {
			continue
		}
		for _, h := range holdings {
			for id, b := range running {
				topics := open[trackOf{c.id, id, h.partition}]
				if len(topics) == 0 || c.onHolding(h, id) {
					continue
				}
				slices.SortFunc(topics, byTopic)
				places, _, err := placesOf(c.id, id, topics, h.partition, cursors)
				if err != nil {
					failed = err
					continue
				}
				fresh = append(fresh, beginning{c, h, places, b})
			}
		}
	}
	return cmp.Or(s.addTracks(ctx, fresh), failed)
}

type trackOf struct {
	destination, replay string
	partition           int32
}

// byTopic is the order of a subscription's topics: lifecycle before events.
func byTopic(a, b schemas.Topic) int {
	switch {
	case a == b:
		return 0
	case a > b:
		return -1
	}
	return 1
}

// finishBackfills records which ones have finished.
func (s *Sinks) finishBackfills(ctx context.Context, running backfills) error {
	if len(running) == 0 {
		return nil
	}
	done, err := s.db.FinishReplays(ctx)
	for _, id := range done {
		s.log.Info("delivery.backfill_finished", zap.String("replay_id", id))
	}
	return err
}

func (c *courier) isHalted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.halted
}

// replayState is what a track has for its backfill.
type replayState struct {
	backfill *backfill   // nil for live
	pausing  atomic.Bool // waits for its pace
}

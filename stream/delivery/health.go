package delivery

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// health is what a courier tells operators of its attempts: the last error stays when
// later attempts succeed, by its class. Guarded by the courier's mutex.
type health struct {
	failures    int64 // in a row
	lastError   string
	lastErrorAt time.Time
	written     storage.HolderHealth
}

// note takes note of how an attempt ended. Of a batch of which a part was delivered
// the receiver works.
func (h *health) note(out Outcome, now time.Time) {
	failed, delivered, cause := out.Verdict != Delivered && out.Verdict != Skipped, out.Verdict == Delivered, ""
	if out.Verdict == Partial {
		failed = false
		for _, r := range out.Results {
			delivered = delivered || r.Verdict == Delivered
			if r.Verdict != Delivered && r.Verdict != Skipped && !failed {
				failed, cause = true, FailureClass(cmp.Or(r.Err, out.Err), out.Status)
			}
		}
	}
	if failed {
		h.failures++
		h.lastError, h.lastErrorAt = cmp.Or(cause, out.Class(), "failed"), now
	}
	if delivered {
		h.failures = 0
	}
}

// changed is the health of the courier, and whether it is another than was written.
func (c *courier) changed() (storage.HolderHealth, bool) {
	now := storage.HolderHealth{DestinationID: c.id, CircuitOpen: c.circuit.open, Failures: c.health.failures, LastError: c.health.lastError, LastErrorAt: c.health.lastErrorAt}
	if c.circuit.open {
		now.ProbeAt = c.circuit.probeAt
	}
	was := c.health.written
	was.DestinationID = c.id
	return now, now != was
}

// writeHealth writes what has changed of all couriers. The first time it forgets what
// a former process of this name has written of its circuits.
func (s *Sinks) writeHealth(ctx context.Context) {
	s.health.Lock()
	defer s.health.Unlock()
	if !s.health.begun {
		if err := s.db.ResetHealth(ctx, s.cfg.Instance); err != nil {
			return // other callers of Postgres log it
		}
		s.health.begun = true
	}
	var rows []storage.HolderHealth
	var concerned []*courier
	for _, c := range s.listCouriers() {
		c.mu.Lock()
		if h, changed := c.changed(); changed {
			rows, concerned = append(rows, h), append(concerned, c)
		}
		c.mu.Unlock()
	}
	if len(rows) == 0 {
		return
	}
	if err := s.db.WriteHealth(ctx, s.cfg.Instance, rows); err != nil {
		if ctx.Err() == nil {
			s.log.Warn("delivery.health_write_failed", zap.Error(err))
		}
		return
	}
	for i, c := range concerned {
		c.mu.Lock()
		c.health.written = rows[i]
		c.mu.Unlock()
	}
}

// Standing is how far a cursor of a destination is behind the end of its topic; and,
// where it waits for an operator, why: its topic was made anew, when all of the present
// log is its lag, or lost what lies before it.
func Standing(c storage.Cursor, destination string, end storage.CursorStart) (lag int64, stopped *storage.StoppedCursor, err error) {
	stop := func(why string) *storage.StoppedCursor {
		replay := c.ReplayID
		if replay == storage.LiveReplay {
			replay = ""
		}
		return &storage.StoppedCursor{Topic: c.Topic, Partition: c.Partition, Position: c.Position, ReplayID: replay, Why: why, Mend: stream.MendOrphan(destination, replay)}
	}
	if storage.OtherLog(c.TopicID, end.TopicID) {
		return end.Offset, stop(stream.MadeAnew(schemas.Topic(c.Topic), c.TopicID, end.TopicID)), nil
	}
	if c.Position > end.Offset {
		return 0, stop(fmt.Sprintf("the position lies beyond the end of the log, %d: topic %s was made anew, or lost records", end.Offset, c.Topic)), nil
	}
	lag, err = unfinished(c, end.Offset)
	return lag, nil, err
}

// unfinished is how many offsets below end a destination has not finished.
func unfinished(c storage.Cursor, end int64) (int64, error) {
	finished, err := UnpackRanges(c.Position, c.Finished)
	if err != nil {
		return 0, fmt.Errorf("cursor of destination %s on %s/%d: %w", c.DestinationID, c.Topic, c.Partition, err)
	}
	n := max(end-c.Position, 0)
	for i := 0; i < len(finished); i += 2 {
		n -= max(min(finished[i+1], end)-finished[i], 0)
	}
	return n, nil
}

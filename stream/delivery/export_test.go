package delivery

import (
	"context"
)

// Crash ends a Sinks as a killed process ends: what is not flushed is lost, the
// leases stay taken. Attempts under way are cut off. Cancel Run's context after it.
func (s *Sinks) Crash() {
	s.env.stopped.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, cancel := range s.assigned {
		cancel()
		delete(s.assigned, p)
	}
	for p, h := range s.holdings {
		h.lost.Store(true)
		h.cancel()
		delete(s.holdings, p)
	}
}

// Owned lists the partition numbers whose lease the process has.
func (s *Sinks) Owned() []int32 {
	var partitions []int32
	for _, h := range s.listHoldings() {
		partitions = append(partitions, h.partition)
	}
	return partitions
}

// Orphans is how many cursors of a destination, live and of backfills, wait for an
// operator, since their log is another.
func (s *Sinks) Orphans(destination string) int { return s.orphaned(destination) }

// Unflushed is the number of results that wait for Postgres.
func (s *Sinks) Unflushed() int64 { return s.flush.pending.Load() }

// HeldBytes is what is read and not finished.
func (s *Sinks) HeldBytes() int64 { return s.env.held.Load() }

// Tracks is how many partition numbers the process works on for a backfill.
func (s *Sinks) Tracks(replay string) int {
	n := 0
	for _, h := range s.listHoldings() {
		for _, t := range h.list() {
			if t.replay == replay {
				n++
			}
		}
	}
	return n
}

// WriteHealth writes how deliveries go, as it is done every few seconds.
func (s *Sinks) WriteHealth(ctx context.Context) { s.writeHealth(ctx) }

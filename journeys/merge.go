package journeys

import "github.com/google/uuid"

// takeIn folds in the state of a contact that was merged into this one. Of two runs of one
// journey and key the older goes on, and the other exits; of two of one age that with the
// smaller id.
func (w *work) takeIn(loser *State) {
	w.changed = true
	w.s.clock = max(w.s.clock, loser.clock)
	w.at = max(w.at, w.s.clock)
	for i := range loser.entries {
		w.inherit(&loser.entries[i])
	}
	for i := range loser.runs {
		r := loser.runs[i]
		if w.s.find(r.id) < 0 {
			w.s.runs = append(w.s.runs, r)
		}
	}
	w.sortRuns()
	for _, id := range w.doubles() {
		w.end(id, Exited, ReasonMerged, "")
	}
	for i := range w.s.entries {
		e := &w.s.entries[i]
		e.live = w.s.live(e.journey, e.key) >= 0
	}
	for i := range loser.seen {
		w.keepSeen(loser.seen[i])
	}
	w.forget()
	w.repeats()
}

// doubles are the runs that are not the oldest of their journey and key.
func (w *work) doubles() []uuid.UUID {
	type place struct{ journey, key string }
	first := map[place]bool{}
	var out []uuid.UUID
	for i := range w.s.runs { // by entry, then id
		r := &w.s.runs[i]
		if r.failed {
			continue
		}
		if at := (place{r.journey, r.key}); first[at] {
			out = append(out, r.id)
		} else {
			first[at] = true
		}
	}
	return out
}

// inherit adds up the entries of both. Of two triggers that wait for the end of a run one does.
func (w *work) inherit(other *entry) {
	at, found := w.s.searchEntry(other.journey, other.key)
	if !found {
		*w.s.entry(other.journey, other.key) = *other
		return
	}
	e := &w.s.entries[at]
	e.count += other.count
	if other.last > e.last {
		e.last, e.holdout = other.last, other.holdout
	}
	if other.goalUntil > e.goalUntil {
		e.goalUntil, e.version, e.run = other.goalUntil, other.version, other.run
	}
	if other.skipAt > e.skipAt {
		e.skip, e.skipAt, e.skipped = other.skip, other.skipAt, other.skipped
	}
	u := w.m.byID[e.journey]
	switch {
	case e.queued == nil:
		e.queued = other.queued
	case other.queued != nil && u != nil:
		w.skip(u.Program, other.queued, SkipQueued)
	}
}

package enrich

// takeIn folds in the state that a contact had when it was merged into this one. Where one
// of the two is filled for fewer definitions, so is what comes of it. What the other asked for
// and waits for, this one waits for, unless it has asked itself.
func (w *work) takeIn(loser State) {
	if !loser.known {
		return
	}
	if w.fresh || loser.version < w.s.version {
		w.s.version = min(w.s.version, loser.version)
		w.d = w.l.since(w.s.version)
	}
	w.d.set.Fit(&w.s.facts)
	w.d.set.Fit(&loser.facts)
	w.d.set.Merge(&w.s.facts, &loser.facts)
	for i := range loser.entries {
		w.inherit(&loser, &loser.entries[i])
	}
}

// inherit takes over what is known of the other and an enrichment. What was true of it is
// true of both, and no trigger any more.
func (w *work) inherit(loser *State, other *entry) {
	if other.blank() {
		return
	}
	en := w.s.entry(other.enrichment)
	en.holds = en.holds || other.holds
	en.epoch, en.settled = max(en.epoch, other.epoch), max(en.settled, other.settled)
	switch theirs, ours := loser.open(other), w.s.open(en); {
	case theirs && ours:
		w.cancel = append(w.cancel, other.ask)
	case theirs:
		delete(w.s.asks, en.ask)
		en.ask, en.drop, en.sent, en.asked, en.failures = other.ask, other.drop, other.sent, other.asked, other.failures
		en.due, en.why = other.due, other.why
		w.s.asks.Ask(en.ask)
	case !ours && en.due == 0:
		en.due, en.why, en.failures = other.due, other.why, other.failures
		en.outcome, en.detail = other.outcome, other.detail
	}
}

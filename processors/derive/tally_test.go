package derive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// tallying is a simulation of the tiny processor.
type tallying struct{ *World[tally] }

func newTallying(draw func(n int) int) *tallying {
	w := &tallying{}
	// Each definition counts the events of one name.
	name := func() string { return nameOf(int64(w.count)) }
	w.World = NewWorld(&Play[tally]{
		Processor: tallier{},
		Logic: func(version int64) Logic[tally] {
			return tallier{off: w.off, fault: w.Fault, versions: w.inUse, version: version}
		},
		Inputs: 8,
		Event:  func(e *schemas.Event) { e.Name = name() },
		Fact: func(string) *schemas.Fact {
			return &schemas.Fact{Type: schemas.FactJourneyCompleted, Journey: &schemas.JourneyFact{}}
		},
		Judge: w.judgeAll,
	}, draw)
	return w
}

func nameOf(definition int64) string { return fmt.Sprintf("e%d", definition%simVersions) }

// --- what must hold ---

func (w *tallying) judgeAll() {
	for _, id := range w.ids {
		d := w.derived[w.partition(id)]
		if row := w.rows[id]; row != nil && w.trouble == "" {
			w.judgeLiving(id, row, d.contacts[id], d.silent[id])
		}
	}
}

func (w *tallying) judgeLiving(id string, row *storage.Contact, c *contact[tally], silent bool) {
	var want []string
	for _, e := range w.stored {
		if e.ContactID == id || slices.Contains(row.Merged, e.ContactID) {
			want = append(want, e.ID)
		}
	}
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(c.state.Events)); !slices.Equal(got, want) {
		w.Fault("%s counts %v instead of %v", id, got, want)
	}
	w.judgeDefinitions(id, row, c)
	for i, seq := range c.state.Told {
		if i > 0 && seq != c.state.Told[i-1]+1 || i == 0 && !silent && seq != 1 {
			w.Fault("%s was told %v", id, c.state.Told)
		}
	}
	for fact, of := range w.factsSeen {
		n := 0
		for _, f := range c.state.Facts {
			if f == fact {
				n++
			}
		}
		if of == id && n != 1 || n > 1 {
			w.Fault("%s has fact %s of %s %d times", id, fact, of, n)
		}
	}
	if !c.state.Due.IsZero() {
		w.Fault("%s: its timer was never told", id)
	}
}

// judgeDefinitions compares what definitions count with the whole history.
func (w *tallying) judgeDefinitions(id string, row *storage.Contact, c *contact[tally]) {
	if c.state.Version != w.version {
		w.Fault("%s is filled with version %d of %d", id, c.state.Version, w.version)
	}
	for d := int64(1); d <= w.version; d++ {
		var want []string
		for _, e := range w.stored {
			if e.Name == nameOf(d) && (e.ContactID == id || slices.Contains(row.Merged, e.ContactID)) {
				want = append(want, e.ID)
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(c.state.Counted[d])); !slices.Equal(got, want) {
			w.Fault("definition %d of %s counts %v instead of %v", d, id, got, want)
		}
	}
}

func (w *tallying) inUse() int64 { return w.version }

// --- the processor ---

const simName = "tally"

// tally is the state of a contact in the tests: what it was told.
type tally struct {
	Events []string  `json:"events"`
	Facts  []string  `json:"facts"`
	Told   []int64   `json:"told"`
	Due    time.Time `json:"due"`
	// Version is that of the definitions it is filled with, Counted what each of them counts.
	Version int64              `json:"version"`
	Counted map[int64][]string `json:"counted"`
}

type tallier struct {
	JSON[tally]
	off      rule
	fault    func(string, ...any)
	versions func() int64 // in use now
	version  int64        // as of a batch
}

func (tallier) Name() string      { return simName }
func (tallier) Wants(string) bool { return true }

func (t tallier) At(context.Context, *storage.Tx) (Logic[tally], error) {
	t.version = t.versions()
	return t, nil
}

func (t tallier) Version() int64        { return t.version }
func (tallier) VersionOf(s tally) int64 { return s.Version }

func (t tallier) Names(version int64) (names []string) {
	for d := version + 1; d <= t.version; d++ {
		names = append(names, nameOf(d))
	}
	return names
}

// Refill counts for the definitions that came since.
func (t tallier) Refill(s tally, k *Known, _ time.Time) (Result[tally], error) {
	return Result[tally]{State: t.count(s, k), Timers: s.timers()}, nil
}

func (t tallier) count(s tally, k *Known) tally {
	counted := maps.Clone(s.Counted)
	if counted == nil {
		counted = map[int64][]string{}
	}
	for d := s.Version + 1; d <= t.version; d++ {
		counted[d] = nil
		for _, e := range k.Events {
			if e.Name == nameOf(d) {
				counted[d] = append(counted[d], e.ID)
			}
		}
	}
	s.Version, s.Counted = t.version, counted
	return s
}

// takeIn brings two states to the older of their versions.
func (s tally) takeIn(loser tally) tally {
	if len(loser.Told)+len(loser.Events) == 0 && loser.Version == 0 {
		return s // nothing was ever known of it
	}
	s.Version = min(s.Version, loser.Version)
	counted := map[int64][]string{}
	for d := int64(1); d <= s.Version; d++ {
		counted[d] = slices.Concat(s.Counted[d], loser.Counted[d])
	}
	s.Counted = counted
	return s
}

func (tallier) HandOver(s tally, _ string, _ time.Time) (tally, []schemas.Message) { return s, nil }

func (t tallier) TakeOver(_ tally, k *Known, _ time.Time) (tally, []Timer) {
	s := t.count(tally{}, k)
	for _, e := range k.Events {
		s.Events = append(s.Events, e.ID)
	}
	return s, s.timers()
}

func (s tally) timers() []Timer {
	if s.Due.IsZero() {
		return nil
	}
	return []Timer{{What: "quiet", Due: s.Due}}
}

func (t tallier) Step(s tally, r *Record[tally], now time.Time) (Result[tally], error) {
	if r.Seq == 1 && len(s.Told) == 0 && s.Version == 0 { // it is new
		s.Version = t.version
	}
	switch {
	case r.Event != nil:
		counted := maps.Clone(s.Counted)
		for d := int64(1); d <= s.Version; d++ {
			if r.Event.Name == nameOf(d) {
				if counted == nil {
					counted = map[int64][]string{}
				}
				counted[d] = append(slices.Clone(counted[d]), r.Event.ID)
			}
		}
		s.Counted = counted
		s.Events = append(slices.Clone(s.Events), r.Event.ID)
		s.Due = now.Add(time.Hour)
	case r.Timer != nil:
		if !r.Timer.Due.Equal(s.Due) {
			t.fault("%s is told %s, and waits for %s", r.ContactID, r.Timer.Due, s.Due)
		}
		if now.Before(s.Due) {
			t.fault("%s is told at %s that %s is due", r.ContactID, now, s.Due)
		}
		s.Due = time.Time{}
	case r.Fact.WriterSeq > 0:
		if r.Fact.ContactID == r.ContactID && r.Fact.CauseSeq > r.Seq {
			t.fault("%s is told of %d at %d", r.ContactID, r.Fact.CauseSeq, r.Seq)
		}
		s.Facts = append(slices.Clone(s.Facts), r.Fact.ID)
	case r.Loser != nil:
		s = s.takeIn(r.Loser.State)
		s.Events = append(slices.Clone(s.Events), r.Loser.State.Events...)
		s.Facts = append(slices.Clone(s.Facts), r.Loser.State.Facts...)
	}
	if r.Timer == nil && (r.Fact == nil || r.Fact.WriterSeq == 0) {
		s.Told = append(slices.Clone(s.Told), r.Seq)
	}
	return Result[tally]{State: s, Timers: s.timers()}, nil
}

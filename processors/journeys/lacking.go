package journeys

import (
	"time"

	machine "github.com/hogstream/hogstream/journeys"
	"github.com/hogstream/hogstream/processors/derive"
)

// lackingLogic is a Logic that lacks versions which other processes may have, as in the middle
// of a deploy. What needs them waits for these, for as long as a deploy may take. Then it goes
// on without: runs of those versions stand still, and triggers of them say why they do not
// enrol.
type lackingLogic struct {
	*Logic
	since time.Time // the last version was found to be lacking
}

// Bounds of how long a record waits for a process that has what it needs, and of how soon it
// is looked at again: ever more seldom.
const (
	waitsFor   = time.Hour
	looksAgain = 30 * time.Second
)

// Lacks implements derive.Lacking.
func (l lackingLogic) Lacks(s State, r *derive.Record[State], now time.Time) time.Time {
	lacking := now.Sub(l.since)
	if lacking >= waitsFor {
		return time.Time{}
	}
	in := &machine.Input{Event: r.Event, Fact: r.Fact, Receipt: r.Receipt}
	if r.Command != nil {
		c, err := readCommand(r.Command)
		if err != nil {
			return time.Time{} // the step says so
		}
		in.Command = c
	}
	if !l.whole().m.Lacks(&s.runs, in) {
		return time.Time{}
	}
	return now.Add(max(looksAgain, lacking/2))
}

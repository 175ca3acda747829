// Package tally is a processor that counts the events of each contact.
package tally

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
)

// Name is the processor's name, which never changes.
const Name = "tally"

// State is what it keeps of a contact.
type State struct {
	Events int `json:"events"`
}

// New makes the processor.
func New(codec *schemas.Codec, reg prometheus.Registerer) (*derive.Frame[State], error) {
	return derive.New(tally{derive.Documents[State]{Processor: Name}}, codec, reg)
}

// tally keeps its states as documents. One that must look things up across contacts has
// tables of its own, and a Load and a Save for them.
type tally struct{ derive.Documents[State] }

// Name implements derive.Processor.
func (tally) Name() string { return Name }

// Wants implements derive.Processor: facts of other processors do not matter here.
func (tally) Wants(string) bool { return false }

// TakeOver implements derive.Processor.
func (tally) TakeOver(k *derive.Known, _ time.Time) (State, []derive.Timer) {
	return State{Events: len(k.Events)}, nil
}

// Step implements derive.Processor.
func (tally) Step(s State, r *derive.Record[State], _ time.Time) (derive.Result[State], error) {
	switch {
	case r.Event != nil:
		s.Events++
	case r.Loser != nil: // the contact has taken in another
		s.Events += r.Loser.State.Events
	}
	return derive.Result[State]{State: s}, nil
}

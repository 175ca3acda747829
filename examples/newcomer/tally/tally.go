// Package tally is a processor that counts the events of each contact.
package tally

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Name is the processor's name, which never changes.
const Name = "tally"

// State is what it keeps of a contact.
type State struct {
	Events int `json:"events"`
}

// New makes the processor.
func New(codec *schemas.Codec, reg prometheus.Registerer) (*derive.Frame[State], error) {
	return derive.New(tally{}, codec, reg)
}

// tally keeps its states as JSON and nothing beside them. One whose members are looked up
// across contacts has tables of its own, and a Save that writes them.
type tally struct{ derive.JSON[State] }

// Name implements derive.Processor.
func (tally) Name() string { return Name }

// At implements derive.Processor: there are no definitions, and so its logic never changes.
func (t tally) At(context.Context, *storage.Tx) (derive.Logic[State], error) { return t, nil }

// Wants implements derive.Logic: facts of other processors do not matter here.
func (tally) Wants(string) bool { return false }

// TakeOver implements derive.Logic.
func (tally) TakeOver(_ State, k *derive.Known, _ time.Time) (State, []derive.Timer) {
	return State{Events: len(k.Events)}, nil
}

// Step implements derive.Logic.
func (tally) Step(s State, r *derive.Record[State], _ time.Time) (derive.Result[State], error) {
	switch {
	case r.Event != nil:
		s.Events++
	case r.Loser != nil: // the contact has taken in another
		s.Events += r.Loser.State.Events
	default:
		return derive.Result[State]{State: s, Same: true}, nil
	}
	return derive.Result[State]{State: s}, nil
}

// HandOver implements derive.Logic: who is merged away says nothing.
func (tally) HandOver(s State, _ string, _ time.Time) (State, []schemas.Message) { return s, nil }

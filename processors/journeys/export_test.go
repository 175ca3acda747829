package journeys

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/processors/derive"
	"github.com/hogstream/hogstream/storage"
)

// NewProcessor is the processor without the frame.
func NewProcessor(opts Options, reg prometheus.Registerer) (derive.Processor[State], error) {
	return newProcessor(opts, reg)
}

// EncodeState is the state of a contact as the processor keeps it.
func EncodeState(s State) ([]byte, error) { return codec{}.Encode(s) }

// Asking is the logic with the destinations that there are.
func Asking(l *Logic, targets []storage.CallTarget) *Logic { return l.asking(targets) }

// Lacking is the logic of a process that has lacked a version since a time.
func Lacking(l *Logic, since time.Time) derive.Lacking[State] { return lackingLogic{l, since} }

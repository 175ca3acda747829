package buckets

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/processors/derive"
)

// Encode and Decode are the processor's.
func Encode(s State) ([]byte, error)    { return codec{}.Encode(s) }
func Decode(data []byte) (State, error) { return codec{}.Decode(data) }

// NewProcessor is the processor without the frame.
func NewProcessor(opts Options, reg prometheus.Registerer) (derive.Processor[State], error) {
	return newProcessor(opts, reg)
}

// Observe is told of each evaluation.
func (l *Logic) Observe(evaluated func(bucketID string)) { l.observe = evaluated }

// Due is when the timer of the contact is due, in microseconds; 0 for none.
func (s *State) Due() int64 { return s.due }

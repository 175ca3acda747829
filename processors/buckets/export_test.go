package buckets

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hogstream/hogstream/processors/derive"
)

// NewProcessor is the processor without the frame.
func NewProcessor(opts Options, reg prometheus.Registerer) (derive.Processor[State], error) {
	return newProcessor(opts, reg)
}

// Observe is told of each evaluation.
func (l *Logic) Observe(evaluated func(bucketID string)) { l.observe = evaluated }

// Due is when the timer of the contact is due, in microseconds; 0 for none.
func (s *State) Due() int64 { return s.due }

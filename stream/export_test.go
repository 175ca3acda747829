package stream

import (
	"context"
)

// Probe is what Ready does when appends prove nothing.
func (l *Log) Probe(ctx context.Context) error { return l.probe(ctx) }

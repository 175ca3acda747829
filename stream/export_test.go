package stream

import (
	"context"
)

// Probe is what Ready does when appends prove nothing.
func (l *Log) Probe(ctx context.Context) error { return l.probe(ctx) }

// Buffer makes the buffer smaller.
func (l *Log) Buffer(records int64) { l.maxRecords = records }

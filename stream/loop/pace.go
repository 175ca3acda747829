package loop

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/stream"
)

// A batch has a cost of its own, however few records it has, so where batches follow one another
// at once they take all cores that there are, and everything waits for a core. So there is a least
// time from the beginning of a batch to that of the next. It depends on what has come, so that the
// processors on a record's way work in one rhythm, which the first one sets: what one publishes
// finds the next one ready. When all had the same pace, a record waited at each of them.
//
// bench joins, which has 2,000 events a second on two cores, in turns with one pace of 8 ms for
// all: a median of 30 ms instead of 40, and 698 µs of CPU an event instead of 770.
const (
	// singlePace is for records that come one by one: more of them are worth waiting for.
	singlePace = 12 * time.Millisecond
	// batchPace is for what another processor published in one transaction, which is a batch
	// already. It bounds how many there are when several of them publish.
	batchPace = singlePace / 2
	// ownPace is for what this worker has published itself and reads too: it goes along with the
	// next batch, which comes before that where there is anything to do.
	ownPace = 2 * singlePace
)

// arrival is what has come since the last batch.
type arrival int

const (
	ownOutputs arrival = iota // of this worker alone
	singles                   // appended one by one, or nothing
	batches                   // published by another processor
)

// arrivalOf says what records are that were fetched. own says that a producer is the worker's.
func arrivalOf(records []*kgo.Record, own func(producer int64) bool) arrival {
	if len(records) == 0 {
		return singles
	}
	most := ownOutputs
	for _, r := range records {
		switch {
		case !r.Attrs.IsTransactional():
			most = singles
		case !own(r.ProducerID):
			return batches
		}
	}
	return most
}

// pauseFor is how long the next batch is waited for, when the last one began at a time.
func pauseFor(begun, now time.Time, came arrival) time.Duration {
	pace := singlePace
	switch came {
	case batches:
		pace = batchPace
	case ownOutputs:
		pace = ownPace
	}
	return max(0, pace-now.Sub(begun))
}

// pause waits until it is time for a batch, or the assignment has changed.
func (w *worker) pause(ctx context.Context) {
	if len(w.intake.waiting) > 0 { // the last batch was full, or failed
		return
	}
	for {
		came := w.intake.came(w.publisher.owns)
		left := pauseFor(w.begun, time.Now(), came)
		if left == 0 {
			return
		}
		if came == ownOutputs {
			stream.Signal(w.intake.wanted) // what comes next is to be heard of at once
		}
		select {
		case <-w.intake.arrived: // maybe what is waited for less; it is taken in after the pause in any case
			continue
		case <-time.After(left):
		case <-w.assignment.ended.Done():
		case <-ctx.Done():
		}
		return
	}
}

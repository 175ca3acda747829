package loop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/stream"
)

func TestABatchBeginsNoSoonerThanSomeTimeAfterTheOneBefore(t *testing.T) {
	begun := time.Now()
	require.Equal(t, singlePace, pauseFor(begun, begun, singles))
	require.Equal(t, singlePace-3*time.Millisecond, pauseFor(begun, begun.Add(3*time.Millisecond), singles))
	require.Zero(t, pauseFor(begun, begun.Add(time.Minute), singles), "what comes after a rest waits for nothing")
	require.Zero(t, pauseFor(time.Time{}, begun, singles), "nor does the first")
}

func TestWhatAnotherProcessorPublishedWaitsLeast(t *testing.T) {
	begun := time.Now()
	require.Less(t, pauseFor(begun, begun, batches), pauseFor(begun, begun, singles))
	require.Less(t, pauseFor(begun, begun, singles), pauseFor(begun, begun, ownOutputs), "and its own outputs wait for what comes next")
}

func TestWhatCameIsOfTheKindThatWaitsLeast(t *testing.T) {
	own := func(id int64) bool { return id == 7 }
	transactional := kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Transactional: true})
	mine := &kgo.Record{ProducerID: 7, Attrs: transactional}
	others := &kgo.Record{ProducerID: 8, Attrs: transactional}
	single := &kgo.Record{ProducerID: 9}
	for _, c := range []struct {
		records []*kgo.Record
		want    arrival
	}{
		{nil, singles},
		{[]*kgo.Record{mine, mine}, ownOutputs},
		{[]*kgo.Record{mine, single, mine}, singles},
		{[]*kgo.Record{single, mine, others}, batches},
		{[]*kgo.Record{others, single}, batches},
	} {
		require.Equal(t, c.want, arrivalOf(c.records, own))
	}
}

func TestAPauseIsOverSoonerWhenAnotherProcessorPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pausing(7)
		transactional := kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Transactional: true})
		w.intake.fetched = []*kgo.Record{{ProducerID: 7, Attrs: transactional}}
		begun := time.Now()
		time.AfterFunc(batchPace+time.Millisecond, func() {
			w.intake.mu.Lock()
			defer w.intake.mu.Unlock()
			w.intake.fetched = append(w.intake.fetched, &kgo.Record{ProducerID: 8, Attrs: transactional})
			stream.Signal(w.intake.arrived)
		})
		w.pause(t.Context())
		require.Equal(t, batchPace+time.Millisecond, time.Since(begun))
	})
}

func TestThereIsNoPauseWhileABatchIsWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pausing(7)
		w.intake.waiting = []*kgo.Record{{}}
		begun := time.Now()
		w.pause(t.Context())
		require.Equal(t, begun, time.Now())
	})
}

func TestAPauseEndsWithTheAssignmentAndWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := pausing(7)
		time.AfterFunc(time.Millisecond, w.assignment.end)
		begun := time.Now()
		w.pause(t.Context())
		require.Equal(t, time.Millisecond, time.Since(begun))

		w, begun = pausing(7), time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		defer cancel()
		w.pause(ctx)
		require.Equal(t, 2*time.Millisecond, time.Since(begun))
	})
}

// pausing is a worker that began a batch just now, one of whose producers has this id.
func pausing(producerID int64) *worker {
	p := &producer{}
	p.producerID.Store(producerID)
	return &worker{
		begun: time.Now(), assignment: newMembership("m", 1, nil), publisher: &publisher{pair: [2]*producer{p, {}}},
		intake: &intake{arrived: make(chan struct{}, 1), wanted: make(chan struct{}, 1)},
	}
}

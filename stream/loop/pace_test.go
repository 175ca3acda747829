package loop

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
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

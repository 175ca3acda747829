package stream

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
)

func TestEveryRecordIsAppliedOnceAndItsOutputPublishedOnceInOrder(t *testing.T) {
	r := newRig(t, 3)
	for p := range int32(3) {
		r.give(schemas.TopicIngest, p, 100)
	}
	p := r.start("a")
	r.awaitOutputs(300)
	for p := range int32(3) {
		r.give(schemas.TopicIngest, p, 50)
	}
	r.awaitOutputs(450)
	p.stop()
	require.Empty(t, r.fault())
	require.Equal(t, 450, r.applied())
	for n := range int32(3) {
		require.EqualValues(t, 150, r.committed(schemas.TopicIngest, n))
		require.True(t, r.row(n).Published, "a graceful stop marks what is published")
		require.Empty(t, r.row(n).Pending)
	}
}

package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

func TestPositionsAreMirroredAndAResetOfTheGroupByAToolIsARewind(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	often := func(c *stream.SinksConfig) { c.MirrorEvery = 50 * time.Millisecond }
	w.start("one", often)
	w.start("two", often)
	w.Append(facts(20, 5)...)
	w.waitDelivered("crm", 100)
	w.waitFlushed(d)
	group := stream.MirrorGroup("crm")
	mirrored := func() {
		t.Helper()
		w.WaitCommitted(group, schemas.TopicLifecycle, w.Ends(schemas.TopicLifecycle))
	}
	mirrored()

	// As kafka-consumer-groups --reset-offsets does: offsets without metadata.
	offsets := kadm.Offsets{}
	for p := range w.Ends(schemas.TopicLifecycle) {
		offsets.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: p, At: 0, LeaderEpoch: -1})
	}
	reset := func() {
		t.Helper()
		done, err := w.Admin().CommitOffsets(w.Context(), w.Config.Group(group), offsets)
		require.NoError(t, err)
		require.NoError(t, done.Error())
	}
	reset()
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() == 100, nil }, "all of it again")
	w.waitFlushed(d)
	mirrored()
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 120)
	w.waitFlushed(d)
	mirrored()
	require.Equal(t, 100, w.repeats(), "the mirror's own commits are no resets")
}

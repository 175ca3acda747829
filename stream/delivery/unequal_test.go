package delivery_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
)

// Topics are not to be grown. When one is all the same, what it lacks on another topic
// must not keep destinations from beginning where nothing is amiss.
func TestAPartitionThatOneTopicLacksKeepsNoDestinationFromBeginningElsewhere(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*", "event.tracked")
	cl, err := w.Config.NewClient("grow", nil)
	require.NoError(t, err)
	defer cl.Close()
	grown, err := kadm.NewClient(cl).CreatePartitions(w.Context(), 1, w.Config.Topic(schemas.TopicLifecycle))
	require.NoError(t, err)
	require.NoError(t, grown.Error())
	w.Append(events(20)...)
	w.start("one")
	w.waitDelivered("crm", 20)
	_, err = w.store.SetStatus(w.Context(), d.ID, "paused", "")
	require.NoError(t, err)
	_, err = w.store.SetStatus(w.Context(), d.ID, "active", "")
	require.NoError(t, err)
	w.Append(events(20)...)
	w.waitDelivered("crm", 40)
}

package loop_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

// Both producers of a worker know the topic that is gone, one of them idle.
func TestAProcessorGoesOnByItselfAfterTheTopicOfItsOutputsWasMadeAnew(t *testing.T) {
	r := newRig(t, 2, streamtest.FakeOnly())
	p := r.start("a")
	for n := range 4 { // both producers take their turns
		r.give(schemas.TopicIngest, 0, 5)
		r.give(schemas.TopicIngest, 1, 5)
		r.awaitOutputs(10 * (n + 1))
	}
	r.env.DeleteTopic(schemas.TopicEvents)
	require.NoError(t, stream.EnsureTopics(r.env.Context(), r.env.Config, nil))
	for range 4 {
		r.give(schemas.TopicIngest, 0, 5)
		r.give(schemas.TopicIngest, 1, 5)
	}
	r.env.Eventually(func(context.Context) (bool, error) {
		n := len(r.env.ReadAll(schemas.TopicEvents, true))
		return n == 40, fmt.Errorf("%d outputs on the new topic", n)
	}, "all outputs to be published on the new topic")
	p.stop()
	require.Equal(t, 80, r.applied())
}

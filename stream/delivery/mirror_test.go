package delivery_test

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestPositionsAreMirroredAndAResetOfTheGroupByAToolIsARewind(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	often := func(c *delivery.Config) { c.MirrorEvery = 50 * time.Millisecond }
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

	epochs := func() (sum int64) {
		cursors, err := w.db.DestinationCursors(w.Context(), d.ID)
		require.NoError(t, err)
		for _, c := range cursors {
			sum += c.Epoch
		}
		return sum
	}
	before := epochs()
	for p, end := range w.Ends(schemas.TopicLifecycle) {
		offsets.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: p, At: end, LeaderEpoch: -1})
	}
	reset()
	w.Eventually(func(ctx context.Context) (bool, error) {
		have, err := w.Admin().FetchOffsets(ctx, w.Config.Group(group))
		if err != nil {
			return false, err
		}
		marked := true
		have.Each(func(o kadm.OffsetResponse) { marked = marked && o.Metadata != "" })
		return marked, nil
	}, "the mirror to have seen the reset")
	require.Equal(t, before, epochs(), "a reset to where it stands is no rewind")

	// A reset forward leaves out what is not delivered yet, without being asked again.
	stuck := make(chan struct{})
	w.r.answer = func(context.Context, delivery.Delivery) delivery.Outcome {
		<-stuck
		return delivery.Outcome{Verdict: delivery.Retry, Status: 503}
	}
	w.Append(facts(20, 3)...)
	for p, end := range w.Ends(schemas.TopicLifecycle) {
		offsets.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: p, At: end, LeaderEpoch: -1})
	}
	reset()
	w.waitFlushed(d)
	close(stuck)
	w.waitSkipped()
	require.Len(t, w.skipped(d), 60)
}

func TestAResetOfTheGroupBeyondTheLogGoesToItsEnd(t *testing.T) {
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.start("one", func(c *delivery.Config) { c.MirrorEvery = 50 * time.Millisecond })
	w.Append(facts(20, 5)...)
	w.waitDelivered("crm", 100)
	w.waitFlushed(d)
	group := stream.MirrorGroup("crm")
	w.WaitCommitted(group, schemas.TopicLifecycle, w.Ends(schemas.TopicLifecycle))
	offsets := kadm.Offsets{}
	for p := range w.Ends(schemas.TopicLifecycle) {
		offsets.Add(kadm.Offset{Topic: w.Config.Topic(schemas.TopicLifecycle), Partition: p, At: 1 << 40, LeaderEpoch: -1})
	}
	done, err := w.Admin().CommitOffsets(w.Context(), w.Config.Group(group), offsets)
	require.NoError(t, err)
	require.NoError(t, done.Error())
	ends := w.Ends(schemas.TopicLifecycle)
	w.Eventually(func(ctx context.Context) (bool, error) { // what is appended before the reset is taken lies before its end
		got, err := w.Admin().FetchOffsets(ctx, w.Config.Group(group))
		for p, end := range ends {
			if o, ok := got.Lookup(w.Config.Topic(schemas.TopicLifecycle), p); !ok || o.At != end {
				return false, err
			}
		}
		return err == nil, err
	}, "the group stands at the log's end")
	w.Append(facts(20, 1)...)
	w.waitDelivered("crm", 120)
}

func TestApacheKafkasOwnToolRewindsALiveDestination(t *testing.T) {
	if os.Getenv(streamtest.EnvBrokers) == "" {
		t.Skip("needs Apache Kafka: run it with " + streamtest.EnvBrokers + " set, after `make kafka`")
	}
	w := newWorld(t)
	d := w.destination("crm", "contact.*")
	w.start("one", func(c *delivery.Config) { c.MirrorEvery = 200 * time.Millisecond })
	w.Append(facts(20, 5)...)
	w.waitDelivered("crm", 100)
	w.waitFlushed(d)
	group := stream.MirrorGroup("crm")
	w.WaitCommitted(group, schemas.TopicLifecycle, w.Ends(schemas.TopicLifecycle))
	tool := exec.CommandContext(w.Context(), "../compose/kafka/kafka.sh", "tool", "kafka-consumer-groups",
		"--bootstrap-server", os.Getenv(streamtest.EnvBrokers), "--group", w.Config.Group(group),
		"--topic", w.Config.Topic(schemas.TopicLifecycle), "--reset-offsets", "--to-earliest", "--execute")
	said, err := tool.CombinedOutput()
	require.NoError(t, err, "%s", said)
	w.Eventually(func(context.Context) (bool, error) { return w.repeats() == 100, nil }, "all of it again; the tool said %s", said)
	w.waitFlushed(d)
	w.WaitCommitted(group, schemas.TopicLifecycle, w.Ends(schemas.TopicLifecycle))
}

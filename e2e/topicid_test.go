package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/stream/loop"
)

// Two topics are deleted and made anew while nothing runs, and grow beyond where a
// processor and a destination stood. Both are stopped where everybody sees it, and the
// commands that they name have everything processed and delivered.
func TestPositionsOnATopicThatWasMadeAnewAreStoppedUntilAnOperatorSaysFromWhereToGoOn(t *testing.T) {
	notShort(t)
	beside(t)
	w := newWorld(t)
	w.addReceiver(sinktest.Options{})
	p := w.serve("one")
	c := w.client()
	first, second := load{name: "first", subjects: 12, each: 4}, load{name: "second", subjects: 12, each: 9}
	first.giveAway(w, c)
	w.waitDelivered(2 * first.events())
	w.waitProcessed()
	p.stop()

	w.recreate(schemas.TopicIngest, schemas.TopicEvents)
	p.start()
	p.waitReady()
	second.giveAway(w, c)
	w.eventually("identity and the destination to be stopped", func(ctx context.Context) error { return w.wantStopped(ctx, c) })
	require.Equal(t, 2*first.events(), w.receiver.Stats().Unique, "nothing of the topics made anew")

	// The events of the first load are gone with their topic; those of the second are
	// given to identity, and then what contacts made of them to the destination.
	for n := range partitions {
		w.cli(nil, "processors", "accept", "identity", "--partition", fmt.Sprint(n), "--offset", "ingest=0")
	}
	for n := range partitions { // the log of facts, which it reads too, is the same
		w.cli(nil, "processors", "accept", "buckets", "--partition", fmt.Sprint(n), "--offset", "events=0")
	}
	w.waitProcessed()
	require.NoError(t, w.wantRecords(schemas.TopicEvents, second.events()))
	w.waitDelivered(2*first.events() + second.events()) // the facts: topic lifecycle is the same
	w.cli(nil, "replay", "oracle", "--rewind", "--to", "start", "--topic", "events", "--yes")
	w.waitDelivered(2*first.events() + 2*second.events())
	w.eventually("health", func(ctx context.Context) error {
		_, text, err := c.call(ctx, "GET", "/v1/health", nil)
		var health struct{ Status string }
		if err == nil {
			err = json.Unmarshal(text, &health)
		}
		if err == nil && health.Status != "healthy" {
			err = fmt.Errorf("it is %s", text)
		}
		return err
	})
	var list []shownDestination
	w.cli(&list, "destinations", "ls")
	require.Len(t, list, 1)
	require.Empty(t, list[0].Stopped)
	require.Zero(t, *list[0].Lag)
}

// giveAway sends the load and waits for no answers of processors.
func (l load) giveAway(w *world, c *client) {
	w.t.Helper()
	for seq := 1; seq <= l.each; seq++ {
		batch := make([]event, l.subjects)
		for i := range batch {
			batch[i] = l.event(i, seq)
			batch[i].IdempotencyKey = ""
		}
		require.NoError(w.t, c.sendBatch(w.ctx(), batch))
	}
}

type shownDestination struct {
	Name    string
	Lag     *int64
	Stopped []struct {
		Topic     string
		Partition int32
		Why, Mend string
	}
}

// wantStopped returns an error until all partitions of identity and of the destination
// are stopped: in health, in both lists, and with all of the new log as lag.
func (w *world) wantStopped(ctx context.Context, c *client) error {
	_, text, err := c.call(ctx, "GET", "/v1/health", nil)
	var health struct {
		Status     string
		Components map[string]struct{ Status, Detail string }
		Lag        map[string]struct{ Lag int64 }
	}
	if err == nil {
		err = json.Unmarshal(text, &health)
	}
	if err != nil {
		return err
	}
	if health.Status != "degraded" || health.Components["positions"].Status != "down" || health.Components["processor identity"].Status != "down" {
		return fmt.Errorf("health: %s", text)
	}
	if health.Lag["identity"].Lag != 12*9 {
		return fmt.Errorf("the lag of identity: %s", text)
	}
	var processors []loop.ProcessorPartition
	w.cli(&processors, "processors", "ls", "identity")
	for _, p := range processors {
		if p.Topics[0].Stopped == "" || p.Topics[0].Lag == 0 {
			return fmt.Errorf("identity on partition %d: %+v", p.Partition, p)
		}
	}
	var list []shownDestination
	w.cli(&list, "destinations", "ls")
	if len(list) != 1 || len(list[0].Stopped) != partitions || list[0].Stopped[0].Topic != "events" {
		return fmt.Errorf("destinations: %+v", list)
	}
	return nil
}

// recreate deletes topics and makes them anew: empty, with other ids.
func (w *world) recreate(topics ...schemas.Topic) {
	w.t.Helper()
	was, err := w.admin.TopicIDs(w.ctx(), topics...)
	require.NoError(w.t, err)
	cl, err := w.cfg.StreamConfig().NewClient("operator", nil)
	require.NoError(w.t, err)
	defer cl.Close()
	for _, topic := range topics {
		_, err := kadm.NewClient(cl).DeleteTopic(w.ctx(), w.cfg.StreamConfig().Topic(topic))
		require.NoError(w.t, err)
	}
	w.eventually("the topics to be made anew", func(ctx context.Context) error {
		// A broker may still tell of the former one, and then wait in vain for it.
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := w.admin.EnsureTopics(short); err != nil {
			return err
		}
		is, err := w.admin.TopicIDs(ctx, topics...)
		for _, topic := range topics {
			if err == nil && is[topic] == was[topic] {
				err = fmt.Errorf("topic %s is still the former one", topic)
			}
		}
		return err
	})
}

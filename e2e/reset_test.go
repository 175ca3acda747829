package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// Kafka's own kafka-consumer-groups, from the jars of `make kafka`, resets the group
// that mirrors a destination, while two processes deliver to it.
func TestAResetByKafkaConsumerGroupsRewindsALiveDestination(t *testing.T) {
	notShort(t)
	if !realKafka() {
		t.Skip("needs Apache Kafka's tools and a cluster: make e2e")
	}
	w := newWorld(t, withEnv("HOGSTREAM_ROLES=sinks"), shortLease())
	l := w.addLedger(2 * time.Millisecond)
	w.serveSinks("a")
	w.serveSinks("b")
	w.waitSinks(2)
	a := w.appender(l, 30)
	require.NoError(t, a.append(w.ctx(), 5))
	l.waitTaken(w, 150)
	w.waitSettled()
	group := w.cfg.StreamConfig().Group(stream.MirrorGroup("ledger"))
	topic := w.cfg.StreamConfig().Topic(schemas.TopicEvents)
	w.eventually("the mirror to stand at the end", func(context.Context) error {
		said := kafkaTool(t, "kafka-consumer-groups", "--describe", "--group", group)
		if n := strings.Count(said, topic); n != partitions {
			return fmt.Errorf("%d partitions of %s:\n%s", n, topic, said)
		}
		return nil
	})
	t.Log(kafkaTool(t, "kafka-consumer-groups", "--group", group, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute"))
	w.eventually("all of it again", func(context.Context) error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.again != 150 {
			return fmt.Errorf("%d records were taken again", l.again)
		}
		return nil
	})
	w.waitSettled()
	require.NoError(t, a.append(w.ctx(), 1))
	l.waitTaken(w, 180)
	l.mu.Lock()
	defer l.mu.Unlock()
	require.Equal(t, 150, l.again, "each once more")
	require.Empty(t, l.violations)
}

// kafkaTool runs one of Kafka's own tools against the cluster of the suite.
func kafkaTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	args = append([]string{"tool", name, "--bootstrap-server", os.Getenv("KAFKA_BROKERS")}, args...)
	said, err := exec.CommandContext(t.Context(), "../compose/kafka/kafka.sh", args...).CombinedOutput()
	if err != nil && os.Getenv("KAFKA_INSTANCE") == "" {
		t.Skipf("kafka.sh has no tools here: %s", said)
	}
	require.NoError(t, err, "%s", said)
	return string(said)
}

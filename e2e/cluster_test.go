package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/sinks/sinktest"
)

// cluster is Apache Kafka with three brokers, started by the test.
type cluster struct {
	t        *testing.T
	env      []string
	brokers  []string
	registry string
}

// startCluster starts three brokers; they end with the test.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, env: []string{"BROKERS=3", "KAFKA_INSTANCE=e2e-three-" + strconv.Itoa(os.Getpid()), "KAFKA_PORT=auto", "REGISTRY_PORT=auto"}}
	t.Cleanup(func() { kafkaScript(t, c.env, "clean") })
	kafkaScript(t, c.env, "start")
	for line := range strings.Lines(kafkaScript(t, c.env, "env")) {
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		switch name {
		case "KAFKA_BROKERS":
			c.brokers = strings.Split(value, ",")
		case "SCHEMA_REGISTRY_URL":
			c.registry = value
		}
	}
	require.Len(t, c.brokers, 3)
	return c
}

func (c *cluster) use(cfg *hogstream.Config) {
	cfg.Kafka.Brokers, cfg.Registry.URL = c.brokers, c.registry
	cfg.Kafka.TLS, cfg.Kafka.TLSCA, cfg.Kafka.SASLMechanism = false, "", ""
	cfg.Kafka.ReplicationFactor, cfg.Kafka.MinInSync = 3, 2
}

func (c *cluster) kill(broker int)  { kafkaScript(c.t, c.env, "kill-broker", strconv.Itoa(broker)) }
func (c *cluster) start(broker int) { kafkaScript(c.t, c.env, "start-broker", strconv.Itoa(broker)) }

func TestFaultTwoOfThreeBrokersAreKilledOneAfterTheOther(t *testing.T) {
	if !realKafka() || testing.Short() {
		t.Skip("needs Apache Kafka: make e2e")
	}
	cluster := startCluster(t)
	eachSeed(t, 1, func(t *testing.T, rng *rand.Rand) {
		w := newWorld(t, onCluster(cluster), withEnv("KAFKA_REPLICATION_FACTOR=3", "KAFKA_MIN_INSYNC=2",
			"KAFKA_TLS=", "KAFKA_TLS_CA=", "KAFKA_SASL_MECHANISM="))
		w.addReceiver(sinktest.Options{Sequence: bySeq})
		w.serve("one")
		l := load{name: "cluster", subjects: 24, each: 60, senders: 6}
		c := w.client()
		wait := l.start(w, c)
		first := 1 + rng.IntN(3)
		second := 1 + (first+rng.IntN(2))%3
		for k, broker := range []int{first, second} {
			w.waitAccepted(c, l.events()*(k+1)/4)
			w.waitPhase(rng)
			cluster.kill(broker)
			w.waitAccepted(c, l.events()*(k+1)/4+l.events()/8) // it goes on with two
			cluster.start(broker)
			w.waitInSync(3)
		}
		wait()
		stats := w.waitDelivered(2 * l.events())
		t.Logf("brokers %d and %d killed: %d events, %d requests sent again, %d webhooks repeated", first, second, l.events(), c.retries.Load(), stats.Duplicates)
		w.verify(l)
	})
}

// waitInSync waits until every partition has n replicas in sync.
func (w *world) waitInSync(n int) {
	w.t.Helper()
	cl, err := w.cfg.StreamConfig().NewClient("test", nil)
	require.NoError(w.t, err)
	defer cl.Close()
	adm := kadm.NewClient(cl)
	w.eventually(fmt.Sprintf("%d replicas in sync", n), func(ctx context.Context) error {
		topics, err := adm.ListTopicsWithInternal(ctx)
		if err != nil {
			return err
		}
		for _, t := range topics {
			for _, p := range t.Partitions {
				if len(p.ISR) < n {
					return fmt.Errorf("%s partition %d has %d in sync", t.Topic, p.Partition, len(p.ISR))
				}
			}
		}
		return nil
	})
}

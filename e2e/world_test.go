package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream"
	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/schemas/localregistry"
	"github.com/hogstream/hogstream/sinks"
	"github.com/hogstream/hogstream/sinks/destinations"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/storage/storagetest"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/reader"
	"github.com/hogstream/hogstream/stream/streamtest"
)

const (
	partitions = 3
	adminKey   = "hsk_e2e_bootstrap_of_tests"
)

var encryptionKey = bytes.Repeat([]byte{7}, storage.KeySize)

// world is what the binary lives in, and how a test looks at it.
type world struct {
	t       *testing.T
	dir     string
	dataDir string // of a developer's instance

	cfg       hogstream.Config         // settings that reach the same surroundings
	broker    *streamtest.Process      // nil on a real cluster
	registry  *localregistry.Server    // nil with a real one
	postgres  *storagetest.Server      // only when the test asked for one that it can stop
	db        *storage.DB              // looks
	admin     *stream.Admin            // looks
	codec     *schemas.Codec           // looks
	receiver  *sinktest.Receiver       // nil without addReceiver
	ops       *destinations.Operations // destinations
	env       []string                 // of every process
	mayRepeat bool                     // records, after the broker's process was killed
	serving   []*process               // processes that play ingest
}

// worldOption changes what a world is made of.
type worldOption func(*worldSettings)

type worldSettings struct {
	ownPostgres   bool
	emptyDatabase bool
	cluster       *cluster
	env           []string
}

// onCluster puts the world on a cluster other than the suite's.
func onCluster(c *cluster) worldOption { return func(s *worldSettings) { s.cluster = c } }

// ownPostgres gives the world a server that the test can stop.
func ownPostgres() worldOption { return func(s *worldSettings) { s.ownPostgres = true } }

// withEnv adds settings to every process.
func withEnv(env ...string) worldOption {
	return func(s *worldSettings) { s.env = append(s.env, env...) }
}

// realKafka says that the suite runs on a cluster of its own.
func realKafka() bool { return os.Getenv("KAFKA_BROKERS") != "" }

// newWorld starts the surroundings: broker, registry, a migrated database.
func newWorld(t *testing.T, opts ...worldOption) *world {
	t.Helper()
	var s worldSettings
	for _, o := range opts {
		o(&s)
	}
	cfg, err := hogstream.ConfigFromEnv()
	require.NoError(t, err)
	w := &world{t: t, dir: t.TempDir(), cfg: cfg}
	w.cfg.Kafka.Partitions = partitions
	w.cfg.Instance = "test"
	if s.cluster != nil {
		s.cluster.use(&w.cfg)
	} else {
		w.startKafka()
		w.startRegistry()
	}
	if s.ownPostgres {
		w.postgres = storagetest.NewServer(t)
		w.cfg.Database.URL = w.postgres.URL()
	} else if s.emptyDatabase {
		w.cfg.Database.URL = storagetest.EmptyURL(t)
	} else {
		w.cfg.Database.URL = storagetest.URL(t)
	}
	w.env = append([]string{
		"KAFKA_BROKERS=" + strings.Join(w.cfg.Kafka.Brokers, ","), "KAFKA_PREFIX=" + w.cfg.Kafka.Prefix,
		fmt.Sprintf("KAFKA_PARTITIONS=%d", partitions),
		"SCHEMA_REGISTRY_URL=" + w.cfg.Registry.URL, "DATABASE_URL=" + w.cfg.Database.URL,
		"HOGSTREAM_ENCRYPTION_KEY=" + base64.StdEncoding.EncodeToString(encryptionKey), "ADMIN_API_KEY=" + adminKey,
		"DELIVERY_ALLOW_CIDRS=127.0.0.0/8", "RATE_LIMIT=0", "PUBLIC_RATE_LIMIT=0", "ADMIN_RATE_LIMIT=1000000",
		"LOG_LEVEL=warn", "LOG_FORMAT=console", "ACCESS_LOG=failures",
	}, s.env...)
	w.look()
	return w
}

func (w *world) startKafka() {
	if realKafka() {
		w.cfg.Kafka.Prefix = fmt.Sprintf("e2e-%08x.", rand.Uint32())
		w.t.Cleanup(w.deleteTopics)
		return
	}
	w.broker = streamtest.StartProcess(w.t, streamtest.NoTopics())
	w.cfg.Kafka.Brokers = w.broker.Config.Brokers
}

func (w *world) startRegistry() {
	if w.cfg.Registry.URL != "" && realKafka() {
		return
	}
	var err error
	w.registry, err = localregistry.Start(filepath.Join(w.dir, "registry"))
	require.NoError(w.t, err)
	w.cfg.Registry.URL = w.registry.URL()
	w.t.Cleanup(func() { w.registry.Close() })
}

// look opens what the test looks through, which is not what it tests.
func (w *world) look() {
	t := w.t
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	w.codec, err = w.cfg.Codec()
	require.NoError(t, err)
	w.db, err = storage.Open(ctx, storage.Config{URL: w.cfg.Database.URL, MaxConns: 4})
	require.NoError(t, err)
	t.Cleanup(w.db.Close)
	w.admin, err = stream.OpenAdmin(w.cfg.StreamConfig(), nil)
	require.NoError(t, err)
	t.Cleanup(w.admin.Close)
	box, err := storage.NewBox(encryptionKey)
	require.NoError(t, err)
	deliverer, err := sinks.New(sinks.Config{AllowLoopback: true}, w.codec, nil, nil)
	require.NoError(t, err)
	t.Cleanup(deliverer.Close)
	w.ops = destinations.New(w.db, storage.NewDestinations(w.db, box), w.admin, deliverer, zap.NewNop())
}

// deleteTopics leaves a real cluster as it was found.
func (w *world) deleteTopics() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cl, err := w.cfg.StreamConfig().NewClient("test", nil)
	if err != nil {
		return
	}
	defer cl.Close()
	var names []string
	for _, s := range schemas.Topics() {
		names = append(names, w.cfg.StreamConfig().Topic(s.Topic))
	}
	kadm.NewClient(cl).DeleteTopics(ctx, names...) //nolint:errcheck // the cluster is not ours to insist on
}

// addReceiver starts a receiver and makes it a destination of everything.
func (w *world) addReceiver(opts sinktest.Options) *sinktest.Receiver {
	t := w.t
	t.Helper()
	r, err := sinktest.New(opts)
	require.NoError(t, err)
	url, err := r.Start("127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(r.Close)
	require.NoError(t, w.admin.EnsureTopics(w.ctx()))
	created, err := w.ops.Create(w.ctx(), destinations.Settings{Name: "oracle", URL: url, EventTypes: []string{"*", "event.tracked"}})
	require.NoError(t, err)
	require.NoError(t, r.SetSecrets(created.Secret))
	w.receiver = r
	return r
}

// ctx ends with the test, or when patience does.
func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	w.t.Cleanup(cancel)
	return ctx
}

// eventually asks again until the answer is nil, and fails the test with the
// last one when it is not within patience.
func (w *world) eventually(what string, ask func(ctx context.Context) error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	pause := time.NewTicker(25 * time.Millisecond)
	defer pause.Stop()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.t.Fatalf("waited %s for %s: %v", patience, what, err)
		case <-pause.C:
		}
	}
}

// read returns what stands on a topic, read committed, in offset order for each
// partition.
func (w *world) read(topic schemas.Topic) []*stream.Record {
	w.t.Helper()
	var records []*stream.Record
	err := reader.Tail(w.ctx(), w.cfg.StreamConfig(), reader.TailOptions{Topics: []schemas.Topic{topic}, From: reader.AtStart()}, nil,
		func(r *stream.Record) error {
			records = append(records, r)
			return nil
		})
	require.NoError(w.t, err)
	return records
}

// wantRecords returns an error until a topic has n records.
func (w *world) wantRecords(topic schemas.Topic, n int) error {
	if got := len(w.read(topic)); got != n {
		return fmt.Errorf("%d records on %s, want %d", got, topic, n)
	}
	return nil
}

// produce writes raw bytes on a topic, as anybody with access to Kafka could.
func (w *world) produce(topic schemas.Topic, key string, values ...[]byte) {
	w.t.Helper()
	cl, err := w.cfg.StreamConfig().NewClient("vandal", nil)
	require.NoError(w.t, err)
	defer cl.Close()
	for _, v := range values {
		r := &kgo.Record{Topic: w.cfg.StreamConfig().Topic(topic), Key: []byte(key), Value: v}
		require.NoError(w.t, cl.ProduceSync(w.ctx(), r).FirstErr())
	}
}

// waitProcessed waits until the processors have read and published everything
// that stands on their topics.
func (w *world) waitProcessed() {
	w.t.Helper()
	w.eventually("the processors to reach the end", func(ctx context.Context) error {
		for range 2 { // what identity published meanwhile is contacts' to read
			lags, err := w.admin.Lag(ctx)
			if err != nil {
				return err
			}
			seen := 0
			for _, g := range lags {
				if g.Group == "buckets" && g.Lag > 0 { // a release without it has no such group
					return fmt.Errorf("group %s is %d behind", g.Group, g.Lag)
				}
				if g.Group != "identity" && g.Group != "contacts" {
					continue
				}
				if n := int(w.cfg.Kafka.Partitions); len(g.Partitions) < n { // it has only just begun
					return fmt.Errorf("group %s has committed offsets of %d partitions, not yet of %d", g.Group, len(g.Partitions), n)
				}
				if g.Lag > 0 {
					return fmt.Errorf("group %s is %d behind", g.Group, g.Lag)
				}
				seen++
			}
			if seen < 2 {
				return fmt.Errorf("%d groups have committed", seen)
			}
		}
		return nil
	})
}

// freeAddr is a loopback address that nobody listens on.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// stopBroker stops the broker in good order.
func (w *world) stopBroker() {
	w.t.Helper()
	if w.broker != nil {
		w.broker.Stop()
		return
	}
	kafkaScript(w.t, nil, "stop-broker", "1")
}

// startBroker starts it again, with its data and at its address.
func (w *world) startBroker() {
	w.t.Helper()
	if w.broker != nil {
		w.broker.Restart()
		return
	}
	kafkaScript(w.t, nil, "start-broker", "1")
}

// kafkaScript runs compose/kafka/kafka.sh for the cluster that `make e2e`
// started; on any other the test is skipped, for it is not ours to break.
func kafkaScript(t testing.TB, env []string, args ...string) string {
	t.Helper()
	if os.Getenv("KAFKA_INSTANCE") == "" && len(env) == 0 {
		t.Skip("KAFKA_INSTANCE does not say which cluster of kafka.sh this is")
	}
	cmd := exec.Command("../compose/kafka/kafka.sh", args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.Output()
	require.NoError(t, err, "kafka.sh %v: %s", args, out)
	return string(out)
}

// Package streamtest gives tests a Kafka cluster: kfake in the test's process,
// kfake in a process of its own that can be killed, or a real one when
// HOGSTREAM_TEST_KAFKA_BROKERS names it. It imports stream, so tests inside
// package stream use it from package stream_test.
package streamtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/localbroker"
)

// EnvBrokers names the environment variable (host:port, comma separated) that
// makes New use a real cluster.
const EnvBrokers = "HOGSTREAM_TEST_KAFKA_BROKERS"

// EnvRegistry names the environment variable with the schema registry's URL; on
// a real cluster the codec then has its ids from there.
const EnvRegistry = "SCHEMA_REGISTRY_URL"

// Patience is how long helpers wait for something that must come.
const Patience = 30 * time.Second

// Env is a cluster with all topics made, for one test.
type Env struct {
	// Config points to the cluster.
	Config stream.Config
	// Codec encodes and decodes records.
	Codec *schemas.Codec
	// Cluster is the fake, for Fault, ControlKey, DeleteRecords and the like;
	// nil on a real cluster and in a process of its own.
	Cluster *kfake.Cluster
	// Network is between Config's clients and the brokers.
	Network *Network
	// Logger writes warnings to the test's log.
	Logger *zap.Logger

	t   testing.TB
	cl  *kgo.Client
	adm *kadm.Client
}

// Option changes what New makes.
type Option func(*settings)

type settings struct {
	partitions int32
	brokers    int
	noTopics   bool
	config     func(*stream.Config)
	kfake      []kfake.Opt
	virtual    bool
	fake       bool
	ownTimes   bool
	real       bool // a cluster that outlives the test
}

// Partitions is how many each topic gets; 3 by default.
func Partitions(n int32) Option { return func(s *settings) { s.partitions = n } }

// NoTopics leaves the cluster empty.
func NoTopics() Option { return func(s *settings) { s.noTopics = true } }

// WithConfig changes the config before the topics are made.
func WithConfig(change func(*stream.Config)) Option {
	return func(s *settings) { s.config = change }
}

// FakeOnly is for tests that use Env.Cluster.
func FakeOnly() Option { return func(s *settings) { s.fake = true } }

// OwnTimes has records keep the times with which they are produced, as if they had been
// appended then. It is for the fake cluster alone.
func OwnTimes() Option { return func(s *settings) { s.fake, s.ownTimes = true, true } }

// WithKfake adds options of the fake cluster.
func WithKfake(opts ...kfake.Opt) Option {
	return func(s *settings) { s.kfake = append(s.kfake, opts...) }
}

// WithoutTopicIDs makes the fake cluster one from before topics had ids (KIP-516).
func WithoutTopicIDs() Option {
	old := kversion.Stable()
	for key, most := range map[kmsg.Key]int16{kmsg.Fetch: 12, kmsg.Metadata: 9, kmsg.OffsetCommit: 9, kmsg.OffsetFetch: 9} {
		old.SetMaxKeyVersion(int16(key), most)
	}
	return WithKfake(kfake.MaxVersions(old))
}

// Virtual keeps the network in memory, for testing/synctest.
func Virtual() Option { return func(s *settings) { s.virtual = true } }

// New makes a cluster with all topics. It is gone when the test ends; on a real
// cluster, the topics are deleted.
func New(t testing.TB, opts ...Option) *Env {
	t.Helper()
	s := settings{partitions: 3, brokers: 1}
	for _, o := range opts {
		o(&s)
	}
	if brokers := os.Getenv(EnvBrokers); brokers != "" && !s.fakeOnly() {
		prefix := fmt.Sprintf("t%08x.", rand.Uint32())
		s.real = true
		return newEnv(t, s, nil, stream.Config{Brokers: strings.Split(brokers, ","), Prefix: prefix})
	}
	config := stream.Config{}
	kopts := []kfake.Opt{
		kfake.NumBrokers(s.brokers),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
	}
	var virtual *kfake.VirtualNetwork
	if s.virtual {
		virtual = &kfake.VirtualNetwork{}
		kopts = append(kopts, kfake.ListenFn(virtual.Listen))
		config.Dialer = virtual.DialContext
	}
	cluster, err := kfake.NewCluster(append(kopts, s.kfake...)...)
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	if !s.ownTimes {
		localbroker.StampAppendTime(cluster)
	}
	config.Brokers = cluster.ListenAddrs()
	return newEnv(t, s, cluster, config)
}

// fakeOnly says that the test asks for what only the fake can do.
func (s settings) fakeOnly() bool { return s.fake || s.virtual || len(s.kfake) > 0 }

func newEnv(t testing.TB, s settings, cluster *kfake.Cluster, config stream.Config) *Env {
	t.Helper()
	e := &Env{
		t: t, Cluster: cluster, Codec: codec(t, s, config.Prefix), Network: newNetwork(config.Dialer),
		Logger: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)),
	}
	t.Cleanup(e.Network.Heal)
	config.Partitions = s.partitions
	config.Instance = "test"
	if s.config != nil {
		s.config(&config)
	}
	// The helpers' own client does not suffer from what a test does to the network.
	cl, err := config.NewClient("test", nil, kgo.ManualFlushing(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, err)
	e.cl, e.adm = cl, kadm.NewClient(cl)
	t.Cleanup(cl.Close)
	if !s.noTopics {
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		require.NoError(t, stream.EnsureTopics(ctx, config, nil))
	}
	if s.real {
		t.Cleanup(func() { e.deleteTopics(config) })
	}
	config.Dialer = e.Network.Dial
	e.Config = config
	return e
}

// Recreate deletes a topic and makes it anew, as it was: an empty log with another id.
func (e *Env) Recreate(topic schemas.Topic) {
	e.t.Helper()
	name := e.Config.Topic(topic)
	was, err := e.adm.ListTopics(e.Context(), name)
	require.NoError(e.t, err)
	_, err = e.adm.DeleteTopic(e.Context(), name)
	require.NoError(e.t, err)
	e.Eventually(func(ctx context.Context) (bool, error) {
		// A broker may still tell of the former one, and then wait in vain for it.
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := stream.EnsureTopics(short, e.Config, nil); err != nil {
			return false, err
		}
		is, err := e.adm.ListTopics(ctx, name)
		return err == nil && is.Has(name) && is[name].ID != was[name].ID, err
	}, "topic %s made anew", name)
	e.cl.PurgeTopicsFromClient(name)
}

func codec(t testing.TB, s settings, prefix string) *schemas.Codec {
	t.Helper()
	url := os.Getenv(EnvRegistry)
	if !s.real || url == "" {
		return schemas.NewCodec()
	}
	registry, err := schemas.NewRegistry(schemas.RegistryConfig{URLs: []string{url}, Prefix: prefix})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	require.NoError(t, registry.Register(ctx))
	return registry.Codec()
}

// DeleteTopic deletes a topic with all that stands on it.
func (e *Env) DeleteTopic(topic schemas.Topic) {
	e.t.Helper()
	deleted, err := e.adm.DeleteTopics(e.Context(), e.Config.Topic(topic))
	require.NoError(e.t, err)
	require.NoError(e.t, deleted.Error())
}

func (e *Env) deleteTopics(config stream.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var names []string
	for _, s := range schemas.Topics() {
		names = append(names, config.Topic(s.Topic))
	}
	e.adm.DeleteTopics(ctx, names...) //nolint:errcheck // the cluster is not ours to insist on
}

// Context ends with the test, or when Patience does.
func (e *Env) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	e.t.Cleanup(cancel)
	return ctx
}

// Log opens a Log that is closed with the test.
func (e *Env) Log() *stream.Log {
	e.t.Helper()
	l, err := stream.OpenLog(e.Context(), e.Config, e.Codec, e.Logger, nil)
	require.NoError(e.t, err)
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		l.Close(ctx) // tests that care close it themselves
	})
	return l
}

// Append encodes and appends messages in one batch a partition, where their key
// belongs.
func (e *Env) Append(msgs ...schemas.Message) {
	e.t.Helper()
	var records []*kgo.Record
	for _, m := range msgs {
		value, err := e.Codec.Encode(m)
		require.NoError(e.t, err)
		r := stream.NewKafkaRecord(e.Config.Topic(m.Topic()), m.Key(), value, m.Meta(), stream.Trace{})
		r.Partition = e.PartitionOf(m.Key())
		records = append(records, r)
	}
	e.Produce(records...)
}

// PartitionOf returns the partition of a key on any topic.
func (e *Env) PartitionOf(key string) int32 {
	return stream.PartitionOf([]byte(key), int(e.Config.Partitions))
}

// Produce appends raw records to the topic and partition that they name, in one
// batch a partition; their offsets are set.
func (e *Env) Produce(records ...*kgo.Record) {
	e.t.Helper()
	ctx := e.Context()
	results := make([]error, len(records))
	for i, r := range records {
		e.cl.Produce(ctx, r, func(_ *kgo.Record, err error) { results[i] = err })
	}
	require.NoError(e.t, e.cl.Flush(ctx))
	for _, err := range results {
		require.NoError(e.t, err)
	}
}

// ReadAll returns what stands on a topic now, in offset order for each
// partition; only committed records, or uncommitted and aborted ones too.
func (e *Env) ReadAll(topic schemas.Topic, committed bool) []*stream.Record {
	e.t.Helper()
	ctx := e.Context()
	records, err := e.readAll(ctx, topic, committed)
	require.NoError(e.t, err)
	return records
}

func (e *Env) readAll(ctx context.Context, topic schemas.Topic, committed bool) ([]*stream.Record, error) {
	config := e.Config
	config.Dialer = e.Network.direct
	isolation, list := kgo.ReadCommitted(), e.adm.ListCommittedOffsets
	if !committed {
		isolation, list = kgo.ReadUncommitted(), e.adm.ListEndOffsets
	}
	name := config.Topic(topic)
	starts, err := e.adm.ListStartOffsets(ctx, name)
	if err != nil {
		return nil, err
	}
	ends, err := list(ctx, name)
	if err != nil {
		return nil, err
	}
	from := make(map[int32]kgo.Offset)
	until := make(map[int32]int64)
	ends.Each(func(end kadm.ListedOffset) {
		if start, _ := starts.Lookup(name, end.Partition); start.Offset < end.Offset {
			from[end.Partition] = kgo.NewOffset().At(start.Offset)
			until[end.Partition] = end.Offset
		}
	})
	if len(until) == 0 {
		return nil, nil
	}
	// Control records show how far a partition was read when it ends with one.
	cl, err := config.NewClient("test-reader", nil, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}),
		kgo.FetchIsolationLevel(isolation), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var records []*stream.Record
	for len(until) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return records, err
		}
		fetches.EachRecord(func(kr *kgo.Record) {
			end, open := until[kr.Partition]
			if !open || kr.Offset >= end {
				return
			}
			if !kr.Attrs.IsControl() {
				r, _ := config.FromKafka(kr)
				records = append(records, r)
			}
			if kr.Offset == end-1 {
				delete(until, kr.Partition)
			}
		})
	}
	return records, nil
}

// WaitRecords returns a topic's committed records as soon as there are n.
func (e *Env) WaitRecords(topic schemas.Topic, n int) []*stream.Record {
	e.t.Helper()
	var records []*stream.Record
	e.Eventually(func(ctx context.Context) (bool, error) {
		var err error
		records, err = e.readAll(ctx, topic, true)
		return len(records) >= n, err
	}, "%d records on %s", n, topic)
	return records
}

// Committed returns the offsets that a group (without prefix) has committed on a
// topic, by partition.
func (e *Env) Committed(group string, topic schemas.Topic) map[int32]int64 {
	e.t.Helper()
	offsets, err := e.committed(e.Context(), group, topic)
	require.NoError(e.t, err)
	return offsets
}

func (e *Env) committed(ctx context.Context, group string, topic schemas.Topic) (map[int32]int64, error) {
	fetched, err := e.adm.FetchOffsets(ctx, e.Config.Group(group))
	if err != nil {
		return nil, err
	}
	offsets := make(map[int32]int64)
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Topic == e.Config.Topic(topic) && o.At >= 0 {
			offsets[o.Partition] = o.At
		}
	})
	return offsets, nil
}

// WaitCommitted waits until a group has committed at least these offsets.
func (e *Env) WaitCommitted(group string, topic schemas.Topic, atLeast map[int32]int64) {
	e.t.Helper()
	e.Eventually(func(ctx context.Context) (bool, error) {
		got, err := e.committed(ctx, group, topic)
		for p, want := range atLeast {
			if got[p] < want {
				return false, err
			}
		}
		return err == nil, err
	}, "group %s to commit %v on %s", group, atLeast, topic)
}

// WaitDrained waits until a group has read its topics to their present ends.
func (e *Env) WaitDrained(group string, topics ...schemas.Topic) {
	e.t.Helper()
	for _, topic := range topics {
		e.WaitCommitted(group, topic, e.Ends(topic))
	}
}

// Ends returns the last stable offsets of a topic, by partition.
func (e *Env) Ends(topic schemas.Topic) map[int32]int64 {
	e.t.Helper()
	listed, err := e.adm.ListCommittedOffsets(e.Context(), e.Config.Topic(topic))
	require.NoError(e.t, err)
	ends := make(map[int32]int64)
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends
}

// Admin is a client for what the helpers lack.
func (e *Env) Admin() *kadm.Client { return e.adm }

// Eventually asks again until the answer is true, and fails the test when it is
// not within Patience, with the last error.
func (e *Env) Eventually(ask func(ctx context.Context) (bool, error), format string, args ...any) {
	e.t.Helper()
	ctx := e.Context()
	pause := time.NewTicker(5 * time.Millisecond)
	defer pause.Stop()
	for {
		ok, err := ask(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			e.t.Fatalf("waited %s for %s (last error: %v)", Patience, fmt.Sprintf(format, args...), err)
		case <-pause.C:
		}
	}
}

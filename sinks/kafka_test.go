package sinks

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/sinks/sinktest"
	"github.com/hogstream/hogstream/sinks/transport"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
)

func kafkaDestination(t *testing.T, brokers []string, topic string) *storage.Destination {
	t.Helper()
	config, err := json.Marshal(map[string]any{"brokers": brokers, "topic": topic})
	require.NoError(t, err)
	return &storage.Destination{ID: "k1", Name: "k", Kind: "kafka", Config: config, Revision: 1}
}

func TestADestinationOntoTheDeploymentsOwnTopicsIsRefused(t *testing.T) {
	cluster := func(id string) []string {
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID(id))
		require.NoError(t, err)
		t.Cleanup(c.Close)
		return c.ListenAddrs()
	}
	own, other := cluster("own"), cluster("other")
	id, unknown := "own", error(nil)
	d := newDeliverer(t, Config{AllowLoopback: true, Own: &OwnKafka{
		Owns:      stream.Config{Prefix: "hog."}.Owns,
		ClusterID: func(context.Context) (string, error) { return id, unknown },
	}})
	for _, topic := range []string{"hog.ingest", "hog.events", "hog.anything"} {
		err := d.CheckLoop(t.Context(), kafkaDestination(t, own, topic))
		require.ErrorContains(t, err, "config.topic: ")
		require.ErrorContains(t, err, "choose a name without that prefix")
		require.NoError(t, d.CheckLoop(t.Context(), kafkaDestination(t, other, topic)), "the same name on another cluster")
		require.ErrorContains(t, d.CheckLoop(t.Context(), kafkaDestination(t, []string{"127.0.0.1:59092"}, topic)), "config.topic: ", "nobody there to say that it is another one")
	}
	require.NoError(t, d.CheckLoop(t.Context(), kafkaDestination(t, own, "crm")))
	unknown = errors.New("away")
	require.Error(t, d.CheckLoop(t.Context(), kafkaDestination(t, other, "hog.ingest")))
	require.NoError(t, newDeliverer(t, Config{AllowLoopback: true}).CheckLoop(t.Context(), kafkaDestination(t, own, "hog.ingest")))
}

func TestEnvelopesAreForwardedToATopicOfAnotherCluster(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	d := newDeliverer(t, Config{AllowLoopback: true})
	dest := kafkaDestination(t, cluster.ListenAddrs(), "crm")
	records := sinktest.Records()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, ReplayID: "r1"})
	require.Equal(t, delivery.Delivered, out.Verdict, "%+v", out)

	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("crm"))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []*kgo.Record
	for len(got) < len(records) {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		got = append(got, fetches.Records()...)
	}
	for i, r := range got {
		require.Equal(t, sinktest.ContactID, string(r.Key))
		require.Equal(t, "id", r.Headers[0].Key)
		require.Equal(t, "msg_"+records[i].ID, string(r.Headers[0].Value))
		require.Equal(t, schemas.Catalog()[i], string(r.Headers[1].Value))
		require.Equal(t, "hogstream-replay", r.Headers[4].Key)
		require.True(t, json.Valid(r.Value))
	}

	changed := *dest
	changed.Revision++
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: &changed, Records: records[:1]}).Verdict)
}

// forwarded are the payloads' ids on a topic, by key, in their order.
func forwarded(t *testing.T, cluster *kfake.Cluster, topic string, atLeast int) map[string][]string {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics(topic))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ids := map[string][]string{}
	for n := 0; n < atLeast; {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			ids[string(r.Key)] = append(ids[string(r.Key)], string(r.Headers[0].Value))
		})
	}
	return ids
}

// eventsOf are events of contacts in turn, size bytes each.
func eventsOf(t *testing.T, contacts, each int, size func(contact, seq int) int) []*stream.Record {
	t.Helper()
	var records []*stream.Record
	for seq := range each {
		for c := range contacts {
			e := sinktest.Event()
			e.ID, e.ContactID = fmt.Sprintf("5f6b1c2e-1111-5222-%04d-%012d", c, seq), fmt.Sprint("contact-", c)
			noise := make([]byte, size(c, seq)/2) // so that compressing does not make it small
			_, _ = rand.NewChaCha8([32]byte{byte(c), byte(seq)}).Read(noise)
			e.Properties = `{"x":"` + hex.EncodeToString(noise) + `"}`
			records = append(records, sinktest.Record(e, int64(len(records))))
		}
	}
	return records
}

func TestOfABatchOnlyWhatAPartitionOfKafkaRefusedIsSentAgain(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	dest := kafkaDestination(t, cluster.ListenAddrs(), "crm")
	records := eventsOf(t, 12, 3, func(int, int) int { return 10 })
	partition := func(r *stream.Record) int {
		return kgo.StickyKeyPartitioner(nil).ForTopic("crm").Partition(&kgo.Record{Key: r.Key}, 3)
	}
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "crm", Partitions: []int32{1}, Err: kerr.TopicAuthorizationFailed, Count: 1})

	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	require.Contains(t, out.Err, "TOPIC_AUTHORIZATION_FAILED")
	var again []*stream.Record
	for i, r := range records {
		want := delivery.Delivered
		if partition(r) == 1 {
			want, again = delivery.Retry, append(again, r)
		}
		require.Equal(t, want, out.Results[i].Verdict, i)
	}
	require.NotEmpty(t, again)
	require.Less(t, len(again), len(records))
	require.Equal(t, delivery.Delivered, d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: again, Attempt: 2}).Verdict)
	for key, ids := range forwarded(t, cluster, "crm", len(records)) {
		require.Len(t, ids, 3, "%s: nothing twice", key)
		require.IsIncreasing(t, ids, "%s: in order", key)
	}
}

func TestOfABatchThatIsTooLargeForATopicOnlyTheRecordThatIsTooLargeIsRejected(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "20000"}), kfake.SeedTopics(1, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	dest := kafkaDestination(t, cluster.ListenAddrs(), "crm")
	const tooLarge = 5
	records := eventsOf(t, 3, 10, func(c, seq int) int {
		if c == 1 && seq == tooLarge {
			return 40_000
		}
		return 3_000
	})
	d := newDeliverer(t, Config{AllowLoopback: true})
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: records, Attempt: 1})
	require.Equal(t, delivery.Partial, out.Verdict, "%+v", out)
	for i := range records {
		want := delivery.Delivered
		if i == 3*tooLarge+1 {
			want = delivery.Reject
		}
		require.Equal(t, want, out.Results[i].Verdict, i)
	}
	for key, ids := range forwarded(t, cluster, "crm", len(records)-1) {
		require.IsIncreasing(t, ids, "%s: in order", key)
	}
}

func TestWhatAnAttemptGaveUpIsNotAppendedLater(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	away := atomic.Bool{}
	away.Store(true)
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return nil, errors.New("connection reset"), away.Load()
	})
	dest := kafkaDestination(t, cluster.ListenAddrs(), "crm")
	records := eventsOf(t, 1, 2, func(int, int) int { return 10 })
	d := newDeliverer(t, Config{AllowLoopback: true, Timeout: 2 * time.Second})
	deliver := func(r *stream.Record) delivery.Verdict {
		return d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{r}, Attempt: 1}).Verdict
	}
	require.Equal(t, delivery.Retry, deliver(records[0]))
	away.Store(false)
	require.Eventually(t, func() bool { return deliver(records[1]) == delivery.Delivered }, 20*time.Second, time.Millisecond)
	p, err := d.Payload(records[1])
	require.NoError(t, err)
	require.Equal(t, map[string][]string{p.Person.ContactID: {p.MessageID()}}, forwarded(t, cluster, "crm", 1))
}

func TestAKafkaDestinationTellsWhoseFaultItIs(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	d := newDeliverer(t, Config{AllowLoopback: true, Timeout: time.Second})
	addrs := cluster.ListenAddrs()
	deliver := func(dest *storage.Destination, m schemas.Message) delivery.Outcome {
		return d.Deliver(t.Context(), delivery.Delivery{Destination: dest, Records: []*stream.Record{sinktest.Record(m, 1)}})
	}
	missing := kafkaDestination(t, addrs, "missing")
	require.Equal(t, delivery.Refuse, deliver(missing, sinktest.Event()).Verdict)
	cluster.Close()
	away := kafkaDestination(t, addrs, "crm")
	away.ID = "k2"
	require.Equal(t, delivery.Retry, deliver(away, sinktest.Event()).Verdict)
}

func TestSettingsOfKafkaNameTheirField(t *testing.T) {
	guard := transport.NewGuard(transport.Config{})
	for config, want := range map[string]string{
		`{"topic":"t"}`:                                       "config.brokers: is empty",
		`{"brokers":["b:9092"]}`:                              "config.topic",
		`{"brokers":["b"],"topic":"t"}`:                       "config.brokers[0]",
		`{"brokers":["ok:9092","10.0.0.1:9092"],"topic":"t"}`: "config.brokers[1]: blocked",
		`{"brokers":["b:25"],"topic":"t"}`:                    "config.brokers[0]: blocked",
		`{"brokers":["b:9092"],"topic":"t","mechanism":"X"}`:  "config.mechanism",
		`{"brokers":["localhost:9092"],"topic":"t"}`:          "config.brokers[0]: blocked",
		`{"brokers":["b.localhost:9092"],"topic":"t"}`:        "config.brokers[0]: blocked",
		`{"brokers":["2130706433:9092"],"topic":"t"}`:         "config.brokers[0]",
		`{"brokers":["127.1:9092"],"topic":"t"}`:              "config.brokers[0]",
		`{"brokers":["[::1]:9092"],"topic":"t"}`:              "config.brokers[0]: blocked",
		`{"brokers":["a b:9092"],"topic":"t"}`:                "config.brokers[0]",
	} {
		_, err := openKafka(&storage.Destination{Config: json.RawMessage(config)}, guard)
		require.ErrorContains(t, err, want, config)
	}
}

// A broker names the others, so the address that counts is the one that is dialled.
func TestABrokerThatNamesAnAddressWhichTheGuardRefusesIsRefusedAtOnce(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	front, err := net.Listen("tcp", "127.0.0.2:0") // allowed; what the broker says of itself is not
	if err != nil {
		t.Skip("this machine has one address on loopback: ", err)
	}
	defer front.Close()
	go func() {
		for {
			conn, err := front.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				back, err := net.Dial("tcp", cluster.ListenAddrs()[0])
				if err != nil {
					return
				}
				defer back.Close()
				go func() { _, _ = io.Copy(back, conn) }()
				_, _ = io.Copy(conn, back)
			}()
		}
	}()
	d := newDeliverer(t, Config{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Timeout: 15 * time.Second})
	began := time.Now()
	out := d.Deliver(t.Context(), delivery.Delivery{Destination: kafkaDestination(t, []string{front.Addr().String()}, "crm"), Records: sinktest.Records()[:1]})
	require.Equal(t, delivery.Refuse, out.Verdict, "%+v", out)
	require.Equal(t, delivery.FailureBlocked, out.Class())
	require.Less(t, time.Since(began), 14*time.Second, "not at the end of its time")
}

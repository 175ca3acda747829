package sinks

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

func kafkaDestination(t *testing.T, brokers []string, topic string) *storage.Destination {
	t.Helper()
	config, err := json.Marshal(map[string]any{"brokers": brokers, "topic": topic})
	require.NoError(t, err)
	return &storage.Destination{ID: "k1", Name: "k", Kind: "kafka", Config: config, Revision: 1}
}

func TestEnvelopesAreForwardedToATopicOfAnotherCluster(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "crm"))
	require.NoError(t, err)
	defer cluster.Close()
	d := newDeliverer(t, Config{AllowLoopback: true})
	dest := kafkaDestination(t, cluster.ListenAddrs(), "crm")
	records := everyRecord(t)
	out := d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: records, ReplayID: "r1"})
	require.Equal(t, stream.Delivered, out.Verdict, "%+v", out)

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
		require.Equal(t, testContactID, string(r.Key))
		require.Equal(t, "id", r.Headers[0].Key)
		require.Equal(t, "msg_"+records[i].ID, string(r.Headers[0].Value))
		require.Equal(t, schemas.Catalog()[i], string(r.Headers[1].Value))
		require.Equal(t, "hogstream-replay", r.Headers[4].Key)
		require.True(t, json.Valid(r.Value))
	}

	changed := *dest
	changed.Revision++
	require.Equal(t, stream.Delivered, d.Deliver(t.Context(), stream.Delivery{Destination: &changed, Records: records[:1]}).Verdict)
}

func TestAKafkaDestinationTellsWhoseFaultItIs(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	d := newDeliverer(t, Config{AllowLoopback: true, Timeout: time.Second})
	addrs := cluster.ListenAddrs()
	deliver := func(dest *storage.Destination, m schemas.Message) stream.Outcome {
		return d.Deliver(t.Context(), stream.Delivery{Destination: dest, Records: []*stream.Record{recordOf(t, m, 1)}})
	}
	missing := kafkaDestination(t, addrs, "missing")
	require.Equal(t, stream.Refuse, deliver(missing, sampleEvent()).Verdict)
	cluster.Close()
	away := kafkaDestination(t, addrs, "crm")
	away.ID = "k2"
	require.Equal(t, stream.Retry, deliver(away, sampleEvent()).Verdict)
}

func TestSettingsOfKafkaNameTheirField(t *testing.T) {
	guard := NewGuard(Config{})
	for config, want := range map[string]string{
		`{"topic":"t"}`:                                       "config.brokers: is empty",
		`{"brokers":["b:9092"]}`:                              "config.topic",
		`{"brokers":["b"],"topic":"t"}`:                       "config.brokers[0]",
		`{"brokers":["ok:9092","10.0.0.1:9092"],"topic":"t"}`: "config.brokers[1]: blocked",
		`{"brokers":["b:25"],"topic":"t"}`:                    "config.brokers[0]: blocked",
		`{"brokers":["b:9092"],"topic":"t","mechanism":"X"}`:  "config.mechanism",
	} {
		_, err := openKafka(&storage.Destination{Config: json.RawMessage(config)}, guard)
		require.ErrorContains(t, err, want, config)
	}
	require.JSONEq(t, `{"brokers":["b:9092"],"password":"***","topic":"t"}`,
		string(redactConfig(json.RawMessage(`{"brokers":["b:9092"],"topic":"t","password":"p"}`), &kafkaKind)))
}

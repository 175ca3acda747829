package stream_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/streamtest"
)

func TestTopicsAreMadeAsTheTableSays(t *testing.T) {
	e := streamtest.New(t, streamtest.Partitions(2), streamtest.WithConfig(func(c *stream.Config) {
		c.MinInSync = 1
		c.Retention = map[schemas.Topic]time.Duration{schemas.TopicEvents: time.Hour, schemas.TopicIngest: -1}
	}))
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil), "a second time changes nothing")

	a, err := stream.OpenAdmin(e.Config, nil)
	require.NoError(t, err)
	defer a.Close()
	e.Append(streamtest.Inputs("a", 0, 5)...)
	infos, err := a.DescribeTopics(e.Context())
	require.NoError(t, err)
	require.Len(t, infos, len(schemas.Topics()))
	for i, spec := range schemas.Topics() {
		info := infos[i]
		require.Equal(t, spec.Topic, info.Topic)
		require.True(t, info.Exists)
		require.Empty(t, info.Problems)
		require.Len(t, info.Partitions, 2)
		require.Equal(t, "LogAppendTime", info.Configs["message.timestamp.type"])
		require.Equal(t, "1", info.Configs["min.insync.replicas"])
		want := "delete"
		if spec.Compact {
			want = "compact"
		}
		require.Equal(t, want, info.Configs["cleanup.policy"])
	}
	require.Equal(t, "-1", infos[0].Configs["retention.ms"])
	require.Equal(t, "604800000", infos[1].Configs["retention.ms"])
	require.Equal(t, "3600000", infos[2].Configs["retention.ms"])
	require.EqualValues(t, 5, infos[0].Records)
	require.Positive(t, infos[0].Bytes)
	require.Zero(t, infos[1].Records)
}

// In a cluster another broker may be asked for a topic's settings than the one
// that has just made it.
func TestTopicsThatABrokerDoesNotKnowYetAreAskedForAgain(t *testing.T) {
	e := streamtest.New(t, streamtest.FakeOnly())
	asked := 0
	e.Cluster.ControlKey(int16(kmsg.DescribeConfigs), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		req, _ := kreq.(*kmsg.DescribeConfigsRequest)
		asked++
		resp, _ := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.Resources {
			rr := kmsg.NewDescribeConfigsResponseResource()
			rr.ResourceType, rr.ResourceName, rr.ErrorCode = r.ResourceType, r.ResourceName, kerr.UnknownTopicOrPartition.Code
			resp.Resources = append(resp.Resources, rr)
		}
		return resp, nil, true
	})
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	require.Equal(t, 1, asked, "answered once with what a broker says that does not know them")
}

func TestATopicThatIsNotAsItMustBeIsAnErrorThatSaysWhatToDo(t *testing.T) {
	e := streamtest.New(t, streamtest.NoTopics())
	ctx := e.Context()
	create := func(topic schemas.Topic, partitions int32, conf map[string]string) {
		ptrs := make(map[string]*string)
		for k, v := range conf {
			ptrs[k] = kadm.StringPtr(v)
		}
		_, err := e.Admin().CreateTopic(ctx, partitions, 1, ptrs, e.Config.Topic(topic))
		require.NoError(t, err)
	}
	good := map[string]string{"message.timestamp.type": "LogAppendTime", "max.message.bytes": "5000000"}
	create(schemas.TopicIngest, 2, good) // too few
	create(schemas.TopicResolved, 4, good)
	create(schemas.TopicEvents, 4, map[string]string{"max.message.bytes": "5000000"}) // create time
	create(schemas.TopicLifecycle, 6, good)                                           // another count than resolved
	create(schemas.TopicContacts, 4, good)                                            // deletes
	create(schemas.TopicSignals, 4, map[string]string{"message.timestamp.type": "LogAppendTime"})

	err := stream.EnsureTopics(ctx, e.Config, nil)
	var wrong *stream.TopicsError
	require.ErrorAs(t, err, &wrong)
	var got []string
	for _, p := range wrong.Problems {
		got = append(got, string(p.Topic)+": "+p.Problem)
		if strings.Contains(p.Fix, "kafka-configs.sh") {
			require.Contains(t, p.Fix, e.Config.Brokers[0])
			require.Contains(t, p.Fix, "--entity-name "+e.Config.Topic(p.Topic)+" ")
		}
	}
	require.Equal(t, []string{
		"ingest: 2 partitions, but 3 are configured",
		`events: message.timestamp.type is "CreateTime", must be LogAppendTime, or rewinding to a time is not monotone`,
		"lifecycle: 6 partitions, but the other topics keyed by contact have 4",
		`contacts: cleanup.policy is "delete", must be "compact"`,
		"signals: max.message.bytes is 1048588, must be at least 4194304",
	}, got)
	details, err := e.Admin().ListTopics(ctx, e.Config.Topic(schemas.TopicEmailRequests), e.Config.Topic(schemas.TopicIngest))
	require.NoError(t, err)
	require.Len(t, details[e.Config.Topic(schemas.TopicEmailRequests)].Partitions, 4, "as the others keyed by contact")
	require.Len(t, details[e.Config.Topic(schemas.TopicIngest)].Partitions, 2, "never grown in place")
}

func TestSeveralInstancesMayMakeTheTopicsAtOnce(t *testing.T) {
	e := streamtest.New(t, streamtest.NoTopics())
	errs := make(chan error, 4)
	for range 4 {
		go func() { errs <- stream.EnsureTopics(e.Context(), e.Config, nil) }()
	}
	for range 4 {
		require.NoError(t, <-errs)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	err := stream.Config{
		Brokers: []string{"nohost"}, Prefix: "a b.", Partitions: -1, ReplicationFactor: 1, MinInSync: 2,
		Login: stream.Login{Mechanism: "OAUTH", Username: "u"}, TLSCAFile: "/does/not/exist", Compression: "rar",
		Retention: map[schemas.Topic]time.Duration{"nope": time.Hour, schemas.TopicContacts: time.Hour, schemas.TopicEvents: 1},
	}.Validate()
	for _, field := range []string{"Brokers", "Prefix", "Partitions", "MinInSync", "Login", "TLSCAFile", "Compression", "Retention"} {
		require.ErrorContains(t, err, "kafka config "+field+":")
	}
	require.NoError(t, stream.Config{Brokers: []string{"a:9092"}}.Validate())
}

func TestLagIsWhatAReaderOfCommittedRecordsHasLeft(t *testing.T) {
	e := streamtest.New(t)
	e.Append(streamtest.Inputs("a", 0, 10)...)
	p := e.PartitionOf("u:a")
	name := e.Config.Topic(schemas.TopicIngest)
	commit := func(at int64) {
		offsets := make(kadm.Offsets)
		for i := range e.Config.Partitions {
			offsets.AddOffset(name, i, 0, -1)
		}
		offsets.AddOffset(name, p, at, -1)
		require.NoError(t, e.Admin().CommitAllOffsets(e.Context(), e.Config.Group("identity"), offsets))
	}
	a, err := stream.OpenAdmin(e.Config, nil)
	require.NoError(t, err)
	defer a.Close()
	for at, want := range map[int64]int64{0: 10, 4: 6, 10: 0} {
		commit(at)
		lags, err := a.Lag(e.Context())
		require.NoError(t, err)
		require.Len(t, lags, 1)
		require.Equal(t, "identity", lags[0].Group)
		require.Equal(t, want, lags[0].Lag)
		require.Len(t, lags[0].Partitions, int(e.Config.Partitions))
	}
}

func TestLagOfADeploymentWithoutGroupsIsEmpty(t *testing.T) {
	e := streamtest.New(t)
	a, err := stream.OpenAdmin(e.Config, nil)
	require.NoError(t, err)
	defer a.Close()
	lags, err := a.Lag(context.Background())
	require.NoError(t, err)
	require.Empty(t, lags)
}

func TestSignalsAreKeptAsLongAsEvents(t *testing.T) {
	week := map[string]*string{
		"message.timestamp.type": kadm.StringPtr("LogAppendTime"), "max.message.bytes": kadm.StringPtr("5000000"),
		"retention.ms": kadm.StringPtr("604800000"),
	}
	e := streamtest.New(t, streamtest.NoTopics(), streamtest.FakeOnly())
	_, err := e.Admin().CreateTopic(e.Context(), 3, 1, week, e.Config.Topic(schemas.TopicSignals))
	require.NoError(t, err)

	refuse := true
	e.Cluster.ControlKey(int16(kmsg.IncrementalAlterConfigs), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		e.Cluster.KeepControl()
		if !refuse {
			return nil, nil, false
		}
		req, _ := kreq.(*kmsg.IncrementalAlterConfigsRequest)
		resp, _ := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		for _, r := range req.Resources {
			rr := kmsg.NewIncrementalAlterConfigsResponseResource()
			rr.ResourceType, rr.ResourceName, rr.ErrorCode = r.ResourceType, r.ResourceName, kerr.TopicAuthorizationFailed.Code
			resp.Resources = append(resp.Resources, rr)
		}
		return resp, nil, true
	})
	var wrong *stream.TopicsError
	require.ErrorAs(t, stream.EnsureTopics(e.Context(), e.Config, nil), &wrong)
	require.Len(t, wrong.Problems, 1)
	require.Equal(t, schemas.TopicSignals, wrong.Problems[0].Topic)
	require.Contains(t, wrong.Problems[0].Fix, "--add-config retention.ms=2592000000")

	refuse = false
	require.NoError(t, stream.EnsureTopics(e.Context(), e.Config, nil))
	described, err := e.Admin().DescribeTopicConfigs(e.Context(), e.Config.Topic(schemas.TopicSignals))
	require.NoError(t, err)
	for _, c := range described[0].Configs {
		if c.Key == "retention.ms" {
			require.Equal(t, "2592000000", c.MaybeValue())
		}
	}
}

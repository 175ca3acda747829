package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
)

// Admin asks and tells the brokers about topics and groups. Safe for concurrent use.
type Admin struct {
	Config Config
	Client *kgo.Client
	Kadm   *kadm.Client
}

// OpenAdmin makes an Admin; it does not wait for a broker. Close releases it.
func OpenAdmin(cfg Config, logger *zap.Logger) (*Admin, error) {
	cfg = cfg.WithDefaults()
	cl, err := cfg.NewClient("admin", logger, kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &Admin{Config: cfg, Client: cl, Kadm: kadm.NewClient(cl)}, nil
}

// Close closes the connections.
func (a *Admin) Close() { a.Client.Close() }

// IsRedpanda reports whether the brokers are Redpanda's, which accept
// min.insync.replicas and ignore it: a majority of the replicas acknowledges. Their
// cluster's id begins with their name.
func (a *Admin) IsRedpanda(ctx context.Context) (bool, error) {
	id, err := a.ClusterID(ctx)
	return strings.HasPrefix(id, "redpanda."), err
}

// ClusterID is the id of the cluster, which no other has.
func (a *Admin) ClusterID(ctx context.Context) (string, error) {
	metadata, err := a.Kadm.BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("ask kafka for its cluster id: %w", err)
	}
	return metadata.Cluster, nil
}

// Ping asks the brokers for a sign of life.
func (a *Admin) Ping(ctx context.Context) error {
	if err := a.Client.Ping(ctx); err != nil {
		return fmt.Errorf("ping kafka: %w", err)
	}
	return nil
}

// TopicProblem is what is wrong with a topic and what mends it.
type TopicProblem struct {
	Topic   schemas.Topic
	Name    string // on the brokers
	Problem string
	Fix     string
}

// TopicsError lists topics that are not what they must be.
type TopicsError struct{ Problems []TopicProblem }

// Error has two lines for each problem: what is wrong, and what to do.
func (e *TopicsError) Error() string {
	var b strings.Builder
	b.WriteString("topics are not as they must be:")
	for _, p := range e.Problems {
		fmt.Fprintf(&b, "\n  %s: %s\n    fix: %s", p.Name, p.Problem, p.Fix)
	}
	return b.String()
}

// EnsureTopics creates the topics that are missing, waits until all brokers'
// metadata has them, and checks the others. It changes no existing topic. The
// error is a *TopicsError when a topic is not what it must be. It may run on
// several instances at once.
func EnsureTopics(ctx context.Context, cfg Config, logger *zap.Logger) error {
	a, err := OpenAdmin(cfg, logger)
	if err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	defer a.Close()
	return a.EnsureTopics(ctx)
}

// EnsureTopics is the function of the same name with this Admin's client.
func (a *Admin) EnsureTopics(ctx context.Context) error {
	_, err := a.CreateTopics(ctx)
	return err
}

// CreateTopics is EnsureTopics that says which it created, by their names on the brokers.
func (a *Admin) CreateTopics(ctx context.Context) (created []string, err error) {
	found, err := a.loadTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("ensure topics: %w", err)
	}
	contactPartitions := a.contactPartitions(found)
	for _, spec := range schemas.Topics() {
		name := a.Config.Topic(spec.Topic)
		if _, ok := found[name]; ok {
			continue
		}
		partitions := a.Config.Partitions
		if spec.ContactKeyed {
			partitions = contactPartitions
		}
		mine, err := a.createTopic(ctx, name, partitions, spec)
		if err != nil {
			return created, fmt.Errorf("create topic %s: %w", name, err)
		}
		if mine {
			created = append(created, name)
		}
	}
	if found, err = a.awaitTopics(ctx); err != nil {
		return created, fmt.Errorf("wait for topics %s: %w", strings.Join(created, ", "), err)
	}
	configs, err := a.awaitConfigs(ctx)
	if err != nil {
		return created, fmt.Errorf("ensure topics: %w", err)
	}
	a.keepAsEvents(ctx, configs)
	if problems := a.check(found, configs); len(problems) > 0 {
		return created, &TopicsError{Problems: problems}
	}
	return created, nil
}

// loadTopics returns our topics that exist.
func (a *Admin) loadTopics(ctx context.Context) (kadm.TopicDetails, error) {
	details, err := a.Kadm.ListTopics(ctx, a.names()...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	for name, d := range details {
		switch {
		case errors.Is(d.Err, kerr.UnknownTopicOrPartition):
			delete(details, name)
		case d.Err != nil && !kerr.IsRetriable(d.Err):
			return nil, fmt.Errorf("list topic %s: %w", name, d.Err)
		}
	}
	return details, nil
}

func (a *Admin) names() []string {
	var names []string
	for _, s := range schemas.Topics() {
		names = append(names, a.Config.Topic(s.Topic))
	}
	return names
}

// contactPartitions is the partition count for contact-keyed topics that are
// missing: that of those that exist, so that a changed setting does not split
// the deployment.
func (a *Admin) contactPartitions(found kadm.TopicDetails) int32 {
	for _, spec := range schemas.Topics() {
		if d, ok := found[a.Config.Topic(spec.Topic)]; ok && spec.ContactKeyed && len(d.Partitions) > 0 {
			return int32(len(d.Partitions))
		}
	}
	return a.Config.Partitions
}

// ContactPartitions is how many partitions the topics keyed by contact have.
func (a *Admin) ContactPartitions(ctx context.Context) (int, error) {
	found, err := a.loadTopics(ctx)
	if err != nil {
		return 0, err
	}
	return int(a.contactPartitions(found)), nil
}

// createTopic is true for a topic that was made by this call.
func (a *Admin) createTopic(ctx context.Context, name string, partitions int32, spec schemas.TopicSpec) (bool, error) {
	_, err := a.Kadm.CreateTopic(ctx, partitions, a.Config.ReplicationFactor, a.topicConfig(spec), name)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return false, nil // another instance was faster
	}
	if errors.Is(err, kerr.InvalidReplicationFactor) {
		return false, fmt.Errorf("replication factor %d: are there as many brokers? %w", a.Config.ReplicationFactor, err)
	}
	return err == nil, err
}

// maxMessageBytes of a topic: the largest batch of the producers and some room.
const maxMessageBytes = schemas.MaxRecord + 64<<10

func (a *Admin) topicConfig(spec schemas.TopicSpec) map[string]*string {
	conf := map[string]*string{
		"message.timestamp.type": kadm.StringPtr("LogAppendTime"),
		"max.message.bytes":      kadm.StringPtr(strconv.Itoa(maxMessageBytes)),
	}
	if a.Config.MinInSync > 0 {
		conf["min.insync.replicas"] = kadm.StringPtr(strconv.Itoa(a.Config.MinInSync))
	}
	if spec.Compact {
		conf["cleanup.policy"] = kadm.StringPtr("compact")
		return conf
	}
	conf["cleanup.policy"] = kadm.StringPtr("delete")
	retention, ok := a.Config.Retention[spec.Topic]
	if !ok {
		retention = spec.Retention
	}
	ms := int64(-1)
	if retention >= 0 {
		ms = retention.Milliseconds()
	}
	conf[retentionMS] = kadm.StringPtr(strconv.FormatInt(ms, 10))
	return conf
}

// keptAsEvents are the topics that are kept as long as events: a processor that catches up
// reads signals beside them, and what it asks for may follow late.
var keptAsEvents = []schemas.Topic{schemas.TopicSignals, schemas.TopicOutbox}

// keepAsEvents has these topics, which may have been made with a shorter retention once,
// kept as long as events. What it is not allowed to change, check reports.
func (a *Admin) keepAsEvents(ctx context.Context, configs map[string]map[string]string) {
	for _, topic := range keptAsEvents {
		name := a.Config.Topic(topic)
		retention, short := a.keptShorter(topic, configs)
		if !short {
			continue
		}
		change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: retentionMS, Value: kadm.StringPtr(retention)}}
		altered, err := a.Kadm.AlterTopicConfigs(ctx, change, name)
		if err == nil && len(altered) == 1 && altered[0].Err == nil {
			configs[name][retentionMS] = retention
		}
	}
}

const retentionMS = "retention.ms"

// keptShorter says whether a topic is to be kept as long as topic events and is kept for
// less, and the retention of that one.
func (a *Admin) keptShorter(topic schemas.Topic, configs map[string]map[string]string) (events string, short bool) {
	events = configs[a.Config.Topic(schemas.TopicEvents)][retentionMS]
	want, err := strconv.ParseInt(events, 10, 64)
	got, err2 := strconv.ParseInt(configs[a.Config.Topic(topic)][retentionMS], 10, 64)
	return events, slices.Contains(keptAsEvents, topic) && err == nil && err2 == nil && got >= 0 && (want < 0 || got < want)
}

// awaitTopics waits until all topics exist and each partition has a leader.
func (a *Admin) awaitTopics(ctx context.Context) (kadm.TopicDetails, error) {
	for {
		found, err := a.loadTopics(ctx)
		if err != nil {
			return nil, err
		}
		if a.ready(found) {
			return found, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitConfigs returns the configuration of all topics, which exist. One that was
// made just now is not known yet to every broker, and any of them may be asked.
func (a *Admin) awaitConfigs(ctx context.Context) (map[string]map[string]string, error) {
	for {
		configs, err := a.topicConfigs(ctx)
		if err != nil || len(configs) == len(a.names()) {
			return configs, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("describe topic configs: %d of %d topics are known: %w", len(configs), len(a.names()), context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (a *Admin) ready(found kadm.TopicDetails) bool {
	for _, name := range a.names() {
		d, ok := found[name]
		if !ok || d.Err != nil || len(d.Partitions) == 0 {
			return false
		}
		for _, p := range d.Partitions {
			if p.Err != nil && !errors.Is(p.Err, kerr.ReplicaNotAvailable) {
				return false
			}
		}
	}
	return true
}

// topicConfigs returns the configuration of our topics by name and key.
func (a *Admin) topicConfigs(ctx context.Context) (map[string]map[string]string, error) {
	described, err := a.Kadm.DescribeTopicConfigs(ctx, a.names()...)
	if err != nil {
		return nil, fmt.Errorf("describe topic configs: %w", err)
	}
	byName := make(map[string]map[string]string)
	for _, rc := range described {
		if rc.Err != nil {
			if errors.Is(rc.Err, kerr.UnknownTopicOrPartition) {
				continue
			}
			return nil, fmt.Errorf("describe configs of %s: %w", rc.Name, rc.Err)
		}
		byName[rc.Name] = make(map[string]string)
		for _, kv := range rc.Configs {
			byName[rc.Name][kv.Key] = kv.MaybeValue()
		}
	}
	return byName, nil
}

// check compares the topics with what they must be.
func (a *Admin) check(found kadm.TopicDetails, configs map[string]map[string]string) []TopicProblem {
	contactPartitions := int(a.contactPartitions(found))
	var problems []TopicProblem
	for _, spec := range schemas.Topics() {
		name := a.Config.Topic(spec.Topic)
		report := func(problem, fix string) {
			problems = append(problems, TopicProblem{Topic: spec.Topic, Name: name, Problem: problem, Fix: fix})
		}
		a.checkPartitions(spec, len(found[name].Partitions), contactPartitions, report)
		a.checkConfig(spec, name, configs[name], report)
		if retention, short := a.keptShorter(spec.Topic, configs); short {
			report("retention.ms is less than that of topic events: a processor that catches up reads both", a.alter(name, retentionMS+"="+retention))
		}
	}
	return problems
}

func (a *Admin) checkPartitions(spec schemas.TopicSpec, got, contactPartitions int, report func(problem, fix string)) {
	const anew = "or choose another topic prefix, so that new topics are made, and import what is needed; partitions cannot be added in place without breaking the order of keys"
	switch want := int(a.Config.Partitions); {
	case spec.ContactKeyed && got != contactPartitions:
		report(fmt.Sprintf("%d partitions, but the other topics keyed by contact have %d", got, contactPartitions),
			fmt.Sprintf("delete the topic when it is empty (kafka-topics.sh --bootstrap-server %s --delete --topic %s) and start again, %s", a.Config.Brokers[0], a.Config.Topic(spec.Topic), anew))
	case got < want:
		report(fmt.Sprintf("%d partitions, but %d are configured", got, want),
			fmt.Sprintf("set the number of partitions to %d, %s", got, anew))
	}
}

func (a *Admin) checkConfig(spec schemas.TopicSpec, name string, conf map[string]string, report func(problem, fix string)) {
	alter := func(setting string) string { return a.alter(name, setting) }
	policy := "delete"
	if spec.Compact {
		policy = "compact"
	}
	if got := conf["cleanup.policy"]; got != policy {
		report(fmt.Sprintf("cleanup.policy is %q, must be %q", got, policy), alter("cleanup.policy="+policy))
	}
	if got := conf["message.timestamp.type"]; got != "LogAppendTime" {
		report(fmt.Sprintf("message.timestamp.type is %q, must be LogAppendTime, or rewinding to a time is not monotone", got),
			alter("message.timestamp.type=LogAppendTime"))
	}
	if got, err := strconv.Atoi(conf["max.message.bytes"]); err == nil && got < schemas.MaxRecord {
		report(fmt.Sprintf("max.message.bytes is %d, must be at least %d", got, schemas.MaxRecord),
			alter(fmt.Sprintf("max.message.bytes=%d", maxMessageBytes)))
	}
}

// alter is the command that changes a setting of a topic.
func (a *Admin) alter(name, setting string) string {
	return fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --alter --entity-type topics --entity-name %s --add-config %s", a.Config.Brokers[0], name, setting)
}

// TopicInfo describes a topic for people.
type TopicInfo struct {
	Topic      schemas.Topic     `json:"topic"`
	Name       string            `json:"name"` // on the brokers
	Exists     bool              `json:"exists"`
	Partitions []PartitionInfo   `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	// Records is the sum of end minus start offsets: transaction markers count,
	// and what compaction removed too.
	Records int64 `json:"records"`
	// Bytes on disk of one replica; -1 when the brokers do not tell.
	Bytes    int64          `json:"bytes"`
	Problems []TopicProblem `json:"problems,omitempty"`
}

// PartitionInfo describes a partition for people.
type PartitionInfo struct {
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"` // -1 without one
	Replicas  []int32 `json:"replicas"`
	InSync    []int32 `json:"inSync"`
	Start     int64   `json:"start"` // first offset on the log
	End       int64   `json:"end"`   // the next record's offset
	Bytes     int64   `json:"bytes"` // of one replica; -1 when unknown
}

// DescribeTopics describes every topic, in the order a record passes them,
// including those that are missing.
func (a *Admin) DescribeTopics(ctx context.Context) ([]TopicInfo, error) {
	found, err := a.loadTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	configs, err := a.topicConfigs(ctx)
	if err != nil {
		return nil, fmt.Errorf("describe topics: %w", err)
	}
	existing := slices.Sorted(maps.Keys(found))
	var starts, ends kadm.ListedOffsets
	if len(existing) > 0 { // no topics would mean all
		if starts, err = a.Kadm.ListStartOffsets(ctx, existing...); err != nil {
			return nil, fmt.Errorf("list start offsets: %w", err)
		}
		if ends, err = a.Kadm.ListEndOffsets(ctx, existing...); err != nil {
			return nil, fmt.Errorf("list end offsets: %w", err)
		}
	}
	sizes := a.sizes(ctx, found)
	problems := a.check(found, configs)
	var infos []TopicInfo
	for _, spec := range schemas.Topics() {
		info := TopicInfo{Topic: spec.Topic, Name: a.Config.Topic(spec.Topic)}
		if d, ok := found[info.Name]; ok {
			info.describe(d, starts, ends, sizes)
			info.Configs = configs[info.Name]
			for _, p := range problems {
				if p.Topic == spec.Topic {
					info.Problems = append(info.Problems, p)
				}
			}
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func (i *TopicInfo) describe(d kadm.TopicDetail, starts, ends kadm.ListedOffsets, sizes map[TopicPartition]int64) {
	i.Exists = true
	for _, p := range d.Partitions.Sorted() {
		pi := PartitionInfo{Partition: p.Partition, Leader: p.Leader, Replicas: p.Replicas, InSync: p.ISR, Bytes: -1}
		if o, ok := starts.Lookup(i.Name, p.Partition); ok && o.Err == nil {
			pi.Start = o.Offset
		}
		if o, ok := ends.Lookup(i.Name, p.Partition); ok && o.Err == nil {
			pi.End = o.Offset
		}
		if size, ok := sizes[TopicPartition{i.Topic, p.Partition}]; ok {
			pi.Bytes = size
		}
		i.Records += pi.End - pi.Start
		if i.Bytes >= 0 {
			i.Bytes += max(pi.Bytes, 0)
		}
		if pi.Bytes < 0 {
			i.Bytes = -1
		}
		i.Partitions = append(i.Partitions, pi)
	}
}

// TopicPartition is a partition of a topic.
type TopicPartition struct {
	Topic     schemas.Topic
	Partition int32
}

// sizes returns the bytes of one replica of each partition; empty when the
// brokers do not tell.
func (a *Admin) sizes(ctx context.Context, found kadm.TopicDetails) map[TopicPartition]int64 {
	sizes := make(map[TopicPartition]int64)
	byBroker, err := a.Kadm.DescribeAllLogDirs(ctx, found.TopicsSet())
	if err != nil && len(byBroker) == 0 {
		return sizes
	}
	byBroker.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			topic, _ := a.Config.TopicOf(p.Topic)
			tp := TopicPartition{topic, p.Partition}
			sizes[tp] = max(sizes[tp], p.Size)
		})
	})
	return sizes
}

package stream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hogstream/hogstream/schemas"
)

// GroupLag is how far a consumer group is behind.
type GroupLag struct {
	Group string `json:"group"` // without prefix
	State string `json:"state"` // Kafka's: Empty, Stable, PreparingRebalance…
	// Lag is the sum over the partitions.
	Lag        int64          `json:"lag"`
	Partitions []PartitionLag `json:"partitions"`
}

// PartitionLag is how far a group is behind on one partition.
type PartitionLag struct {
	Topic     schemas.Topic `json:"topic"`
	Partition int32         `json:"partition"`
	Committed int64         `json:"committed"`
	// End is the last stable offset: what a reader of committed records can reach.
	End int64 `json:"end"`
	Lag int64 `json:"lag"`
}

// Lag returns the lag of every group of this deployment, by name; one that has
// committed nothing yet has none. A committed offset below the log's start counts from the start.
func (a *Admin) Lag(ctx context.Context) ([]GroupLag, error) {
	listed, err := a.Kadm.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	var names []string
	for _, g := range listed.Sorted() {
		if strings.HasPrefix(g.Group, a.Config.Prefix) {
			names = append(names, g.Group)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	fetched := a.Kadm.FetchManyOffsets(ctx, names...)
	topics := make(map[string]bool)
	for _, g := range fetched {
		if g.Err != nil {
			return nil, fmt.Errorf("fetch offsets of group %s: %w", g.Group, g.Err)
		}
		g.Fetched.Each(func(o kadm.OffsetResponse) { topics[o.Topic] = true })
	}
	var wanted []string
	for t := range topics {
		wanted = append(wanted, t)
	}
	var starts, ends kadm.ListedOffsets
	if len(wanted) > 0 { // without names, all topics of the cluster would be listed
		if starts, err = a.Kadm.ListStartOffsets(ctx, wanted...); err != nil {
			return nil, fmt.Errorf("list start offsets: %w", err)
		}
		if ends, err = a.Kadm.ListCommittedOffsets(ctx, wanted...); err != nil {
			return nil, fmt.Errorf("list stable offsets: %w", err)
		}
	}
	var lags []GroupLag
	for _, name := range names {
		g := GroupLag{Group: strings.TrimPrefix(name, a.Config.Prefix), State: listed[name].State}
		fetched[name].Fetched.Each(func(o kadm.OffsetResponse) { g.add(a.Config, o, starts, ends) })
		slices.SortFunc(g.Partitions, func(x, y PartitionLag) int {
			if c := strings.Compare(string(x.Topic), string(y.Topic)); c != 0 {
				return c
			}
			return int(x.Partition - y.Partition)
		})
		lags = append(lags, g)
	}
	return lags, nil
}

func (g *GroupLag) add(cfg Config, o kadm.OffsetResponse, starts, ends kadm.ListedOffsets) {
	topic, ours := cfg.TopicOf(o.Topic)
	end, ok := ends.Lookup(o.Topic, o.Partition)
	if !ours || !ok || end.Err != nil || o.At < 0 {
		return
	}
	from := o.At
	if start, ok := starts.Lookup(o.Topic, o.Partition); ok && start.Err == nil {
		from = max(from, start.Offset)
	}
	p := PartitionLag{Topic: topic, Partition: o.Partition, Committed: o.At, End: end.Offset, Lag: max(end.Offset-from, 0)}
	g.Lag += p.Lag
	g.Partitions = append(g.Partitions, p)
}

// PartitionOf returns the partition of a key among n, as the producers and the
// Java client choose it (murmur2).
func PartitionOf(key []byte, n int) int32 {
	if key == nil {
		key = []byte{} // a nil key would be spread
	}
	return int32(keyPartitioner.Partition(&kgo.Record{Key: key}, n))
}

var keyPartitioner = kgo.StickyKeyPartitioner(nil).ForTopic("")

// MirrorGroup is the consumer group, without prefix, that shows the positions of a
// destination.
func MirrorGroup(destination string) string { return "sink." + destination }

// Bounds are where logs start, and up to where they can be read.
type Bounds struct{ starts, ends kadm.ListedOffsets }

// Of are the bounds of a partition of a topic (its name on the brokers); there is false
// for one that does not exist.
func (b Bounds) Of(topic string, partition int32) (start, end int64, there bool) {
	first, there := b.starts.Lookup(topic, partition)
	if o, ok := b.ends.Lookup(topic, partition); ok {
		end = o.Offset
	}
	return first.Offset, end, there
}

// Bounds asks for where the logs of topics (their names on the brokers) start and end.
func (a *Admin) Bounds(ctx context.Context, topics map[string]bool) (Bounds, error) {
	names := make([]string, 0, len(topics))
	for t := range topics {
		names = append(names, t)
	}
	starts, err := a.Kadm.ListStartOffsets(ctx, names...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return Bounds{}, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := a.Kadm.ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return Bounds{}, fmt.Errorf("list stable offsets: %w", err)
	}
	return Bounds{starts, ends}, nil
}

// Behind says which of the groups, each with the topic that it reads, has not yet committed
// everything that was appended before a time, and "" when all have.
func (a *Admin) Behind(ctx context.Context, groups map[string]schemas.Topic, before time.Time) (string, error) {
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		topic := a.Config.Topic(groups[group])
		committed, err := a.Kadm.FetchOffsets(ctx, a.Config.Group(group))
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // one that never ran has committed nothing
			return "", fmt.Errorf("fetch offsets of group %s: %w", group, err)
		}
		then, err := a.Kadm.ListOffsetsAfterMilli(ctx, before.UnixMilli(), topic)
		if err == nil {
			err = then.Error()
		}
		if err != nil {
			return "", fmt.Errorf("list offsets of %s at %s: %w", topic, before, err)
		}
		for partition, o := range then[topic] {
			if at, ok := committed.Lookup(topic, partition); (!ok || at.At < o.Offset) && o.Offset > 0 {
				return fmt.Sprintf("%s, partition %d", group, partition), nil
			}
		}
	}
	return "", nil
}

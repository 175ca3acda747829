package stream

import (
	"context"

	"github.com/google/uuid"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// Orphans are the positions that stand on the log of a former topic: whoever owns them
// waits for an operator.
type Orphans struct {
	Processors   []storage.Orphan
	Destinations []storage.Orphan
}

// positioned are the topics that processors and destinations have positions on.
var positioned = append([]schemas.Topic{schemas.TopicIngest, schemas.TopicResolved}, schemas.FedTopics()...)

// Orphans compares every position that Postgres has with the topics as they are now.
// A topic that does not exist is an error.
func (a *Admin) Orphans(ctx context.Context, db *storage.DB) (Orphans, error) {
	var s Orphans
	now, err := a.TopicIDs(ctx, positioned...)
	if err != nil {
		return s, err
	}
	ids := make(map[string]uuid.UUID, len(now))
	for t, id := range now {
		ids[string(t)] = id
	}
	if s.Processors, err = db.OrphanedProgress(ctx, ids); err != nil {
		return s, err
	}
	s.Destinations, err = db.OrphanedCursors(ctx, ids)
	return s, err
}

// LagWithOrphans is Lag, in which what stands on the log of a former topic has all of the
// present one before it: the offsets of its group say nothing of that log, or went with
// the former one.
func (a *Admin) LagWithOrphans(ctx context.Context, db *storage.DB) ([]GroupLag, error) {
	lags, err := a.Lag(ctx)
	if err != nil {
		return nil, err
	}
	orphans, err := a.Orphans(ctx, db)
	if err != nil {
		return nil, err
	}
	byGroup := map[string][]storage.Orphan{}
	names := map[string]bool{}
	for _, s := range orphans.Processors {
		byGroup[s.Name] = append(byGroup[s.Name], s)
		names[a.Config.Topic(schemas.Topic(s.Topic))] = true
	}
	for _, s := range orphans.Destinations {
		group := MirrorGroup(s.Name)
		byGroup[group] = append(byGroup[group], s)
		names[a.Config.Topic(schemas.Topic(s.Topic))] = true
	}
	if len(byGroup) == 0 {
		return lags, nil
	}
	logs, err := a.Bounds(ctx, names)
	if err != nil {
		return nil, err
	}
	for i := range lags {
		lags[i].countOrphans(a.Config, byGroup[lags[i].Group], logs)
		delete(byGroup, lags[i].Group)
	}
	for group, of := range byGroup { // its offsets went with the topic
		g := GroupLag{Group: group}
		g.countOrphans(a.Config, of, logs)
		lags = append(lags, g)
	}
	return lags, nil
}

// countOrphans counts all of the present logs as lag.
func (g *GroupLag) countOrphans(cfg Config, orphans []storage.Orphan, logs Bounds) {
	for _, s := range orphans {
		topic := schemas.Topic(s.Topic)
		start, end, _ := logs.Of(cfg.Topic(topic), s.Partition)
		p := g.partition(topic, s.Partition)
		g.Lag += end - start - p.Lag
		p.End, p.Lag = end, end-start
	}
}

func (g *GroupLag) partition(topic schemas.Topic, partition int32) *PartitionLag {
	for i := range g.Partitions {
		if p := &g.Partitions[i]; p.Topic == topic && p.Partition == partition {
			return p
		}
	}
	g.Partitions = append(g.Partitions, PartitionLag{Topic: topic, Partition: partition, Committed: -1})
	return &g.Partitions[len(g.Partitions)-1]
}

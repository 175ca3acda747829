package stream

import (
	"context"
	"fmt"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// EndOffsets returns, for every partition of the topics, the offset that the
// next record will get, with the topic's id. A topic that does not exist is an error.
func (a *Admin) EndOffsets(ctx context.Context, topics ...schemas.Topic) ([]storage.CursorStart, error) {
	if len(topics) == 0 {
		return nil, nil // no topics would mean all of the cluster
	}
	byName := make(map[string]schemas.Topic, len(topics))
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = a.Config.Topic(t)
		byName[names[i]] = t
	}
	ids, err := a.TopicIDs(ctx, topics...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Kadm.ListEndOffsets(ctx, names...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %v: %w", names, err)
	}
	var ends []storage.CursorStart
	for _, o := range listed.Offsets().Sorted() {
		ends = append(ends, storage.CursorStart{Topic: string(byName[o.Topic]), Partition: o.Partition, Offset: o.At})
	}
	return withIDs(ends, ids), nil
}

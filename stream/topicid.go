package stream

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
)

// A position is a position on one log. A topic that is deleted and made anew has
// another id (KIP-516), and an offset of the former log says nothing about it,
// however far the new one has grown. Brokers without topic ids report zero, which
// differs from none (storage.OtherLog).
//
// Whoever looks up an offset together with the id asks for the id first: should the
// topic be made anew between the two, the id is the former one's, and whoever
// compares it stops. The other way round an offset of the former log would pass for
// one of the new.

// TopicIDs returns the ids that topics (by their names on the brokers) have now.
func TopicIDs(ctx context.Context, cl *kgo.Client, names ...string) (map[string]uuid.UUID, error) {
	if len(names) == 0 {
		return nil, nil // no topics would mean all of the cluster
	}
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = &name
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("look up the ids of %v: %w", names, err)
	}
	ids := make(map[string]uuid.UUID, len(names))
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return nil, fmt.Errorf("look up the id of %s: %w", *t.Topic, err)
		}
		ids[*t.Topic] = t.TopicID
	}
	return ids, nil
}

// IDsOf is topicIDs by names without prefix.
func (c Config) IDsOf(ctx context.Context, cl *kgo.Client, topics []schemas.Topic) (map[schemas.Topic]uuid.UUID, error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = c.Topic(t)
	}
	byName, err := TopicIDs(ctx, cl, names...)
	ids := make(map[schemas.Topic]uuid.UUID, len(byName))
	for name, id := range byName {
		if t, ours := c.TopicOf(name); ours {
			ids[t] = id
		}
	}
	return ids, err
}

// TopicIDs returns the ids that topics have now; zero of a broker that reports none.
// A topic that does not exist is an error.
func (a *Admin) TopicIDs(ctx context.Context, topics ...schemas.Topic) (map[schemas.Topic]uuid.UUID, error) {
	return a.Config.IDsOf(ctx, a.Client, topics)
}

// withIDs fills in the ids of the topics that places are on.
func withIDs(places []storage.CursorStart, ids map[schemas.Topic]uuid.UUID) []storage.CursorStart {
	for i := range places {
		places[i].TopicID = ids[schemas.Topic(places[i].Topic)]
	}
	return places
}

// kafkaID is a topic's id as Kafka's own tools show it.
func kafkaID(id uuid.UUID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// MadeAnew says in words that a position is on the log of a former topic.
func MadeAnew(topic schemas.Topic, was, is uuid.UUID) string {
	return fmt.Sprintf("topic %s was deleted and made anew: the position is on the log %s, and the topic's log is %s now", topic, kafkaID(was), kafkaID(is))
}

// MendOrphan names the commands that bring a destination on to the present log.
func MendOrphan(destination, replay string) string {
	if replay != "" {
		return fmt.Sprintf("cancel it with `hogstream replay cancel %s %s`, and begin another with `hogstream replay %s --backfill`", destination, replay, destination)
	}
	return fmt.Sprintf("deliver what the new log has with `hogstream replay %s --rewind --to start`, or leave it out with `hogstream destinations skip %s --skip-undelivered`", destination, destination)
}

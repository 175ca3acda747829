package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// The positions of destinations are in Postgres. Each owner mirrors those of its
// partition numbers into a consumer group without members, one a destination, so
// that Kafka's own tools show them; and a reset of such a group by those tools is
// taken as a rewind. The two are told apart by the metadata: the mirror marks what
// it commits, a tool does not. The mirror looks before it commits, so only a reset
// in the few milliseconds between the two is overwritten.

// mirrorMark is the metadata of the mirror's commits.
const mirrorMark = "hogstream"

// mirror mirrors until ctx ends.
func (s *Sinks) mirror(ctx context.Context) {
	tick := time.NewTicker(s.cfg.MirrorEvery)
	defer tick.Stop()
	adm := kadm.NewClient(s.reader.Far)
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.mirrorOnce(ctx, adm)
		switch {
		case err == nil || ctx.Err() != nil:
			failures = 0
		default:
			if failures++; failures%60 == 1 {
				s.log.Warn("delivery.mirror_failed", zap.Int("failures", failures), zap.Error(err))
			}
		}
	}
}

func (s *Sinks) mirrorOnce(ctx context.Context, adm *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	names := map[string]string{} // of destinations, by id
	var groups []string
	for _, c := range s.listCouriers() {
		c.mu.Lock()
		names[c.id] = c.dest.Name
		c.mu.Unlock()
		groups = append(groups, s.kafka.Group(stream.MirrorGroup(names[c.id])))
	}
	var partitions []int32
	for _, h := range s.listHoldings() {
		if !h.lost.Load() && !h.closing.Load() {
			partitions = append(partitions, h.partition)
		}
	}
	if len(groups) == 0 || len(partitions) == 0 {
		return nil
	}
	cursors, err := s.db.LoadCursors(ctx, partitions)
	if err != nil {
		return err
	}
	live := map[string][]storage.Cursor{}
	for _, c := range cursors {
		if c.ReplayID == storage.LiveReplay {
			live[c.DestinationID] = append(live[c.DestinationID], c)
		}
	}
	ids, err := s.kafka.IDsOf(ctx, s.reader.Far, schemas.FedTopics())
	if err != nil {
		return err
	}
	committed := adm.FetchManyOffsets(ctx, groups...)
	for id, name := range names {
		group := s.kafka.Group(stream.MirrorGroup(name))
		have, ok := committed[group]
		if !ok || len(live[id]) == 0 {
			continue
		}
		if have.Err != nil && !errors.Is(have.Err, kerr.GroupIDNotFound) { // that one is made by the commit
			err = fmt.Errorf("read offsets of group %s: %w", group, have.Err)
			continue
		}
		if failed := s.mirrorGroup(ctx, adm, mirrored{group, id, live[id], have.Fetched, ids}); failed != nil {
			err = failed
		}
	}
	return err
}

// mirrored is what a destination's group is to show, and what it shows.
type mirrored struct {
	group   string
	id      string           // of the destination
	cursors []storage.Cursor // live
	have    kadm.OffsetResponses
	ids     map[schemas.Topic]uuid.UUID // of the topics now
}

// mirrorGroup rewinds to where a tool has set the group, and commits the positions
// where they have changed. Of a topic that was made anew the destination has nothing
// yet: the group shows its start.
func (s *Sinks) mirrorGroup(ctx context.Context, adm *kadm.Client, m mirrored) error {
	commit := kadm.Offsets{}
	var reset []storage.CursorStart
	group, id := m.group, m.id
	for _, c := range m.cursors {
		topic := s.kafka.Topic(schemas.Topic(c.Topic))
		at, now := c.Position, m.ids[schemas.Topic(c.Topic)]
		orphaned := storage.OtherLog(c.TopicID, now)
		if orphaned {
			var err error
			if at, err = s.within(ctx, schemas.Topic(c.Topic), c.Partition, 0); err != nil {
				return fmt.Errorf("start of the log for group %s: %w", group, err)
			}
		}
		was, found := m.have.Lookup(topic, c.Partition)
		found = found && was.Err == nil && was.At >= 0
		ours := found && strings.HasPrefix(was.Metadata, mirrorMark)
		if feed, _ := schemas.FeedOf(schemas.Topic(c.Topic)); found && !ours && !feed.Answers { // what answers is not sent again
			var err error
			if at, err = s.within(ctx, schemas.Topic(c.Topic), c.Partition, was.At); err != nil {
				return fmt.Errorf("reset of group %s: %w", group, err)
			}
			if at != c.Position || orphaned { // a reset to where it stands changes nothing, and gives up nothing that is parked
				reset = append(reset, storage.CursorStart{Topic: c.Topic, Partition: c.Partition, Offset: at, TopicID: now})
			}
		}
		if !ours || was.At != at {
			commit.Add(kadm.Offset{Topic: topic, Partition: c.Partition, At: at, LeaderEpoch: -1, Metadata: mirrorMark})
		}
	}
	if len(reset) > 0 {
		// First the rewind: should the commit fail, the reset is seen again.
		if err := s.db.InRetriedTx(ctx, func(tx *storage.Tx) error { return tx.RewindCursors(ctx, id, reset) }); err != nil {
			return fmt.Errorf("rewind to the reset of group %s: %w", group, err)
		}
		s.log.Info("delivery.destination_rewound_by_group", zap.String("group", group), zap.String("id", id), zap.Int("partitions", len(reset)))
		s.refresh()
	}
	if len(commit) == 0 {
		return nil
	}
	done, err := adm.CommitOffsets(ctx, group, commit)
	if err == nil {
		err = done.Error()
	}
	if err != nil {
		return fmt.Errorf("mirror positions into group %s: %w", group, err)
	}
	return nil
}

// within is the place of the log next to an offset that a tool has set: tools take
// any number.
func (s *Sinks) within(ctx context.Context, topic schemas.Topic, partition int32, offset int64) (int64, error) {
	start, end, err := s.reader.Bounds(ctx, stream.TopicPartition{Topic: topic, Partition: partition})
	return min(max(offset, start), end), err
}

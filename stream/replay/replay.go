package replay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
	"github.com/hogstream/hogstream/stream/delivery"
	"github.com/hogstream/hogstream/stream/reader"
)

// Replayer is what operators do to the positions of destinations: look what a
// rewind or a backfill would send, rewind, skip, backfill. It works on Kafka and
// Postgres only; whoever owns the partitions sees what it wrote and follows. Safe
// for concurrent use.
type Replayer struct {
	admin        *stream.Admin
	db           *storage.DB
	destinations *storage.Destinations
	now          func() time.Time
}

// NewReplayer makes one.
func NewReplayer(admin *stream.Admin, db *storage.DB, destinations *storage.Destinations) *Replayer {
	return &Replayer{admin: admin, db: db, destinations: destinations, now: time.Now}
}

// Error says which field of a request is wrong and what to write instead.
type Error struct{ Field, Message string }

// Error implements error.
func (e *Error) Error() string { return e.Field + ": " + e.Message }

// ErrNoDestination and ErrNoReplay are returned (wrapped) for a destination and a
// backfill that do not exist.
var (
	ErrNoDestination = errors.New("destination not found")
	ErrNoReplay      = errors.New("not found")
)

// ErrReplayState is returned (wrapped) when a backfill cannot do what is asked
// because it has ended.
var ErrReplayState = errors.New("the backfill has ended")

// RewindRequest says where a destination is to go on from.
type RewindRequest struct {
	// To is a place as [reader.ParsePosition] reads it.
	To string
	// Topic and Partition narrow the rewind; "" and nil mean all that do not answer. An offset needs
	// a topic when the destination reads two.
	Topic     schemas.Topic
	Partition *int32
	// SkipUndelivered says that what was not delivered yet and lies before To is to be
	// left out; see UndeliveredError.
	SkipUndelivered bool
	// DryRun only previews.
	DryRun bool
}

// UndeliveredError is returned for a rewind that would leave out what was not
// delivered yet, unless the request says that it may.
type UndeliveredError struct {
	Records int64
	Exact   bool // else Records is an estimate
	To      string
	Ahead   bool // To is a time that is still to come
}

// Error implements error.
func (e *UndeliveredError) Error() string {
	count, to := fmt.Sprint(e.Records), e.To
	if !e.Exact {
		count = "about " + count
	}
	if e.Ahead {
		to += " (a time that is still to come)"
	}
	return fmt.Sprintf("%s records before %s are not delivered yet, and would not be sent", count, to)
}

// Rewound is what a rewind does, or would do.
type Rewound struct {
	Preview
	// Undelivered is how many records a rewind forward leaves out: those that the
	// destination wants and has not been sent, parked ones among them. They become dead
	// letters "skipped". UndeliveredExact is false for an estimate.
	Undelivered      int64  `json:"undelivered"`
	UndeliveredExact bool   `json:"undeliveredExact"`
	Positions        []Move `json:"positions"`
	Applied          bool   `json:"applied"`
}

// Move is a cursor's way.
type Move struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`

	former bool // From is on the log of a former topic
}

// Rewind previews where the destination would go on from and what it would be
// sent, and goes there unless the request is a dry run. It works while the
// destination is delivered to, paused or suspended; a later rewind wins. What is open
// before the target becomes dead letters "skipped"; without SkipUndelivered that is an
// *UndeliveredError, and nothing changes. Wrong requests are a *ReplayError, unknown
// destinations ErrNoDestination.
func (r *Replayer) Rewind(ctx context.Context, id string, req RewindRequest) (*Rewound, error) {
	req.To = r.pinned(req.To)
	for {
		out, err := r.rewindOnce(ctx, id, req)
		if !errors.Is(err, errMoved) {
			return out, err
		}
	}
}

// pinned is a place that means the same later: a day ago is a time. What is none stays,
// to be refused.
func (r *Replayer) pinned(text string) string {
	if at, err := reader.ParsePosition(text, r.now()); err == nil {
		return at.String()
	}
	return text
}

// errMoved says that another rewind came between the count and the move.
var errMoved = errors.New("another rewind came in between")

func (r *Replayer) rewindOnce(ctx context.Context, id string, req RewindRequest) (*Rewound, error) {
	d, err := r.destination(ctx, id)
	if err != nil {
		return nil, err
	}
	subscription, err := schemas.ParseSubscription(d.EventTypes)
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", d.Name, err)
	}
	subscription = subscription.For(d.ID)
	topics, err := r.rewindable(ctx, id, subscription.Topics(), &req)
	if err != nil {
		return nil, err
	}
	to, ends, err := r.resolve(ctx, "to", req.To, topics)
	if err != nil {
		return nil, err
	}
	if to, err = onPartition(to, req.Partition); err != nil {
		return nil, err
	}
	cursors, err := r.liveCursors(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &Rewound{Positions: movesOf(cursors, to)}
	out.Preview, err = preview(ctx, r.admin, rangesTo(to, ends), reader.Wanted{Subscription: subscription}, d.RateLimit)
	if err != nil {
		return nil, err
	}
	if err := r.countUndelivered(ctx, id, out, subscription, cursors, to); err != nil || req.DryRun {
		return out, err
	}
	if !req.SkipUndelivered && (out.Undelivered > 0 || !out.UndeliveredExact) {
		at, err := time.Parse(time.RFC3339, req.To)
		return nil, &UndeliveredError{out.Undelivered, out.UndeliveredExact, req.To, err == nil && at.After(r.now())}
	}
	if err := r.move(ctx, id, cursors, to); err != nil {
		return nil, err
	}
	out.Applied = true
	return out, nil
}

// move sets the cursors, unless one of them was set anew since they were read: what
// lies open before the target would be more than what was counted.
func (r *Replayer) move(ctx context.Context, id string, counted map[stream.TopicPartition]storage.Cursor, to []storage.CursorStart) error {
	if len(to) == 0 {
		return stream.ErrNoTarget
	}
	return r.db.InRetriedTx(ctx, func(tx *storage.Tx) error {
		cursors, err := tx.LockCursors(ctx, id)
		if err != nil {
			return err
		}
		for _, c := range cursors {
			if was, ok := counted[stream.TopicPartition{Topic: schemas.Topic(c.Topic), Partition: c.Partition}]; !ok || was.Epoch != c.Epoch {
				return errMoved
			}
		}
		return tx.RewindCursors(ctx, id, to)
	})
}

// countUndelivered counts what is open before the places: in the log, in flight or
// waiting to be tried again, and parked.
func (r *Replayer) countUndelivered(ctx context.Context, id string, out *Rewound, s schemas.Subscription, cursors map[stream.TopicPartition]storage.Cursor, to []storage.CursorStart) error {
	topics := make([]schemas.Topic, 0, 2)
	for _, t := range to {
		if !slices.Contains(topics, schemas.Topic(t.Topic)) {
			topics = append(topics, schemas.Topic(t.Topic))
		}
	}
	starts, err := r.admin.StartOffsets(ctx, topics...)
	if err != nil {
		return err
	}
	var open []reader.LogRange
	w := reader.Wanted{Subscription: s, Finished: map[stream.TopicPartition][]int64{}}
	for _, t := range to {
		key := stream.TopicPartition{Topic: schemas.Topic(t.Topic), Partition: t.Partition}
		c, ok := cursors[key]
		if storage.OtherLog(c.TopicID, t.TopicID) { // it has nothing of this one
			c.Position, c.Finished = 0, nil
		}
		from := max(c.Position, reader.OffsetIn(starts, t)) // what lies before is gone
		if !ok || from >= t.Offset {
			continue
		}
		if w.Finished[key], err = delivery.UnpackRanges(c.Position, c.Finished); err != nil {
			return fmt.Errorf("cursor of destination %s on %s/%d: %w", id, t.Topic, t.Partition, err)
		}
		open = append(open, reader.LogRange{Key: key, ID: t.TopicID, From: from, To: t.Offset})
	}
	count, err := preview(ctx, r.admin, open, w, 0)
	if err != nil {
		return err
	}
	parked, err := r.db.CountSkipped(ctx, id, to)
	out.Undelivered, out.UndeliveredExact = count.Records+parked, count.Exact
	return err
}

// Skip has a destination go on from the ends of its topics; as Rewind to `latest`.
func (r *Replayer) Skip(ctx context.Context, id string, req SkipRequest) (*Rewound, error) {
	return r.Rewind(ctx, id, RewindRequest{To: "latest", SkipUndelivered: req.SkipUndelivered, DryRun: req.DryRun})
}

// SkipRequest is what a skip to now may leave out, as in a RewindRequest.
type SkipRequest struct{ SkipUndelivered, DryRun bool }

func (r *Replayer) destination(ctx context.Context, id string) (*storage.Destination, error) {
	d, err := r.destinations.Get(ctx, id)
	if storage.IsNotFound(err) {
		return nil, fmt.Errorf("destination %s: %w", id, ErrNoDestination)
	}
	return d, err
}

func narrow(topics []schemas.Topic, only schemas.Topic) ([]schemas.Topic, error) {
	if only == "" {
		return topics, nil
	}
	if !slices.Contains(topics, only) {
		return nil, &Error{"topic", fmt.Sprintf("the destination does not read %q: use one of %v", only, topics)}
	}
	return []schemas.Topic{only}, nil
}

// sentOnce is why a topic that answers cannot be replayed.
const sentOnce = "what processors ask a destination for is sent once, and they were told what came of it: it cannot be rewound, backfilled or skipped"

// rewindable are the topics of a destination that a rewind is about: none that answers, but for
// one that was made anew, whose start is where a cursor on the former log has to go on.
func (r *Replayer) rewindable(ctx context.Context, id string, topics []schemas.Topic, req *RewindRequest) ([]schemas.Topic, error) {
	topics, err := narrow(topics, req.Topic)
	if err != nil {
		return nil, err
	}
	kept := schemas.Replayable(topics)
	if at, err := reader.ParsePosition(req.To, r.now()); err == nil && at.String() == "start" {
		for _, topic := range schemas.Answering(topics) {
			former, err := r.standsOnFormer(ctx, id, topic)
			if err != nil {
				return nil, err
			}
			if former {
				kept = append(kept, topic)
			}
		}
	}
	if len(kept) == 0 {
		return nil, &Error{"topic", sentOnce}
	}
	return kept, nil
}

// standsOnFormer says whether all cursors of a destination on a topic stand on the log of a
// former one.
func (r *Replayer) standsOnFormer(ctx context.Context, id string, topic schemas.Topic) (bool, error) {
	cursors, err := r.liveCursors(ctx, id)
	if err != nil {
		return false, err
	}
	ids, err := r.admin.TopicIDs(ctx, topic)
	if err != nil {
		return false, err
	}
	former := false
	for key, c := range cursors {
		if key.Topic != topic {
			continue
		}
		if former = storage.OtherLog(c.TopicID, ids[topic]); !former {
			return false, nil
		}
	}
	return former, nil
}

func onPartition(starts []storage.CursorStart, partition *int32) ([]storage.CursorStart, error) {
	if partition == nil {
		return starts, nil
	}
	kept := slices.DeleteFunc(slices.Clone(starts), func(s storage.CursorStart) bool { return s.Partition != *partition })
	if len(kept) == 0 {
		return nil, &Error{"partition", fmt.Sprintf("there is no partition %d", *partition)}
	}
	return kept, nil
}

// resolve finds the places that a text names, and the ends of the topics.
func (r *Replayer) resolve(ctx context.Context, field, text string, topics []schemas.Topic) (places, ends []storage.CursorStart, err error) {
	if ends, err = r.admin.EndOffsets(ctx, topics...); err != nil {
		return nil, nil, err
	}
	starts, err := r.admin.StartOffsets(ctx, topics...)
	if err != nil {
		return nil, nil, err
	}
	at, err := reader.ParsePosition(text, r.now())
	if err != nil {
		return nil, nil, &Error{field, err.Error()}
	}
	if _, ok := at.Offset(); ok && len(topics) > 1 {
		return nil, nil, &Error{field, fmt.Sprintf("an offset is of one topic: name one of %v as topic", topics)}
	}
	if t, ok := at.Time(); ok {
		places, err = r.admin.OffsetsAt(ctx, t, topics...)
		return places, ends, err
	}
	for i := range starts {
		starts[i].Offset = at.Resolve(starts[i].Offset, reader.OffsetIn(ends, starts[i]), 0)
	}
	return starts, ends, nil
}

func rangesTo(from, ends []storage.CursorStart) []reader.LogRange {
	ranges := make([]reader.LogRange, 0, len(from))
	for _, f := range from {
		ranges = append(ranges, reader.LogRange{Key: stream.TopicPartition{Topic: schemas.Topic(f.Topic), Partition: f.Partition}, ID: f.TopicID, From: f.Offset, To: max(reader.OffsetIn(ends, f), f.Offset)})
	}
	return ranges
}

// liveCursors are the live cursors of a destination.
func (r *Replayer) liveCursors(ctx context.Context, id string) (map[stream.TopicPartition]storage.Cursor, error) {
	cursors, err := r.db.DestinationCursors(ctx, id)
	if err != nil {
		return nil, err
	}
	live := map[stream.TopicPartition]storage.Cursor{}
	for _, c := range cursors {
		if c.ReplayID == storage.LiveReplay {
			live[stream.TopicPartition{Topic: schemas.Topic(c.Topic), Partition: c.Partition}] = c
		}
	}
	return live, nil
}

// movesOf pairs where the live cursors stand with where they would go.
func movesOf(cursors map[stream.TopicPartition]storage.Cursor, to []storage.CursorStart) []Move {
	moves := make([]Move, 0, len(to))
	for _, t := range to {
		c, ok := cursors[stream.TopicPartition{Topic: schemas.Topic(t.Topic), Partition: t.Partition}]
		if !ok {
			c.Position = t.Offset
		}
		moves = append(moves, Move{Topic: t.Topic, Partition: t.Partition, From: c.Position, To: t.Offset, former: storage.OtherLog(c.TopicID, t.TopicID)})
	}
	return moves
}

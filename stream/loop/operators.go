package loop

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/storage"
	"github.com/hogstream/hogstream/stream"
)

// ProcessorPartition is how far a processor is on one partition number.
type ProcessorPartition struct {
	Processor string          `json:"processor"`
	Partition int32           `json:"partition"`
	Format    int32           `json:"format"` // in which its state is written
	Topics    []TopicPosition `json:"topics"`
	// Published says that nothing waits to be published; it is noted lazily.
	Published bool `json:"published"`
	// Accepted says that the offsets were named by an operator and nothing was
	// processed since.
	Accepted     bool `json:"accepted"`
	PendingBytes int  `json:"pendingBytes"`
	// TakingOver says that the processor is not reading yet: it takes over what Postgres
	// knows, or waits to (Waits).
	TakingOver bool `json:"takingOver,omitempty"`
	// Waits says what it waits for, and by which command it goes on if not by itself.
	Waits     string    `json:"waits,omitempty"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// TopicPosition is where Postgres and the group stand on a topic's partition.
type TopicPosition struct {
	Topic     schemas.Topic `json:"topic"`
	From      int64         `json:"from"`      // of the last apply
	Next      int64         `json:"next"`      // the first record not applied
	Committed int64         `json:"committed"` // by the group; -1 when it has no offset
	Start     int64         `json:"start"`     // of the log
	End       int64         `json:"end"`       // what a reader of committed records can reach
	Lag       int64         `json:"lag"`       // from Next to End
	// Stopped says why the processor does not go on from Next: the topic was deleted and
	// made anew. All that it has is the lag then.
	Stopped string `json:"stopped,omitempty"`
}

// ListProcessor returns a processor's partitions in their order, for
// `hogstream processors ls`. It locks nothing and may be called at any time.
func ListProcessor(ctx context.Context, a *stream.Admin, db *storage.DB, processor string) ([]ProcessorPartition, error) {
	rows, err := db.LoadProgress(ctx, processor, nil)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	names := make(map[string]bool)
	for _, row := range rows {
		for t := range row.Ranges {
			names[a.Config.Topic(schemas.Topic(t))] = true
		}
	}
	ids, err := stream.TopicIDs(ctx, a.Client, slices.Collect(maps.Keys(names))...)
	if err != nil {
		return nil, fmt.Errorf("processor %s: %w", processor, err)
	}
	logs, err := a.Bounds(ctx, names)
	if err != nil {
		return nil, fmt.Errorf("processor %s: %w", processor, err)
	}
	committed, err := a.Kadm.FetchOffsets(ctx, a.Config.Group(processor))
	if err != nil {
		return nil, fmt.Errorf("processor %s: fetch the group's offsets: %w", processor, err)
	}
	waits, err := db.TakeOverWaits(ctx)
	if err != nil {
		return nil, err
	}
	era, err := db.PresentEra(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]ProcessorPartition, len(rows))
	for i, row := range rows {
		p := ProcessorPartition{Processor: processor, Partition: row.Partition, Format: row.Format, Published: row.Published,
			Accepted: row.Accepted, PendingBytes: len(row.Pending), TakingOver: row.TakingOver != nil, UpdatedAt: row.UpdatedAt.UTC()}
		former := found{takesOver: true, era: era, row: &row}.formerEra()
		switch {
		case former != "":
			p.Waits = former + ": " + anew(processor)
		case p.TakingOver:
			p.Waits = waits
		}
		for _, topic := range slices.Sorted(maps.Keys(row.Ranges)) {
			t := schemas.Topic(topic)
			name := a.Config.Topic(t)
			pos := TopicPosition{Topic: t, From: row.Ranges[topic].From, Next: row.Ranges[topic].Next, Committed: none}
			if o, ok := committed.Lookup(name, row.Partition); ok && o.Err == nil {
				pos.Committed = o.At
			}
			pos.Start, pos.End, _ = logs.Of(name, row.Partition)
			pos.Lag = max(pos.End-pos.Next, 0)
			if was := row.Ranges[topic].TopicID; storage.OtherLog(was, ids[name]) {
				pos.Lag, pos.Stopped = pos.End-pos.Start, stream.MadeAnew(t, was, ids[name])
			}
			p.Topics = append(p.Topics, pos)
		}
		all[i] = p
	}
	return all, nil
}

// Formats is in which format a processor's partitions are, and why not in a higher one.
type Formats struct {
	Partitions map[int32][]int32 // their numbers, by format
	Holding    []string          // members of its group that do not know the format asked about
}

// ListFormats says how a processor stands to a format, as `hogstream doctor` shows it.
func ListFormats(ctx context.Context, a *stream.Admin, db *storage.DB, processor string, format int32) (Formats, error) {
	rows, err := db.LoadProgress(ctx, processor, nil)
	if err != nil {
		return Formats{}, err
	}
	f := Formats{Partitions: make(map[int32][]int32)}
	for _, row := range rows {
		f.Partitions[row.Format] = append(f.Partitions[row.Format], row.Partition)
	}
	group := a.Config.Group(processor)
	described, err := a.Kadm.DescribeGroups(ctx, group)
	if err != nil {
		return Formats{}, fmt.Errorf("processor %s: describe its group: %w", processor, err)
	}
	_, f.Holding = lowestFormat(described[group].Members, format)
	return f, nil
}

// ErrOffset is returned by AcceptOffsets for an offset that the log does not have.
var ErrOffset = errors.New("the log does not have this offset")

// AcceptOffsets makes a processor go on from named offsets on a partition, for
// `hogstream processors accept`. Outputs that waited to be published there are
// dropped, and records may be skipped or applied again: that is the operator's
// decision. The offsets are of the topics as they are now. Topics not named keep their place. A running owner takes it up by
// itself; so does the next one. knows is the highest format of the processor that this
// binary reads: a partition of a higher one is refused.
func AcceptOffsets(ctx context.Context, a *stream.Admin, db *storage.DB, processor string, knows, partition int32, at map[schemas.Topic]int64) error {
	names := make(map[string]bool)
	for t := range at {
		names[a.Config.Topic(t)] = true
	}
	ids, err := stream.TopicIDs(ctx, a.Client, slices.Collect(maps.Keys(names))...)
	if err != nil {
		return fmt.Errorf("processor %s: %w", processor, err)
	}
	logs, err := a.Bounds(ctx, names)
	if err != nil {
		return fmt.Errorf("processor %s: %w", processor, err)
	}
	places := make(storage.Ranges, len(at))
	for t, o := range at {
		start, end, there := logs.Of(a.Config.Topic(t), partition)
		if !there {
			return fmt.Errorf("%s/%d: %w: it has no such partition", t, partition, ErrOffset)
		}
		if o < start || o > end {
			return fmt.Errorf("%s/%d offset %d: %w: it has [%d,%d]", t, partition, o, ErrOffset, start, end)
		}
		places[string(t)] = storage.Range{From: o, Next: o, TopicID: ids[a.Config.Topic(t)]}
	}
	return db.AcceptProgress(ctx, processor, map[int32]storage.Ranges{partition: places}, knows)
}

// GoOnFrom returns from where a processor whose state is restored goes on, on the
// partitions of a topic: its committed offsets; or the log's start where its row is of
// a former topic of that name. A partition without either is left out.
func GoOnFrom(ctx context.Context, a *stream.Admin, db *storage.DB, processor string, topic schemas.Topic, committed map[int32]int64) (map[int32]storage.Range, error) {
	rows, err := db.LoadProgress(ctx, processor, nil)
	if err != nil {
		return nil, err
	}
	starts, err := a.StartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("processor %s: %w", processor, err)
	}
	was := make(map[int32]storage.Range, len(rows))
	for _, row := range rows {
		if r, known := row.Ranges[string(topic)]; known {
			was[row.Partition] = r
		}
	}
	places := make(map[int32]storage.Range, len(starts))
	for _, start := range starts {
		at, has := committed[start.Partition]
		r, known := was[start.Partition]
		switch {
		case known && storage.OtherLog(r.TopicID, start.TopicID):
			at = start.Offset
		case !has:
			continue
		}
		places[start.Partition] = storage.Range{From: at, Next: at, TopicID: start.TopicID}
	}
	return places, nil
}

// Committed returns a group's committed offsets on the partitions of a topic; a
// partition without one is left out.
func Committed(ctx context.Context, a *stream.Admin, group string, topic schemas.Topic) (map[int32]int64, error) {
	offsets, err := a.Kadm.FetchOffsets(ctx, a.Config.Group(group))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // one that never ran has committed nothing
		return nil, fmt.Errorf("group %s: fetch offsets: %w", group, err)
	}
	at := make(map[int32]int64)
	for _, o := range offsets[a.Config.Topic(topic)] {
		if o.Err == nil && o.At >= 0 {
			at[o.Partition] = o.At
		}
	}
	return at, nil
}

package reader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/hogstream/hogstream/schemas"
	"github.com/hogstream/hogstream/stream"
)

// TailOptions say what Tail reads.
type TailOptions struct {
	Topics []schemas.Topic
	From   Position
	// Follow goes on at the end until ctx ends; without it, Tail returns when
	// every partition is read to where its end was at the start, and fails when the
	// brokers yield nothing for a minute before that.
	Follow bool
	// Types, when given, are the only ones shown, as [schemas.ParseTypePattern] reads
	// them.
	Types []string
	// Key, when given, is the only one shown; only its partition is read.
	Key string
	// Limit ends Tail after so many records; 0 has no limit. Newest, when given, shows only
	// so many of the newest records instead, in order of append time, and then, with
	// Follow, what comes; From is not looked at.
	Limit, Newest int
	// Uncommitted shows records of open and aborted transactions too.
	Uncommitted bool

	patience tailPatience
}

// tailPatience is how long Tail waits for records before its end: after idle it looks
// whether there are any, and after stalled it gives up.
type tailPatience struct{ idle, stalled time.Duration }

var usualPatience = tailPatience{idle: 5 * time.Second, stalled: time.Minute}

// ErrStopTail, returned by Tail's function, ends Tail without an error.
var ErrStopTail = errors.New("stop")

// Tail reads topics and calls fn with each record, in offset order for each
// partition. What was fetched together is shown in order of append time across
// partitions, which is an order for the eye and no promise. It commits nothing
// and is in no group. An error of fn ends it and is returned.
func Tail(ctx context.Context, cfg stream.Config, opts TailOptions, logger *zap.Logger, fn func(*stream.Record) error) error {
	cfg = cfg.WithDefaults()
	ranges, err := tailRanges(ctx, cfg, opts, logger)
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	if opts.Newest > 0 {
		newest, err := readNewest(ctx, cfg, opts, ranges, logger)
		if err != nil {
			return err
		}
		for _, r := range newest {
			if err := fn(r); err != nil {
				return orStopped(err)
			}
		}
		for tp, r := range ranges {
			r.from = r.until
			ranges[tp] = r
		}
	}
	return read(ctx, cfg, opts, ranges, logger, fn)
}

// orStopped is an error of Tail's function, none when it has seen enough.
func orStopped(err error) error {
	if errors.Is(err, ErrStopTail) {
		return nil
	}
	return err
}

// readNewest returns the newest records that are wanted, the oldest of them first. How
// far back they lie is not known: markers of transactions and what is not wanted take
// offsets too. So each partition is read from further back until it gave enough.
func readNewest(ctx context.Context, cfg stream.Config, opts TailOptions, ranges map[stream.TopicPartition]offsetRange, logger *zap.Logger) ([]*stream.Record, error) {
	opts.Follow, opts.Limit = false, 0
	var all []*stream.Record
	left := maps.Clone(ranges)
	for back := int64(opts.Newest)*2 + 16; len(left) > 0; back *= 8 {
		found := make(map[stream.TopicPartition][]*stream.Record)
		for tp, r := range left {
			r.from = max(r.start, r.until-back)
			left[tp] = r
		}
		err := read(ctx, cfg, opts, left, logger, func(r *stream.Record) error {
			tp := stream.TopicPartition{Topic: r.Topic, Partition: r.Partition}
			kept := append(found[tp], r)
			found[tp] = kept[max(0, len(kept)-opts.Newest):]
			return nil
		})
		if err != nil {
			return nil, err
		}
		for tp, r := range left {
			if r.from == r.start || len(found[tp]) == opts.Newest {
				all = append(all, found[tp]...)
				delete(left, tp)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *stream.Record) int {
		if a.Topic == b.Topic && a.Partition == b.Partition {
			return cmp.Compare(a.Offset, b.Offset)
		}
		return a.AppendTime.Compare(b.AppendTime)
	})
	return all[max(0, len(all)-opts.Newest):], nil
}

// read shows what lies in the ranges, as the options say.
func read(ctx context.Context, cfg stream.Config, opts TailOptions, ranges map[stream.TopicPartition]offsetRange, logger *zap.Logger, fn func(*stream.Record) error) error {
	stream.SetDefault(&opts.patience, usualPatience)
	t := tail{opts: opts, cfg: cfg, log: logger, fn: fn, until: make(map[stream.TopicPartition]int64), at: make(map[stream.TopicPartition]int64)}
	for _, text := range opts.Types {
		t.types = append(t.types, schemas.ParseTypePattern(text))
	}
	from := make(map[string]map[int32]kgo.Offset)
	for tp, r := range ranges {
		if r.from >= r.until && !opts.Follow {
			continue
		}
		name := cfg.Topic(tp.Topic)
		if from[name] == nil {
			from[name] = make(map[int32]kgo.Offset)
		}
		from[name][tp.Partition] = kgo.NewOffset().At(r.from)
		t.until[tp], t.at[tp] = r.until, r.from
	}
	if len(from) == 0 {
		return nil
	}
	isolation := kgo.ReadCommitted()
	if opts.Uncommitted {
		isolation = kgo.ReadUncommitted()
	}
	cl, err := cfg.NewClient("tail", logger, kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(isolation),
		kgo.FetchMaxWait(time.Second),
		// A partition may end with the marker of a transaction; without seeing
		// it we would wait for a record that never comes.
		kgo.KeepControlRecords())
	if err != nil {
		return fmt.Errorf("tail: %w", err)
	}
	defer cl.Close()
	return orStopped(t.run(ctx, cl))
}

// tail is one Tail on its way.
type tail struct {
	opts  TailOptions
	cfg   stream.Config
	log   *zap.Logger
	fn    func(*stream.Record) error
	types []schemas.TypePattern
	until map[stream.TopicPartition]int64 // partitions that are not read to their end
	at    map[stream.TopicPartition]int64 // what comes next of them
	shown int
}

func (t *tail) run(ctx context.Context, cl *kgo.Client) error {
	moved := time.Now()
	for t.opts.Follow || len(t.until) > 0 {
		pollCtx, cancel := ctx, context.CancelFunc(func() {})
		if !t.opts.Follow {
			pollCtx, cancel = context.WithTimeout(ctx, t.opts.patience.idle)
		}
		fetches := cl.PollFetches(pollCtx)
		idle := pollCtx.Err() != nil
		cancel()
		if ctx.Err() != nil {
			if t.opts.Follow {
				return nil // the reader has seen enough
			}
			return fmt.Errorf("tail: %w", context.Cause(ctx))
		}
		for _, e := range fetches.Errors() {
			if idle && errors.Is(e.Err, context.DeadlineExceeded) {
				continue // our own
			}
			return fmt.Errorf("tail %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		if fetches.NumRecords() > 0 {
			moved = time.Now()
		} else if idle {
			left := len(t.until)
			err := t.passOver(ctx)
			if len(t.until) < left {
				moved = time.Now()
			} else if waited := time.Since(moved); waited > t.opts.patience.stalled {
				return t.stalled(waited, err)
			}
		}
		if err := t.show(fetches.Records()); err != nil {
			return err
		}
	}
	return nil
}

// stalled says which partitions were not read to their end.
func (t *tail) stalled(waited time.Duration, cause error) error {
	errs := []error{cause}
	for tp, end := range t.until {
		errs = append(errs, fmt.Errorf("tail %s partition %d: nothing came for %s at offset %d, and its end is %d",
			t.cfg.Topic(tp.Topic), tp.Partition, waited.Round(time.Second), t.at[tp], end))
	}
	return errors.Join(errs...)
}

// passOver ends partitions that have no record before their end any more: compaction
// takes records away, and a client that is given none does not tell how far it is.
// That none came for a while proves nothing: a broker may be slow, or away.
func (t *tail) passOver(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*t.opts.patience.idle)
	defer cancel()
	a, err := stream.OpenAdmin(t.cfg, t.log)
	if err != nil {
		return err
	}
	defer a.Close()
	s, err := NewScanner(ctx, a, t.opts.Topics...)
	if err != nil {
		return err
	}
	var failed error
	for tp, end := range t.until {
		empty, err := s.empty(ctx, a, tp, t.at[tp], end)
		if err != nil {
			failed = err
		} else if empty {
			delete(t.until, tp)
		}
	}
	return failed
}

// empty says whether the log has no record in a range, and goes on beyond it.
func (s *Scanner) empty(ctx context.Context, a *stream.Admin, key stream.TopicPartition, from, to int64) (bool, error) {
	for from < to {
		c, err := s.Read(ctx, key, from, 1<<20)
		switch {
		case IsOutOfRange(err):
			starts, err := a.StartOffsets(ctx, key.Topic)
			if err != nil {
				return false, err
			}
			for _, start := range starts {
				if start.Partition == key.Partition {
					return start.Offset >= to, nil
				}
			}
			return false, nil
		case err != nil:
			return false, err
		case c == nil || len(c.Records) > 0 && c.Records[0].Offset < to:
			return false, nil
		}
		from = c.To
	}
	return true, nil
}

// show passes on what was fetched together.
func (t *tail) show(krs []*kgo.Record) error {
	slices.SortStableFunc(krs, func(a, b *kgo.Record) int {
		if a.Topic == b.Topic && a.Partition == b.Partition {
			return cmp.Compare(a.Offset, b.Offset)
		}
		return a.Timestamp.Compare(b.Timestamp)
	})
	for _, kr := range krs {
		topic, _ := t.cfg.TopicOf(kr.Topic)
		tp := stream.TopicPartition{Topic: topic, Partition: kr.Partition}
		end, open := t.until[tp]
		t.at[tp] = kr.Offset + 1
		if !t.opts.Follow {
			if !open || kr.Offset >= end {
				continue
			}
			if kr.Offset == end-1 {
				delete(t.until, tp)
			}
		}
		r, ok := t.cfg.FromKafka(kr)
		if !ok || kr.Attrs.IsControl() || !t.wanted(r) {
			continue
		}
		if err := t.fn(r); err != nil {
			return err
		}
		if t.shown++; t.shown == t.opts.Limit {
			return ErrStopTail
		}
	}
	return nil
}

func (t *tail) wanted(r *stream.Record) bool {
	if t.opts.Key != "" && string(r.Key) != t.opts.Key {
		return false
	}
	return len(t.types) == 0 || slices.ContainsFunc(t.types, func(p schemas.TypePattern) bool { return p.Matches(r.Type) })
}

func noTopic(name string) error {
	return fmt.Errorf("there is no topic %s: `hogstream topics ls` shows those there are", name)
}

// offsetRange is [from, until) of a partition whose log begins at start.
type offsetRange struct{ start, from, until int64 }

// tailRanges finds where each partition is read from, and to.
func tailRanges(ctx context.Context, cfg stream.Config, opts TailOptions, logger *zap.Logger) (map[stream.TopicPartition]offsetRange, error) {
	if len(opts.Topics) == 0 {
		return nil, errors.New("no topic given")
	}
	a, err := stream.OpenAdmin(cfg, logger)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var names []string
	for _, t := range opts.Topics {
		names = append(names, cfg.Topic(t))
	}
	starts, err := a.Kadm.ListStartOffsets(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	list := a.Kadm.ListCommittedOffsets
	if opts.Uncommitted {
		list = a.Kadm.ListEndOffsets
	}
	ends, err := list(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	var byTime kadm.ListedOffsets
	if opts.From.at == atTime {
		if byTime, err = a.Kadm.ListOffsetsAfterMilli(ctx, stream.SinceEpoch(opts.From.time), names...); err != nil {
			return nil, fmt.Errorf("list offsets at %s: %w", opts.From.time.Format(time.RFC3339), err)
		}
	}
	ranges := make(map[stream.TopicPartition]offsetRange)
	for i, name := range names {
		if len(ends[name]) == 0 {
			return nil, noTopic(name)
		}
		for p, end := range ends[name] {
			if errors.Is(end.Err, kerr.UnknownTopicOrPartition) {
				return nil, noTopic(name)
			}
			if end.Err != nil {
				return nil, fmt.Errorf("end offset of %s partition %d: %w", name, p, end.Err)
			}
			if opts.Key != "" && p != stream.PartitionOf([]byte(opts.Key), len(ends[name])) {
				continue
			}
			start, _ := starts.Lookup(name, p)
			timed, _ := byTime.Lookup(name, p)
			from := opts.From.Resolve(start.Offset, end.Offset, timed.Offset)
			ranges[stream.TopicPartition{Topic: opts.Topics[i], Partition: p}] = offsetRange{start: start.Offset, from: from, until: end.Offset}
		}
	}
	return ranges, nil
}
